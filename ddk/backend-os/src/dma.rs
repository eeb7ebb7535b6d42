//! Memory for DMA: control structures, and the pinned payload of clients.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec;

use ddk::{BufferGuard, DeviceAccess, DmaRegion, PAGE, PinnedBuffer, PlatformError};
use rt::{DmaDomain, MapAccess, Mapping, Pin, PinAccess, SharedMapping, Vmo};

use crate::queue::refused;

/// A pin that is given back when dropped. The DDK drops it only when the device no longer uses the pages; a
/// process that ends otherwise leaves them in the kernel's quarantine.
struct Pinned(Option<Pin>);

impl Drop for Pinned {
    fn drop(&mut self) {
        if let Some(pin) = self.0.take() {
            let _ = pin.unpin();
        }
    }
}

impl BufferGuard for Pinned {}

/// What keeps a region: its pages for the device, and then its mapping.
struct RegionOwner {
    _pin: Pinned,
    _mapping: SharedMapping,
}

/// Zeroed memory for control structures.
pub(crate) fn region(domain: &DmaDomain, len: usize) -> Result<DmaRegion, PlatformError> {
    let len = len
        .max(1)
        .checked_next_multiple_of(PAGE)
        .ok_or(PlatformError::Invalid)?;
    let vmo = Vmo::create(len).map_err(refused)?;
    let mapping = Mapping::map(&vmo, 0, len, MapAccess::ReadWrite).map_err(refused)?;
    let mut pages = vec![0u64; len / PAGE].into_boxed_slice();
    let access = PinAccess::DeviceReadsAndWrites;
    let pin = domain
        .pin(&vmo, 0, len, access, &mut pages)
        .map_err(refused)?;
    let mapping = SharedMapping::new(mapping);
    let base = ring::Memory::base(&mapping);
    let owner = RegionOwner {
        _pin: Pinned(Some(pin)),
        _mapping: mapping,
    };
    // SAFETY: the mapping covers `len` bytes, page-aligned, readable and writable, and lives in the owner;
    // nobody else has the VMO, so there are no references into it; `pages` are the addresses at which the
    // kernel pinned exactly these pages, and the pin lives in the owner too.
    Ok(unsafe { DmaRegion::from_mapping(base, len, pages, Arc::new(owner)) })
}

/// Pins whole pages of a client's VMO.
pub(crate) fn payload(
    domain: &DmaDomain,
    vmo: &Vmo,
    offset: u64,
    len: usize,
    access: DeviceAccess,
) -> Result<PinnedBuffer, PlatformError> {
    let mut pages = vec![0u64; len / PAGE].into_boxed_slice();
    let pin_access = match access {
        DeviceAccess::Reads => PinAccess::DeviceReads,
        DeviceAccess::Writes => PinAccess::DeviceWrites,
        DeviceAccess::Both => PinAccess::DeviceReadsAndWrites,
    };
    let pin = domain
        .pin(vmo, offset, len, pin_access, &mut pages)
        .map_err(refused)?;
    Ok(PinnedBuffer::new(
        pages,
        access,
        Box::new(Pinned(Some(pin))),
    ))
}
