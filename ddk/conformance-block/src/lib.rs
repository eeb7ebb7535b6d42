//! The conformance suite of the block class: one set of tests, run against every disk driver at every home
//! that can run it.
//!
//! A *home* is where a driver runs: a process on the microkernel, a process on Linux over VFIO, a process
//! beside QEMU, a simulator. It implements [`Home`], which opens disks of a [`Shape`], and [`Disk`], which
//! carries requests to the driver under test and offers what else it can do: injecting faults, looking at the
//! medium behind the driver's back, saying what a power cut would leave. A test that needs what a home lacks
//! ends as [`Outcome::NotRun`] with the reason, never as passed.
//!
//! ```
//! # use ddk_conformance_block::{Home, Options, Outcome, Shape, Disk, Problem};
//! # use std::boxed::Box;
//! struct Nowhere;
//! impl Home for Nowhere {
//!     fn open(&mut self, shape: Shape, _seed: u64) -> Result<Box<dyn Disk + '_>, Problem> {
//!         Err(Problem::not_offered(format!("no disk of shape {shape}")))
//!     }
//! }
//! let mut outcomes = Vec::new();
//! ddk_conformance_block::run(&mut Nowhere, &Options::default(), &mut |_, outcome| outcomes.push(outcome.clone()));
//! assert!(!outcomes.is_empty());
//! assert!(outcomes.iter().all(|o| matches!(o, Outcome::NotRun(_))));
//! ```
//!
//! The suite neither knows drivers nor devices, and it contains no timing: the limits that it waits for are
//! those after which a request counts as lost.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod client;
mod home;
mod run;
pub mod stamp;
mod tests;

pub use home::{
    Access, Answer, Disk, Fault, Home, Problem, Promise, Request, SessionNumber, Shape, Woken,
};
pub use proto::block::{BlockInfo, BufferAccess, Operation, Status, flags};
pub use run::{Case, Options, Outcome, cases, run};
pub use tests::{LAST_GENERATION, last_blocks};
