//! Home of drivers as ordinary processes of the host that drive QEMU's own device models.
//!
//! The driver crate is the one that runs on the microkernel, unchanged; the device is the one that a guest
//! would have. There is no guest: QEMU runs with its CPU halted, and this process makes the accesses of the
//! driver over the qtest protocol, does what firmware and bus driver would, and shares the machine's memory
//! with the devices, so that DMA is real. So a driver can be run by `cargo test`, under a debugger, or under
//! a profiler, against something that nobody here wrote.
//!
//! A [`QtestMachine`] is made of devices as QEMU's `-device` takes them. Each is bound by a platform of its
//! own ([`ddk::Platform`]), which is given to the driver:
//!
//! ```no_run
//! use ddk::{Described, DeviceContext, Driver, StopReason, block_on};
//! use ddk_backend_qtest::{Disk, QtestMachine};
//! use ddk_class_block::BlockDevice;
//! use virtio_blk::VirtioBlk;
//!
//! let machine = QtestMachine::builder()
//!     .disk(Disk::new("d0", "disk.img"))
//!     .device("virtio-blk-pci,drive=d0,id=blk0")
//!     .start()
//!     .unwrap();
//! let platform = machine.platform_for("blk0", &VirtioBlk::MANIFEST).unwrap();
//! let cx = DeviceContext::new(platform).unwrap();
//! let driver = block_on(&cx, VirtioBlk::start(cx.clone())).unwrap().unwrap();
//! println!("{} blocks", driver.disks()[0].block_count);
//! block_on(&cx, driver.stop(StopReason::Requested)).unwrap();
//! ```
//!
//! # What is as in the running system
//!
//! - Grants: [`QtestMachine::platform_for`] plans them from the driver's manifest with the device manager's
//!   own code. Pages of a BAR that hold the MSI-X table are not among them, and configuration writes go
//!   through the bus driver's filter.
//! - Memory: pages that are contiguous for the driver are scattered for the device.
//! - Masks and pending bits of MSI-X: they are the device's.
//! - Teardown: dropping a platform takes the fence's steps, so that a test can let a driver vanish in the
//!   middle and start the next.
//!
//! # What can go wrong on purpose
//!
//! Errors of the medium ([`Disk::bad_sector`]), a silent disk ([`QtestMachine::hold`]), a device that is
//! pulled out ([`QtestMachine::unplug`]), one that changes under its driver ([`QtestMachine::resize`]), the end
//! of everything ([`QtestMachine::kill`]), and whatever QEMU's control channel offers ([`QtestMachine::qmp`]).
//!
//! # Needs
//!
//! `qemu-system-x86_64` from 6.1 on, with TCG (Debian's) or, failing that, with `-accel qtest`. No root
//! rights, no guest image. Without QEMU [`QtestMachineBuilder::start`] gives [`StartError::NoQemu`], and a
//! test has to say that it did not run.
//!
//! # What it is not
//!
//! Fast, or a clock: accesses take tens of microseconds, and messages are seen by looking at memory while
//! somebody waits for them. There is no IOMMU; a driver that gives a device a wrong address is not stopped.

mod access;
mod disk;
mod function;
mod interrupt;
mod machine;
mod memory;
mod platform;
mod process;
mod qmp;
mod wire;

pub use ddk_backend_host::{BindError, Payload};
pub use disk::Disk;
pub use machine::{QtestMachine, QtestMachineBuilder, StartError};
pub use process::qemu;
pub use qmp::{Qmp, QmpError};
