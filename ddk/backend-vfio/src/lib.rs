//! Home of drivers as ordinary Linux processes that drive real devices through VFIO.
//!
//! The driver crate is the one that runs on the microkernel, unchanged. The device is taken from Linux by
//! `vfio-pci`; an IOMMU keeps its DMA to the memory that was given to it, and its interrupts arrive as
//! eventfds. So a driver can be brought up on its hardware under a debugger, and a crash of it costs a
//! process.
//!
//! ```no_run
//! use ddk::{Described, DeviceContext, Driver, StopReason, block_on};
//! use ddk_backend_vfio::{VfioDevice, bind_to_vfio};
//! use ddk_class_block::BlockDevice;
//! use virtio_blk::VirtioBlk;
//!
//! // As root, with the module vfio-pci loaded:
//! bind_to_vfio("0000:00:04.0").unwrap();
//! let device = VfioDevice::open("0000:00:04.0").unwrap();
//! let platform = device.platform_for(&VirtioBlk::MANIFEST).unwrap();
//! let cx = DeviceContext::new(platform).unwrap();
//! let driver = block_on(&cx, VirtioBlk::start(cx.clone())).unwrap().unwrap();
//! println!("{} blocks", driver.disks()[0].block_count);
//! block_on(&cx, driver.stop(StopReason::Requested)).unwrap();
//! ```
//!
//! # What is as in the running system
//!
//! Grants are planned from the driver's manifest by the device manager's own code; pages with the MSI-X table
//! are not among them; configuration writes go through the bus driver's filter; pages that are contiguous for
//! the driver are scattered for the device; a page that the device may only read or only write is mapped so
//! in the IOMMU. Dropping a platform takes interrupts and bus mastering from the device and resets it.
//!
//! # Needs
//!
//! Linux with an IOMMU that is on (`/dev/vfio/vfio`, type 1), a device that nothing else uses, in a group of
//! its own, and rights for its group's file (`/dev/vfio/N`) and for as much locked memory as is pinned.
//!
//! # What it is not
//!
//! It does not share a device with Linux, and it does not use VFIO without an IOMMU: a driver that is wrong
//! must not be able to write anywhere.

mod device;
mod interrupt;
mod opened;
mod platform;
mod sysfs;

pub use ddk_backend_host::{BindError, Payload};
pub use device::{OpenError, VfioDevice};
pub use sysfs::bind_to_vfio;
