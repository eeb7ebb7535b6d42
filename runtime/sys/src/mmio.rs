//! Device registers in memory: volatile access of every width.

use crate::abi::{CACHE_UNCACHED, CACHE_WRITE_BACK, CACHE_WRITE_COMBINING, Error, Result};
use crate::mapping::{MapAccess, Mapping};
use crate::vmo::Vmo;

/// How the CPU may cache device memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub enum CacheMode {
    /// Write-back cached, as RAM.
    WriteBack = CACHE_WRITE_BACK,
    /// Not cached; for registers.
    Uncached = CACHE_UNCACHED,
    /// Writes are gathered; for frame buffers.
    WriteCombining = CACHE_WRITE_COMBINING,
}

mod sealed {
    pub trait Sealed {}
}

/// An access width: `u8`, `u16`, `u32`, `u64`.
pub trait Width: sealed::Sealed + Copy {
    /// All bits set: what a device that is gone reads as.
    const ALL_ONES: Self;
}

macro_rules! width {
    ($($t:ty)*) => {
        $(
            impl sealed::Sealed for $t {}
            impl Width for $t { const ALL_ONES: $t = <$t>::MAX; }
        )*
    };
}
width! { u8 u16 u32 u64 }

/// Mapped device registers; unmapped on drop.
#[derive(Debug)]
pub struct MmioRegion {
    mapping: Mapping,
}

impl MmioRegion {
    /// Maps `len` bytes from the page-aligned `offset` of a VMO of device memory on.
    pub fn map(vmo: &Vmo, offset: u64, len: usize) -> Result<MmioRegion> {
        Ok(MmioRegion {
            mapping: Mapping::map(vmo, offset, len, MapAccess::ReadWrite)?,
        })
    }

    /// The same for reading only.
    pub fn map_read_only(vmo: &Vmo, offset: u64, len: usize) -> Result<MmioRegion> {
        Ok(MmioRegion {
            mapping: Mapping::map(vmo, offset, len, MapAccess::Read)?,
        })
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.mapping.len()
    }

    /// Never: a region has at least one byte.
    pub fn is_empty(&self) -> bool {
        self.mapping.is_empty()
    }

    /// The address of a register, if it is aligned and within the region.
    #[inline]
    fn register<T: Width>(&self, offset: usize) -> Result<*mut T> {
        let aligned = offset.is_multiple_of(size_of::<T>());
        match offset.checked_add(size_of::<T>()) {
            Some(end) if end <= self.mapping.len() && aligned => {
                // SAFETY: the offset lies within the mapping.
                Ok(unsafe { self.mapping.base().as_ptr().add(offset) }.cast())
            }
            _ => Err(Error::OutOfRange),
        }
    }

    /// Reads the register at `offset`: one access of exactly this width. `OutOfRange` if it is not
    /// naturally aligned or not within the region.
    #[inline]
    pub fn read<T: Width>(&self, offset: usize) -> Result<T> {
        let register = self.register::<T>(offset)?;
        // SAFETY: aligned and within the mapping; any bits are valid.
        Ok(unsafe { register.read_volatile() })
    }

    /// Writes the register at `offset`: one access of exactly this width. Errors as for `read`, and
    /// `AccessDenied` if it is mapped for reading only.
    #[inline]
    pub fn write<T: Width>(&self, offset: usize, value: T) -> Result<()> {
        let register = self.register::<T>(offset)?;
        if !self.mapping.is_writable() {
            return Err(Error::AccessDenied);
        }
        // SAFETY: aligned and within the mapping, which is writable.
        unsafe { register.write_volatile(value) };
        Ok(())
    }
}
