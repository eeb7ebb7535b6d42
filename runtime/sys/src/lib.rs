//! System calls as typed, owned handles: [`Channel`], [`Port`], [`Event`], [`Timer`], [`Vmo`],
//! [`Process`], [`Thread`], [`Interrupt`], [`Resource`], [`DmaDomain`], [`Pin`]; memory as
//! [`Mapping`], [`PrivateMemory`] and [`MmioRegion`]; [`IoPorts`]; clock and [`Deadline`];
//! [`Mutex`], [`Condvar`], [`Once`] on futexes.
//!
//! Everything here has a safe interface: a handle that is dropped is closed, memory that others
//! can change is copied or accessed through atomics and never borrowed. It needs no heap except
//! where a `Vec` stands in a signature. What builds on it (entry, heap, processes, streams) is in
//! `rt`, which re-exports this crate; typed messages are in `ipc`.
//!
//! A handle can be made from any number (`from_raw`). That is safe: the kernel checks each use, and
//! the worst that a wrong number does is an error or a use of another handle of the same process.
//!
//! On a host (where crates are tested) the calls go to a small in-process stand-in for the kernel
//! that knows handles, channels, ports, events, timers, VMOs and futexes and answers everything
//! else with `NotSupported`.
#![cfg_attr(target_os = "none", no_std)]

extern crate alloc;

mod channel;
mod dma;
mod event;
mod handle;
#[cfg(not(target_os = "none"))]
mod host;
mod interrupt;
mod ioport;
mod log;
mod mapping;
pub mod marker;
mod mmio;
mod port;
mod raw;
mod resource;
mod scratch;
pub mod sync;
mod task;
pub mod time;
mod vmo;

/// The interface between kernel and processes, with the calls' result type.
pub mod abi {
    pub use bulkhead_abi::error::Result;
    pub use bulkhead_abi::*;
}

pub use abi::{Error, Result, Rights, Signals};
pub use channel::{CallFailure, Channel, HandleList, Received, Txid};
pub use dma::{DmaDomain, Pin, PinAccess};
pub use event::{Event, Timer};
pub use handle::{AsHandle, Handle, HandleType};
pub use interrupt::{AckMode, Interrupt, Trigger};
pub use ioport::IoPorts;
pub use log::{LogRead, log_flush, log_read, log_write, log_write_raw};
pub use mapping::{MapAccess, Mapping, PrivateMemory, SegmentAccess, SharedMapping};
pub use mmio::{CacheMode, MmioRegion, Width};
pub use port::{Packet, Port, Watch};
pub use resource::Resource;
pub use scratch::Scratch;
pub use sync::{Condvar, Mutex, MutexGuard, Once};
pub use task::{Process, Thread, ThreadStart, exit, system_info};
pub use time::{Deadline, Instant};
pub use vmo::Vmo;
