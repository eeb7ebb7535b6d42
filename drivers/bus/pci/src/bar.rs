//! Base address registers: what is implemented, how long, where (PCI Local Bus 3.0, 6.2.5.1).

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use proto::bus::{Bar, BarKind, PciAddress};

use crate::config::{ConfigSpace, command, register};

/// Registers of a header of that type: 6 for a device, 2 for a bridge.
pub const fn count(header: u8) -> u8 {
    match header {
        0 => 6,
        1 => 2,
        _ => 0,
    }
}

/// Offset of register `index`.
pub const fn offset(index: u8) -> u16 {
    register::BAR0 + index as u16 * 4
}

/// Reads and sizes all BARs. Decoding is off while the registers hold all ones, so that the function
/// answers nowhere in between; registers and command are put back.
pub fn size_all(
    config: &impl ConfigSpace,
    address: PciAddress,
    header: u8,
    faults: &mut Vec<String>,
) -> Vec<Bar> {
    let saved = config.read16(address, register::COMMAND);
    config.write16(
        address,
        register::COMMAND,
        saved & !(command::IO | command::MEMORY | command::BUS_MASTER),
    );
    let mut bars = Vec::new();
    let mut index = 0;
    while index < count(header) {
        let (bar, registers) = size_one(config, address, index, count(header), faults);
        bars.extend(bar);
        index = index.saturating_add(registers);
    }
    config.write16(address, register::COMMAND, saved);
    bars
}

/// Sizes register `index`; also says how many registers it takes.
fn size_one(
    config: &impl ConfigSpace,
    address: PciAddress,
    index: u8,
    count: u8,
    faults: &mut Vec<String>,
) -> (Option<Bar>, u8) {
    let at = offset(index);
    let (low, low_mask) = probe(config, address, at);
    if low_mask == 0 || low_mask == u32::MAX && low == u32::MAX {
        return (None, 1);
    }
    if low & 1 != 0 {
        // Upper 16 bits may be hard-wired to zero on machines with 64 KiB of ports.
        let mask = low_mask & 0xffff_fffc;
        let len = u64::from((mask | 0xffff_0000).wrapping_neg());
        let bar = checked(
            index,
            BarKind::Io,
            low & 0xffff_fffc,
            mask.into(),
            len,
            faults,
        );
        return (bar, 1);
    }
    let prefetchable = low & 8 != 0;
    match (low >> 1) & 3 {
        0 => {
            let mask = low_mask & 0xffff_fff0;
            let len = u64::from(mask.wrapping_neg());
            let bar = checked(
                index,
                BarKind::Memory32,
                low & !0xf,
                mask.into(),
                len,
                faults,
            );
            (bar.map(|b| Bar { prefetchable, ..b }), 1)
        }
        2 if index.saturating_add(1) < count => {
            let (high, high_mask) = probe(config, address, at.saturating_add(4));
            let mask = u64::from(high_mask) << 32 | u64::from(low_mask & 0xffff_fff0);
            let base = u64::from(high) << 32 | u64::from(low & !0xf);
            let len = mask.wrapping_neg();
            let bar = checked(index, BarKind::Memory64, base, mask, len, faults);
            (bar.map(|b| Bar { prefetchable, ..b }), 2)
        }
        kind => {
            faults.push(format!("BAR {index} has impossible type {kind}"));
            (None, 1)
        }
    }
}

/// Writes all ones, reads, restores: old value and mask.
fn probe(config: &impl ConfigSpace, address: PciAddress, at: u16) -> (u32, u32) {
    let old = config.read32(address, at);
    config.write32(address, at, u32::MAX);
    let mask = config.read32(address, at);
    config.write32(address, at, old);
    (old, mask)
}

fn checked(
    index: u8,
    kind: BarKind,
    base: impl Into<u64>,
    mask: u64,
    len: u64,
    faults: &mut Vec<String>,
) -> Option<Bar> {
    let base = base.into();
    if mask == 0 {
        return None;
    }
    if !len.is_power_of_two() {
        faults.push(format!("BAR {index} has impossible length mask {mask:#x}"));
        return None;
    }
    Some(Bar {
        index,
        kind,
        prefetchable: false,
        base: base & !len.wrapping_sub(1),
        len,
    })
}

/// Writes the base of a BAR into its register or registers, with decoding off.
pub fn write_base(config: &impl ConfigSpace, address: PciAddress, bar: &Bar) {
    let saved = config.read16(address, register::COMMAND);
    config.write16(
        address,
        register::COMMAND,
        saved & !(command::IO | command::MEMORY),
    );
    let at = offset(bar.index);
    config.write32(address, at, bar.base as u32);
    if bar.kind == BarKind::Memory64 {
        config.write32(address, at.saturating_add(4), (bar.base >> 32) as u32);
    }
    config.write16(address, register::COMMAND, saved);
}
