//! The driver development kit: everything that a driver sees of its device and of the system.
//!
//! A driver is written against this crate (and the specification and class crates beside it) alone, in safe
//! code, and runs unchanged wherever a backend implements [`Platform`]: as a process on the microkernel, or
//! as an ordinary process on a host, against a model or a real device. Nothing here knows how a backend
//! works, and no class of device is described here.
//!
//! # The parts
//!
//! - [`driver!`] and [`Driver`]: what a driver says of itself, and how it starts and stops.
//! - [`DeviceContext`]: the device that was granted: BARs, configuration space, interrupts, DMA memory.
//! - [`Mmio`], [`PortIo`], [`registers!`]: typed access to registers.
//! - [`DmaRegion`], [`DmaBuffer`], [`DmaPool`]: control structures that the device reads and writes.
//!   [`PinnedBuffer`]: payload, which a driver never maps, as device addresses.
//! - [`Irq`], [`EventQueue`], [`Deadline`]: waiting, always with an end.
//!
//! # A register that reads all ones
//!
//! A device that was unplugged or cut off answers every read with ones. Where a register cannot have that
//! value, ask [`alive`] and hand [`DriverError::DeviceGone`] on.
//!
//! # Example
//!
//! Registers of a device, and a bus that stands in for it:
//!
//! ```
//! use std::sync::Arc;
//! use ddk::{Bus, DriverError, Mmio, Width, alive};
//!
//! ddk::registers! {
//!     /// A thermometer.
//!     struct Thermometer: 0x08 {
//!         /// Tenths of a degree.
//!         0x00 temperature: u32, ReadPure, "2.1";
//!         /// What wakes the driver.
//!         0x04 limit: u32, ReadWrite, reset 0, "2.2";
//!     }
//! }
//!
//! struct Model;
//!
//! impl Bus for Model {
//!     fn read(&self, offset: usize, _: Width) -> u64 {
//!         [215, 0][offset / 4]
//!     }
//!     fn write(&self, _: usize, _: Width, _: u64) {}
//! }
//!
//! let registers = Thermometer::new(Mmio::from_bus(Arc::new(Model), 0x1000)).unwrap();
//! assert_eq!(alive("temperature", registers.temperature().read()), Ok(215));
//! // A device that is gone reads all ones.
//! assert!(matches!(alive("temperature", u32::MAX), Err(DriverError::DeviceGone { .. })));
//! ```
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod buffer;
mod context;
mod dma;
mod driver;
mod error;
mod event;
mod irq;
pub mod matches;
mod mmio;
mod platform;
mod pool;
mod port_io;
mod registers;
mod time;
mod word;

pub use buffer::{BufferGuard, DeviceAccess, PinnedBuffer, Segment, Segments};
pub use context::{DeviceContext, PciFunction};
pub use ddk_manifest as manifest;
pub use dma::{
    Bidirectional, DeviceWrites, Direction, DmaBuffer, DmaMemory, DmaRegion, DriverWrites,
    FromDevice, PAGE, ToDevice,
};
pub use driver::{Described, Driver, SavedState, StopReason};
pub use error::{DriverError, PlatformError, alive};
pub use event::{Event, EventQueue, block_on};
pub use irq::{Interrupt, Irq};
pub use mmio::{Bus, Mmio, RegionError};
pub use platform::{LogLevel, Platform, PortBus, Work};
pub use pool::{DmaBlock, DmaPool};
pub use port_io::PortIo;
pub use registers::{
    Access, Declared, ReadEffect, ReadEffectWrite, ReadPure, ReadWrite, Readable,
    ReadableWithEffect, Reg, RegisterInfo, Writable, WriteOnly,
};
pub use time::Deadline;
pub use word::{Width, Word};

#[doc(hidden)]
pub use driver::manifest_of;
