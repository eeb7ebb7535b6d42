//! What the bus driver's logic stands on: configuration space, device memory and time, over the wire.

use std::time::Duration;

use ddk_backend_host::now_ns;
use pci_bus::config::{Clock, ConfigSpace, DeviceMemory, Width};
use proto::bus::PciAddress;

use crate::wire::{Wire, WireError};

/// Where the configuration space is put: below the I/O APIC, as firmware for the q35 does.
pub(crate) const ECAM_BASE: u64 = 0xb000_0000;
pub(crate) const ECAM_LEN: u64 = 256 << 20;
const LAST_BUS: u8 = 255;

/// CONFIG_ADDRESS and CONFIG_DATA (PCI Local Bus 3.0, 3.2.2.3.2).
const CONFIG_ADDRESS: u16 = 0xcf8;
const CONFIG_DATA: u16 = 0xcfc;
/// PCIEXBAR of the host bridge: base, length 256 MiB, enable (Intel 3 Series Express Chipset, 5.1.15).
const PCIEXBAR: u32 = 0x60;
const PCIEXBAR_ENABLE: u32 = 1;

/// Switches the configuration space on, in place of firmware.
pub(crate) fn open_config_space(wire: &Wire) -> Result<(), WireError> {
    for (register, value) in [
        (PCIEXBAR + 4, (ECAM_BASE >> 32) as u32),
        (PCIEXBAR, ECAM_BASE as u32 | PCIEXBAR_ENABLE),
    ] {
        wire.port_out(CONFIG_ADDRESS, ddk::Width::U32, 1 << 31 | register)?;
        wire.port_out(CONFIG_DATA, ddk::Width::U32, value)?;
    }
    Ok(())
}

/// The bus of a machine.
pub(crate) struct Access<'a>(pub(crate) &'a Wire);

pub(crate) const fn width(width: Width) -> ddk::Width {
    match width {
        Width::Byte => ddk::Width::U8,
        Width::Word => ddk::Width::U16,
        Width::Dword => ddk::Width::U32,
    }
}

fn register(address: PciAddress, offset: u16) -> u64 {
    ECAM_BASE + (address.device_id() & 0xffff) * 4096 + u64::from(offset & 0xfff)
}

impl ConfigSpace for Access<'_> {
    fn read(&self, address: PciAddress, offset: u16, bytes: Width) -> u32 {
        match self.0.read(register(address, offset), width(bytes)) {
            Ok(value) => value as u32,
            Err(_) => bytes.all_ones(),
        }
    }

    fn write(&self, address: PciAddress, offset: u16, bytes: Width, value: u32) {
        // A register that cannot be reached ignores writes, as the hardware does.
        let _ = self
            .0
            .write(register(address, offset), width(bytes), value.into());
    }

    fn size(&self) -> u16 {
        4096
    }

    fn buses(&self) -> (u8, u8) {
        (0, LAST_BUS)
    }
}

impl DeviceMemory for Access<'_> {
    fn read(&self, physical: u64, bytes: Width) -> Option<u32> {
        let value = self.0.read(physical, width(bytes)).ok()?;
        Some(value as u32)
    }

    fn write(&self, physical: u64, bytes: Width, value: u32) -> Option<()> {
        self.0.write(physical, width(bytes), value.into()).ok()
    }
}

impl Clock for Access<'_> {
    fn now_ns(&self) -> u64 {
        now_ns()
    }

    fn sleep_ms(&self, ms: u32) {
        std::thread::sleep(Duration::from_millis(ms.into()));
        self.0.pump();
    }
}
