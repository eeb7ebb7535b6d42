//! Programs, and the terminal of an interactive shell.

use alloc::format;
use alloc::string::String;
use core::sync::atomic::{AtomicBool, Ordering};

use rt::abi::Signals;
use rt::process::{Command, ExitReason, Exited, SpawnError, Stdio};
use rt::proto::console::{ConsoleClient, Mode};
use rt::{AsHandle, Channel, Deadline, Event, Packet, Port, Vmo, Watch, startup};

use super::errno;
use super::files::File;
use crate::errno::{Errno, Result};
use crate::process::{Spawn, Status, Waited};
use crate::stream::Stream;

/// A running program.
#[derive(Debug)]
pub struct Child {
    inner: rt::process::Child,
    id: u64,
    /// Its file, for the names in a crash report.
    program: Vmo,
}

pub fn spawn(spawn: &Spawn<'_>) -> Result<Child> {
    let stdio = |stream: &Stream| match stream {
        Stream::Null => Ok(Stdio::Null),
        Stream::Capture(_) => Err(Errno::BadDescriptor),
        Stream::Os(os) => os.stdio(),
    };
    let mut file = File::open(spawn.program)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(Errno::IsDirectory);
    }
    if metadata.mode & 0o111 == 0 {
        return Err(Errno::Access);
    }
    let program = file.memory()?;
    drop(file);
    let (name, args) = match spawn.args.split_first() {
        Some((name, args)) => (name.as_str(), args),
        None => (spawn.program, &[][..]),
    };
    let inner = Command::new(&program, name)
        .args(args)
        .env(spawn.env.to_vec())
        .cwd(spawn.directory)
        .stdin(stdio(&spawn.stdin)?)
        .stdout(stdio(&spawn.stdout)?)
        .stderr(stdio(&spawn.stderr)?)
        .inherit_all()
        .spawn()
        .map_err(|error| match error {
            SpawnError::Image(_) => Errno::NotExecutable,
            SpawnError::Kernel(_, rt::Error::OutOfRange) => Errno::TooBig,
            SpawnError::Kernel(_, error) => errno(error),
        })?;
    let id = inner.id().map_err(errno)?;
    Ok(Child { inner, id, program })
}

/// Signal numbers of Unix for exceptions of x86_64.
fn signal(vector: u32) -> i32 {
    match vector {
        0 | 16 | 19 => 8,
        1 | 3 => 5,
        6 => 4,
        _ => 11,
    }
}

impl Child {
    /// Its process ID.
    pub fn id(&self) -> u64 {
        self.id
    }

    fn status(&self, exited: &Exited) -> Status {
        match exited.reason {
            ExitReason::Exited(code) => Status::Exited(code),
            ExitReason::NoThreads => Status::Exited(0),
            ExitReason::Killed(code @ 1..=64) => Status::Killed(code),
            ExitReason::Killed(_) => Status::Killed(9),
            ExitReason::Faulted => {
                let number = exited
                    .crash
                    .as_ref()
                    .map_or(11, |crash| signal(crash.vector));
                let place = self.log_crash(exited).unwrap_or_default();
                Status::Faulted(number, format!("{exited}{place}"))
            }
        }
    }

    /// Puts the whole report, with names, into the log; gives the name of the place.
    fn log_crash(&self, exited: &Exited) -> Option<String> {
        /// Index of the instruction pointer in a report.
        const RIP: usize = 16;
        let crash = exited.crash.as_ref()?;
        /// Largest program whose symbols are read.
        const PROGRAM_MAX: u64 = 64 << 20;
        let size = self.program.size().unwrap_or(0).min(PROGRAM_MAX);
        let mut bytes = alloc::vec![0u8; usize::try_from(size).unwrap_or(0)];
        if self.program.read(0, &mut bytes).is_err() {
            return None;
        }
        let symbols = rt::symbols::Symbols::parse(&bytes);
        let mut text = String::new();
        if rt::symbols::write_crash_report(crash, &symbols, &mut text).is_ok() {
            for line in text.lines() {
                rt::warn!("{line}");
            }
        }
        let (function, offset) = symbols.lookup(*crash.registers.get(RIP)?)?;
        Some(format!(" in {function}+{offset:#x}"))
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> Result<Status> {
        let exited = self.inner.wait(Deadline::FOREVER).map_err(errno)?;
        Ok(self.status(&exited))
    }

    /// How it ended; `None` while it runs.
    pub fn try_wait(&mut self) -> Result<Option<Status>> {
        let exited = self.inner.try_wait().map_err(errno)?;
        Ok(exited.map(|e| self.status(&e)))
    }

    /// Ends it; the code is a signal number.
    pub fn kill(&mut self, code: i32) -> Result<()> {
        self.inner.process().kill(code).map_err(errno)
    }

    /// Waits for its end or for ctrl-C.
    pub fn wait_or_interrupt(&mut self, terminal: &Terminal) -> Result<Waited> {
        const CHILD: u64 = 1;
        const INTERRUPT: u64 = 2;
        let port = Port::create().map_err(errno)?;
        let process = self.inner.process();
        process
            .wait_async(&port, CHILD, Signals::TERMINATED, Watch::Once)
            .map_err(errno)?;
        terminal
            .interrupt
            .wait_async(&port, INTERRUPT, Signals::SIGNALED, Watch::Once)
            .map_err(errno)?;
        let mut packets = [Packet::default()];
        port.wait(&mut packets, Deadline::FOREVER).map_err(errno)?;
        let [packet] = packets;
        if packet.key == INTERRUPT {
            terminal.take_interrupt();
            return Ok(Waited::Interrupted);
        }
        self.wait().map(Waited::Ended)
    }
}

static RAW: AtomicBool = AtomicBool::new(false);

/// Whether this process has put the terminal into raw mode.
pub(super) fn terminal_is_raw() -> bool {
    RAW.load(Ordering::Relaxed)
}

/// The console, as far as it is more than a stream.
#[derive(Debug)]
pub struct Terminal {
    console: ConsoleClient,
    interrupt: Event,
}

impl Terminal {
    /// That of this process, if it was given one.
    pub fn open() -> Option<Terminal> {
        let channel = startup::handle::<Channel>(startup::name::CONSOLE)?;
        let console = ConsoleClient::new(channel.duplicate().ok()?).repeating();
        let interrupt = console.interrupt_event().ok()?;
        Some(Terminal { console, interrupt })
    }

    /// Every byte at once, without echo.
    pub fn set_raw(&self) -> Result<()> {
        self.console.set_mode(Mode::Raw).map_err(|_| Errno::Io)?;
        RAW.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// By line, with echo.
    pub fn set_cooked(&self) -> Result<()> {
        self.console.set_mode(Mode::Cooked).map_err(|_| Errno::Io)?;
        RAW.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Whether ctrl-C was pressed since the last call.
    pub fn take_interrupt(&self) -> bool {
        let set = self
            .interrupt
            .info()
            .is_ok_and(|i| i.signals & Signals::SIGNALED.0 != 0);
        set && self.interrupt.clear().is_ok()
    }

    /// Characters in a row.
    pub fn columns(&self) -> usize {
        self.console
            .size()
            .map_or(80, |s| usize::from(s.columns.max(1)))
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.console
            .size()
            .map_or(24, |s| usize::from(s.rows.max(1)))
    }

    /// Reads what is typed, waiting at most so long: `None` if nothing came.
    pub fn read_timeout(&self, buffer: &mut [u8], timeout_ns: u64) -> Result<Option<usize>> {
        let deadline = Deadline::after(core::time::Duration::from_nanos(timeout_ns));
        match rt::io::stdin().read_deadline(buffer, deadline) {
            Ok(n) => Ok(Some(n)),
            Err(rt::Error::TimedOut | rt::Error::ShouldWait) => Ok(None),
            Err(error) => Err(errno(error)),
        }
    }
}

/// Path of the program that runs, if its name says so; else what `PATH` finds under it.
pub fn own_program() -> String {
    let name = startup::program_name();
    let path = startup::env("PATH").unwrap_or("/bin:/boot/bin");
    crate::process::find_program(name, path, "/")
        .or_else(|| crate::process::find_program("sh", path, "/"))
        .unwrap_or_else(|| String::from("/boot/bin/sh"))
}
