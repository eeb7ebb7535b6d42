//! A home for drivers on the host, with models of devices.
//!
//! [`SimPlatform`] implements [`ddk::Platform`] with memory whose device addresses are scattered
//! ([`DeviceMemory`]), a clock that only waiting moves, and whatever register models a test plugs in. The
//! models (in `models/`) check what the driver does and note each violation; a test ends with
//! [`Sim::check`].

mod memory;
mod platform;
mod queue;
mod schedule;
mod sim;
mod threads;

pub use memory::{DeviceMemory, MemoryError, Payload};
pub use platform::{SimPlatform, SimPlatformBuilder};
pub use queue::{SimInterrupt, SimQueue};
pub use schedule::Schedule;
pub use sim::{SEED_VARIABLE, Sim, Timing};
