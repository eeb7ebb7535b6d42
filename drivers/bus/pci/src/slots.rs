//! Slots whose devices come and go: their interrupt, and what follows from an event.

use alloc::collections::BTreeSet;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use pci_bus::assign;
use pci_bus::config::{ConfigSpace, command, register};
use pci_bus::enumerate::{self, Topology};
use pci_bus::hotplug::{self, Occupied, Power, Slot, SlotEvent};
use pci_bus::message;
use proto::bus::{Message, PciAddress, VectorState};
use rt::{AckMode, Deadline, Interrupt, Port, startup};

use crate::access::Access;
use crate::server::{Bus, KEY_SLOTS};

/// How often slots are looked at that cannot interrupt.
const POLL_MS: u64 = 500;
/// A device answers within this time after its power comes on (PCI Express Base, 6.6.1), and is asked that
/// often.
const READY_LIMIT_MS: u64 = 1_000;
const READY_POLL_MS: u64 = 10;
/// Looks at all slots before the port is asked again: an event may come while another one is served.
const LOOKS_MAX: usize = 4;

struct Held {
    slot: Slot,
    occupied: Occupied,
    /// Functions that are out of service, while a removal is under way.
    released: BTreeSet<PciAddress>,
}

/// How a bus driver begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    /// With an enumeration.
    First,
    /// With what one that died knew: slots may have something to tell that nobody heard.
    Successor,
}

/// The slots of a bus.
pub struct Slots {
    held: Vec<Held>,
    /// Kept bound.
    interrupt: Option<Interrupt>,
}

impl Slots {
    /// Finds and arms them.
    pub fn new(access: &Access, topology: &Topology, port: &Port, start: Start) -> Slots {
        let slots = hotplug::slots(access, topology);
        let interrupt = startup::take::<Interrupt>("irq0").filter(|_| !slots.is_empty());
        let interrupt = interrupt.filter(|interrupt| {
            let bound = bind(access, topology, &slots, interrupt, port);
            if let Err(why) = &bound {
                rt::warn!("slots do not interrupt ({why}); they are looked at twice a second");
            }
            bound.is_ok()
        });
        let held = slots.into_iter().map(|slot| {
            let mut below = topology.functions.iter();
            let occupied = if below.any(|f| f.bridge == Some(slot.port)) {
                Occupied::Yes
            } else if start == Start::Successor && slot.is_off(access) {
                // To be taken out, or empty: a look tells.
                Occupied::Off
            } else {
                Occupied::No
            };
            if start == Start::First {
                slot.forget(access);
            }
            slot.arm(access);
            Held {
                slot,
                occupied,
                released: BTreeSet::new(),
            }
        });
        Slots {
            held: held.collect(),
            interrupt,
        }
    }

    /// When slots are to be looked at without being asked to.
    pub fn next_look(&self) -> Deadline {
        if self.held.is_empty() || self.interrupt.is_some() {
            Deadline::FOREVER
        } else {
            Deadline::after_ms(POLL_MS)
        }
    }
}

/// Sends all slots' events to one interrupt.
fn bind(
    access: &Access,
    topology: &Topology,
    slots: &[Slot],
    interrupt: &Interrupt,
    port: &Port,
) -> Result<(), String> {
    let text = |e: rt::Error| e.to_string();
    let info = interrupt.interrupt_info().map_err(text)?;
    let message = Message {
        address: info.address,
        data: info.data,
    };
    // From the port of a bus driver that died, if there was one.
    interrupt.unbind().map_err(text)?;
    interrupt
        .bind(port, KEY_SLOTS, AckMode::OnDequeue)
        .map_err(text)?;
    for slot in slots {
        let function = topology.find(slot.port).ok_or("the port is gone")?;
        let messages = alloc::vec![message; usize::from(slot.vector).saturating_add(1)];
        message::program(access, access, &function.info, &messages)
            .and_then(|()| message::set_function(access, &function.info, VectorState::Unmasked))
            .map_err(|e| e.to_string())?;
        // Its message is a write to memory, which it has to be allowed to start.
        let held = access.read16(slot.port, register::COMMAND);
        let on = held | command::MEMORY | command::BUS_MASTER;
        access.write16(slot.port, register::COMMAND, on);
    }
    Ok(())
}

impl Bus {
    /// Serves what slots tell.
    pub fn look_at_slots(&mut self) {
        for _ in 0..LOOKS_MAX {
            let mut events = Vec::new();
            for (place, held) in self.slots.held.iter().enumerate() {
                let event = held.slot.look(&self.access, held.occupied);
                events.extend(event.map(|event| (place, event)));
            }
            if events.is_empty() {
                return;
            }
            for (place, event) in events {
                self.slot_event(place, event);
            }
        }
    }

    fn slot_event(&mut self, place: usize, event: SlotEvent) {
        let Some(held) = self.slots.held.get_mut(place) else {
            return;
        };
        let slot = held.slot;
        held.released.clear();
        match event {
            SlotEvent::RemovalAsked => {
                let below = self.topology.functions.iter();
                let below = below.filter(|f| f.bridge == Some(slot.port));
                for address in below.map(|f| f.info.address).collect::<Vec<_>>() {
                    self.tell(|events| events.removal_asked(address));
                }
            }
            SlotEvent::Removed => {
                held.occupied = Occupied::No;
                slot.set_power(&self.access, Power::Off);
                slot.close_windows(&self.access);
                for address in enumerate::remove_bus(&mut self.topology, slot.port) {
                    self.tell(|events| events.removed(address));
                }
            }
            SlotEvent::Inserted => {
                held.occupied = Occupied::Yes;
                slot.set_power(&self.access, Power::On);
                self.insert(slot);
            }
        }
    }

    fn insert(&mut self, slot: Slot) {
        let first = PciAddress {
            segment: slot.port.segment,
            bus: slot.bus,
            device: 0,
            function: 0,
        };
        let limit = Deadline::after_ms(READY_LIMIT_MS);
        // All ones: not there yet. 1: not ready yet (PCI Express Base, 2.3.2).
        while matches!(self.access.read16(first, register::VENDOR), 0xffff | 1) {
            if limit.has_passed() {
                let port = slot.port;
                rt::warn!("{port}: a device is in the slot and does not answer");
                return;
            }
            rt::time::sleep_until(Deadline::after_ms(READY_POLL_MS));
        }
        let added = enumerate::add_bus(&self.access, &mut self.topology, slot.port, slot.bus);
        assign::assign(&self.access, &mut self.topology, &self.apertures);
        for address in added {
            let Some(function) = self.topology.find(address) else {
                continue;
            };
            for fault in &function.info.faults {
                rt::warn!("{address}: {fault}");
            }
            let info = function.info.clone();
            self.tell(|events| events.added(&info));
        }
    }

    /// A function is out of service: with the last one of its slot, the slot is switched off.
    pub fn released(&mut self, address: PciAddress) {
        let Some(port) = self.topology.find(address).and_then(|f| f.bridge) else {
            return;
        };
        let Some(held) = self.slots.held.iter_mut().find(|h| h.slot.port == port) else {
            return;
        };
        held.released.insert(address);
        let mut below = self.topology.functions.iter();
        let all = below.all(|f| f.bridge != Some(port) || held.released.contains(&f.info.address));
        if held.occupied == Occupied::Yes && all {
            held.occupied = Occupied::Off;
            held.slot.set_power(&self.access, Power::Off);
            // The device may be gone with its power.
            self.look_at_slots();
        }
    }
}
