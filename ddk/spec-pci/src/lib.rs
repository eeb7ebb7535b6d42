//! PCI configuration space as drivers see it: offsets, bits, capability IDs.
//!
//! Sections are those of the PCI Local Bus Specification 3.0 unless another one is named. Pure definitions:
//! no access, no enumeration.
//!
//! ```
//! use spec_pci::header;
//!
//! // The two halves of the first doubleword.
//! assert_eq!((header::VENDOR_ID, header::DEVICE_ID), (0x00, 0x02));
//! ```
#![no_std]
#![forbid(unsafe_code)]

/// Offsets in the header that every function has (6.1).
pub mod header {
    /// Vendor ID, 16 bits; all ones when there is no function.
    pub const VENDOR_ID: u16 = 0x00;
    /// Device ID, 16 bits.
    pub const DEVICE_ID: u16 = 0x02;
    /// Command, 16 bits; see [`super::command`].
    pub const COMMAND: u16 = 0x04;
    /// Status, 16 bits; see [`super::status`].
    pub const STATUS: u16 = 0x06;
    /// Revision ID, 8 bits.
    pub const REVISION: u16 = 0x08;
    /// Programming interface, 8 bits.
    pub const INTERFACE: u16 = 0x09;
    /// Subclass, 8 bits.
    pub const SUBCLASS: u16 = 0x0a;
    /// Base class, 8 bits.
    pub const CLASS: u16 = 0x0b;
    /// Header type, 8 bits: bits 0..7 layout, bit 7 multi-function.
    pub const HEADER_TYPE: u16 = 0x0e;
    /// First base address register, 32 bits (type 0: six of them).
    pub const BAR0: u16 = 0x10;
    /// Subsystem vendor ID, 16 bits (type 0).
    pub const SUBSYSTEM_VENDOR_ID: u16 = 0x2c;
    /// Subsystem ID, 16 bits (type 0).
    pub const SUBSYSTEM_ID: u16 = 0x2e;
    /// Offset of the first capability, 8 bits.
    pub const CAPABILITIES: u16 = 0x34;
    /// Interrupt line, 8 bits.
    pub const INTERRUPT_LINE: u16 = 0x3c;
    /// Interrupt pin, 8 bits: 0 none, 1 INTA.
    pub const INTERRUPT_PIN: u16 = 0x3d;
}

/// Bits of the command register (6.2.2).
pub mod command {
    /// Answers to I/O ports.
    pub const IO_SPACE: u16 = 1 << 0;
    /// Answers to memory addresses.
    pub const MEMORY_SPACE: u16 = 1 << 1;
    /// May start transactions: DMA and message-signalled interrupts.
    pub const BUS_MASTER: u16 = 1 << 2;
    /// INTx is off.
    pub const INTERRUPT_DISABLE: u16 = 1 << 10;
}

/// Bits of the status register (6.2.3).
pub mod status {
    /// The capability pointer is valid.
    pub const CAPABILITIES_LIST: u16 = 1 << 4;
}

/// IDs of capabilities (PCI Code and ID Assignment Specification 1.11, section 2).
pub mod capability {
    /// Power management.
    pub const POWER_MANAGEMENT: u8 = 0x01;
    /// Message-signalled interrupts.
    pub const MSI: u8 = 0x05;
    /// Vendor-specific; virtio's structures.
    pub const VENDOR: u8 = 0x09;
    /// PCI Express.
    pub const EXPRESS: u8 = 0x10;
    /// MSI-X.
    pub const MSIX: u8 = 0x11;
    /// Advanced features: function-level reset of conventional PCI.
    pub const ADVANCED_FEATURES: u8 = 0x13;
}
