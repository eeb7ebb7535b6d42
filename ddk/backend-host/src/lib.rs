//! What every home of drivers on a real host has in common: waiting, time, log, threads, and memory that a
//! device reaches.
//!
//! Nothing here knows a device. A backend ([`ddk::Platform`]) takes [`Services`] for what is the host's,
//! wraps each of its interrupts in a [`HostInterrupt`], and makes memory with a [`Mapping`] and the device
//! addresses that it chose ([`DeviceMapping`]). The simulator does not use it: its time is not the host's.
//!
//! ```
//! use ddk::{Deadline, Event, EventQueue};
//! use ddk_backend_host::{HostQueue, now_ns};
//!
//! let queue = HostQueue::new().unwrap();
//! queue.post(7).unwrap();
//! let mut events = [Event::default(); 4];
//! let in_a_second = Deadline::at_ns(now_ns() + 1_000_000_000);
//! assert_eq!(queue.wait(&mut events, in_a_second), Ok(1));
//! assert_eq!(events[0], Event { key: 7, count: 1 });
//! ```

mod grants;
mod interrupt;
mod memory;
mod pages;
mod queue;
mod services;

pub use grants::{BindError, bus_refused, everything};
pub use interrupt::{HostInterrupt, InterruptSource};
pub use memory::{DeviceMapping, Mapping, Payload};
pub use pages::{ScatteredPages, TakenPages};
pub use queue::{HostQueue, Source};
pub use services::{Services, now_ns};
