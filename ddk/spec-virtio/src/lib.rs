//! The virtio specification, version 1.2, as far as the drivers here use it. Section numbers are those of
//! that document. Pure definitions: no access to devices.
//!
//! ```
//! use spec_virtio::queue::need_event;
//!
//! // The driver asked to be told of entry 5; the device goes from 4 to 7 (2.7.7.2).
//! assert!(need_event(5, 7, 4));
//! assert!(!need_event(9, 7, 4));
//! ```
#![no_std]
#![forbid(unsafe_code)]

pub mod block;
pub mod console;
pub mod net;
pub mod pci;
pub mod queue;

/// PCI vendor ID of virtio devices (4.1.2).
pub const PCI_VENDOR: u16 = 0x1af4;

/// Bits of the device status field (2.1).
pub mod status {
    /// The guest has noticed the device.
    pub const ACKNOWLEDGE: u8 = 1;
    /// The guest has a driver for it.
    pub const DRIVER: u8 = 2;
    /// The driver is set up.
    pub const DRIVER_OK: u8 = 4;
    /// The driver has acknowledged the features it understands.
    pub const FEATURES_OK: u8 = 8;
    /// The device met an error that only a reset cures.
    pub const DEVICE_NEEDS_RESET: u8 = 64;
    /// The driver has given up on the device.
    pub const FAILED: u8 = 128;
}

/// Feature bits that do not belong to a device type (6).
pub mod feature {
    /// Indirect descriptor tables.
    pub const RING_INDIRECT_DESC: u64 = 1 << 28;
    /// `used_event` and `avail_event`.
    pub const RING_EVENT_IDX: u64 = 1 << 29;
    /// Complies with version 1 of the specification.
    pub const VERSION_1: u64 = 1 << 32;
    /// The device uses addresses as the platform's IOMMU translates them.
    pub const ACCESS_PLATFORM: u64 = 1 << 33;
    /// Packed virtqueues.
    pub const RING_PACKED: u64 = 1 << 34;
    /// The device uses buffers in the order they were made available.
    pub const IN_ORDER: u64 = 1 << 35;
    /// The device orders its memory accesses as the platform does for devices.
    pub const ORDER_PLATFORM: u64 = 1 << 36;
}
