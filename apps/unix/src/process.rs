//! Programs: starting, waiting, killing; and what this process was started with.

use alloc::string::String;
use alloc::vec::Vec;

use crate::backend;
use crate::errno::Result;
use crate::stream::Stream;

pub use backend::{Child, Terminal};

/// How a program ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Status {
    /// By itself, with this status.
    Exited(i32),
    /// Another process ended it, with this code (as a signal number).
    Killed(i32),
    /// A fault ended it: signal number in Unix terms and a text that names the fault.
    Faulted(i32, String),
}

impl Status {
    /// As `$?` shows it: 128 plus the signal number for an end by force.
    pub fn code(&self) -> i32 {
        match self {
            Status::Exited(code) => *code & 0xff,
            Status::Killed(signal) | Status::Faulted(signal, _) => 128 + (*signal & 0x7f),
        }
    }
}

/// A program to start.
#[derive(Clone, Debug)]
pub struct Spawn<'a> {
    /// Absolute path of the file.
    pub program: &'a str,
    /// Arguments, the name that it is called by first.
    pub args: &'a [String],
    /// The whole environment.
    pub env: &'a [(String, String)],
    /// Current directory, absolute.
    pub directory: &'a str,
    /// Standard input.
    pub stdin: Stream,
    /// Standard output.
    pub stdout: Stream,
    /// Standard error.
    pub stderr: Stream,
}

impl Spawn<'_> {
    /// Starts it. [`Errno::NotExecutable`](crate::Errno::NotExecutable) if the file is no program.
    pub fn start(&self) -> Result<Child> {
        backend::spawn(self)
    }
}

/// What ended a wait.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Waited {
    /// The program ended.
    Ended(Status),
    /// The person at the terminal pressed ctrl-C.
    Interrupted,
}

/// The environment of this process.
pub fn environment() -> Vec<(String, String)> {
    backend::environment()
}

/// One variable of it.
pub fn variable(name: &str) -> Option<String> {
    environment()
        .into_iter()
        .find(|(n, _)| n == name)
        .map(|(_, value)| value)
}

/// Finds a program as a shell does: a name with a slash is a path, any other is looked for in the
/// directories of `path` (separated by colons).
pub fn find_program(name: &str, path: &str, directory: &str) -> Option<String> {
    let usable =
        |full: &str| crate::fs::stat(full).is_ok_and(|m| m.is_file() && m.mode & 0o111 != 0);
    if name.contains('/') {
        return Some(crate::path::join(directory, name));
    }
    path.split(':')
        .map(|dir| crate::path::join(if dir.is_empty() { directory } else { dir }, name))
        .find(|full| usable(full))
}

/// Path of the running program itself.
pub fn own_program() -> String {
    backend::own_program()
}

/// This process's ID.
pub fn id() -> u64 {
    backend::process_id()
}

/// Nanoseconds since an arbitrary fixed point (on Bulkhead: boot).
pub fn monotonic_ns() -> u64 {
    backend::monotonic_ns()
}

/// Nanoseconds since 1970-01-01 00:00:00 UTC.
pub fn wall_clock_ns() -> u64 {
    backend::wall_clock_ns()
}

/// Waits for so many nanoseconds.
pub fn sleep_ns(duration_ns: u64) {
    backend::sleep_ns(duration_ns);
}
