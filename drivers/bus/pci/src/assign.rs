//! Addresses for BARs and bridge windows that the firmware left without.
//!
//! What is assigned stays where it is. A BAR without an address, outside of the window of the bridge
//! above it, or on top of another one gets a new address from the host bridge's apertures or the bridge's
//! windows; a closed window above such a BAR is opened. New addresses are placed in plain (not
//! prefetchable) windows, which any BAR may use.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::vec::Vec;

use proto::bus::{Aperture, Bar, BarKind, PciAddress};

use crate::bar;
use crate::config::{ConfigSpace, command, register};
use crate::enumerate::Topology;
use crate::ranges::Ranges;

/// Granularity of a memory window (PCI-to-PCI Bridge Architecture 1.2, 3.2.5.6).
const MEMORY_STEP: u64 = 1 << 20;
/// Granularity of an I/O window (the same, 3.2.5.6).
const IO_STEP: u64 = 1 << 12;
const FOUR_GIB: u64 = 1 << 32;

/// What a bus can still give out.
#[derive(Clone, Debug, Default)]
struct Space {
    io: Ranges,
    memory: Ranges,
    /// Prefetchable windows; the firmware's BARs may lie there.
    prefetchable: Ranges,
}

impl Space {
    fn remove(&mut self, bar: &Bar) {
        match bar.kind {
            BarKind::Io => self.io.remove(bar.base, bar.len),
            _ => {
                self.memory.remove(bar.base, bar.len);
                self.prefetchable.remove(bar.base, bar.len);
            }
        }
    }

    fn contains(&self, bar: &Bar) -> bool {
        match bar.kind {
            BarKind::Io => self.io.contains(bar.base, bar.len),
            _ => {
                self.memory.contains(bar.base, bar.len)
                    || self.prefetchable.contains(bar.base, bar.len)
            }
        }
    }

    fn allocate(&mut self, bar: &Bar) -> Option<u64> {
        match bar.kind {
            BarKind::Io => self.io.allocate(bar.len, bar.len),
            BarKind::Memory64 => self.memory.allocate(bar.len, bar.len),
            BarKind::Memory32 => {
                let mut low = self.memory.clone();
                low.remove(FOUR_GIB, u64::MAX - FOUR_GIB);
                let base = low.allocate(bar.len, bar.len)?;
                self.memory.remove(base, bar.len);
                Some(base)
            }
        }
    }
}

/// What the functions below a bridge lack.
#[derive(Clone, Copy, Debug, Default)]
struct Need {
    io: u64,
    memory: u64,
    memory_align: u64,
}

/// Assigns what is missing. `apertures` are the host bridge's; ranges that hold RAM or the
/// configuration space must not be among them.
pub fn assign(config: &impl ConfigSpace, topology: &mut Topology, apertures: &[Aperture]) {
    let mut root = Space::default();
    for a in apertures {
        match a.kind {
            BarKind::Io => root.io.add(a.base, a.len),
            _ => root.memory.add(a.base, a.len),
        }
    }
    // Parents come before children: a bridge's address is below those of the buses behind it.
    let mut groups: Vec<Option<PciAddress>> = alloc::vec![None];
    groups.extend(
        topology
            .functions
            .iter()
            .filter(|f| f.info.buses.is_some())
            .map(|f| Some(f.info.address)),
    );
    let mut spaces: BTreeMap<Option<PciAddress>, Space> = BTreeMap::new();
    spaces.insert(None, root);
    for group in &groups {
        if let Some(bridge) = group {
            spaces.insert(*group, windows(config, *bridge));
        }
        reserve(config, topology, *group, &mut spaces);
    }
    let needs = needs(config, topology, &groups);
    for group in &groups {
        place(config, topology, *group, &mut spaces, &needs);
    }
}

/// The windows of a bridge as they are programmed.
fn windows(config: &impl ConfigSpace, bridge: PciAddress) -> Space {
    let mut space = Space::default();
    let base = config.read8(bridge, register::IO_BASE);
    let limit = config.read8(bridge, register::IO_LIMIT);
    let high = config.read32(bridge, register::IO_BASE_HIGH);
    let (mut first, mut last) = (
        u64::from(base & 0xf0) << 8,
        u64::from(limit & 0xf0) << 8 | (IO_STEP - 1),
    );
    if base & 0xf == 1 {
        first |= u64::from(high & 0xffff) << 16;
        last |= u64::from(high >> 16) << 16;
    }
    add(&mut space.io, first, last);
    let base = config.read16(bridge, register::MEMORY_BASE);
    let limit = config.read16(bridge, register::MEMORY_LIMIT);
    add(
        &mut space.memory,
        u64::from(base & 0xfff0) << 16,
        u64::from(limit & 0xfff0) << 16 | (MEMORY_STEP - 1),
    );
    let base = config.read16(bridge, register::PREFETCH_BASE);
    let limit = config.read16(bridge, register::PREFETCH_LIMIT);
    let (mut first, mut last) = (
        u64::from(base & 0xfff0) << 16,
        u64::from(limit & 0xfff0) << 16 | (MEMORY_STEP - 1),
    );
    if base & 0xf == 1 {
        first |= u64::from(config.read32(bridge, register::PREFETCH_BASE_HIGH)) << 32;
        last |= u64::from(config.read32(bridge, register::PREFETCH_LIMIT_HIGH)) << 32;
    }
    add(&mut space.prefetchable, first, last);
    space
}

/// A window is open if its limit is not below its base; one that starts at 0 was never programmed.
fn add(ranges: &mut Ranges, first: u64, last: u64) {
    if first != 0 && last > first {
        ranges.add(first, last.saturating_sub(first).saturating_add(1));
    }
}

/// Takes what is assigned in a group out of its space; clears the base of what is not validly assigned.
fn reserve(
    config: &impl ConfigSpace,
    topology: &mut Topology,
    group: Option<PciAddress>,
    spaces: &mut BTreeMap<Option<PciAddress>, Space>,
) {
    let Some(space) = spaces.get_mut(&group) else {
        return;
    };
    let mut taken: Vec<Bar> = Vec::new();
    for f in topology.functions.iter_mut().filter(|f| f.bridge == group) {
        if f.info.buses.is_some() {
            let below = windows(config, f.info.address);
            for (first, end) in below.io.iter() {
                space.io.remove(first, end.saturating_sub(first));
            }
            for (first, end) in below.memory.iter().chain(below.prefetchable.iter()) {
                space.memory.remove(first, end.saturating_sub(first));
                space.prefetchable.remove(first, end.saturating_sub(first));
            }
        }
        for bar in &mut f.info.bars {
            if bar.base == 0 {
                continue;
            }
            let overlaps = taken.iter().any(|t| {
                (t.kind == BarKind::Io) == (bar.kind == BarKind::Io)
                    && bar.base < t.base.saturating_add(t.len)
                    && t.base < bar.base.saturating_add(bar.len)
            });
            // On a root bus the firmware may know of ranges that the apertures do not tell.
            if overlaps || (group.is_some() && !space.contains(bar)) {
                bar.base = 0;
                continue;
            }
            taken.push(*bar);
        }
    }
    for bar in &taken {
        space.remove(bar);
    }
}

/// What is missing below each bridge, computed from the leaves up.
fn needs(
    config: &impl ConfigSpace,
    topology: &Topology,
    groups: &[Option<PciAddress>],
) -> BTreeMap<PciAddress, Need> {
    let mut needs: BTreeMap<PciAddress, Need> = BTreeMap::new();
    for bridge in groups.iter().rev().flatten() {
        let mut need = Need::default();
        for f in topology
            .functions
            .iter()
            .filter(|f| f.bridge == Some(*bridge))
        {
            for bar in f.info.bars.iter().filter(|b| b.base == 0) {
                if bar.kind == BarKind::Io {
                    need.io = need.io.saturating_add(bar.len);
                } else {
                    need.memory = need.memory.saturating_add(bar.len);
                    need.memory_align = need.memory_align.max(bar.len);
                }
            }
            if let Some(below) = needs.get(&f.info.address) {
                let own = windows(config, f.info.address);
                if own.io.iter().next().is_none() {
                    need.io = need.io.saturating_add(below.io);
                }
                if own.memory.iter().next().is_none() {
                    need.memory = need.memory.saturating_add(below.memory);
                    need.memory_align = need.memory_align.max(below.memory_align);
                }
            }
        }
        need.io = need
            .io
            .checked_next_multiple_of(IO_STEP)
            .unwrap_or(u64::MAX);
        need.memory = need
            .memory
            .checked_next_multiple_of(MEMORY_STEP)
            .unwrap_or(u64::MAX);
        need.memory_align = need.memory_align.max(MEMORY_STEP);
        needs.insert(*bridge, need);
    }
    needs
}

/// Opens windows and places BARs of a group, the biggest first.
fn place(
    config: &impl ConfigSpace,
    topology: &mut Topology,
    group: Option<PciAddress>,
    spaces: &mut BTreeMap<Option<PciAddress>, Space>,
    needs: &BTreeMap<PciAddress, Need>,
) {
    let Some(mut space) = spaces.remove(&group) else {
        return;
    };
    for f in topology.functions.iter_mut().filter(|f| f.bridge == group) {
        let address = f.info.address;
        let (Some(need), Some(below)) = (needs.get(&address), spaces.get_mut(&Some(address)))
        else {
            continue;
        };
        if need.memory != 0 && below.memory.iter().next().is_none() {
            let window = Bar {
                index: 0,
                kind: BarKind::Memory32,
                prefetchable: false,
                base: 0,
                len: need.memory,
            };
            let mut low = space.memory.clone();
            low.remove(FOUR_GIB, u64::MAX - FOUR_GIB);
            match low.allocate(window.len, need.memory_align) {
                Some(base) => {
                    space.memory.remove(base, window.len);
                    below.memory.add(base, window.len);
                    let last = base.saturating_add(window.len).saturating_sub(1);
                    let command = config.read16(address, register::COMMAND);
                    config.write16(
                        address,
                        register::MEMORY_BASE,
                        ((base >> 16) & 0xfff0) as u16,
                    );
                    config.write16(
                        address,
                        register::MEMORY_LIMIT,
                        ((last >> 16) & 0xfff0) as u16,
                    );
                    config.write16(address, register::COMMAND, command | command::MEMORY);
                }
                None => f.info.faults.push(format!(
                    "no room for a memory window of {:#x} bytes",
                    need.memory
                )),
            }
        }
        if need.io != 0 && below.io.iter().next().is_none() {
            match space
                .io
                .allocate(need.io, IO_STEP)
                .filter(|b| *b < 0x1_0000)
            {
                Some(base) => {
                    below.io.add(base, need.io);
                    let last = base.saturating_add(need.io).saturating_sub(1);
                    let command = config.read16(address, register::COMMAND);
                    config.write32(address, register::IO_BASE_HIGH, 0);
                    config.write8(address, register::IO_BASE, ((base >> 8) & 0xf0) as u8);
                    config.write8(address, register::IO_LIMIT, ((last >> 8) & 0xf0) as u8);
                    config.write16(address, register::COMMAND, command | command::IO);
                }
                None => f
                    .info
                    .faults
                    .push(format!("no room for an I/O window of {:#x} ports", need.io)),
            }
        }
    }
    let mut missing: Vec<(usize, usize, Bar)> = Vec::new();
    for (i, f) in topology.functions.iter().enumerate() {
        if f.bridge == group {
            let bars = f.info.bars.iter().enumerate();
            missing.extend(bars.filter(|(_, b)| b.base == 0).map(|(j, b)| (i, j, *b)));
        }
    }
    missing.sort_by_key(|(_, _, bar)| core::cmp::Reverse(bar.len));
    for (i, j, mut wanted) in missing {
        let Some(f) = topology.functions.get_mut(i) else {
            continue;
        };
        match space.allocate(&wanted) {
            Some(base) => {
                wanted.base = base;
                bar::write_base(config, f.info.address, &wanted);
                if let Some(bar) = f.info.bars.get_mut(j) {
                    *bar = wanted;
                }
            }
            None => f.info.faults.push(format!(
                "no room for BAR {} of {:#x} bytes",
                wanted.index, wanted.len
            )),
        }
    }
}
