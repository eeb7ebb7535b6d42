//! Virtio over PCI (4.1).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Lowest device ID of a device that has only the modern interface; the device type is added (4.1.2).
pub const DEVICE_ID_MODERN: u16 = 0x1040;
/// Transitional device ID of a network device (4.1.2.1).
pub const DEVICE_ID_NET_TRANSITIONAL: u16 = 0x1000;
/// Transitional device ID of a block device (4.1.2.1).
pub const DEVICE_ID_BLOCK_TRANSITIONAL: u16 = 0x1001;
/// Transitional device ID of a console (4.1.2.1).
pub const DEVICE_ID_CONSOLE_TRANSITIONAL: u16 = 0x1003;
/// Vector number that means none (4.1.5.1.2).
pub const NO_VECTOR: u16 = 0xffff;

/// Kind of structure that a capability locates (4.1.4): an open number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StructureType(pub u8);

impl StructureType {
    /// Common configuration (4.1.4.3).
    pub const COMMON: StructureType = StructureType(1);
    /// Notifications (4.1.4.4).
    pub const NOTIFY: StructureType = StructureType(2);
    /// ISR status (4.1.4.5).
    pub const ISR: StructureType = StructureType(3);
    /// Device-specific configuration (4.1.4.6).
    pub const DEVICE: StructureType = StructureType(4);
    /// Access through configuration space (4.1.4.8).
    pub const PCI: StructureType = StructureType(5);
}

/// `struct virtio_pci_cap` (4.1.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Capability {
    /// Capability ID, 0x09.
    pub id: u8,
    /// Offset of the next capability.
    pub next: u8,
    /// Bytes of this one.
    pub len: u8,
    /// [`StructureType`].
    pub structure: u8,
    /// BAR, 0 to 5; other values are reserved and the capability is to be ignored.
    pub bar: u8,
    /// Distinguishes several of one type.
    pub instance: u8,
    /// Unused.
    pub padding: [u8; 2],
    /// Where the structure starts in the BAR (little-endian).
    pub offset: u32,
    /// Its length in bytes (little-endian).
    pub length: u32,
}

/// Where `notify_off_multiplier` follows a notification capability (4.1.4.4).
pub const NOTIFY_MULTIPLIER_OFFSET: u16 = 16;

const _: () = assert!(size_of::<Capability>() == NOTIFY_MULTIPLIER_OFFSET as usize);
