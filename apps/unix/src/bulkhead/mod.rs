//! Back end on Bulkhead: everything goes to the services whose channels the process was given.

mod files;
mod processes;
mod streams;

pub use files::{
    File, current_dir, lstat, make_dir, mount, mounts, read_dir, read_link, remove_dir,
    remove_file, rename, stat, symlink, sync, unmount, volume_info, wait_ready,
};
pub use processes::{Child, Terminal, own_program, spawn};
pub use streams::{OsStream, open_stream, pipe, standard_stream};

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use rt::{Error, startup};

use crate::errno::Errno;

/// Entry point of a program.
pub fn run_program(run: impl FnOnce(Vec<String>) -> i32) -> i32 {
    run(startup::args().to_vec())
}

/// What a failed system call means in Unix terms.
fn errno(error: Error) -> Errno {
    match error {
        Error::PeerClosed => Errno::BrokenPipe,
        Error::NoMemory => Errno::NoMemory,
        Error::LimitReached => Errno::TooManyFiles,
        Error::AccessDenied => Errno::Access,
        Error::NotFound => Errno::NoEntry,
        Error::NotSupported => Errno::NotSupported,
        Error::TimedOut => Errno::TimedOut,
        Error::BadHandle | Error::WrongType => Errno::BadDescriptor,
        Error::InvalidArgument | Error::OutOfRange => Errno::Invalid,
        Error::ShouldWait => Errno::Again,
        _ => Errno::Io,
    }
}

pub fn environment() -> Vec<(String, String)> {
    startup::env_all().to_vec()
}

pub fn process_id() -> u64 {
    rt::Process::own_info().map_or(0, |info| info.koid)
}

pub fn monotonic_ns() -> u64 {
    rt::time::now_ns()
}

pub fn wall_clock_ns() -> u64 {
    rt::time::wall_clock_ns()
}

pub fn sleep_ns(duration_ns: u64) {
    rt::time::sleep(Duration::from_nanos(duration_ns));
}
