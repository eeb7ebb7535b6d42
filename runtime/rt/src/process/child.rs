//! A process that was started, and how it ended.

use core::fmt;

use sys::abi::{CrashReport, ProcessInfo, exit};
use sys::{AsHandle, Deadline, Process, Result, Signals};

use crate::symbols::fault_text;

/// A started process. Dropping it lets the process go on by itself.
#[derive(Debug)]
pub struct Child {
    process: Process,
}

/// Why a process is no more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExitReason {
    /// It ended by itself, with this code.
    Exited(i32),
    /// Somebody ended it, with this code.
    Killed(i32),
    /// A fault ended it; see [`Child::crash_report`].
    Faulted,
    /// Its last thread ended.
    NoThreads,
}

/// How a process ended.
#[derive(Clone, Debug)]
pub struct Exited {
    /// Reason.
    pub reason: ExitReason,
    /// The kernel's record.
    pub info: ProcessInfo,
    /// For a fault: what it left behind.
    pub crash: Option<alloc::boxed::Box<CrashReport>>,
}

/// Status of a program that a fault ended, as shells count: 128 and signal 11.
const STATUS_FAULTED: i32 = 139;
/// Status of a program that was killed: 128 and signal 9.
const STATUS_KILLED: i32 = 137;

impl Exited {
    /// Whether it ended by itself with code 0.
    pub fn success(&self) -> bool {
        self.reason == ExitReason::Exited(0)
    }

    /// As a shell's `$?`: the code (its low 8 bits), 137 if it was killed, 139 if a fault ended it.
    pub fn status(&self) -> i32 {
        match self.reason {
            ExitReason::Exited(code) => code & 0xff,
            ExitReason::Killed(_) => STATUS_KILLED,
            ExitReason::Faulted => STATUS_FAULTED,
            ExitReason::NoThreads => 0,
        }
    }
}

impl fmt::Display for Exited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.reason, &self.crash) {
            (ExitReason::Exited(code), _) => write!(f, "exited with {code}"),
            (ExitReason::Killed(_), _) => f.write_str("killed"),
            (ExitReason::Faulted, Some(crash)) => fault_text(crash, f),
            (ExitReason::Faulted, None) => f.write_str("crashed"),
            (ExitReason::NoThreads, _) => f.write_str("its last thread ended"),
        }
    }
}

impl Child {
    /// A process that was started before, by whoever this handle comes from.
    pub fn from_process(process: Process) -> Child {
        Child { process }
    }

    /// The process; wait for `TERMINATED` on it in a port or executor.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// The process, owned.
    pub fn into_process(self) -> Process {
        self.process
    }

    /// Its number: the process's koid.
    pub fn id(&self) -> Result<u64> {
        self.process.koid()
    }

    /// Waits until it has ended. `TimedOut`.
    pub fn wait(&self, deadline: Deadline) -> Result<Exited> {
        self.process.wait_one(Signals::TERMINATED, deadline)?;
        exited(&self.process)?.ok_or(sys::Error::BadState)
    }

    /// How it ended; `None` while it runs.
    pub fn try_wait(&self) -> Result<Option<Exited>> {
        exited(&self.process)
    }

    /// Ends it.
    pub fn kill(&self) -> Result<()> {
        self.process.kill(-1)
    }

    /// What the fault left behind that ended it; `NotFound` if none did.
    pub fn crash_report(&self) -> Result<CrashReport> {
        self.process.crash_report()
    }
}

/// How a process ended; `None` while it runs.
pub fn exited(process: &Process) -> Result<Option<Exited>> {
    let info = process.process_info()?;
    let reason = match info.exit_reason {
        exit::RUNNING => return Ok(None),
        exit::EXITED => ExitReason::Exited(info.exit_code),
        exit::FAULTED => ExitReason::Faulted,
        exit::NO_THREADS => ExitReason::NoThreads,
        _ => ExitReason::Killed(info.exit_code),
    };
    let crash = match reason {
        ExitReason::Faulted => process.crash_report().ok().map(alloc::boxed::Box::new),
        _ => None,
    };
    Ok(Some(Exited {
        reason,
        info,
        crash,
    }))
}
