//! The guest's RAM as memory for DMA. It is a file of ours that QEMU shares, so what a device writes is
//! there at once, and nothing is copied.

use std::fs::File;
use std::os::fd::AsFd;
use std::sync::Arc;

use ddk::{PAGE, PlatformError};
use ddk_backend_host::{DeviceMapping, Mapping, ScatteredPages};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

use crate::StartError;

/// RAM below 1 MiB has holes for legacy devices.
const FIRST_ADDRESS: u64 = 1 << 20;

/// All RAM of a machine.
pub(crate) struct GuestMemory {
    file: Arc<File>,
    pages: ScatteredPages,
}

impl GuestMemory {
    pub(crate) fn new(bytes: u64) -> Result<GuestMemory, StartError> {
        let failed = |e: rustix::io::Errno| StartError::System("the guest's memory", e.into());
        let file = memfd_create("guest-ram", MemfdFlags::CLOEXEC).map_err(failed)?;
        ftruncate(&file, bytes).map_err(failed)?;
        Ok(GuestMemory {
            file: Arc::new(File::from(file)),
            pages: ScatteredPages::new(FIRST_ADDRESS, bytes),
        })
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Pages that are not in use.
    pub(crate) fn free_pages(&self) -> usize {
        self.pages.available()
    }

    /// Zeroed pages for at least `len` bytes, scattered for the device.
    pub(crate) fn allocate(&self, len: usize) -> Result<DeviceMapping, PlatformError> {
        let taken = self.pages.take(len)?;
        let addresses: Box<[u64]> = taken.addresses().into();
        let mapping = Mapping::of_file(self.file.as_fd(), &addresses);
        let mapping = mapping.map_err(|_| PlatformError::NoMemory)?;
        for page in 0..addresses.len() {
            mapping.write(page * PAGE, &[0; PAGE]);
        }
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
    fn pages_are_zeroed_and_given_back() {
        let memory = GuestMemory::new(4 << 20).unwrap();
        let all = memory.free_pages();
        assert_eq!(all, (3 << 20) / PAGE);
        let region = memory.allocate(64 * PAGE).unwrap().into_region();
        region.write::<u32>(2 * PAGE, 7);
        assert_eq!(memory.free_pages(), all - 64);
        drop(region);
        assert_eq!(memory.free_pages(), all);
        let whole = memory.allocate(all * PAGE).unwrap();
        let (_pinned, payload) = whole.into_payload(DeviceAccess::Both);
        assert!(payload.read(0, payload.len()).iter().all(|byte| *byte == 0));
        assert!(matches!(memory.allocate(1), Err(PlatformError::NoMemory)));
    }
}
