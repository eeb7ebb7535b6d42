//! The system's log: one line for each [`info!`](crate::info!), [`warn!`](crate::warn!),
//! [`error!`](crate::error!), [`debug!`](crate::debug!). The kernel adds time and process. Needs the
//! start-up handle `log`; without it lines vanish.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::{Arguments, Write};
use core::sync::atomic::{AtomicU8, Ordering};

use sys::{Once, Resource};

use crate::startup;

/// How important a line is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Level {
    /// Something failed.
    Error = 1,
    /// Something is not as it should be.
    Warn = 2,
    /// What one wants to know of a normal run.
    Info = 3,
    /// What one wants to know when looking for a fault.
    Debug = 4,
}

static MAX: AtomicU8 = AtomicU8::new(Level::Info as u8);

/// Lines less important than this are not written; `Info` at the start.
pub fn set_max_level(level: Level) {
    MAX.store(level as u8, Ordering::Relaxed);
}

/// Whether lines of this level are written.
#[inline]
pub fn enabled(level: Level) -> bool {
    level as u8 <= MAX.load(Ordering::Relaxed)
}

fn resource() -> Option<&'static Resource> {
    static LOG: Once<Option<&'static Resource>> = Once::new();
    *LOG.get_or_init(|| startup::handle(startup::name::LOG))
}

/// Writes a line; what the macros do.
pub fn write(level: Level, target: Option<&str>, message: Arguments<'_>) {
    if !enabled(level) {
        return;
    }
    let Some(log) = resource() else { return };
    let mut line = String::new();
    let prefix = match level {
        Level::Error => "error: ",
        Level::Warn => "warning: ",
        Level::Info => "",
        Level::Debug => "debug: ",
    };
    line.push_str(prefix);
    if let Some(target) = target {
        let _ = write!(line, "{target}: ");
    }
    let _ = line.write_fmt(message);
    let _ = sys::log_write(log, line.as_bytes());
}

/// Writes a line as it is, without allocating, if the start-up message has been read; for panics.
#[cfg_attr(
    not(target_os = "none"),
    expect(dead_code, reason = "a host has its own panics")
)]
pub(crate) fn write_line(line: &[u8]) {
    if let Some(log) = startup::handle_if_known::<Resource>(startup::name::LOG) {
        let _ = sys::log_write(log, line);
    }
}

/// The process that wrote a line of the log: `[    1.234567] name[12]: text`.
pub fn line_pid(line: &str) -> Option<u64> {
    let (_, rest) = line.split_once("] ")?;
    let (source, _) = rest.split_once(": ")?;
    let (_, pid) = source.strip_suffix(']')?.rsplit_once('[')?;
    pid.parse().ok()
}

/// The last lines of a process, `count` at most, among the last 16 KiB of the log. A line names its process, which cannot
/// name another one. `log` needs `READ`.
///
/// # Errors
/// The kernel's.
pub fn last_lines(log: &Resource, pid: u64, count: usize) -> sys::Result<Vec<String>> {
    const BYTES: u64 = 16 * 1024;
    let mut buffer = [0; 1024];
    // Behind the end there is nothing to read, and the kernel says where the end is.
    let end = sys::log_read(log, &mut buffer, u64::MAX)?.next;
    let from = end.saturating_sub(BYTES);
    let (mut at, mut text) = (from, Vec::new());
    // A read gives as much as the kernel copies at a time.
    while at < end {
        let read = sys::log_read(log, &mut buffer, at)?;
        if read.len == 0 || read.next <= at {
            break;
        }
        text.extend_from_slice(buffer.get(..read.len).unwrap_or_default());
        at = read.next;
    }
    let text = String::from_utf8_lossy(&text);
    // It may begin in the middle of a line.
    let cut = if from == 0 {
        0
    } else {
        text.find('\n')
            .map_or(text.len(), |at| at.saturating_add(1))
    };
    let lines = text.get(cut..).unwrap_or_default().lines();
    let mut lines: Vec<&str> = lines.filter(|line| line_pid(line) == Some(pid)).collect();
    lines.drain(..lines.len().saturating_sub(count));
    Ok(lines.into_iter().map(ToString::to_string).collect())
}

/// Logs an error: `error!("text {}", value)`, `error!(target: "name", "text")`.
#[macro_export]
macro_rules! error {
    (target: $target:expr, $($arg:tt)*) => {
        $crate::log::write($crate::log::Level::Error, Some($target), ::core::format_args!($($arg)*))
    };
    ($($arg:tt)*) => {
        $crate::log::write($crate::log::Level::Error, None, ::core::format_args!($($arg)*))
    };
}

/// Logs a warning; see [`error!`](crate::error!).
#[macro_export]
macro_rules! warn {
    (target: $target:expr, $($arg:tt)*) => {
        $crate::log::write($crate::log::Level::Warn, Some($target), ::core::format_args!($($arg)*))
    };
    ($($arg:tt)*) => {
        $crate::log::write($crate::log::Level::Warn, None, ::core::format_args!($($arg)*))
    };
}

/// Logs a line; see [`error!`](crate::error!).
#[macro_export]
macro_rules! info {
    (target: $target:expr, $($arg:tt)*) => {
        $crate::log::write($crate::log::Level::Info, Some($target), ::core::format_args!($($arg)*))
    };
    ($($arg:tt)*) => {
        $crate::log::write($crate::log::Level::Info, None, ::core::format_args!($($arg)*))
    };
}

/// Logs a line that is off unless asked for; see [`error!`](crate::error!).
#[macro_export]
macro_rules! debug {
    (target: $target:expr, $($arg:tt)*) => {
        if $crate::log::enabled($crate::log::Level::Debug) {
            $crate::log::write($crate::log::Level::Debug, Some($target), ::core::format_args!($($arg)*))
        }
    };
    ($($arg:tt)*) => {
        if $crate::log::enabled($crate::log::Level::Debug) {
            $crate::log::write($crate::log::Level::Debug, None, ::core::format_args!($($arg)*))
        }
    };
}

#[cfg(test)]
mod tests {
    use super::line_pid;

    #[test]
    fn lines_name_their_process() {
        assert_eq!(
            line_pid("[    1.234567] nvme[12]: queue 0: [3]: x"),
            Some(12)
        );
        assert_eq!(line_pid("[    1.234567] kernel: memory[3]: y"), None);
        assert_eq!(line_pid("no line"), None);
    }
}
