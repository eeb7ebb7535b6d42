//! A guest in QEMU: its machine, and the run from start to outcome.
//!
//! The guest speaks over three channels: COM1 carries the log, COM2 the console,
//! and the debug port 0xe9 one line that says how the run ended. They are
//! socket pairs that QEMU inherits, so there are no files to clean up, and the
//! end of QEMU is the end of all three.

pub mod disk;
pub mod machine;
pub mod nic;
mod process;
pub mod qmp;

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use machine::{GuestEnds, Processors};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

pub use machine::{ControlPort, Machine, Transport};

/// How long a panicking kernel may go on writing its report.
const PANIC_REPORT_LIMIT: Duration = Duration::from_secs(10);
/// The report is complete when the log was silent for so long.
const PANIC_REPORT_SILENCE: Duration = Duration::from_millis(500);
/// How long a guest may take to switch the machine off after it gave its status.
const POWER_OFF_LIMIT: Duration = Duration::from_secs(5);
/// How often a silent wait looks at the clock.
const TICK: Duration = Duration::from_millis(100);

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The guest gave this status and switched itself off.
    Exit(u8),
    /// The guest gave this status, but left the machine on.
    StayedOn(u8),
    /// The kernel panicked; its report is in the log.
    Panic,
    /// The time limit passed.
    TimedOut,
    /// QEMU ended, or the guest stayed on, without a word about how; says what is known.
    Died(String),
    /// QEMU itself crashed, by this signal.
    Crashed(i32),
    /// This signal came to xtask.
    Signal(i32),
    /// Nobody reads the console output any more.
    ConsoleClosed,
    /// The user left the guest.
    Quit,
}

impl Outcome {
    /// The exit status that tells a caller of xtask.
    pub fn status(&self) -> u8 {
        match self {
            Self::Exit(status) => *status,
            Self::Panic => crate::STATUS_PANIC,
            Self::TimedOut => crate::STATUS_TIMEOUT,
            Self::StayedOn(_) | Self::Died(_) | Self::Crashed(_) => crate::STATUS_DIED,
            // As a shell reports a signal: 128 + its number.
            Self::Signal(signal) => u8::try_from(signal.saturating_add(128)).unwrap_or(255),
            Self::ConsoleClosed => 141,
            Self::Quit => 0,
        }
    }
}

/// Where what the guest says goes, and where its input comes from.
pub struct Streams<'a> {
    /// Receives the console's output, COM2, byte for byte.
    pub console: &'a mut dyn Write,
    /// Receives the log, COM1, byte for byte.
    pub log: &'a mut dyn Write,
    /// A terminal whose input goes to the console.
    pub input: Option<Box<dyn Read + Send>>,
}

/// Key that opens a command to xtask: Ctrl-A.
const ESCAPE_KEY: u8 = 0x01;

enum Event {
    Console(Vec<u8>),
    Log(Vec<u8>),
    Outcome(String),
    Ended,
    Signal(i32),
    Quit,
}

/// Boots `machine` and stays with it to its end; QEMU is gone on return.
///
/// # Errors
///
/// When QEMU cannot be started, or the log cannot be written.
pub fn run(
    machine: &Machine,
    time_limit: Option<Duration>,
    streams: &mut Streams<'_>,
) -> anyhow::Result<Outcome> {
    let (log, log_guest) = UnixStream::pair().context("a socket for the log")?;
    let (console, console_guest) = UnixStream::pair().context("a socket for the console")?;
    let (outcome, outcome_guest) = UnixStream::pair().context("a socket for the outcome")?;
    let mut control_guest = None;
    if let Some(port) = &machine.control {
        let (control, guest_end) = UnixStream::pair().context("a socket for the control port")?;
        // Whoever does not want it any more does without.
        let _ = port.opened.send(control);
        control_guest = Some(guest_end);
    }
    let guest_ends = GuestEnds {
        log: log_guest,
        console: console_guest,
        outcome: outcome_guest,
        control: control_guest,
    };
    let mut process = process::Process::start(machine.command(&guest_ends), guest_ends)?;

    // Bounded, so that a guest that floods a slow reader waits for it.
    let (sender, events) = mpsc::sync_channel(64);
    forward(log, sender.clone(), Event::Log, Some(Event::Ended));
    let console_input = console.try_clone().context("the console's socket")?;
    forward(console, sender.clone(), Event::Console, None);
    outcome_lines(outcome, sender.clone());
    if let Some(input) = streams.input.take() {
        forward_input(input, console_input, sender.clone());
    }
    let signals = watch_signals(sender)?;

    let mut watch = Watch {
        started: Instant::now(),
        time_limit,
        said: None,
        last_log: Instant::now(),
    };
    let ended = loop {
        if let Some(outcome) = watch.overdue() {
            break Some(outcome);
        }
        match events.recv_timeout(TICK) {
            Ok(Event::Console(bytes)) => {
                let written = streams.console.write_all(&bytes);
                if written.and_then(|()| streams.console.flush()).is_err() {
                    break Some(Outcome::ConsoleClosed);
                }
            }
            Ok(Event::Log(bytes)) => {
                watch.last_log = Instant::now();
                streams.log.write_all(&bytes).context("the guest's log")?;
            }
            Ok(Event::Outcome(line)) => watch.said = Some((Instant::now(), line)),
            Ok(Event::Signal(signal)) => break Some(Outcome::Signal(signal)),
            Ok(Event::Quit) => break Some(Outcome::Quit),
            Ok(Event::Ended) | Err(RecvTimeoutError::Disconnected) => break None,
            Err(RecvTimeoutError::Timeout) => {}
        }
    };
    let status = match ended {
        Some(_) => process.kill(),
        None => process.wait(),
    };
    // What was still under way when QEMU ended.
    while let Ok(event) = events.recv_timeout(TICK) {
        match event {
            Event::Console(bytes) => {
                let written = streams.console.write_all(&bytes);
                // Nobody can be told any more.
                let _ = written.and_then(|()| streams.console.flush());
            }
            Event::Log(bytes) => streams.log.write_all(&bytes).context("the guest's log")?,
            Event::Outcome(line) => watch.said = Some((Instant::now(), line)),
            _ => {}
        }
    }
    streams.log.flush().context("the guest's log")?;
    signals.close();
    Ok(match ended {
        Some(outcome) => outcome,
        None => watch.outcome_at_end(status?),
    })
}

/// What is known about a run that goes on.
struct Watch {
    started: Instant,
    time_limit: Option<Duration>,
    said: Option<(Instant, String)>,
    last_log: Instant,
}

impl Watch {
    /// An outcome that the clock decides.
    fn overdue(&self) -> Option<Outcome> {
        if let Some((when, line)) = &self.said {
            if line == "panic" {
                let silent = self.last_log.max(*when).elapsed() >= PANIC_REPORT_SILENCE;
                return (silent || when.elapsed() >= PANIC_REPORT_LIMIT).then_some(Outcome::Panic);
            }
            if when.elapsed() >= POWER_OFF_LIMIT {
                return Some(match exit_status(line) {
                    Some(status) => Outcome::StayedOn(status),
                    None => Outcome::Died(format!("the guest's outcome is {line:?}")),
                });
            }
            return None;
        }
        self.time_limit
            .filter(|limit| self.started.elapsed() >= *limit)
            .map(|_| Outcome::TimedOut)
    }

    fn outcome_at_end(&self, status: ExitStatus) -> Outcome {
        match self.said.as_ref().map(|(_, line)| line.as_str()) {
            Some("panic") => Outcome::Panic,
            Some(line) => exit_status(line).map_or_else(
                || Outcome::Died(format!("the guest's outcome is {line:?}")),
                Outcome::Exit,
            ),
            None if status.success() => Outcome::Died(
                "the machine was reset or switched off, and the guest gave no status".to_owned(),
            ),
            None => match status.signal() {
                Some(signal) => Outcome::Crashed(signal),
                None => Outcome::Died(format!("QEMU ended ({status})")),
            },
        }
    }
}

/// Whether a run ended by a fault of QEMU's that is known, and is not the guest's.
///
/// QEMU before 8.1 replaces a processor's map of the machine's registers while that processor, on a thread of its own,
/// looks an address up in it: it then writes through what is no region of memory (SIGSEGV in
/// `memory_region_dispatch_write`). The map is replaced whenever a device's registers or its bus mastering are switched,
/// so it happens where drivers die over and over: in one of twenty runs with 40 deaths on four processors.
pub fn met_known_fault(machine: &Machine, outcome: &Outcome) -> bool {
    *outcome == Outcome::Crashed(rustix::process::Signal::SEGV.as_raw())
        && machine.cpus > 1
        && machine.processors == Processors::AtOnce
        && machine::version().is_some_and(|version| version < (8, 1))
}

/// The status in a line `exit N`: as a process's on Linux, the low eight bits.
fn exit_status(line: &str) -> Option<u8> {
    let status: i64 = line.strip_prefix("exit ")?.parse().ok()?;
    Some((status & 0xff) as u8)
}

/// Sends what `stream` brings, and `end` at its end.
fn forward(
    mut stream: UnixStream,
    events: SyncSender<Event>,
    make: fn(Vec<u8>) -> Event,
    end: Option<Event>,
) {
    thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        while let Some(bytes) = read_some(&mut stream, &mut buffer) {
            if events.send(make(bytes.to_vec())).is_err() {
                return;
            }
        }
        if let Some(end) = end {
            let _ = events.send(end);
        }
    });
}

fn read_some<'a>(stream: &mut impl Read, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
    loop {
        match stream.read(buffer) {
            Ok(0) => return None,
            Ok(len) => return buffer.get(..len),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
}

fn outcome_lines(mut stream: UnixStream, events: SyncSender<Event>) {
    thread::spawn(move || {
        let mut text = Vec::new();
        let mut buffer = [0; 256];
        while let Some(bytes) = read_some(&mut stream, &mut buffer) {
            text.extend_from_slice(bytes);
            while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = text.drain(..=end).collect();
                let line = String::from_utf8_lossy(&line).trim().to_owned();
                // The firmware writes its own messages to this port.
                let ours = line == "panic" || line.starts_with("exit ");
                if ours && events.send(Event::Outcome(line)).is_err() {
                    return;
                }
            }
        }
    });
}

fn forward_input(
    mut input: Box<dyn Read + Send>,
    mut console: UnixStream,
    events: SyncSender<Event>,
) {
    // Ends with the process: a read from the terminal cannot be broken off.
    thread::spawn(move || {
        let mut keys = Keys::default();
        let mut buffer = [0; 1024];
        while let Some(bytes) = read_some(&mut input, &mut buffer) {
            let (text, quit) = keys.filter(bytes);
            if quit {
                let _ = events.send(Event::Quit);
                return;
            }
            if console.write_all(&text).is_err() {
                return;
            }
        }
    });
}

/// Takes xtask's own key commands out of the input.
#[derive(Debug, Default)]
struct Keys {
    after_escape: bool,
}

impl Keys {
    /// What goes to the guest, and whether the user wants to leave.
    fn filter(&mut self, bytes: &[u8]) -> (Vec<u8>, bool) {
        let mut text = Vec::with_capacity(bytes.len());
        for &byte in bytes {
            if self.after_escape {
                self.after_escape = false;
                match byte {
                    b'x' | b'X' => return (text, true),
                    other => text.push(other),
                }
            } else if byte == ESCAPE_KEY {
                self.after_escape = true;
            } else {
                text.push(byte);
            }
        }
        (text, false)
    }
}

fn watch_signals(events: SyncSender<Event>) -> anyhow::Result<signal_hook::iterator::Handle> {
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP])
        .context("cannot watch for signals")?;
    let handle = signals.handle();
    thread::spawn(move || {
        for signal in signals.forever() {
            if events.send(Event::Signal(signal)).is_err() {
                return;
            }
        }
    });
    Ok(handle)
}

#[cfg(test)]
mod tests;
