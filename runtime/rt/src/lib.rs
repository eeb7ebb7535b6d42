//! What every user process stands on: entry, heap, start-up data, threads, processes, streams,
//! printing. Handles and system calls come from [`sys`], which is re-exported here.
#![cfg_attr(target_os = "none", no_std)]

extern crate alloc;

pub use sys::*;
