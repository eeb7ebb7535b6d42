//! The walk over all buses, bridges and functions.
//!
//! Bus numbers are taken as the firmware programmed them; bridges that it left at zero are numbered here.
//! The configuration space is not trusted: every bus is visited once, whatever bridges claim.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use proto::bus::{Bar, Capability, PciAddress, PciFunctionInfo};

use crate::bar;
use crate::capability::{self, Alone};
use crate::config::{ConfigSpace, command, register};

/// Most functions that are recorded; a machine that shows more is broken.
pub const FUNCTIONS_MAX: usize = 4096;

/// A function and the bridge above it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Description.
    pub info: PciFunctionInfo,
    /// The bridge that leads to its bus; `None` on a root bus.
    pub bridge: Option<PciAddress>,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topology {
    /// Functions, sorted by address.
    pub functions: Vec<Function>,
    /// What is wrong with the topology as a whole.
    pub problems: Vec<String>,
}

impl Topology {
    /// The function at an address.
    pub fn find(&self, address: PciAddress) -> Option<&Function> {
        let at = self
            .functions
            .binary_search_by_key(&address, |f| f.info.address)
            .ok()?;
        self.functions.get(at)
    }

    /// The bridges above a function, nearest first.
    pub fn bridges_above(&self, address: PciAddress) -> Vec<PciAddress> {
        let mut chain = Vec::new();
        let mut at = self.find(address).and_then(|f| f.bridge);
        // Each bridge was entered once, so the chain cannot be longer than the number of buses.
        while let Some(bridge) = at
            && chain.len() < 256
        {
            chain.push(bridge);
            at = self.find(bridge).and_then(|f| f.bridge);
        }
        chain
    }
}

/// Walks a segment from its root buses: the first bus that is decoded, and those of further host bridges,
/// which no bridge announces. Every function is left with bus mastering off, so that nothing that the firmware
/// started goes on writing to memory; bridges keep it, since what is below them needs it.
pub fn enumerate(config: &impl ConfigSpace, segment: u16, further_roots: &[u8]) -> Topology {
    let (first, last) = config.buses();
    let mut walk = Walk {
        config,
        segment,
        last,
        seen: [false; 256],
        bridges: Vec::new(),
        unassigned: Vec::new(),
        topology: Topology::default(),
    };
    walk.programmed(first, None);
    for &bus in further_roots {
        if (first..=last).contains(&bus) && !walk.visited(bus) {
            walk.programmed(bus, None);
        }
    }
    walk.number_unassigned();
    let mut topology = walk.topology;
    topology.functions.sort_by_key(|f| f.info.address);
    choose_resets(config, &mut topology);
    topology
}

/// The topology that an earlier bus driver found and programmed, for its successor. Drivers use the devices
/// meanwhile, so nothing is written: each function is asked whether it is there, and left out if it is not, or is
/// another one by now.
pub fn take_over(config: &impl ConfigSpace, infos: Vec<PciFunctionInfo>) -> Topology {
    let bridge_to = |bus: u8| {
        let leads = |info: &&PciFunctionInfo| info.buses.is_some_and(|(first, _)| first == bus);
        infos.iter().find(leads).map(|info| info.address)
    };
    let is_there = |info: &PciFunctionInfo| {
        config.read16(info.address, register::VENDOR) == info.vendor
            && config.read16(info.address, register::DEVICE) == info.device
    };
    let mut functions: Vec<Function> = infos
        .iter()
        .filter(|info| is_there(info))
        .map(|info| Function {
            bridge: bridge_to(info.address.bus).filter(|bridge| *bridge != info.address),
            info: info.clone(),
        })
        .collect();
    functions.sort_by_key(|f| f.info.address);
    Topology {
        functions,
        problems: Vec::new(),
    }
}

/// Adds the functions of a device that was plugged in behind a bridge; gives their addresses. A bridge among
/// them has no bus number and nothing behind it is found.
pub fn add_bus(
    config: &impl ConfigSpace,
    topology: &mut Topology,
    bridge: PciAddress,
    bus: u8,
) -> Vec<PciAddress> {
    let mut walk = Walk {
        config,
        segment: bridge.segment,
        last: bus,
        seen: [false; 256],
        bridges: alloc::vec![Bridge {
            address: bridge,
            above: None,
            secondary: bus,
            subordinate: bus,
        }],
        unassigned: Vec::new(),
        topology: core::mem::take(topology),
    };
    let before = walk.topology.functions.len();
    for further in walk.scan(bus, Some(0)) {
        walk.fault(
            further,
            String::from("a bridge that is plugged in gets no bus number"),
        );
    }
    *topology = walk.topology;
    let added = topology.functions.iter().skip(before);
    let added: Vec<PciAddress> = added.map(|f| f.info.address).collect();
    topology.functions.sort_by_key(|f| f.info.address);
    choose_resets(config, topology);
    added
}

/// Forgets what is behind a bridge; gives the addresses.
pub fn remove_bus(topology: &mut Topology, bridge: PciAddress) -> Vec<PciAddress> {
    let mut gone = Vec::new();
    topology.functions.retain(|f| {
        let stays = f.bridge != Some(bridge);
        if !stays {
            gone.push(f.info.address);
        }
        stays
    });
    gone
}

struct Bridge {
    address: PciAddress,
    above: Option<usize>,
    secondary: u8,
    subordinate: u8,
}

struct Walk<'a, C: ConfigSpace> {
    config: &'a C,
    segment: u16,
    last: u8,
    seen: [bool; 256],
    bridges: Vec<Bridge>,
    /// Bridges without numbers: address and the bridge above.
    unassigned: Vec<(PciAddress, Option<usize>)>,
    topology: Topology,
}

impl<C: ConfigSpace> Walk<'_, C> {
    fn visited(&self, bus: u8) -> bool {
        self.seen.get(usize::from(bus)).copied().unwrap_or(true)
    }

    /// Scans a bus and everything below it that has bus numbers.
    fn programmed(&mut self, bus: u8, above: Option<usize>) {
        let mut todo = alloc::vec![(bus, above)];
        while let Some((bus, above)) = todo.pop() {
            for bridge in self.scan(bus, above) {
                if let Some(index) = self.enter(bridge, above)
                    && let Some(b) = self.bridges.get(index)
                {
                    todo.push((b.secondary, Some(index)));
                }
            }
        }
    }

    /// Records the functions of a bus; gives its bridges.
    fn scan(&mut self, bus: u8, above: Option<usize>) -> Vec<PciAddress> {
        let mut found = Vec::new();
        let Some(seen) = self.seen.get_mut(usize::from(bus)) else {
            return found;
        };
        *seen = true;
        let bridge = above.and_then(|i| self.bridges.get(i)).map(|b| b.address);
        for device in 0..32 {
            let mut functions = 1;
            let mut function = 0;
            while function < functions {
                let address = PciAddress {
                    segment: self.segment,
                    bus,
                    device,
                    function,
                };
                function += 1;
                let vendor = self.config.read16(address, register::VENDOR);
                // All ones: nothing there. Zero is no vendor either (seen while a device is in reset).
                if vendor == 0xffff || vendor == 0 {
                    continue;
                }
                if self.topology.functions.len() >= FUNCTIONS_MAX {
                    let problem =
                        format!("more than {FUNCTIONS_MAX} functions; the rest is ignored");
                    if self.topology.problems.last() != Some(&problem) {
                        self.topology.problems.push(problem);
                    }
                    return Vec::new();
                }
                if address.function == 0
                    && self.config.read8(address, register::HEADER_TYPE) & 0x80 != 0
                {
                    functions = 8;
                }
                let info = describe(self.config, address, vendor);
                if info.header == 1 {
                    found.push(address);
                }
                self.topology.functions.push(Function { info, bridge });
            }
        }
        found
    }

    /// Checks a bridge's numbers; gives its place in `bridges` if the bus below is to be scanned.
    fn enter(&mut self, address: PciAddress, above: Option<usize>) -> Option<usize> {
        let secondary = self.config.read8(address, register::SECONDARY_BUS);
        let subordinate = self.config.read8(address, register::SUBORDINATE_BUS);
        if secondary == 0 {
            self.unassigned.push((address, above));
            return None;
        }
        let inside = match above.and_then(|i| self.bridges.get(i)) {
            Some(b) => secondary > b.secondary && subordinate <= b.subordinate,
            None => secondary > address.bus && subordinate <= self.last,
        };
        let overlaps = self.bridges.iter().enumerate().any(|(i, b)| {
            !self.is_above(i, above) && secondary <= b.subordinate && b.secondary <= subordinate
        });
        if secondary > subordinate || !inside || overlaps || self.visited(secondary) {
            self.fault(
                address,
                format!("bridge claims buses {secondary:#04x} to {subordinate:#04x}, which it cannot have"),
            );
            return None;
        }
        self.add_bridge(address, above, secondary, subordinate)
    }

    fn is_above(&self, index: usize, mut at: Option<usize>) -> bool {
        while let Some(i) = at {
            if i == index {
                return true;
            }
            at = self.bridges.get(i).and_then(|b| b.above);
        }
        false
    }

    fn add_bridge(
        &mut self,
        address: PciAddress,
        above: Option<usize>,
        secondary: u8,
        subordinate: u8,
    ) -> Option<usize> {
        self.bridges.push(Bridge {
            address,
            above,
            secondary,
            subordinate,
        });
        self.set_buses(address, secondary, subordinate);
        self.bridges.len().checked_sub(1)
    }

    fn set_buses(&mut self, address: PciAddress, secondary: u8, subordinate: u8) {
        if let Some(f) = self
            .topology
            .functions
            .iter_mut()
            .find(|f| f.info.address == address)
        {
            f.info.buses = Some((secondary, subordinate));
        }
    }

    fn fault(&mut self, address: PciAddress, text: String) {
        if let Some(f) = self
            .topology
            .functions
            .iter_mut()
            .find(|f| f.info.address == address)
        {
            f.info.faults.push(text);
        }
    }

    /// Gives numbers to bridges without, depth first, so that the buses below a bridge are contiguous.
    fn number_unassigned(&mut self) {
        self.unassigned.reverse();
        while let Some((address, above)) = self.unassigned.pop() {
            let highest = self.highest();
            let Some(number) = highest.checked_add(1).filter(|n| *n <= self.last) else {
                self.fault(
                    address,
                    String::from("no bus number is left for this bridge"),
                );
                continue;
            };
            // The new number must be next to the ranges of all bridges above, which grow by it.
            let mut ancestors = Vec::new();
            let mut at = above;
            while let Some(i) = at {
                ancestors.push(i);
                at = self.bridges.get(i).and_then(|b| b.above);
            }
            let blocked = ancestors
                .iter()
                .any(|&i| self.bridges.get(i).is_none_or(|b| b.subordinate < highest));
            if blocked {
                self.fault(
                    address,
                    String::from("no bus number is free next to the bridge above"),
                );
                continue;
            }
            for i in ancestors {
                if let Some(b) = self.bridges.get_mut(i) {
                    b.subordinate = number;
                    let (bridge, secondary) = (b.address, b.secondary);
                    self.config
                        .write8(bridge, register::SUBORDINATE_BUS, number);
                    self.set_buses(bridge, secondary, number);
                }
            }
            self.config
                .write8(address, register::PRIMARY_BUS, address.bus);
            self.config.write8(address, register::SECONDARY_BUS, number);
            self.config
                .write8(address, register::SUBORDINATE_BUS, number);
            if self.config.read8(address, register::SECONDARY_BUS) != number {
                self.fault(
                    address,
                    String::from("the bridge does not take a bus number"),
                );
                continue;
            }
            let index = self.add_bridge(address, above, number, number);
            let before = self.unassigned.len();
            for below in self.scan(number, index) {
                if self.config.read8(below, register::SECONDARY_BUS) == 0 {
                    self.unassigned.push((below, index));
                } else {
                    self.fault(
                        below,
                        String::from("bridge has a bus number below one without"),
                    );
                }
            }
            if let Some(new) = self.unassigned.get_mut(before..) {
                new.reverse();
            }
        }
    }

    /// Highest bus number in use or reserved by a bridge.
    fn highest(&self) -> u8 {
        // A root bus that was probed and found empty does not count.
        let used = self
            .topology
            .functions
            .iter()
            .map(|f| f.info.address.bus)
            .max()
            .unwrap_or(0);
        self.bridges
            .iter()
            .map(|b| b.subordinate)
            .max()
            .unwrap_or(0)
            .max(used)
    }
}

/// Reads the header, BARs and capabilities of a function.
fn describe(config: &impl ConfigSpace, address: PciAddress, vendor: u16) -> PciFunctionInfo {
    let mut faults = Vec::new();
    let header = config.read8(address, register::HEADER_TYPE) & 0x7f;
    let class_revision = config.read32(address, register::CLASS_REVISION);
    let [revision, interface, subclass, class] = class_revision.to_le_bytes();
    if header == 0 {
        let command = config.read16(address, register::COMMAND);
        config.write16(address, register::COMMAND, command & !command::BUS_MASTER);
    }
    let bars = bar::size_all(config, address, header, &mut faults);
    let capabilities: Vec<Capability> = capability::read_lists(config, address, &mut faults);
    let msix = capability::msix(config, address, &capabilities, &bars, &mut faults);
    let msi_vectors = capability::msi_vectors(config, address, &capabilities);
    let (subsystem_vendor, subsystem) = if header == 0 {
        (
            config.read16(address, register::SUBSYSTEM_VENDOR),
            config.read16(address, register::SUBSYSTEM),
        )
    } else {
        (0, 0)
    };
    if header > 1 {
        faults.push(format!("header type {header:#x} is not supported"));
    }
    PciFunctionInfo {
        address,
        vendor,
        device: config.read16(address, register::DEVICE),
        subsystem_vendor,
        subsystem,
        class,
        subclass,
        interface,
        revision,
        header,
        interrupt_pin: config.read8(address, register::INTERRUPT_PIN),
        interrupt_line: config.read8(address, register::INTERRUPT_LINE),
        buses: None,
        bars,
        capabilities,
        msix,
        msi_vectors,
        reset: proto::bus::ResetMethod::None,
        faults,
    }
}

fn choose_resets(config: &impl ConfigSpace, topology: &mut Topology) {
    let mut once = BTreeSet::new();
    let mut twice = BTreeSet::new();
    for f in &topology.functions {
        if !once.insert(f.info.address.bus) {
            twice.insert(f.info.address.bus);
        }
    }
    for f in &mut topology.functions {
        if f.info.header != 0 {
            continue;
        }
        let alone = if f.bridge.is_some() && !twice.contains(&f.info.address.bus) {
            Alone::BehindBridge
        } else {
            Alone::Shared
        };
        let bars: &[Bar] = &f.info.bars;
        f.info.reset =
            capability::reset_method(config, f.info.address, &f.info.capabilities, bars, alone);
    }
}
