//! The Unix view of the system that the shell and the tools are written against: arguments,
//! byte streams, files, processes, dates, and the error texts that people know.
//!
//! It has two back ends with the same interface: Bulkhead's runtime, and `std` on a Unix host.
//! The second one exists so that the same programs run beside the host's own tools and their
//! outputs are compared byte by byte; nothing above this crate says where it runs. It is not a C
//! library: there are no file-descriptor numbers, signals or `fork`.
#![cfg_attr(target_os = "none", no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod args;
pub mod civil;
pub mod errno;
pub mod fs;
pub mod input;
pub mod path;
pub mod process;
pub mod size;
pub mod stream;
pub mod tool;

#[cfg(target_os = "none")]
#[path = "bulkhead/mod.rs"]
mod backend;
#[cfg(not(target_os = "none"))]
#[path = "host.rs"]
mod backend;

pub use args::{Arg, Args};
pub use errno::{Errno, Result};
pub use stream::Stream;
pub use tool::{Stop, Tool};

#[cfg(target_os = "none")]
pub use rt;

#[doc(hidden)]
pub use backend::run_program;

/// Defines the entry point of a program: `unix::program!(run)`, where `run` is
/// `fn(Vec<String>) -> i32`, gets the arguments (its own name first) and returns the exit status.
///
/// `unix::program!("name", HELP, run)` is the form for tools: `run` is
/// `fn(&mut Tool) -> Result<(), Stop>`.
#[cfg(target_os = "none")]
#[macro_export]
macro_rules! program {
    ($run:path) => {
        fn main() -> i32 {
            $crate::run_program($run)
        }
        $crate::rt::entry!(main);
    };
    ($name:literal, $help:expr, $run:path) => {
        fn main() -> i32 {
            $crate::run_program(|args| $crate::tool::run($name, $help, args, $run))
        }
        $crate::rt::entry!(main);
    };
}

/// As on the target: see there.
#[cfg(not(target_os = "none"))]
#[macro_export]
macro_rules! program {
    ($run:path) => {
        fn main() {
            $crate::run_program($run)
        }
    };
    ($name:literal, $help:expr, $run:path) => {
        fn main() {
            $crate::run_program(|args| $crate::tool::run($name, $help, args, $run))
        }
    };
}
