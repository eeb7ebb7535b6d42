//! Where the parts of a ring stand in its memory.

use core::fmt;

/// Bytes of a cache line; indices are kept this far apart.
pub(crate) const CACHE_LINE: usize = 64;
/// Offset of the producer's index.
#[cfg(not(loom))]
pub(crate) const TAIL: usize = 0;
/// Offset of the consumer's index.
#[cfg(not(loom))]
pub(crate) const HEAD: usize = CACHE_LINE;
/// Offset of the consumer's arm word, in the line that it writes anyway.
#[cfg(not(loom))]
pub(crate) const ARMED: usize = CACHE_LINE + 4;
/// Offset of the first entry.
pub(crate) const ENTRIES: usize = 2 * CACHE_LINE;

/// Most entries of a ring.
const CAPACITY_MAX: u32 = 1 << 20;

/// Why memory cannot hold the ring that was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LayoutError {
    /// The capacity is not a power of two from 1 to 2^20.
    Capacity(u32),
    /// The size of the entry type is not a positive multiple of 8 bytes.
    EntrySize(usize),
    /// The offset is not a multiple of 64.
    Offset(usize),
    /// The memory ends too early; bytes that are needed and that are there.
    TooSmall {
        /// Bytes needed, the offset included.
        needed: usize,
        /// Bytes there.
        there: usize,
    },
}

impl fmt::Display for LayoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LayoutError::Capacity(n) => {
                write!(f, "ring capacity {n} is not a power of two up to 2^20")
            }
            LayoutError::EntrySize(n) => {
                write!(f, "ring entry of {n} bytes is not a multiple of 8")
            }
            LayoutError::Offset(n) => write!(f, "ring offset {n} is not a multiple of 64"),
            LayoutError::TooSmall { needed, there } => {
                write!(f, "ring needs {needed} bytes of memory, {there} are there")
            }
        }
    }
}

impl core::error::Error for LayoutError {}

/// Size of a ring in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    capacity: u32,
    size_bytes: usize,
}

impl Layout {
    /// The layout of a ring of `capacity` entries of type `T`; the capacity is a power of two up to
    /// 2^20, the entry's size a multiple of 8 bytes.
    pub const fn of<T>(capacity: u32) -> Result<Layout, LayoutError> {
        let entry = size_of::<T>();
        if !capacity.is_power_of_two() || capacity > CAPACITY_MAX {
            return Err(LayoutError::Capacity(capacity));
        }
        if entry == 0 || !entry.is_multiple_of(8) {
            return Err(LayoutError::EntrySize(entry));
        }
        match entry.checked_mul(capacity as usize) {
            // Rounded up, so that a ring can follow directly.
            Some(bytes) => match bytes.checked_add(ENTRIES + CACHE_LINE - 1) {
                Some(end) => Ok(Layout {
                    capacity,
                    size_bytes: end / CACHE_LINE * CACHE_LINE,
                }),
                None => Err(LayoutError::EntrySize(entry)),
            },
            None => Err(LayoutError::EntrySize(entry)),
        }
    }

    /// Bytes of memory, a multiple of 64.
    pub const fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    /// Entries.
    pub const fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Checks that a ring at `offset` lies within `there` bytes.
    pub(crate) fn check_within(&self, offset: usize, there: usize) -> Result<(), LayoutError> {
        if !offset.is_multiple_of(CACHE_LINE) {
            return Err(LayoutError::Offset(offset));
        }
        let needed = offset.saturating_add(self.size_bytes);
        if needed > there {
            return Err(LayoutError::TooSmall { needed, there });
        }
        Ok(())
    }
}
