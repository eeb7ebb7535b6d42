//! Memory that the process and a device share.

use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::{NonNull, null_mut};
use std::sync::Arc;

use ddk::{BufferGuard, DeviceAccess, DmaRegion, PAGE, PinnedBuffer, Width};
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

/// Pages of the process, shared and zeroed or of a file. Unmapped when dropped. All access is by volatile
/// copies: a device may be at it too.
pub struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: a mapping belongs to no thread, and there are no references into it.
unsafe impl Send for Mapping {}
// SAFETY: as above; accesses are volatile copies.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Zeroed pages, at least `len` bytes and one page.
    ///
    /// # Errors
    /// When the system has no memory.
    pub fn anonymous(len: usize) -> io::Result<Mapping> {
        let len = whole_pages(len)?;
        let (rights, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: a new mapping where the system wants it touches nothing that exists.
        let base = unsafe { mmap_anonymous(null_mut(), len, rights, flags) }?;
        Mapping::own(base.cast(), len)
    }

    /// Pages of a file in any order: page `n` shows the file at `offsets[n]`, a multiple of the page size.
    ///
    /// # Errors
    /// When the system refuses, or there are no pages.
    pub fn of_file(file: BorrowedFd<'_>, offsets: &[u64]) -> io::Result<Mapping> {
        let len = whole_pages(
            offsets
                .len()
                .checked_mul(PAGE)
                .ok_or(io::ErrorKind::OutOfMemory)?,
        )?;
        let flags = MapFlags::SHARED | MapFlags::NORESERVE;
        // SAFETY: a new mapping where the system wants it touches nothing that exists.
        let base = unsafe { mmap_anonymous(null_mut(), len, ProtFlags::empty(), flags) }?;
        let mapping = Mapping::own(base.cast(), len)?;
        for (index, offset) in offsets.iter().enumerate() {
            let rights = ProtFlags::READ | ProtFlags::WRITE;
            let flags = MapFlags::SHARED | MapFlags::FIXED;
            // SAFETY: `index` is a page of the mapping that was made above and has not been handed out, so
            // the page that is replaced is ours and unused.
            unsafe {
                let at = mapping.base.as_ptr().add(index * PAGE).cast();
                mmap(at, PAGE, rights, flags, file, *offset)?;
            }
        }
        Ok(mapping)
    }

    /// A window of a device's registers, as its file offers them: `len` bytes, whole pages.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn of_registers(file: BorrowedFd<'_>, offset: u64, len: usize) -> io::Result<Mapping> {
        let len = whole_pages(len)?;
        let (rights, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: a new mapping where the system wants it touches nothing that exists.
        let base = unsafe { mmap(null_mut(), len, rights, flags, file, offset) }?;
        Mapping::own(base.cast(), len)
    }

    fn own(base: *mut u8, len: usize) -> io::Result<Mapping> {
        let base = NonNull::new(base).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Mapping { base, len })
    }

    /// Bytes, a multiple of the page size.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never: a mapping has a page at least.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where it starts in the process, aligned to a page.
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Copies bytes out.
    ///
    /// # Panics
    /// When the range is not inside.
    pub fn read(&self, offset: usize, into: &mut [u8]) {
        self.check(offset, into.len());
        for (n, byte) in into.iter_mut().enumerate() {
            // SAFETY: `check` kept the range inside of the mapping, which is readable.
            *byte = unsafe { self.base.as_ptr().add(offset + n).read_volatile() };
        }
    }

    /// Copies bytes in.
    ///
    /// # Panics
    /// When the range is not inside.
    pub fn write(&self, offset: usize, from: &[u8]) {
        self.check(offset, from.len());
        for (n, byte) in from.iter().enumerate() {
            // SAFETY: as in `read`; it is writable too, and no reference leads here.
            unsafe { self.base.as_ptr().add(offset + n).write_volatile(*byte) };
        }
    }

    /// Reads a word by one access of its width, as registers need it.
    ///
    /// # Panics
    /// When it is not inside, or misaligned.
    pub fn read_word(&self, offset: usize, width: Width) -> u64 {
        let at = self.word(offset, width);
        // SAFETY: `word` kept the access inside of the mapping and aligned; any bits are a valid word.
        unsafe {
            match width {
                Width::U8 => at.read_volatile().into(),
                Width::U16 => u16::from_le(at.cast::<u16>().read_volatile()).into(),
                Width::U32 => u32::from_le(at.cast::<u32>().read_volatile()).into(),
                Width::U64 => u64::from_le(at.cast::<u64>().read_volatile()),
            }
        }
    }

    /// Writes the low bits of a word by one access of its width.
    ///
    /// # Panics
    /// As [`Mapping::read_word`].
    pub fn write_word(&self, offset: usize, width: Width, value: u64) {
        let at = self.word(offset, width);
        // SAFETY: as in `read_word`; the mapping is writable and no reference leads here.
        unsafe {
            match width {
                Width::U8 => at.write_volatile(value as u8),
                Width::U16 => at.cast::<u16>().write_volatile((value as u16).to_le()),
                Width::U32 => at.cast::<u32>().write_volatile((value as u32).to_le()),
                Width::U64 => at.cast::<u64>().write_volatile(value.to_le()),
            }
        }
    }

    fn word(&self, offset: usize, width: Width) -> *mut u8 {
        self.check(offset, width.bytes());
        assert!(
            offset.is_multiple_of(width.bytes()),
            "{offset:#x} is misaligned"
        );
        // SAFETY: `check` kept the offset inside of the mapping.
        unsafe { self.base.as_ptr().add(offset) }
    }

    fn check(&self, offset: usize, len: usize) {
        let inside = offset.checked_add(len).is_some_and(|end| end <= self.len);
        assert!(
            inside,
            "{len} bytes at {offset:#x} of a mapping of {:#x}",
            self.len
        );
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this mapping was made with this base and length, and nobody holds a pointer into it: those
        // who hand pointers on keep the mapping (see `DeviceMapping`).
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.len) };
    }
}

fn whole_pages(len: usize) -> io::Result<usize> {
    let pages = len.max(1).checked_next_multiple_of(PAGE);
    pages.ok_or(io::ErrorKind::OutOfMemory.into())
}

/// A mapping that a device reaches.
pub struct DeviceMapping {
    /// Takes the pages from the device, before they are unmapped.
    _release: Box<dyn Send + Sync>,
    mapping: Mapping,
    addresses: Box<[u64]>,
}

impl BufferGuard for DeviceMapping {}

impl DeviceMapping {
    /// A mapping with the device address of each of its pages. `release` is dropped before the mapping is.
    ///
    /// # Safety
    /// Until `release` is dropped, a device that uses these addresses reaches these pages and nothing else.
    ///
    /// # Panics
    /// When there is not an address for each page.
    pub unsafe fn new(
        mapping: Mapping,
        addresses: Box<[u64]>,
        release: Box<dyn Send + Sync>,
    ) -> DeviceMapping {
        assert_eq!(
            mapping.len,
            addresses.len() * PAGE,
            "an address for each page"
        );
        DeviceMapping {
            _release: release,
            mapping,
            addresses,
        }
    }

    /// For control structures of a driver.
    pub fn into_region(self) -> DmaRegion {
        let (base, len) = (self.mapping.base, self.mapping.len);
        let addresses = self.addresses.clone();
        // SAFETY: the mapping covers `len` bytes from a page boundary on, readable and writable, and lives in
        // the owner; there are no references into it; the addresses are what `new` was promised.
        unsafe { DmaRegion::from_mapping(base, len, addresses, Arc::new(self)) }
    }

    /// For the payload of a client: the driver's view of it, and the client's.
    pub fn into_payload(self, access: DeviceAccess) -> (PinnedBuffer, Payload) {
        let memory = Arc::new(self);
        let addresses = memory.addresses.clone();
        let pinned = PinnedBuffer::new(addresses, access, Box::new(memory.clone()));
        (pinned, Payload { memory })
    }
}

/// The client's view of its payload.
pub struct Payload {
    memory: Arc<DeviceMapping>,
}

impl Payload {
    /// Bytes, a multiple of the page size.
    pub fn len(&self) -> usize {
        self.memory.mapping.len
    }

    /// Never: payload has a page at least.
    pub fn is_empty(&self) -> bool {
        self.memory.mapping.is_empty()
    }

    /// Copies bytes out.
    ///
    /// # Panics
    /// When the range is not inside.
    pub fn read(&self, offset: usize, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory.mapping.read(offset, &mut bytes);
        bytes
    }

    /// Copies bytes in.
    ///
    /// # Panics
    /// When the range is not inside.
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        self.memory.mapping.write(offset, bytes);
    }

    /// Whether a driver still holds the buffer.
    pub fn is_pinned(&self) -> bool {
        Arc::strong_count(&self.memory) > 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::sync::Mutex;

    #[test]
    fn pages_of_a_file_come_in_the_order_that_was_asked_for() {
        use std::io::{Seek, Write};
        let mut file = tempfile::tempfile().unwrap();
        for page in 0..4u8 {
            file.write_all(&[page; PAGE]).unwrap();
        }
        let at = |page: u64| page * PAGE as u64;
        let mapping = Mapping::of_file(file.as_fd(), &[at(3), at(0), at(2)]).unwrap();
        let mut bytes = [0; 2];
        mapping.read(PAGE - 1, &mut bytes);
        assert_eq!(bytes, [3, 0]);
        mapping.write(2 * PAGE, &[9]);
        file.seek(io::SeekFrom::Start(at(2))).unwrap();
        let mut byte = [0];
        io::Read::read_exact(&mut file, &mut byte).unwrap();
        assert_eq!(byte, [9]);
    }

    struct Note(Arc<Mutex<u32>>);

    impl Drop for Note {
        fn drop(&mut self) {
            *self.0.lock().unwrap() += 1;
        }
    }

    #[test]
    fn pages_are_released_once_client_and_driver_are_done() {
        let released = Arc::new(Mutex::new(0));
        let mapping = Mapping::anonymous(5000).unwrap();
        let note = Box::new(Note(released.clone()));
        // SAFETY: no device exists.
        let memory = unsafe { DeviceMapping::new(mapping, Box::new([0x5000, 0x1000]), note) };
        let (pinned, payload) = memory.into_payload(DeviceAccess::Writes);
        assert!(payload.is_pinned() && pinned.device_writes() && !pinned.device_reads());
        let segments: Vec<_> = pinned.segments(PAGE as u64 - 1, 2, 0).unwrap().collect();
        assert_eq!((segments[0].address, segments[1].address), (0x5fff, 0x1000));
        drop(pinned);
        assert!(!payload.is_pinned());
        assert_eq!(*released.lock().unwrap(), 0);
        drop(payload);
        assert_eq!(*released.lock().unwrap(), 1);
    }

    #[test]
    fn words_are_little_endian() {
        let mapping = Mapping::anonymous(1).unwrap();
        mapping.write_word(8, Width::U64, 0x1122_3344_5566_7788);
        mapping.write_word(8, Width::U8, 0xfff);
        assert_eq!(mapping.read_word(8, Width::U16), 0x77ff);
        assert_eq!(mapping.read_word(12, Width::U32), 0x1122_3344);
        let mut bytes = [0; 2];
        mapping.read(8, &mut bytes);
        assert_eq!(bytes, [0xff, 0x77]);
    }

    #[test]
    #[should_panic(expected = "2 bytes at 0xfff of a mapping of 0x1000")]
    fn a_range_across_the_end_stops_the_test() {
        Mapping::anonymous(1).unwrap().read(PAGE - 1, &mut [0; 2]);
    }
}
