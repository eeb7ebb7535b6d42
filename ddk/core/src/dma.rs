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

/// Memory that stands in for a region on a host: a trace, a fault injector or a recording. Offsets and lengths are
/// in bytes; the caller has checked them against the region. A word of 1, 2, 4 or 8 bytes comes as one
/// call, in the device's byte order.
pub trait DmaMemory: Send + Sync {
    /// Reads.
    fn read(&self, offset: usize, into: &mut [u8]);
    /// Writes.
    fn write(&self, offset: usize, bytes: &[u8]);
}

/// A region of shared memory: contiguous for the driver, page by page for the device.
#[derive(Clone)]
pub struct DmaRegion {
    base: NonNull<u8>,
    len: usize,
    pages: Arc<[u64]>,
    _owner: Arc<dyn Send + Sync>,
    /// Where accesses go instead. As with registers, the bare target has none and pays nothing.
    #[cfg(any(not(target_os = "none"), feature = "bus"))]
    stand_in: Option<Arc<dyn DmaMemory>>,
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
                #[cfg(any(not(target_os = "none"), feature = "bus"))]
                stand_in: None,
            }
        }

        /// Reads a little-endian word.
        ///
        /// # Panics
        /// When the offset is misaligned or outside. Offsets are the driver's own, never the device's.
        #[inline]
        pub fn read<T: Word>(&self, offset: usize) -> T {
            self.check(offset, size_of::<T>(), size_of::<T>());
            #[cfg(any(not(target_os = "none"), feature = "bus"))]
            if let Some(memory) = &self.stand_in {
                let mut word = T::truncate(0);
                memory.read(offset, word.as_mut_bytes());
                return word.little_endian();
            }
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
            #[cfg(any(not(target_os = "none"), feature = "bus"))]
            if let Some(memory) = &self.stand_in {
                return memory.write(offset, value.little_endian().as_bytes());
            }
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
            #[cfg(any(not(target_os = "none"), feature = "bus"))]
            if let Some(memory) = &self.stand_in {
                let at = page + usize::from(index) * 16;
                memory.write(at, &pair[0].to_le_bytes());
                return memory.write(at + 8, &pair[1].to_le_bytes());
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
            #[cfg(any(not(target_os = "none"), feature = "bus"))]
            if let Some(memory) = &self.stand_in {
                let mut bytes = alloc::vec![0; size_of::<T>()];
                memory.read(offset, &mut bytes);
                return match T::read_from_bytes(&bytes) {
                    Ok(value) => value,
                    Err(_) => outside(offset, size_of::<T>(), self.len),
                };
            }
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
            #[cfg(any(not(target_os = "none"), feature = "bus"))]
            if let Some(memory) = &self.stand_in {
                return memory.write(offset, value.as_bytes());
            }
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

#[cfg(any(not(target_os = "none"), feature = "bus"))]
impl DmaRegion {
    /// A region whose accesses go to `memory`; page `n` of it has the device address `pages[n]`. Wrap a region
    /// by handing in memory that holds it and passes accesses on with [`DmaRegion::read_bytes`] and
    /// [`DmaRegion::write_bytes`].
    pub fn from_memory(memory: Arc<dyn DmaMemory>, pages: Box<[u64]>) -> DmaRegion {
        DmaRegion {
            // Never followed: with something to stand in, no access gets that far.
            base: NonNull::dangling(),
            len: pages.len() * PAGE,
            pages: pages.into(),
            _owner: Arc::new(()),
            stand_in: Some(memory),
        }
    }
}

impl DmaRegion {
    /// Device addresses, page by page.
    pub fn pages(&self) -> &[u64] {
        &self.pages
    }

    /// Reads bytes, as few aligned words.
    ///
    /// # Panics
    /// As [`DmaRegion::read`].
    pub fn read_bytes(&self, mut offset: usize, mut into: &mut [u8]) {
        #[cfg(any(not(target_os = "none"), feature = "bus"))]
        if let Some(memory) = &self.stand_in {
            self.check(offset, into.len(), 1);
            return memory.read(offset, into);
        }
        while !into.is_empty() {
            let bytes = word_bytes(offset, into.len());
            let (now, later) = into.split_at_mut(bytes);
            match bytes {
                8 => now.copy_from_slice(&self.read::<u64>(offset).to_le_bytes()),
                4 => now.copy_from_slice(&self.read::<u32>(offset).to_le_bytes()),
                2 => now.copy_from_slice(&self.read::<u16>(offset).to_le_bytes()),
                _ => now.copy_from_slice(&[self.read::<u8>(offset)]),
            }
            into = later;
            offset += bytes;
        }
    }

    /// Writes bytes, as few aligned words.
    ///
    /// # Panics
    /// As [`DmaRegion::read`].
    pub fn write_bytes(&self, mut offset: usize, mut bytes: &[u8]) {
        #[cfg(any(not(target_os = "none"), feature = "bus"))]
        if let Some(memory) = &self.stand_in {
            self.check(offset, bytes.len(), 1);
            return memory.write(offset, bytes);
        }
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(word_bytes(offset, bytes.len()));
            let word = |from: &[u8]| from.iter().rev().fold(0, |v, b| v << 8 | u64::from(*b));
            match now.len() {
                8 => self.write::<u64>(offset, word(now)),
                4 => self.write::<u32>(offset, word(now) as u32),
                2 => self.write::<u16>(offset, word(now) as u16),
                _ => self.write::<u8>(offset, word(now) as u8),
            }
            offset += now.len();
            bytes = later;
        }
    }

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

/// The widest word that begins at `offset` and has at most `left` bytes (not 0).
fn word_bytes(offset: usize, left: usize) -> usize {
    let aligned = 1 << offset.trailing_zeros().min(3);
    [8, 4, 2]
        .into_iter()
        .find(|&bytes| bytes <= left && bytes <= aligned)
        .unwrap_or(1)
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

#[cfg(test)]
mod tests {
    use super::*;
    use spin::Mutex;
    use std::vec;
    use std::vec::Vec;

    /// Memory that notes each access.
    struct Noted(Mutex<(Vec<u8>, Accesses)>);
    type Accesses = Vec<(usize, usize)>;

    impl DmaMemory for Noted {
        fn read(&self, offset: usize, into: &mut [u8]) {
            let (memory, seen) = &mut *self.0.lock();
            seen.push((offset, into.len()));
            into.copy_from_slice(&memory[offset..offset + into.len()]);
        }
        fn write(&self, offset: usize, bytes: &[u8]) {
            let (memory, seen) = &mut *self.0.lock();
            seen.push((offset, bytes.len()));
            memory[offset..offset + bytes.len()].copy_from_slice(bytes);
        }
    }

    #[test]
    fn what_stands_in_sees_each_access_once_and_in_the_order_of_the_device() {
        let noted = Arc::new(Noted(Mutex::new((vec![0; PAGE], Vec::new()))));
        let region = DmaRegion::from_memory(noted.clone(), Box::new([0x7000]));
        region.write::<u32>(4, 0x1122_3344);
        region.write_struct(16, [7u64, 9]);
        region.write_pair(0, 2, [1, 2]);
        assert_eq!(region.read::<u16>(4), 0x3344);
        assert_eq!(region.read_struct::<[u64; 2]>(32), [1, 2]);
        region.write_bytes(101, &[1, 2, 3, 4, 5, 6, 7]);
        let mut back = [0; 3];
        region.read_bytes(104, &mut back);
        assert_eq!(back, [4, 5, 6]);
        let (memory, seen) = &*noted.0.lock();
        assert_eq!(memory[4..8], [0x44, 0x33, 0x22, 0x11]);
        let accesses = [(4, 4), (16, 16), (32, 8), (40, 8), (4, 2), (32, 16)];
        let whole = [(101, 7), (104, 3)];
        assert_eq!(*seen, [&accesses[..], &whole].concat());
        assert_eq!(region.device_address(8), 0x7008);
    }

    #[test]
    fn bytes_go_as_the_widest_words_that_fit() {
        let split = |mut offset: usize, len: usize| {
            let end = offset + len;
            let mut words = Vec::new();
            while offset < end {
                words.push(word_bytes(offset, end - offset));
                offset += words[words.len() - 1];
            }
            words
        };
        assert_eq!(split(101, 7), [1, 2, 4]);
        assert_eq!(split(8, 31), [8, 8, 8, 4, 2, 1]);
        assert_eq!(split(0, 4), [4]);
    }

    #[test]
    #[should_panic(expected = "DMA access of 8 bytes at 0xffc")]
    fn what_stands_in_is_not_asked_for_what_is_outside() {
        let noted = Arc::new(Noted(Mutex::new((vec![0; PAGE], Vec::new()))));
        DmaRegion::from_memory(noted, Box::new([0])).read::<u64>(0xffc);
    }
}
