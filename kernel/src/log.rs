//! The kernel log: a ring that user space reads through a `Log` resource, and the serial port.

use core::fmt::{self, Write};

use kernel_core::log_ring::LogRing;

use crate::arch;
use crate::lock::Locked;

/// Bytes of log that are kept.
const LOG_BYTES: usize = 256 * 1024;

static RING: Locked<LogRing<LOG_BYTES>> = Locked::new(LogRing::new());

/// Writes a line to the log and the serial port, with time and source.
#[macro_export]
macro_rules! log {
    ($($arg:tt)*) => { $crate::log::line("kernel", format_args!($($arg)*)) };
}

struct Sink;

impl Write for Sink {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        RING.borrow_mut().push(s.as_bytes());
        arch::serial_write(s.as_bytes());
        Ok(())
    }
}

/// Appends a line.
pub fn line(source: &str, text: fmt::Arguments) {
    let now = arch::now_ns();
    let (s, us) = (now / 1_000_000_000, now / 1000 % 1_000_000);
    // Writing to the sink cannot fail; a failing Display of an argument only shortens the line.
    let _ = writeln!(Sink, "[{s:5}.{us:06}] {source}: {text}");
}

/// Appends a line of a process, `name[ID]: text`: bytes that are not printable are replaced, so that a process
/// cannot forge the lines of another.
pub fn user_line(name: &str, koid: u64, text: &[u8]) {
    let now = arch::now_ns();
    let (s, us) = (now / 1_000_000_000, now / 1000 % 1_000_000);
    let text = Printable(text);
    let _ = writeln!(Sink, "[{s:5}.{us:06}] {name}[{koid}]: {text}");
}

struct Printable<'a>(&'a [u8]);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                f.write_char(if c.is_control() && c != '\t' { ' ' } else { c })?;
            }
            if !chunk.invalid().is_empty() {
                f.write_char('\u{fffd}')?;
            }
        }
        Ok(())
    }
}

/// Reads from the ring; see [`LogRing::read`].
pub fn read(from: u64, out: &mut [u8]) -> (usize, u64) {
    RING.borrow().read(from, out)
}

/// Prints a panic to the serial port only, without locks.
pub fn panic_line(text: fmt::Arguments) {
    struct Raw;
    impl Write for Raw {
        fn write_str(&mut self, s: &str) -> fmt::Result {
            arch::serial_write(s.as_bytes());
            Ok(())
        }
    }
    let _ = writeln!(Raw, "{text}");
}
