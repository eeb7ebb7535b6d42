//! Slots whose devices come and go (PCI Express Base, 6.7): what a port's registers say, and its power.
//!
//! It does not enumerate what was plugged in (see [`crate::enumerate::add_bus`]) and drives no buttons or
//! latches beyond the attention button.

use alloc::vec::Vec;

use proto::bus::PciAddress;

use crate::capability;
use crate::config::{ConfigSpace, command, id, register};
use crate::enumerate::Topology;

/// Offsets in the PCI Express capability (7.5.3).
const CAPABILITIES: u16 = 0x02;
const SLOT_CAPABILITIES: u16 = 0x14;
const SLOT_CONTROL: u16 = 0x18;
const SLOT_STATUS: u16 = 0x1a;

/// PCI Express capabilities: a slot is there; the port's type; the vector of its interrupts.
const SLOT_IMPLEMENTED: u16 = 1 << 8;
const TYPE_ROOT_PORT: u16 = 4;
const TYPE_DOWNSTREAM_PORT: u16 = 6;

/// Slot capabilities (7.5.3.9).
const POWER_CONTROLLER: u32 = 1 << 1;
const HOT_PLUG_CAPABLE: u32 = 1 << 6;

/// Slot control (7.5.3.10): what interrupts.
const BUTTON_ENABLE: u16 = 1 << 0;
const PRESENCE_ENABLE: u16 = 1 << 3;
const COMMAND_ENABLE: u16 = 1 << 4;
const INTERRUPT_ENABLE: u16 = 1 << 5;
const POWER_INDICATOR: u16 = 3 << 8;
const POWER_INDICATOR_ON: u16 = 1 << 8;
const POWER_OFF: u16 = 1 << 10;

/// Slot status (7.5.3.11): events are cleared by writing 1.
const BUTTON_PRESSED: u16 = 1 << 0;
const PRESENCE_CHANGED: u16 = 1 << 3;
const PRESENT: u16 = 1 << 6;
const EVENTS: u16 = 0x1f | 1 << 8;

/// A slot below a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slot {
    /// The port.
    pub port: PciAddress,
    /// The bus behind it.
    pub bus: u8,
    /// Number of the vector that its events come by.
    pub vector: u16,
    /// Where its PCI Express capability is.
    at: u16,
    has_power: Option<PowerController>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct PowerController;

/// What a slot's registers tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SlotEvent {
    /// A device is there that was not.
    Inserted,
    /// The device that was there is gone.
    Removed,
    /// Somebody wants to take it out.
    RemovalAsked,
}

/// What is known of a slot's device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Occupied {
    /// It was enumerated and is on.
    Yes,
    /// It was switched off, to be taken out.
    Off,
    /// There is none.
    No,
}

/// What a slot gives its device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Power {
    /// Power and link.
    On,
    /// Nothing.
    Off,
}

/// The slots of a topology that can change.
pub fn slots(config: &impl ConfigSpace, topology: &Topology) -> Vec<Slot> {
    let slot = |f: &crate::enumerate::Function| {
        let (bus, _) = f.info.buses?;
        let port = f.info.address;
        let at = capability::find(&f.info.capabilities, id::EXPRESS)?;
        let end = at.checked_add(SLOT_STATUS + 2)?;
        let capabilities = config.read16(port, at.saturating_add(CAPABILITIES));
        let kind = capabilities >> 4 & 0xf;
        let is_port = kind == TYPE_ROOT_PORT || kind == TYPE_DOWNSTREAM_PORT;
        if !is_port || capabilities & SLOT_IMPLEMENTED == 0 || end > 0x100 {
            return None;
        }
        let slot = config.read32(port, at.saturating_add(SLOT_CAPABILITIES));
        (slot & HOT_PLUG_CAPABLE != 0).then_some(Slot {
            port,
            bus,
            vector: capabilities >> 9 & 0x1f,
            at,
            has_power: (slot & POWER_CONTROLLER != 0).then_some(PowerController),
        })
    };
    topology.functions.iter().filter_map(slot).collect()
}

impl Slot {
    fn read(&self, config: &impl ConfigSpace, register: u16) -> u16 {
        config.read16(self.port, self.at.saturating_add(register))
    }

    fn write(&self, config: &impl ConfigSpace, register: u16, value: u16) {
        config.write16(self.port, self.at.saturating_add(register), value);
    }

    /// Forgets what happened so far.
    pub fn forget(&self, config: &impl ConfigSpace) {
        self.write(config, SLOT_STATUS, EVENTS);
    }

    /// Lets the slot interrupt: at its button and at changes of presence.
    pub fn arm(&self, config: &impl ConfigSpace) {
        let held = self.read(config, SLOT_CONTROL) & !COMMAND_ENABLE;
        let wanted = BUTTON_ENABLE | PRESENCE_ENABLE | INTERRUPT_ENABLE;
        self.write(config, SLOT_CONTROL, held | wanted);
    }

    /// Looks at a slot and clears what it tells. A port that reads all ones is gone, and its device with it.
    pub fn look(&self, config: &impl ConfigSpace, occupied: Occupied) -> Option<SlotEvent> {
        let status = self.read(config, SLOT_STATUS);
        if status != 0xffff && status & EVENTS != 0 {
            self.write(config, SLOT_STATUS, status & EVENTS);
        }
        let present = status != 0xffff && status & PRESENT != 0;
        let changed = status & PRESENCE_CHANGED != 0;
        let pressed = status & BUTTON_PRESSED != 0;
        match (occupied, present) {
            (Occupied::Yes | Occupied::Off, false) => Some(SlotEvent::Removed),
            (Occupied::No, true) => Some(SlotEvent::Inserted),
            // Another one is in its place.
            (Occupied::Yes, true) if changed && !pressed => Some(SlotEvent::Removed),
            (Occupied::Yes, true) if pressed => Some(SlotEvent::RemovalAsked),
            // It stays after all.
            (Occupied::Off, true) if pressed => Some(SlotEvent::Removed),
            _ => None,
        }
    }

    /// Switches the slot's device on or off, with the indicator. A slot without a power controller is on.
    pub fn set_power(&self, config: &impl ConfigSpace, power: Power) {
        let held = self.read(config, SLOT_CONTROL) & !POWER_INDICATOR;
        let value = match power {
            Power::On => held & !POWER_OFF | POWER_INDICATOR_ON,
            Power::Off if self.has_power.is_some() => held | POWER_OFF | POWER_INDICATOR,
            Power::Off => held | POWER_INDICATOR,
        };
        self.write(config, SLOT_CONTROL, value);
    }

    /// Whether its power controller keeps it off.
    pub fn is_off(&self, config: &impl ConfigSpace) -> bool {
        self.has_power.is_some() && self.read(config, SLOT_CONTROL) & POWER_OFF != 0
    }

    /// Closes the windows of the port, so that the next device gets ones of its own size.
    pub fn close_windows(&self, config: &impl ConfigSpace) {
        let held = config.read16(self.port, register::COMMAND);
        let off = held & !(command::MEMORY | command::IO);
        config.write16(self.port, register::COMMAND, off);
        config.write16(self.port, register::MEMORY_BASE, 0xfff0);
        config.write16(self.port, register::MEMORY_LIMIT, 0);
        config.write8(self.port, register::IO_BASE, 0xf0);
        config.write8(self.port, register::IO_LIMIT, 0);
        // Its own registers stay reachable: its interrupts are programmed there.
        config.write16(self.port, register::COMMAND, held);
    }
}
