//! A device as a home for its driver.

use std::fmt::Arguments;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ddk::{
    Bus, DeviceAccess, DmaRegion, EventQueue, Interrupt, LogLevel, Mmio, Platform, PlatformError,
    PortBus, PortIo, Width, Work,
};
use ddk_backend_host::{HostInterrupt, Mapping, Services, bus_refused, now_ns};
use devmgr::grants::Grants;
use pci_bus::config::{ConfigSpace, command, register};
use pci_bus::{fence, filter};
use proto::bus::{BarKind, PciFunctionInfo};
use vfio_bindings::bindings::vfio::{
    VFIO_PCI_INTX_IRQ_INDEX, VFIO_PCI_MSI_IRQ_INDEX, VFIO_PCI_MSIX_IRQ_INDEX,
    VFIO_REGION_INFO_FLAG_MMAP,
};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::interrupt::EventSource;
use crate::opened::{Config, Opened};

/// A device with what its driver is granted. Dropping it quiets and resets the device.
pub(crate) struct VfioPlatform {
    opened: Arc<Opened>,
    info: PciFunctionInfo,
    services: Services,
    grants: Grants,
    /// VFIO's kind of interrupt; `None` for none.
    kind: Option<u32>,
    events: Vec<Arc<EventFd>>,
    interrupts: Vec<Arc<dyn Interrupt>>,
    /// Whether Linux delivers the interrupts.
    delivers: Mutex<bool>,
    decodes: Arc<AtomicBool>,
    epoch: u32,
}

/// How a device is to interrupt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Delivery {
    /// By MSI-X or MSI, as far as it was granted.
    Messages,
    /// By its INTx line.
    Line,
}

impl VfioPlatform {
    /// Takes an open device, which is in nobody's hands, into service.
    pub(crate) fn new(
        opened: Arc<Opened>,
        info: PciFunctionInfo,
        grants: Grants,
        delivery: Delivery,
    ) -> Result<VfioPlatform, PlatformError> {
        let epoch = opened.epoch.fetch_add(1, Ordering::Relaxed) + 1;
        let (kind, count) = match delivery {
            Delivery::Line => (Some(VFIO_PCI_INTX_IRQ_INDEX), 1),
            Delivery::Messages if grants.vectors == 0 => (None, 0),
            Delivery::Messages if info.msix.is_some() => {
                (Some(VFIO_PCI_MSIX_IRQ_INDEX), grants.vectors)
            }
            Delivery::Messages => (Some(VFIO_PCI_MSI_IRQ_INDEX), 1),
        };
        let mut platform = VfioPlatform {
            opened,
            info,
            services: Services::new(),
            grants,
            kind,
            events: Vec::new(),
            interrupts: Vec::new(),
            delivers: Mutex::new(false),
            decodes: Arc::new(AtomicBool::new(false)),
            epoch,
        };
        for _ in 0..count {
            let events = EventFd::new(EFD_NONBLOCK).map_err(|_| PlatformError::NoMemory)?;
            let events = Arc::new(events);
            platform.events.push(events.clone());
            let source = match delivery {
                Delivery::Line => EventSource::line(events, platform.opened.clone()),
                Delivery::Messages => EventSource::message(events),
            };
            platform
                .interrupts
                .push(Arc::new(HostInterrupt::new(source)));
        }
        Ok(platform)
    }

    fn config(&self) -> Config<'_> {
        Config {
            opened: &self.opened,
            address: self.info.address,
        }
    }

    fn deliver(&self) -> Result<(), PlatformError> {
        let mut delivers = self.delivers.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(kind), false) = (self.kind, *delivers) {
            let events = self.events.iter().map(|e| &**e).collect();
            let enabled = self.opened.device.enable_irq(kind, events);
            enabled.map_err(|_| PlatformError::Unsupported)?;
            *delivers = true;
        }
        Ok(())
    }

    fn silence(&self) -> Result<(), PlatformError> {
        let mut delivers = self.delivers.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(kind), true) = (self.kind, *delivers) {
            let disabled = self.opened.device.disable_irq(kind);
            disabled.map_err(|_| PlatformError::Closed)?;
            *delivers = false;
        }
        Ok(())
    }

    /// The window by mapping, where Linux allows that, and by reads and writes of the file where not.
    fn window(&self, bar: u8, offset: u64, len: usize) -> Arc<dyn Bus> {
        let device = &self.opened.device;
        let region = u32::from(bar);
        if device.get_region_flags(region) & VFIO_REGION_INFO_FLAG_MMAP != 0 {
            let at = device.get_region_offset(region).saturating_add(offset);
            if let Ok(mapping) = Mapping::of_registers(self.opened.file(), at, len) {
                return Arc::new(Mapped {
                    mapping,
                    decodes: self.decodes.clone(),
                    _opened: self.opened.clone(),
                });
            }
        }
        Arc::new(Region {
            opened: self.opened.clone(),
            region,
            offset,
        })
    }
}

/// Registers in the process. A mapping of a BAR that is not decoded faults, so it is asked before.
struct Mapped {
    mapping: Mapping,
    decodes: Arc<AtomicBool>,
    _opened: Arc<Opened>,
}

impl Bus for Mapped {
    fn read(&self, offset: usize, width: Width) -> u64 {
        if self.decodes.load(Ordering::Relaxed) {
            self.mapping.read_word(offset, width)
        } else {
            width.all_ones()
        }
    }

    fn write(&self, offset: usize, width: Width, value: u64) {
        if self.decodes.load(Ordering::Relaxed) {
            self.mapping.write_word(offset, width, value);
        }
    }
}

/// Registers or ports behind the file.
struct Region {
    opened: Arc<Opened>,
    region: u32,
    offset: u64,
}

impl Bus for Region {
    fn read(&self, offset: usize, width: Width) -> u64 {
        let at = self.offset.saturating_add(offset as u64);
        self.opened.read(self.region, at, width)
    }

    fn write(&self, offset: usize, width: Width, value: u64) {
        let at = self.offset.saturating_add(offset as u64);
        self.opened.write(self.region, at, width, value);
    }
}

impl PortBus for Region {
    fn read8(&self, offset: u16) -> u8 {
        Bus::read(self, offset.into(), Width::U8) as u8
    }
    fn write8(&self, offset: u16, value: u8) {
        Bus::write(self, offset.into(), Width::U8, value.into());
    }
    fn read16(&self, offset: u16) -> u16 {
        Bus::read(self, offset.into(), Width::U16) as u16
    }
    fn write16(&self, offset: u16, value: u16) {
        Bus::write(self, offset.into(), Width::U16, value.into());
    }
    fn read32(&self, offset: u16) -> u32 {
        Bus::read(self, offset.into(), Width::U32) as u32
    }
    fn write32(&self, offset: u16, value: u32) {
        Bus::write(self, offset.into(), Width::U32, value.into());
    }
}

impl Platform for VfioPlatform {
    fn now_ns(&self) -> u64 {
        now_ns()
    }

    fn log(&self, level: LogLevel, text: Arguments<'_>) {
        self.services.log(level, text);
    }

    fn event_queue(&self) -> Result<Box<dyn EventQueue>, PlatformError> {
        self.services.event_queue()
    }

    fn cpu_count(&self) -> usize {
        self.services.cpu_count()
    }

    fn spawn(&self, name: &str, cpu: Option<usize>, work: Work) -> Result<(), PlatformError> {
        self.services.spawn(name, cpu, work)
    }

    fn epoch(&self) -> u32 {
        self.epoch
    }

    fn bar(&self, index: u8) -> Result<Vec<(u64, Mmio)>, PlatformError> {
        let mut windows = Vec::new();
        for window in self.grants.windows.iter().filter(|w| w.bar == index) {
            let len = usize::try_from(window.len).map_err(|_| PlatformError::Invalid)?;
            let bus = self.window(index, window.offset, len);
            windows.push((window.offset, Mmio::from_bus(bus, len)));
        }
        if windows.is_empty() {
            return Err(PlatformError::NotGranted);
        }
        Ok(windows)
    }

    fn config_read(&self, offset: u16, width: Width) -> Result<u32, PlatformError> {
        let config = self.config();
        let checked = filter::check_access(offset, width as u8, config.size());
        let checked = checked.map_err(bus_refused)?;
        Ok(config.read(self.info.address, offset, checked))
    }

    fn config_write(&self, offset: u16, width: Width, value: u32) -> Result<(), PlatformError> {
        let (config, address) = (self.config(), self.info.address);
        let length = |at: u16| u16::from(config.read8(address, at.saturating_add(2)));
        let size = config.size();
        let checked = filter::check_write(&self.info, offset, width as u8, size, length);
        config.write(address, offset, checked.map_err(bus_refused)?, value);
        Ok(())
    }

    fn enable_device(&self) -> Result<(), PlatformError> {
        let (config, address) = (self.config(), self.info.address);
        let held = config.read16(address, register::COMMAND) & !command::INTX_DISABLE;
        let on = command::IO | command::MEMORY | command::BUS_MASTER;
        let value = match self.kind {
            Some(VFIO_PCI_INTX_IRQ_INDEX) => held | on,
            _ => held | on | command::INTX_DISABLE,
        };
        config.write16(address, register::COMMAND, value);
        self.decodes.store(true, Ordering::Relaxed);
        self.deliver()
    }

    fn disable_device(&self) -> Result<(), PlatformError> {
        self.silence()?;
        fence::bus_master_off(&self.config(), self.info.address).map_err(bus_refused)
    }

    fn interrupt_count(&self) -> u16 {
        self.interrupts.len() as u16
    }

    fn interrupt(&self, index: u16) -> Result<Arc<dyn Interrupt>, PlatformError> {
        let interrupt = self.interrupts.get(usize::from(index));
        interrupt.cloned().ok_or(PlatformError::NotGranted)
    }

    fn io_ports(&self, index: u8) -> Result<PortIo, PlatformError> {
        let range = self
            .grants
            .ports
            .iter()
            .find(|(number, ..)| *number == index);
        let (_, _, count) = range.ok_or(PlatformError::NotGranted)?;
        let ports = self
            .info
            .bars
            .iter()
            .filter(|b| b.kind == BarKind::Io && b.base != 0);
        let bar = ports
            .clone()
            .nth(index.into())
            .ok_or(PlatformError::NotGranted)?;
        let region = Region {
            opened: self.opened.clone(),
            region: bar.index.into(),
            offset: 0,
        };
        Ok(PortIo::new(Arc::new(region), *count))
    }

    fn dma_region(&self, len: usize) -> Result<DmaRegion, PlatformError> {
        if !self.grants.dma {
            return Err(PlatformError::NotGranted);
        }
        Ok(self.opened.allocate(len, DeviceAccess::Both)?.into_region())
    }
}

impl Drop for VfioPlatform {
    fn drop(&mut self) {
        self.decodes.store(false, Ordering::Relaxed);
        let quiet = self.disable_device();
        if let Err(error) = quiet {
            let text = format_args!("the device was not quieted: {error}");
            self.services.log(LogLevel::Warning, text);
        }
        self.opened.device.reset();
        self.opened.bound.store(false, Ordering::Release);
    }
}
