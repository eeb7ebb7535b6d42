//! Traces of disk drivers that replay: what the class layer asks of a driver is recorded beside what passes between the driver and
//! its home, so that a host can ask the same again.
//!
//! [`Traced`] stands between class layer and driver and notes each call and its answer in a [`ddk_instrument::Trace`], in which a
//! platform that is instrumented with it notes the rest. [`replay`] makes the same calls in the same order, with no
//! device and no clients, and compares every access and every answer. Payload is in neither: a request has its device
//! addresses.
//!
//! Calls are replayed one after the other, in the order in which they began. Those that were under way at once on several threads
//! are therefore not interleaved as they were: a driver whose queues share state that changes may deviate without a cause.
#![cfg_attr(target_os = "none", no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod call;
#[cfg(not(target_os = "none"))]
mod replay;
mod traced;

#[cfg(not(target_os = "none"))]
pub use replay::{Followed, NotFollowed, driver_of, replay};
pub use traced::{Traced, TracedQueue};
