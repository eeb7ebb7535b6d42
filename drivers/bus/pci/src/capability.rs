//! The two capability lists of a function (PCI Local Bus 3.0, 6.7; PCI Express Base, 7.6).
//!
//! The lists come from the device and may loop, point into the header or hold nonsense: every entry is
//! visited once, and what is wrong is told in the fault list.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use proto::bus::{Bar, BarKind, Capability, MsixInfo, PciAddress, ResetMethod};

use crate::config::{ConfigSpace, id, register, status};

/// Entries of an MSI-X table are 16 bytes.
pub const MSIX_ENTRY_BYTES: u32 = 16;
const HEADER_END: u16 = 0x40;

/// Reads both lists, plain capabilities first.
pub fn read_lists(
    config: &impl ConfigSpace,
    address: PciAddress,
    faults: &mut Vec<String>,
) -> Vec<Capability> {
    let mut found = Vec::new();
    plain(config, address, &mut found, faults);
    if config.size() > register::EXTENDED {
        extended(config, address, &mut found, faults);
    }
    found
}

/// Which dwords of configuration space were visited.
struct Visited([u64; 16]);

impl Visited {
    /// Marks the dword at `offset`; false if it was marked before or lies outside.
    fn mark(&mut self, offset: u16) -> bool {
        let dword = offset / 4;
        let Some(word) = self.0.get_mut(usize::from(dword / 64)) else {
            return false;
        };
        let bit = 1u64 << (dword % 64);
        let new = *word & bit == 0;
        *word |= bit;
        new
    }
}

fn plain(
    config: &impl ConfigSpace,
    address: PciAddress,
    found: &mut Vec<Capability>,
    faults: &mut Vec<String>,
) {
    if config.read16(address, register::STATUS) & status::CAPABILITY_LIST == 0 {
        return;
    }
    let mut visited = Visited([0; 16]);
    let mut offset = u16::from(config.read8(address, register::CAPABILITIES)) & !3;
    while offset != 0 {
        if offset < HEADER_END {
            faults.push(format!(
                "capability list points into the header ({offset:#x})"
            ));
            return;
        }
        if !visited.mark(offset) {
            faults.push(format!("capability list loops at {offset:#x}"));
            return;
        }
        let head = config.read16(address, offset);
        if head == 0xffff {
            faults.push(format!("capability at {offset:#x} reads as all ones"));
            return;
        }
        found.push(Capability {
            id: head & 0xff,
            offset,
            version: 0,
            extended: false,
        });
        offset = (head >> 8) & !3;
    }
}

fn extended(
    config: &impl ConfigSpace,
    address: PciAddress,
    found: &mut Vec<Capability>,
    faults: &mut Vec<String>,
) {
    let mut visited = Visited([0; 16]);
    let mut offset = register::EXTENDED;
    loop {
        let head = config.read32(address, offset);
        // A function without extended capabilities has zero here, one without extended space all ones.
        if head == 0 || head == u32::MAX {
            return;
        }
        if !visited.mark(offset) {
            faults.push(format!("extended capability list loops at {offset:#x}"));
            return;
        }
        found.push(Capability {
            id: (head & 0xffff) as u16,
            offset,
            version: ((head >> 16) & 0xf) as u8,
            extended: true,
        });
        offset = ((head >> 20) & 0xffc) as u16;
        if offset == 0 {
            return;
        }
        if offset < register::EXTENDED {
            faults.push(format!("extended capability list points to {offset:#x}"));
            return;
        }
    }
}

/// The first plain capability of that kind.
pub fn find(capabilities: &[Capability], id: u16) -> Option<u16> {
    capabilities
        .iter()
        .find(|c| !c.extended && c.id == id)
        .map(|c| c.offset)
}

/// Reads MSI-X, if there is one and its tables lie inside of memory BARs.
pub fn msix(
    config: &impl ConfigSpace,
    address: PciAddress,
    capabilities: &[Capability],
    bars: &[Bar],
    faults: &mut Vec<String>,
) -> Option<MsixInfo> {
    let offset = find(capabilities, id::MSIX)?;
    // Message control, table and PBA: 12 bytes that must lie in the 256 bytes of plain space.
    if offset > 0x100 - 12 {
        faults.push(format!("MSI-X capability at {offset:#x} passes the end"));
        return None;
    }
    let vectors = (config.read16(address, offset.saturating_add(2)) & 0x7ff).saturating_add(1);
    let table = config.read32(address, offset.saturating_add(4));
    let pba = config.read32(address, offset.saturating_add(8));
    let info = MsixInfo {
        vectors,
        table_bar: (table & 7) as u8,
        table_offset: table & !7,
        pba_bar: (pba & 7) as u8,
        pba_offset: pba & !7,
    };
    let table_bytes = u64::from(vectors) * u64::from(MSIX_ENTRY_BYTES);
    let pba_bytes = u64::from(vectors).div_ceil(64) * 8;
    let parts = [
        ("table", info.table_bar, info.table_offset, table_bytes),
        ("pending bits", info.pba_bar, info.pba_offset, pba_bytes),
    ];
    for (what, index, start, bytes) in parts {
        let fits = bars.iter().any(|bar| {
            bar.index == index
                && bar.kind != BarKind::Io
                && u64::from(start).saturating_add(bytes) <= bar.len
        });
        if !fits {
            faults.push(format!(
                "MSI-X {what} at {start:#x} of BAR {index} ({bytes} bytes) is outside of it"
            ));
            return None;
        }
    }
    Some(info)
}

/// MSI vectors that the function asks for, 0 without MSI (PCI Local Bus 3.0, 6.8.1.3).
pub fn msi_vectors(
    config: &impl ConfigSpace,
    address: PciAddress,
    capabilities: &[Capability],
) -> u8 {
    let Some(offset) = find(capabilities, id::MSI) else {
        return 0;
    };
    let exponent = (config.read16(address, offset.saturating_add(2)) >> 1) & 7;
    if exponent > 5 { 0 } else { 1 << exponent }
}

/// Where the virtio device status register lies: (BAR, offset), from the common-configuration capability
/// (virtio 1.2, 4.1.4 and 4.1.4.3).
pub fn virtio_status(
    config: &impl ConfigSpace,
    address: PciAddress,
    capabilities: &[Capability],
    bars: &[Bar],
) -> Option<(u8, u32)> {
    const COMMON: u8 = 1;
    const DEVICE_STATUS: u32 = 20;
    if config.read16(address, register::VENDOR) != 0x1af4 {
        return None;
    }
    capabilities
        .iter()
        .filter(|c| !c.extended && c.id == id::VENDOR && c.offset <= 0x100 - 16)
        .find_map(|c| {
            if config.read8(address, c.offset.saturating_add(3)) != COMMON {
                return None;
            }
            let index = config.read8(address, c.offset.saturating_add(4));
            let start = config.read32(address, c.offset.saturating_add(8));
            let at = start.checked_add(DEVICE_STATUS)?;
            bars.iter()
                .any(|b| b.index == index && b.kind != BarKind::Io && u64::from(at) < b.len)
                .then_some((index, at))
        })
}

/// The best way to reset the function. `alone` says that nothing else is on its bus and that the bus has a
/// bridge above.
pub fn reset_method(
    config: &impl ConfigSpace,
    address: PciAddress,
    capabilities: &[Capability],
    bars: &[Bar],
    alone: Alone,
) -> ResetMethod {
    const EXPRESS_FLR: u32 = 1 << 28;
    const AF_TRANSACTIONS_PENDING_AND_FLR: u8 = 0b11;
    const NO_SOFT_RESET: u16 = 1 << 3;
    if let Some(at) = find(capabilities, id::EXPRESS)
        && config.read32(address, at.saturating_add(4)) & EXPRESS_FLR != 0
    {
        return ResetMethod::FunctionLevel;
    }
    if let Some(at) = find(capabilities, id::ADVANCED_FEATURES)
        && config.read8(address, at.saturating_add(3)) & AF_TRANSACTIONS_PENDING_AND_FLR
            == AF_TRANSACTIONS_PENDING_AND_FLR
    {
        return ResetMethod::AdvancedFeatures;
    }
    // Before power management: its effect can be read back, and QEMU's virtio devices keep their state
    // over D3hot although No_Soft_Reset is clear.
    if virtio_status(config, address, capabilities, bars).is_some() {
        return ResetMethod::Virtio;
    }
    if let Some(at) = find(capabilities, id::POWER)
        && config.read16(address, at.saturating_add(4)) & NO_SOFT_RESET == 0
    {
        return ResetMethod::PowerManagement;
    }
    let vendor = config.read16(address, register::VENDOR);
    let device = config.read16(address, register::DEVICE);
    let has_registers = bars.iter().any(|b| b.index == 0 && b.kind != BarKind::Io);
    if (vendor, device) == (spec_e1000::PCI_VENDOR, spec_e1000::DEVICE_82540EM) && has_registers {
        return ResetMethod::Intel8254x;
    }
    match alone {
        Alone::BehindBridge => ResetMethod::SecondaryBus,
        Alone::Shared => ResetMethod::None,
    }
}

/// Whether a secondary bus reset would hit this function only.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Alone {
    /// It is the only function behind a bridge.
    BehindBridge,
    /// It shares its bus, or sits on a root bus.
    Shared,
}
