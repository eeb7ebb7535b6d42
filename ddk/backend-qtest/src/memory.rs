//! The guest's RAM as memory for DMA. It is a file of ours that QEMU shares, so what a device writes is
//! there at once, and nothing is copied.

use std::fs::File;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};

use ddk::{PAGE, PlatformError};
use ddk_backend_host::{DeviceMapping, Mapping};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

use crate::StartError;

/// RAM below 1 MiB has holes for legacy devices.
const FIRST_PAGE: u64 = 0x100;
/// Distance of what follows each other, a prime: pages that are contiguous for the driver are not for
/// the device (but for a pair now and then), and a driver that takes them to be reaches what belongs to others.
const STRIDE: usize = 61;

/// All RAM of a machine.
#[derive(Clone)]
pub(crate) struct GuestMemory {
    file: Arc<File>,
    free: Arc<Mutex<Vec<u64>>>,
}

/// Pages that are in use, given back when dropped.
struct Taken {
    memory: GuestMemory,
    pages: Vec<u64>,
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut free = self
            .memory
            .free
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        free.append(&mut self.pages);
    }
}

impl GuestMemory {
    pub(crate) fn new(bytes: u64) -> Result<GuestMemory, StartError> {
        let failed = |e: rustix::io::Errno| StartError::System("the guest's memory", e.into());
        let file = memfd_create("guest-ram", MemfdFlags::CLOEXEC).map_err(failed)?;
        ftruncate(&file, bytes).map_err(failed)?;
        let all: Vec<u64> = (FIRST_PAGE..bytes / PAGE as u64)
            .map(|page| page * PAGE as u64)
            .collect();
        // Two of four pages keep together, so that neighbours occur too.
        let units: Vec<&[u64]> = all
            .chunks(4)
            .flat_map(|four| {
                let (alone, pair) = four.split_at(2.min(four.len()));
                alone.chunks(1).chain(pair.chunks(2))
            })
            .collect();
        let mut free = Vec::with_capacity(all.len());
        for start in 0..STRIDE {
            let scattered = units.iter().skip(start).step_by(STRIDE);
            free.extend(scattered.flat_map(|unit| unit.iter()));
        }
        Ok(GuestMemory {
            file: Arc::new(File::from(file)),
            free: Arc::new(Mutex::new(free)),
        })
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Pages that are not in use.
    pub(crate) fn free_pages(&self) -> usize {
        self.free
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }

    /// Zeroed pages for at least `len` bytes, scattered for the device.
    pub(crate) fn allocate(&self, len: usize) -> Result<DeviceMapping, PlatformError> {
        let count = len.div_ceil(PAGE).max(1);
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let rest = free
            .len()
            .checked_sub(count)
            .ok_or(PlatformError::NoMemory)?;
        let taken = Taken {
            memory: self.clone(),
            pages: free.split_off(rest),
        };
        drop(free);
        let mapping = Mapping::of_file(self.file.as_fd(), &taken.pages)
            .map_err(|_| PlatformError::NoMemory)?;
        let zeroes = [0; PAGE];
        for page in 0..count {
            mapping.write(page * PAGE, &zeroes);
        }
        let addresses = taken.pages.clone().into_boxed_slice();
        // SAFETY: RAM starts at physical address 0 of the guest and the file is that RAM, so a page's offset
        // in the file is its device address; the pages are nobody else's until `taken` is dropped.
        Ok(unsafe { DeviceMapping::new(mapping, addresses, Box::new(taken)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ddk::DeviceAccess;

    #[test]
    fn pages_are_scattered_zeroed_and_given_back() {
        let memory = GuestMemory::new(8 << 20).unwrap();
        let all = memory.free_pages();
        assert_eq!(all, (8 << 20) / PAGE - FIRST_PAGE as usize);
        let region = memory.allocate(64 * PAGE).unwrap().into_region();
        let pairs = (0..63).filter(|page| region.is_contiguous(page * PAGE, 2 * PAGE));
        assert!((1..32).contains(&pairs.count()));
        region.write::<u32>(2 * PAGE, 7);
        assert_eq!(memory.free_pages(), all - 64);
        drop(region);
        assert_eq!(memory.free_pages(), all);
        let (_pinned, payload) = memory
            .allocate(all * PAGE)
            .unwrap()
            .into_payload(DeviceAccess::Both);
        assert!(payload.read(0, payload.len()).iter().all(|byte| *byte == 0));
        assert!(matches!(memory.allocate(1), Err(PlatformError::NoMemory)));
    }
}
