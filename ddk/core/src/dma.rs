//! Memory that driver and device share: rings, descriptors, command tables. Payload never lies here (see
//! [`PinnedBuffer`](crate::PinnedBuffer)).
//!
//! All access is by value at an offset, volatile and in the device's byte order (little-endian). There are no
//! references into it, so nothing that the device does can break the language's rules, and every access can
//! be observed. Order between accesses is the driver's business: each fence says there what it orders.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::marker::PhantomData;
use core::ptr::NonNull;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::{DeviceContext, DriverError, Word};

/// Bytes of a page; device addresses are contiguous within one.
pub const PAGE: usize = 4096;

/// A region of shared memory: contiguous for the driver, page by page for the device.
#[derive(Clone)]
pub struct DmaRegion {
    base: NonNull<u8>,
    len: usize,
    pages: Arc<[u64]>,
    _owner: Arc<dyn Send + Sync>,
}

#[expect(
    unsafe_code,
    reason = "volatile access to memory that the device shares"
)]
mod access {
    use super::*;

    // SAFETY: the memory belongs to no thread and `_owner`, which keeps it, is Send and Sync.
    unsafe impl Send for DmaRegion {}
    // SAFETY: there are no references into the memory; accesses are single volatile loads and stores.
    unsafe impl Sync for DmaRegion {}

    impl DmaRegion {
        /// Zeroed memory at `base`, page `n` of which has the device address `pages[n]`.
        ///
        /// # Safety
        /// `len` bytes from `base` on (aligned to a page, and whole pages) stay mapped readable and writable until `owner` is
        /// dropped, and no reference into them exists. `pages` covers them, and a device that uses these
        /// addresses reaches this memory and nothing else.
        pub unsafe fn from_mapping(
            base: NonNull<u8>,
            len: usize,
            pages: Box<[u64]>,
            owner: Arc<dyn Send + Sync>,
        ) -> DmaRegion {
            assert!(
                len == pages.len() * PAGE,
                "whole pages, and a device address for each"
            );
            DmaRegion {
                base,
                len,
                pages: pages.into(),
                _owner: owner,
            }
        }

        /// Reads a little-endian word.
        ///
        /// # Panics
        /// When the offset is misaligned or outside. Offsets are the driver's own, never the device's.
        #[inline]
        pub fn read<T: Word>(&self, offset: usize) -> T {
            self.check(offset, size_of::<T>(), size_of::<T>());
            // SAFETY: `check` kept the word inside of what `from_mapping` was promised, aligned because the
            // base is; any bits are a valid word.
            unsafe { self.base.as_ptr().add(offset).cast::<T>().read_volatile() }.little_endian()
        }

        /// Writes a little-endian word.
        ///
        /// # Panics
        /// As [`DmaRegion::read`].
        #[inline]
        pub fn write<T: Word>(&self, offset: usize, value: T) {
            self.check(offset, size_of::<T>(), size_of::<T>());
            // SAFETY: as in `read`; there are no references that this write could invalidate.
            unsafe {
                self.base
                    .as_ptr()
                    .add(offset)
                    .cast::<T>()
                    .write_volatile(value.little_endian());
            }
        }

        /// Writes entry `index` of the page at `page` (a multiple of [`PAGE`]), which is a table of 256 entries
        /// of two words each, such as descriptors. One check for both words.
        ///
        /// # Panics
        /// When the page is outside.
        #[inline]
        pub fn write_pair(&self, page: usize, index: u8, pair: [u64; 2]) {
            if page >= self.len || !page.is_multiple_of(PAGE) {
                outside(page, PAGE, self.len);
            }
            // SAFETY: regions are whole pages (see `from_mapping`), the page begins inside, and 256 entries of
            // 16 bytes are a page; there are no references that these writes could invalidate.
            unsafe {
                let at = self
                    .base
                    .as_ptr()
                    .add(page + usize::from(index) * 16)
                    .cast::<u64>();
                at.write_volatile(pair[0].to_le());
                at.add(1).write_volatile(pair[1].to_le());
            }
        }

        /// Reads a structure. The device may change it meanwhile: check the copy, not the original.
        ///
        /// # Panics
        /// As [`DmaRegion::read`].
        #[inline]
        pub fn read_struct<T: FromBytes + Immutable + Copy>(&self, offset: usize) -> T {
            self.check(offset, size_of::<T>(), align_of::<T>());
            // SAFETY: as in `read`; every bit pattern is a valid `T` (FromBytes).
            unsafe { self.base.as_ptr().add(offset).cast::<T>().read_volatile() }
        }

        /// Writes a structure.
        ///
        /// # Panics
        /// As [`DmaRegion::read`].
        #[inline]
        pub fn write_struct<T: IntoBytes + Immutable + Copy>(&self, offset: usize, value: T) {
            self.check(offset, size_of::<T>(), align_of::<T>());
            // SAFETY: as in `write`.
            unsafe {
                self.base
                    .as_ptr()
                    .add(offset)
                    .cast::<T>()
                    .write_volatile(value)
            }
        }
    }
}

impl DmaRegion {
    /// Bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Device address of the byte at `offset`; contiguous up to the end of its page.
    ///
    /// # Panics
    /// When the offset is outside.
    #[inline]
    pub fn device_address(&self, offset: usize) -> u64 {
        match self.pages.get(offset / PAGE) {
            Some(page) if offset < self.len => page + (offset % PAGE) as u64,
            _ => outside(offset, 1, self.len),
        }
    }

    /// Whether `len` bytes from `offset` on are contiguous for the device.
    pub fn is_contiguous(&self, offset: usize, len: usize) -> bool {
        let Some(last) = offset.checked_add(len.max(1) - 1).filter(|&l| l < self.len) else {
            return false;
        };
        let pages = &self.pages[offset / PAGE..=last / PAGE];
        pages
            .windows(2)
            .all(|w| w[0].checked_add(PAGE as u64) == Some(w[1]))
    }

    #[inline]
    fn check(&self, offset: usize, bytes: usize, align: usize) {
        if offset > self.len || bytes > self.len - offset || offset & (align - 1) != 0 {
            outside(offset, bytes, self.len);
        }
    }
}

#[cold]
fn outside(offset: usize, bytes: usize, len: usize) -> ! {
    panic!("DMA access of {bytes} bytes at {offset:#x} in a region of {len:#x} bytes");
}

impl core::fmt::Debug for DmaRegion {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "DmaRegion {{ len: {:#x} }}", self.len)
    }
}

mod sealed {
    pub trait Sealed {}
}

/// Who writes a [`DmaBuffer`].
pub trait Direction: sealed::Sealed {}
/// Directions in which the driver writes.
pub trait DriverWrites: Direction {}
/// Directions in which the device writes.
pub trait DeviceWrites: Direction {}

/// The driver writes, the device reads.
#[derive(Clone, Copy, Debug)]
pub enum ToDevice {}
/// The device writes, the driver reads.
#[derive(Clone, Copy, Debug)]
pub enum FromDevice {}
/// Both write.
#[derive(Clone, Copy, Debug)]
pub enum Bidirectional {}

impl sealed::Sealed for ToDevice {}
impl sealed::Sealed for FromDevice {}
impl sealed::Sealed for Bidirectional {}
impl Direction for ToDevice {}
impl Direction for FromDevice {}
impl Direction for Bidirectional {}
impl DriverWrites for ToDevice {}
impl DriverWrites for Bidirectional {}
impl DeviceWrites for FromDevice {}
impl DeviceWrites for Bidirectional {}

/// An array of structures that driver and device share. No element straddles a page.
pub struct DmaBuffer<T, D> {
    region: DmaRegion,
    count: usize,
    kind: PhantomData<fn() -> (T, D)>,
}

impl<T: FromBytes + IntoBytes + Immutable + Copy, D: Direction> DmaBuffer<T, D> {
    const FITS: () = {
        assert!(size_of::<T>().is_power_of_two() && size_of::<T>() <= PAGE);
    };

    /// `count` zeroed elements.
    ///
    /// # Errors
    /// When the system refuses the memory.
    pub fn new(cx: &DeviceContext, count: usize) -> Result<Self, DriverError> {
        let () = Self::FITS;
        let too_many = DriverError::Protocol {
            what: "elements of a DMA buffer",
            expected: (isize::MAX as usize / PAGE) as u64,
            seen: count as u64,
        };
        let bytes = count.checked_mul(size_of::<T>()).ok_or(too_many)?;
        Ok(DmaBuffer {
            region: cx.dma_region(bytes)?,
            count,
            kind: PhantomData,
        })
    }

    /// Elements.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Device address of an element.
    ///
    /// # Panics
    /// When there is no such element.
    pub fn device_address(&self, index: usize) -> u64 {
        self.region.device_address(index * size_of::<T>())
    }

    /// The region, for access to single fields.
    pub fn region(&self) -> &DmaRegion {
        &self.region
    }
}

impl<T: FromBytes + Immutable + Copy, D: DeviceWrites> DmaBuffer<T, D> {
    /// A copy of an element.
    ///
    /// # Panics
    /// When there is no such element.
    pub fn read(&self, index: usize) -> T {
        self.region.read_struct(index * size_of::<T>())
    }
}

impl<T: IntoBytes + Immutable + Copy, D: DriverWrites> DmaBuffer<T, D> {
    /// Writes an element.
    ///
    /// # Panics
    /// When there is no such element.
    pub fn write(&self, index: usize, value: T) {
        self.region.write_struct(index * size_of::<T>(), value);
    }
}
