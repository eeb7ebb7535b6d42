//! Virtio 1.x for drivers: the PCI transport and split virtqueues, used by every virtio driver.
//!
//! Legacy devices (before 1.0) are refused. Nothing here knows a device type. Whatever the device writes,
//! the worst outcome is an error; see [`QueueError`].
//!
//! # Example
//!
//! How a driver begins; the queues and `driver_ok` follow:
//!
//! ```
//! async fn begin(cx: &ddk::DeviceContext) -> Result<u64, ddk::DriverError> {
//!     cx.pci().enable()?;
//!     let transport = ddk_virtio::Transport::new(cx)?;
//!     transport.negotiate(spec_virtio::feature::RING_EVENT_IDX, 0).await
//! }
//! ```
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
