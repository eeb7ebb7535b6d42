//! DMA domains and pins.

use crate::abi::{
    DmaInfo, Error, PAGE_SIZE, PIN_DEVICE_READ, PIN_DEVICE_WRITE, Result, Syscall, Topic,
};
use crate::handle::{AsHandle, handle_type, new_handle, object_info};
use crate::raw::syscall;
use crate::resource::Resource;
use crate::vmo::Vmo;

/// What the device may do with pinned pages; at most what the VMO handle allows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub enum PinAccess {
    /// The device reads.
    DeviceReads = PIN_DEVICE_READ,
    /// The device writes.
    DeviceWrites = PIN_DEVICE_WRITE,
    /// Both.
    DeviceReadsAndWrites = PIN_DEVICE_READ | PIN_DEVICE_WRITE,
}

handle_type! {
    /// What one device can reach by DMA.
    DmaDomain
}

impl DmaDomain {
    /// A domain for a device ID that a `DmaDevice` resource covers.
    pub fn create(dma_device: &Resource, device_id: u64) -> Result<DmaDomain> {
        // SAFETY: no memory is passed.
        let raw = unsafe { syscall(Syscall::DmaCreate, [dma_device.arg(), device_id as usize]) };
        Ok(new_handle(raw.result()?))
    }

    /// Pins a page-aligned range of a VMO and writes a device address per page to `addresses`, which
    /// must have room for them all (`BufferTooSmall`). The VMO handle needs `PIN`.
    pub fn pin(
        &self,
        vmo: &Vmo,
        offset: u64,
        len: usize,
        access: PinAccess,
        addresses: &mut [u64],
    ) -> Result<Pin> {
        if addresses.len() < len.div_ceil(PAGE_SIZE) {
            return Err(Error::BufferTooSmall);
        }
        // SAFETY: the kernel writes one `u64` per page of the range; just checked that they fit.
        let raw = unsafe {
            syscall(
                Syscall::DmaPin,
                [
                    self.arg(),
                    vmo.arg(),
                    offset as usize,
                    len,
                    addresses.as_mut_ptr() as usize,
                    access as usize,
                ],
            )
        };
        Ok(new_handle(raw.result()?))
    }

    /// Ends the quarantine, after the device was fenced; tells the pages released. Needs `DESTROY`.
    pub fn recover(&self) -> Result<usize> {
        // SAFETY: no memory is passed.
        unsafe { syscall(Syscall::DmaRecover, [self.arg()]) }.result()
    }

    /// Whether an IOMMU contains the device; pins and quarantine.
    pub fn dma_info(&self) -> Result<DmaInfo> {
        object_info(self.as_handle(), Topic::Dma)
    }
}

handle_type! {
    /// Pages held for a device. Dropping it puts them into the domain's quarantine; only
    /// [`Pin::unpin`] gives them back.
    Pin
}

impl Pin {
    /// Gives the pages back: the driver's word that the device no longer uses them.
    pub fn unpin(self) -> Result<()> {
        // SAFETY: no memory is passed.
        let result = unsafe { syscall(Syscall::DmaUnpin, [self.arg()]) }.unit();
        if result.is_ok() {
            // The call has closed the handle.
            let _ = self.into_raw();
        }
        result
    }
}
