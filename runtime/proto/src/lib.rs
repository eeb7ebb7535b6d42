//! The protocols that processes speak: one file each, with its types.
//!
//! Only definitions. How to write one is in [`ipc`]; who serves which is in each file.
#![cfg_attr(target_os = "none", no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub use crash_report;

pub mod block;
pub mod bus;
pub mod console;
pub mod devmgr;
pub mod fs;
pub mod inet;
pub mod interrupt_test;
pub mod net;
pub mod power;
pub mod proc;
pub mod serial;
pub mod services;
pub mod startup;
pub mod stream;
pub mod wire;
