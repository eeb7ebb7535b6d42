//! What every user process stands on: entry, heap, start-up data, threads, processes, streams,
//! printing. Handles and system calls come from [`sys`], which is re-exported here. Typed messages
//! are in `ipc`, asynchronous services in `executor`.
//!
//! # A program
//!
//! ```ignore
//! #![no_std]
//! #![no_main]
//! #![forbid(unsafe_code)]
//!
//! extern crate alloc;
//! use rt::println;
//!
//! rt::entry!(main);
//!
//! fn main() -> i32 {
//!     for arg in rt::startup::args() {
//!         println!("{arg}");
//!     }
//!     0
//! }
//! ```
//!
//! `main` returns whatever is an [`ExitStatus`](entry::ExitStatus): nothing, an `i32`, or a `Result`
//! whose error is printed. Its binary has `test = false` in its manifest; what is worth testing
//! stands in a library beside it, which builds on a host too (this crate does: there the handles
//! lead to an in-process stand-in for the kernel).
//!
//! # Where things are
//!
//! - [`startup`]: arguments, environment, current directory, handles by name.
//! - [`print!`], [`println!`], [`eprintln!`], and [`io`] behind them; [`stream`] for pipes.
//! - [`info!`], [`warn!`], [`error!`], [`debug!`]: the system's log.
//! - [`thread`], and [`sync`] for locks; [`time`] for clocks and sleeping.
//! - [`process`]: starting programs; [`symbols`]: names for addresses in crash reports.
//! - [`marker`]: marks for the instruction counter.
#![cfg_attr(target_os = "none", no_std)]

extern crate alloc;

pub mod entry;
#[cfg(target_os = "none")]
mod heap;
pub mod io;
pub mod log;
pub mod process;
pub mod startup;
pub mod stream;
pub mod symbols;
pub mod thread;

pub use entry::exit;
pub use ipc;
pub use proto;
pub use sys::*;
