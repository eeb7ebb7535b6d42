//! Split virtqueues (2.7).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `struct virtq_desc` (2.7.5).
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Descriptor {
    /// Device address.
    pub address: u64,
    /// Bytes.
    pub len: u32,
    /// [`descriptor`] flags.
    pub flags: u16,
    /// The descriptor that follows, with [`descriptor::NEXT`].
    pub next: u16,
}

/// Flags of a descriptor (2.7.5).
pub mod descriptor {
    /// The chain goes on with `next`.
    pub const NEXT: u16 = 1;
    /// The device writes the buffer (else it reads).
    pub const WRITE: u16 = 2;
    /// The buffer is a table of descriptors (2.7.5.3).
    pub const INDIRECT: u16 = 4;
}

/// `struct virtq_used_elem` (2.7.8).
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct UsedElement {
    /// Index of the first descriptor of the chain.
    pub id: u32,
    /// Bytes that the device wrote.
    pub len: u32,
}

const _: () = assert!(size_of::<Descriptor>() == 16 && size_of::<UsedElement>() == 8);

/// Largest queue (2.7).
pub const SIZE_MAX: u16 = 32768;

/// Available ring: no interrupt, please (2.7.6).
pub const AVAIL_NO_INTERRUPT: u16 = 1;
/// Used ring: no notification, please (2.7.8).
pub const USED_NO_NOTIFY: u16 = 1;

/// Offsets in the available ring (2.7.6).
pub mod avail {
    /// Flags, 16 bits.
    pub const FLAGS: usize = 0;
    /// Free-running index of the next entry, 16 bits.
    pub const INDEX: usize = 2;
    /// First entry, 16 bits each.
    pub const RING: usize = 4;
    /// Where `used_event` is in a queue of `size` (2.7.10).
    pub const fn used_event(size: u16) -> usize {
        RING + 2 * size as usize
    }
    /// Bytes in all.
    pub const fn bytes(size: u16) -> usize {
        used_event(size) + 2
    }
}

/// Offsets in the used ring (2.7.8).
pub mod used {
    /// Flags, 16 bits.
    pub const FLAGS: usize = 0;
    /// Free-running index of the next entry, 16 bits.
    pub const INDEX: usize = 2;
    /// First entry, 8 bytes each.
    pub const RING: usize = 4;
    /// Where `avail_event` is in a queue of `size` (2.7.10).
    pub const fn avail_event(size: u16) -> usize {
        RING + 8 * size as usize
    }
    /// Bytes in all.
    pub const fn bytes(size: u16) -> usize {
        avail_event(size) + 2
    }
}

/// Whether the other side asked to be told when the index passes `event` (2.7.10.1), having moved from
/// `old` to `new` since it was told last.
#[inline]
pub const fn need_event(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}
