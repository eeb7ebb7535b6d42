//! A virtio device on the PCI bus, for the simulator (virtio 1.2, 2 and 4.1): configuration space, registers, and
//! the device's side of its queues. What kind of device it is, a [`DeviceLogic`] says. All of it checks
//! what the driver does and notes each violation.

mod pci;
mod queue;

pub use pci::{DeviceLogic, Request, Served, VirtioPci};
pub use queue::{DeviceChain, DeviceQueue};
