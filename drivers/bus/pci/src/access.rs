//! The machine below: configuration space by ECAM or by ports, device memory in BARs, the clock.

use alloc::collections::BTreeMap;
use alloc::collections::btree_map::Entry;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cell::RefCell;
use core::time::Duration;

use pci_bus::arguments::Host;
use pci_bus::config::{Clock, ConfigSpace, DeviceMemory, Width};
use proto::bus::{Aperture, BarKind, EcamRegion, PciAddress};
use rt::{CacheMode, IoPorts, MmioRegion, Resource, Vmo, startup};

const PAGE: u64 = 4096;
/// Bytes of configuration space per bus in ECAM (PCI Express Base, 7.2.2).
const ECAM_BUS_BYTES: u64 = 1 << 20;
/// CONFIG_ADDRESS and CONFIG_DATA (PCI Local Bus 3.0, 3.2.2.3.2).
const CONFIG_PORTS: u16 = 0xcf8;
/// What is not given to BARs of new devices: legacy memory below 1 MiB and legacy ports.
const LEGACY_MEMORY_END: u64 = 1 << 20;
const LEGACY_PORTS_END: u64 = 0x1000;

enum Config {
    Ecam(MmioRegion, EcamRegion),
    Ports(IoPorts),
}

/// Access to everything on the bus.
pub struct Access {
    config: Config,
    bars: Vec<&'static Resource>,
    /// Pages of BARs that were used before.
    pages: RefCell<BTreeMap<u64, MmioRegion>>,
}

impl Access {
    /// Maps the configuration space.
    ///
    /// # Errors
    /// A text with what failed.
    pub fn open(host: &Host) -> Result<Access, String> {
        let config = match host.ecam {
            Some(region) => Config::Ecam(map_ecam(&region)?, region),
            None => {
                let ports = startup::handle::<Resource>("ports").ok_or("no way to config space")?;
                let ports = IoPorts::grant(ports, CONFIG_PORTS, 8);
                Config::Ports(ports.map_err(|e| format!("ports: {e}"))?)
            }
        };
        let bars = startup::handle_names()
            .filter(|n| n.starts_with("bars:"))
            .filter_map(startup::handle)
            .collect();
        Ok(Access {
            config,
            bars,
            pages: RefCell::new(BTreeMap::new()),
        })
    }

    /// How configuration space is reached.
    pub fn describe(&self) -> String {
        match &self.config {
            Config::Ecam(_, region) => format!("ECAM at {:#x}", region.base),
            Config::Ports(_) => "ports 0xcf8-0xcff".to_string(),
        }
    }

    /// Runs `use_page` on the page at `physical`, mapping it if need be.
    fn with_page<T>(
        &self,
        physical: u64,
        use_page: impl FnOnce(&MmioRegion, usize) -> Option<T>,
    ) -> Option<T> {
        let base = physical & !(PAGE - 1);
        let offset = usize::try_from(physical & (PAGE - 1)).ok()?;
        let mut pages = self.pages.borrow_mut();
        let page = match pages.entry(base) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let size = usize::try_from(PAGE).ok()?;
                let vmo = self
                    .bars
                    .iter()
                    .find_map(|bars| Vmo::physical(bars, base, size, CacheMode::Uncached).ok())?;
                entry.insert(MmioRegion::map(&vmo, 0, size).ok()?)
            }
        };
        use_page(page, offset)
    }
}

fn map_ecam(region: &EcamRegion) -> Result<MmioRegion, String> {
    let resource = startup::handle::<Resource>("ecam").ok_or("no resource for ECAM")?;
    let buses = u64::from(region.last_bus - region.first_bus) + 1;
    let len = buses * ECAM_BUS_BYTES;
    let base = region.base + u64::from(region.first_bus) * ECAM_BUS_BYTES;
    let size = usize::try_from(len).map_err(|e| e.to_string())?;
    Vmo::physical(resource, base, size, CacheMode::Uncached)
        .and_then(|vmo| MmioRegion::map(&vmo, 0, size))
        .map_err(|e| format!("ECAM at {base:#x}: {e}"))
}

/// The host's apertures without legacy ranges and without the configuration space itself. Without a word of
/// the firmware: what PCs keep for PCI below the I/O APIC.
pub fn usable(host: &Host) -> Vec<Aperture> {
    const DEFAULT: Aperture = Aperture {
        kind: BarKind::Memory32,
        base: 0xe000_0000,
        len: 0x1ec0_0000,
    };
    let mut list = Vec::new();
    let told = if host.apertures.is_empty() {
        core::slice::from_ref(&DEFAULT)
    } else {
        host.apertures.as_slice()
    };
    for aperture in told {
        let legacy_end = match aperture.kind {
            BarKind::Io => LEGACY_PORTS_END,
            _ => LEGACY_MEMORY_END,
        };
        let end = aperture.base.saturating_add(aperture.len);
        let base = aperture.base.max(legacy_end);
        let mut ranges = pci_bus::ranges::Ranges::new();
        ranges.add(base, end.saturating_sub(base));
        if let (Some(ecam), true) = (&host.ecam, aperture.kind != BarKind::Io) {
            ranges.remove(ecam.base, 256 * ECAM_BUS_BYTES);
        }
        list.extend(ranges.iter().map(|(first, end)| Aperture {
            kind: aperture.kind,
            base: first,
            len: end.saturating_sub(first),
        }));
    }
    list
}

impl Config {
    /// Offset of a register in the ECAM region.
    fn ecam_offset(region: &EcamRegion, address: PciAddress, offset: u16) -> Option<usize> {
        let bus = address.bus.checked_sub(region.first_bus)?;
        if address.bus > region.last_bus || address.segment != region.segment || offset >= 4096 {
            return None;
        }
        let function = usize::from(address.device & 31) << 3 | usize::from(address.function & 7);
        Some(usize::from(bus) << 20 | function << 12 | usize::from(offset))
    }

    /// Selects a register; gives the offset of its data port.
    fn select(ports: &IoPorts, address: PciAddress, offset: u16) -> Option<u16> {
        if offset >= 256 || address.segment != 0 {
            return None;
        }
        let function = u32::from(address.device & 31) << 11 | u32::from(address.function & 7) << 8;
        let value = 1 << 31 | u32::from(address.bus) << 16 | function | u32::from(offset & 0xfc);
        ports.write32(0, value).ok()?;
        Some(4 + (offset & 3))
    }

    fn read(&self, address: PciAddress, offset: u16, width: Width) -> Option<u32> {
        match self {
            Config::Ecam(region, info) => {
                let at = Self::ecam_offset(info, address, offset)?;
                read_memory(region, at, width)
            }
            Config::Ports(ports) => {
                let port = Self::select(ports, address, offset)?;
                match width {
                    Width::Byte => ports.read8(port).ok().map(u32::from),
                    Width::Word => ports.read16(port).ok().map(u32::from),
                    Width::Dword => ports.read32(port).ok(),
                }
            }
        }
    }

    fn write(&self, address: PciAddress, offset: u16, width: Width, value: u32) -> Option<()> {
        match self {
            Config::Ecam(region, info) => {
                let at = Self::ecam_offset(info, address, offset)?;
                write_memory(region, at, width, value)
            }
            Config::Ports(ports) => {
                let port = Self::select(ports, address, offset)?;
                match width {
                    Width::Byte => ports.write8(port, value as u8),
                    Width::Word => ports.write16(port, value as u16),
                    Width::Dword => ports.write32(port, value),
                }
                .ok()
            }
        }
    }
}

fn read_memory(region: &MmioRegion, offset: usize, width: Width) -> Option<u32> {
    match width {
        Width::Byte => region.read::<u8>(offset).ok().map(u32::from),
        Width::Word => region.read::<u16>(offset).ok().map(u32::from),
        Width::Dword => region.read::<u32>(offset).ok(),
    }
}

fn write_memory(region: &MmioRegion, offset: usize, width: Width, value: u32) -> Option<()> {
    match width {
        Width::Byte => region.write(offset, value as u8),
        Width::Word => region.write(offset, value as u16),
        Width::Dword => region.write(offset, value),
    }
    .ok()
}

impl ConfigSpace for Access {
    fn read(&self, address: PciAddress, offset: u16, width: Width) -> u32 {
        let value = self.config.read(address, offset, width);
        value.unwrap_or(width.all_ones())
    }

    fn write(&self, address: PciAddress, offset: u16, width: Width, value: u32) {
        // A register that cannot be reached ignores writes, as the hardware does.
        let _ = self.config.write(address, offset, width, value);
    }

    fn size(&self) -> u16 {
        match self.config {
            Config::Ecam(..) => 4096,
            Config::Ports(_) => 256,
        }
    }

    fn buses(&self) -> (u8, u8) {
        match &self.config {
            Config::Ecam(_, region) => (region.first_bus, region.last_bus),
            Config::Ports(_) => (0, 255),
        }
    }
}

impl DeviceMemory for Access {
    fn read(&self, physical: u64, width: Width) -> Option<u32> {
        self.with_page(physical, |page, offset| read_memory(page, offset, width))
    }

    fn write(&self, physical: u64, width: Width, value: u32) -> Option<()> {
        self.with_page(physical, |page, offset| {
            write_memory(page, offset, width, value)
        })
    }
}

impl Clock for Access {
    fn now_ns(&self) -> u64 {
        rt::time::now_ns()
    }

    fn sleep_ms(&self, ms: u32) {
        rt::time::sleep(Duration::from_millis(ms.into()));
    }
}
