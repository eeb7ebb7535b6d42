//! A home for drivers on the host, with models of devices.
//!
//! [`SimPlatform`] implements [`ddk::Platform`] with memory whose device addresses are scattered
//! ([`DeviceMemory`]), a clock that only waiting moves, and whatever register models a test plugs in. The
//! models (in `models/`) check what the driver does and note each violation; a test ends with
//! [`SimPlatform::check`]. One thread runs driver and models.

mod memory;
mod platform;

pub use memory::{DeviceMemory, MemoryError, Payload};
pub use platform::{SimInterrupt, SimPlatform, SimPlatformBuilder, SimQueue};
