//! Virtio 1.x for drivers: the PCI transport and split virtqueues, used by every virtio driver.
//!
//! Legacy devices (before 1.0) are refused. Nothing here knows a device type. Whatever the device writes,
//! the worst outcome is an error; see [`QueueError`].
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod queue;
#[cfg(test)]
mod queue_tests;
mod transport;

pub use queue::{Chain, ChainTooLong, QueueError, QueueOptions, Reaped, Virtqueue};
pub use transport::{CommonConfig, Transport};
