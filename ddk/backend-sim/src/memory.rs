//! Memory as a device sees it: pages at scattered device addresses, and nothing else.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex};

use ddk::{BufferGuard, DeviceAccess, DmaRegion, PAGE, PinnedBuffer};

/// A device reached for memory that it was not given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryError {
    /// First address that is not its own, or that it may not access so.
    pub address: u64,
}

#[derive(Clone, Copy)]
struct Page {
    base: usize,
    device_reads: bool,
    device_writes: bool,
}

#[derive(Default)]
struct Map {
    pages: BTreeMap<u64, Page>,
    next: u64,
    /// The device may not reach memory at all.
    cut_off: bool,
    /// All memory lies below 4 GiB.
    low: bool,
}

impl Map {
    /// Where the device's accesses from `address` on go, and how far its page reaches.
    fn at(&self, address: u64, may: fn(&Page) -> bool) -> Result<(*mut u8, usize), MemoryError> {
        let offset = (address % PAGE as u64) as usize;
        match self.pages.get(&(address - offset as u64)) {
            Some(page) if may(page) && !self.cut_off => {
                Ok(((page.base + offset) as *mut u8, PAGE - offset))
            }
            _ => Err(MemoryError { address }),
        }
    }
}

/// All memory of a platform that its device can reach.
#[derive(Clone, Default)]
pub struct DeviceMemory(Arc<Mutex<Map>>);

/// Pages on the host's heap, mapped for the device until dropped.
struct Block {
    memory: DeviceMemory,
    base: NonNull<u8>,
    addresses: Vec<u64>,
}

// SAFETY: the block only owns memory; every access to it is volatile, through raw pointers.
unsafe impl Send for Block {}
// SAFETY: as above.
unsafe impl Sync for Block {}

impl BufferGuard for BlockGuard {}

/// Keeps a block mapped.
pub struct BlockGuard(Block);

impl Drop for Block {
    fn drop(&mut self) {
        let mut map = self.memory.0.lock().unwrap();
        for address in &self.addresses {
            map.pages.remove(address);
        }
        // SAFETY: allocated in `block` with this layout, freed once; nothing leads here any more.
        unsafe { dealloc(self.base.as_ptr(), layout(self.addresses.len())) }
    }
}

fn layout(pages: usize) -> Layout {
    Layout::from_size_align(pages.max(1) * PAGE, PAGE).expect("sizes of tests fit")
}

/// Where memory begins for devices that drive all bits of an address.
const ABOVE_4_GIB: u64 = 0x1_0000_0000;

impl DeviceMemory {
    /// Memory for devices that drive few bits of an address: it begins at the bottom.
    pub fn low() -> DeviceMemory {
        DeviceMemory(Arc::new(Mutex::new(Map {
            low: true,
            ..Map::default()
        })))
    }

    fn block(&self, pages: usize, access: DeviceAccess) -> Block {
        // SAFETY: the size is not zero.
        let base = unsafe { alloc_zeroed(layout(pages)) };
        let base = NonNull::new(base).expect("memory for tests");
        let mut map = self.0.lock().unwrap();
        let mut addresses = Vec::new();
        for n in 0..pages {
            // Mostly scattered, now and then contiguous, never page 0.
            map.next += if map.next % 3 == 1 { 1 } else { 5 };
            let start = if map.low { 0 } else { ABOVE_4_GIB };
            let address = start + map.next * PAGE as u64;
            let page = Page {
                base: base.as_ptr() as usize + n * PAGE,
                device_reads: access != DeviceAccess::Writes,
                device_writes: access != DeviceAccess::Reads,
            };
            map.pages.insert(address, page);
            addresses.push(address);
        }
        drop(map);
        Block {
            memory: self.clone(),
            base,
            addresses,
        }
    }

    /// A region for control structures of a driver.
    pub fn region(&self, len: usize) -> DmaRegion {
        let block = self.block(len.div_ceil(PAGE), DeviceAccess::Both);
        let (base, pages) = (block.base, block.addresses.clone());
        // SAFETY: the block owns the pages, which are page-aligned, and is the owner of the region; models
        // reach them by volatile copies alone.
        unsafe { DmaRegion::from_mapping(base, pages.len() * PAGE, pages.into(), Arc::new(block)) }
    }

    /// Payload of a client: the driver's view of it, and the client's.
    pub fn payload(&self, pages: usize, access: DeviceAccess) -> (PinnedBuffer, Payload) {
        let guard = Arc::new(BlockGuard(self.block(pages, access)));
        let addresses = guard.0.addresses.clone();
        let payload = Payload {
            block: guard.clone(),
        };
        (
            PinnedBuffer::new(addresses.into(), access, Box::new(guard)),
            payload,
        )
    }

    /// Pages that are mapped.
    pub fn mapped_pages(&self) -> usize {
        self.0.lock().unwrap().pages.len()
    }

    /// Lets the device reach memory, or none of it.
    pub(crate) fn set_bus_master(&self, on: bool) {
        self.0.lock().unwrap().cut_off = !on;
    }

    /// The device reads.
    ///
    /// # Errors
    /// When it may not.
    pub fn read(&self, address: u64, into: &mut [u8]) -> Result<(), MemoryError> {
        let map = self.0.lock().unwrap();
        let mut done = 0;
        while done < into.len() {
            let next = address.wrapping_add(done as u64);
            let (from, room) = map.at(next, |page| page.device_reads)?;
            let len = room.min(into.len() - done);
            for (n, byte) in into[done..done + len].iter_mut().enumerate() {
                // SAFETY: inside of the page, which stays mapped while the map is locked.
                *byte = unsafe { from.add(n).read_volatile() };
            }
            done += len;
        }
        Ok(())
    }

    /// The device writes.
    ///
    /// # Errors
    /// When it may not.
    pub fn write(&self, address: u64, from: &[u8]) -> Result<(), MemoryError> {
        let map = self.0.lock().unwrap();
        let mut done = 0;
        while done < from.len() {
            let next = address.wrapping_add(done as u64);
            let (to, room) = map.at(next, |page| page.device_writes)?;
            let len = room.min(from.len() - done);
            for (n, byte) in from[done..done + len].iter().enumerate() {
                // SAFETY: as in `read`.
                unsafe { to.add(n).write_volatile(*byte) }
            }
            done += len;
        }
        Ok(())
    }

    /// The device reads a 16-bit little-endian word.
    ///
    /// # Errors
    /// When it may not.
    pub fn read_u16(&self, address: u64) -> Result<u16, MemoryError> {
        let mut bytes = [0; 2];
        self.read(address, &mut bytes)?;
        Ok(u16::from_le_bytes(bytes))
    }
}

impl std::fmt::Debug for DeviceMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "DeviceMemory {{ mapped_pages: {} }}",
            self.mapped_pages()
        )
    }
}

/// The client's view of its payload.
pub struct Payload {
    block: Arc<BlockGuard>,
}

impl Payload {
    /// Copies bytes out.
    pub fn read(&self, offset: usize, len: usize) -> Vec<u8> {
        assert!(offset + len <= self.block.0.addresses.len() * PAGE);
        // SAFETY: inside of the block, which lives as long as `self`.
        (0..len)
            .map(|n| unsafe { self.block.0.base.as_ptr().add(offset + n).read_volatile() })
            .collect()
    }

    /// Copies bytes in.
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= self.block.0.addresses.len() * PAGE);
        for (n, byte) in bytes.iter().enumerate() {
            // SAFETY: as in `read`.
            unsafe {
                self.block
                    .0
                    .base
                    .as_ptr()
                    .add(offset + n)
                    .write_volatile(*byte)
            }
        }
    }

    /// Whether a driver still holds the buffer.
    pub fn is_pinned(&self) -> bool {
        Arc::strong_count(&self.block) > 1
    }
}
