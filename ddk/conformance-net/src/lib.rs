//! The conformance suite of the network class: one set of tests, run against every driver of a network interface at
//! every home that can run it.
//!
//! A home implements [`Home`], which opens interfaces of a [`Shape`], and [`Nic`], which is a client of the driver under
//! test and at the same time the other end of its wire: it puts frames on it and takes those that the interface sent. A test
//! that needs what a home lacks ends as [`Outcome::NotRun`] with the reason, never as passed.
//!
//! ```
//! # use ddk_conformance_net::{Home, Nic, Options, Outcome, Problem, Shape};
//! # use std::boxed::Box;
//! struct Nowhere;
//! impl Home for Nowhere {
//!     fn open(&mut self, shape: Shape, _seed: u64) -> Result<Box<dyn Nic + '_>, Problem> {
//!         Err(Problem::not_offered(format!("no interface of shape {shape}")))
//!     }
//! }
//! let mut outcomes = Vec::new();
//! ddk_conformance_net::run(&mut Nowhere, &Options::default(), &mut |_, outcome| outcomes.push(outcome.clone()));
//! assert!(!outcomes.is_empty());
//! assert!(outcomes.iter().all(|o| matches!(o, Outcome::NotRun(_))));
//! ```
//!
//! The suite knows frames and what the class promises, and neither drivers nor devices. It contains no timing: the limits that it
//! waits for are those after which a frame counts as lost.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod client;
pub mod frame;
mod home;
mod run;
mod tests;

pub use home::{
    Access, Arrived, Cut, Cutting, Fault, Home, Nic, Part, Piece, Problem, Promise, RxChecksum,
    SessionNumber, Shape, Sum, Wired, Woken,
};
pub use proto::net::{
    Link, MacAddress, NetCounters, NetInfo, Offloads, ReceiveMode, Segmentation, SegmentationSum,
    Status,
};
pub use run::{Case, Options, Outcome, cases, run};
