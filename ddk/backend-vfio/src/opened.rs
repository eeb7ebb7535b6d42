//! The descriptors of an open device, its configuration space, and its address space behind the IOMMU.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32};

use ddk::{DeviceAccess, PAGE, PlatformError};
use ddk_backend_host::{DeviceMapping, Mapping, ScatteredPages, TakenPages};
use pci_bus::config::{ConfigSpace, Width};
use proto::bus::{PciAddress, PciFunctionInfo};
use rustix::ioctl::{Setter, ioctl};
use vfio_bindings::bindings::vfio::{
    VFIO_DMA_MAP_FLAG_READ, VFIO_DMA_MAP_FLAG_WRITE, VFIO_PCI_CONFIG_REGION_INDEX,
    vfio_iommu_type1_dma_map,
};
use vfio_ioctls::{VfioContainer, VfioDevice};

use crate::OpenError;

/// Device addresses: below 256 MiB, which devices with the fewest address bits reach, and clear of the
/// message window at 0xfee00000. Fewer pages than the 65,535 mappings that Linux allows a container.
const ADDRESSES: (u64, u64) = (0x0100_0000, 0x0f00_0000);
/// `VFIO_IOMMU_MAP_DMA`: `_IO(';', 100 + 13)` (Linux, include/uapi/linux/vfio.h).
const MAP_DMA: rustix::ioctl::Opcode = rustix::ioctl::opcode::none(b';', 113);

/// An open device.
pub(crate) struct Opened {
    pub(crate) device: VfioDevice,
    container: Arc<VfioContainer>,
    pages: ScatteredPages,
    /// A platform has it.
    pub(crate) bound: AtomicBool,
    pub(crate) epoch: AtomicU32,
}

impl Opened {
    pub(crate) fn new(folder: &Path) -> Result<Opened, OpenError> {
        let failed = |error| OpenError::System(format!("{}: {error}", folder.display()));
        let container = Arc::new(VfioContainer::new(None).map_err(failed)?);
        let device = VfioDevice::new(folder, container.clone(), false).map_err(failed)?;
        Ok(Opened {
            device,
            container,
            pages: ScatteredPages::new(ADDRESSES.0, ADDRESSES.1),
            bound: AtomicBool::new(false),
            epoch: AtomicU32::new(0),
        })
    }

    /// The device's file, in which regions have offsets.
    pub(crate) fn file(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is open as long as the device, which outlives the borrow.
        unsafe { BorrowedFd::borrow_raw(self.device.as_raw_fd()) }
    }

    /// Reads a register of a region; all ones when the device does not answer.
    pub(crate) fn read(&self, region: u32, offset: u64, width: ddk::Width) -> u64 {
        let mut bytes = [0xff; 8];
        if let Some(part) = bytes.get_mut(..width.bytes()) {
            self.device.region_read(region, part, offset);
        }
        u64::from_le_bytes(bytes) & width.all_ones()
    }

    pub(crate) fn write(&self, region: u32, offset: u64, width: ddk::Width, value: u64) {
        let bytes = value.to_le_bytes();
        if let Some(part) = bytes.get(..width.bytes()) {
            self.device.region_write(region, part, offset);
        }
    }

    pub(crate) fn free_pages(&self) -> usize {
        self.pages.available()
    }

    /// Zeroed memory of the process at scattered device addresses. The IOMMU lets the device do `access` and
    /// nothing else.
    pub(crate) fn allocate(
        self: &Arc<Opened>,
        len: usize,
        access: DeviceAccess,
    ) -> Result<DeviceMapping, PlatformError> {
        let taken = self.pages.take(len)?;
        let addresses: Box<[u64]> = taken.addresses().into();
        let mapping = Mapping::anonymous(addresses.len() * PAGE);
        let mapping = mapping.map_err(|_| PlatformError::NoMemory)?;
        let mut reached = Reached {
            opened: self.clone(),
            mapped: 0,
            taken: Some(taken),
        };
        let flags = match access {
            DeviceAccess::Reads => VFIO_DMA_MAP_FLAG_READ,
            DeviceAccess::Writes => VFIO_DMA_MAP_FLAG_WRITE,
            DeviceAccess::Both => VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
        };
        for (page, address) in addresses.iter().enumerate() {
            let map = vfio_iommu_type1_dma_map {
                argsz: size_of::<vfio_iommu_type1_dma_map>() as u32,
                flags,
                vaddr: (mapping.base().as_ptr().addr() + page * PAGE) as u64,
                iova: *address,
                size: PAGE as u64,
            };
            // SAFETY: the descriptor is open as long as the container.
            let container = unsafe { BorrowedFd::borrow_raw(self.container.as_raw_fd()) };
            // SAFETY: the operation reads a structure of this type, and makes a page of our mapping
            // reachable for the device; `reached` takes that back before the mapping goes.
            let mapped = unsafe { ioctl(container, Setter::<MAP_DMA, _>::new(map)) };
            mapped.map_err(|error| match error {
                rustix::io::Errno::NOMEM | rustix::io::Errno::NOSPC => PlatformError::NoMemory,
                other => PlatformError::Code(other.raw_os_error()),
            })?;
            reached.mapped = page + 1;
        }
        // SAFETY: the IOMMU leads exactly these addresses to these pages, until `reached` is dropped.
        Ok(unsafe { DeviceMapping::new(mapping, addresses, Box::new(reached)) })
    }
}

/// Pages that the device reaches, until dropped.
struct Reached {
    opened: Arc<Opened>,
    mapped: usize,
    taken: Option<TakenPages>,
}

impl Drop for Reached {
    fn drop(&mut self) {
        let Some(taken) = self.taken.take() else {
            return;
        };
        for address in taken.addresses().iter().take(self.mapped) {
            if self
                .opened
                .container
                .vfio_dma_unmap(*address, PAGE)
                .is_err()
            {
                // The device may still reach it, so the address cannot be used again. The page itself is
                // kept by the kernel.
                std::mem::forget(taken);
                return;
            }
        }
    }
}

/// The configuration space of the one function, at its address.
pub(crate) struct Config<'a> {
    pub(crate) opened: &'a Opened,
    pub(crate) address: PciAddress,
}

impl ConfigSpace for Config<'_> {
    fn read(&self, address: PciAddress, offset: u16, bytes: Width) -> u32 {
        if address != self.address {
            return bytes.all_ones();
        }
        let region = VFIO_PCI_CONFIG_REGION_INDEX;
        self.opened.read(region, offset.into(), width(bytes)) as u32
    }

    fn write(&self, address: PciAddress, offset: u16, bytes: Width, value: u32) {
        if address == self.address {
            let region = VFIO_PCI_CONFIG_REGION_INDEX;
            self.opened
                .write(region, offset.into(), width(bytes), value.into());
        }
    }

    fn size(&self) -> u16 {
        let bytes = self
            .opened
            .device
            .get_region_size(VFIO_PCI_CONFIG_REGION_INDEX);
        if bytes >= 4096 { 4096 } else { 256 }
    }

    fn buses(&self) -> (u8, u8) {
        (self.address.bus, self.address.bus)
    }
}

const fn width(bytes: Width) -> ddk::Width {
    match bytes {
        Width::Byte => ddk::Width::U8,
        Width::Word => ddk::Width::U16,
        Width::Dword => ddk::Width::U32,
    }
}

/// What the function's configuration space says. BARs have the addresses that Linux gave them.
pub(crate) fn describe(opened: &Opened, address: PciAddress) -> Result<PciFunctionInfo, OpenError> {
    let config = Config { opened, address };
    let topology = pci_bus::enumerate::enumerate(&config, address.segment, &[]);
    let function = topology.functions.into_iter().next();
    function
        .map(|f| f.info)
        .ok_or_else(|| OpenError::NotFound(address.to_string()))
}
