//! Device memory: mapped, and reached by plain volatile accesses on the target.

use alloc::sync::Arc;

use ddk::{Mmio, PlatformError};
use rt::{MapAccess, Mapping, SharedMapping, Vmo};

use crate::queue::refused;

/// Maps a window of device memory.
pub(crate) fn map(vmo: &Vmo) -> Result<Mmio, PlatformError> {
    let len = vmo.size().map_err(refused)?;
    let len = usize::try_from(len).map_err(|_| PlatformError::Invalid)?;
    let mapping = Mapping::map(vmo, 0, len, MapAccess::ReadWrite).map_err(refused)?;
    Ok(from_mapping(SharedMapping::new(mapping), len))
}

#[cfg(all(target_os = "none", not(feature = "bus")))]
fn from_mapping(mapping: SharedMapping, len: usize) -> Mmio {
    let base = ring::Memory::base(&mapping);
    // SAFETY: the mapping is page-aligned, at least `len` bytes, readable and writable, of device memory to
    // which nobody has references; it is unmapped when the owner, the mapping itself, is dropped.
    unsafe { Mmio::from_mapping(base, len, Arc::new(mapping)) }
}

/// Where this crate only has to compile, and where accesses can be wrapped, an access goes through the mapping's
/// atomics: as plain loads and stores, since a device sees the difference.
#[cfg(any(not(target_os = "none"), feature = "bus"))]
fn from_mapping(mapping: SharedMapping, len: usize) -> Mmio {
    use core::sync::atomic::Ordering::{Acquire, Release};
    use ddk::Width;

    struct Atomics(SharedMapping);
    impl ddk::Bus for Atomics {
        fn read(&self, at: usize, width: Width) -> u64 {
            let value = match width {
                Width::U8 => self.0.atomic_u8(at).map(|a| a.load(Acquire).into()),
                Width::U16 => self.0.atomic_u16(at).map(|a| a.load(Acquire).into()),
                Width::U32 => self.0.atomic_u32(at).map(|a| a.load(Acquire).into()),
                Width::U64 => self.0.atomic_u64(at).map(|a| a.load(Acquire)),
            };
            value.unwrap_or(width.all_ones())
        }
        fn write(&self, at: usize, width: Width, value: u64) {
            let _ = match width {
                Width::U8 => self.0.atomic_u8(at).map(|a| a.store(value as u8, Release)),
                Width::U16 => self
                    .0
                    .atomic_u16(at)
                    .map(|a| a.store(value as u16, Release)),
                Width::U32 => self
                    .0
                    .atomic_u32(at)
                    .map(|a| a.store(value as u32, Release)),
                Width::U64 => self.0.atomic_u64(at).map(|a| a.store(value, Release)),
            };
        }
    }
    Mmio::from_bus(Arc::new(Atomics(mapping)), len)
}
