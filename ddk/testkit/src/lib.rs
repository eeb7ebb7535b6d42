//! A platform on the host for testing drivers.
//!
//! [`TestPlatform`] implements [`ddk::Platform`] with memory whose device addresses are scattered
//! ([`DeviceMemory`]), a clock that only waiting moves, and whatever register models a test plugs in. The
//! models beside it check what the driver does and note each violation; a test ends with
//! [`TestPlatform::check`]. One thread runs driver and models.

mod memory;
mod platform;
mod virtio_block;
mod virtio_pci;
mod virtqueue;

pub use memory::{DeviceMemory, MemoryError, Payload};
pub use platform::{TestInterrupt, TestPlatform, TestPlatformBuilder, TestQueue};
pub use virtio_block::{BlockModel, BlockModelOptions, Misbehaviour};
pub use virtio_pci::{DeviceLogic, VirtioPci};
pub use virtqueue::{DeviceChain, DeviceQueue};
