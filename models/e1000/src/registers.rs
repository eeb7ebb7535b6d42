//! BAR 0 (SDM 13, 82574 10.2): what the driver reads and writes, and whether it may.

use ddk::{Bus, Width};
use spec_e1000::{DESCRIPTOR_BYTES, MTA, MTA_WORDS, ctrl, rctl, status, tctl};

use crate::{E1000Model, Kind, Misbehaviour, RESET_SILENCE_NS, State};

const CTRL: usize = 0x0000;
const STATUS: usize = 0x0008;
const EERD: usize = 0x0014;
const CTRL_EXT: usize = 0x0018;
const ICR: usize = 0x00c0;
const IMS: usize = 0x00d0;
const IMC: usize = 0x00d8;
const EIAC: usize = 0x00dc;
const IAM: usize = 0x00e0;
const IVAR: usize = 0x00e4;
const EITR: usize = 0x00e8;
const EITR_END: usize = EITR + 4 * 5;
const RCTL: usize = 0x0100;
const TCTL: usize = 0x0400;
const TIPG: usize = 0x0410;
const RDBAL: usize = 0x2800;
const RDTR: usize = 0x2820;
const TDBAL: usize = 0x3800;
const TXDCTL: usize = 0x3828;
const CRCERRS: usize = 0x4000;
const RXERRC: usize = 0x400c;
const MPC: usize = 0x4010;
const RXCSUM: usize = 0x5000;
const MTA_END: usize = MTA + 4 * MTA_WORDS;
const RAL: usize = 0x5400;
const RAL_END: usize = RAL + 8 * 16;

/// Registers of a ring, from the first on (SDM 13.4.25 to 13.4.29).
const BASE_LOW: usize = 0x00;
const BASE_HIGH: usize = 0x04;
const LENGTH: usize = 0x08;
const HEAD: usize = 0x10;
const TAIL: usize = 0x18;
/// Units of a ring's length in bytes, and its longest (SDM 13.4.27).
const LENGTH_UNIT: u32 = 128;
const LENGTH_MAX: u32 = 1 << 20;
/// Reserved on the 8254x, to be set on the 82574 (SDM 13.4.44; 82574 10.2.6.11).
const TXDCTL_BIT_22: u32 = 1 << 22;

/// A ring of descriptors.
#[derive(Default)]
pub(crate) struct Ring {
    base: u64,
    length: u32,
    /// Where the controller goes on.
    pub(crate) head: u16,
    /// Where the driver's descriptors end.
    tail: u16,
}

impl Ring {
    fn entries(&self) -> u16 {
        (self.length as usize / DESCRIPTOR_BYTES) as u16
    }

    /// Descriptors that the controller may use.
    pub(crate) fn available(&self) -> u16 {
        match self.entries() {
            0 => 0,
            entries => (self.tail + entries - self.head) % entries,
        }
    }

    /// Device address of a descriptor.
    pub(crate) fn at(&self, index: u16) -> u64 {
        self.base + u64::from(index) * DESCRIPTOR_BYTES as u64
    }

    /// The next descriptor.
    pub(crate) fn after(&self, index: u16) -> u16 {
        if index + 1 >= self.entries() {
            0
        } else {
            index + 1
        }
    }

    fn read(&self, register: usize) -> u32 {
        match register {
            BASE_LOW => self.base as u32,
            BASE_HIGH => (self.base >> 32) as u32,
            LENGTH => self.length,
            HEAD => self.head.into(),
            _ => self.tail.into(),
        }
    }

    /// A write; `in_use`: the unit is switched on.
    fn write(&mut self, register: usize, value: u32, in_use: bool) -> Result<(), String> {
        if register != TAIL && in_use {
            return Err(format!(
                "ring register {register:#x} changed while it is in use"
            ));
        }
        match register {
            BASE_LOW if value & 0xf == 0 => {
                self.base = self.base & !0xffff_ffff | u64::from(value);
            }
            BASE_HIGH => self.base = self.base & 0xffff_ffff | u64::from(value) << 32,
            LENGTH if value.is_multiple_of(LENGTH_UNIT) && value <= LENGTH_MAX => {
                self.length = value;
            }
            HEAD if value < u32::from(self.entries()) => self.head = value as u16,
            TAIL if value < u32::from(self.entries()) => {
                let (before, was) = (self.available(), self.tail);
                self.tail = value as u16;
                if in_use && self.available() < before {
                    return Err(format!("tail from {was} to {value}, over the head"));
                }
            }
            _ => {
                let entries = self.entries();
                return Err(format!(
                    "ring register {register:#x} = {value:#x} with {entries} entries"
                ));
            }
        }
        Ok(())
    }
}

impl State {
    /// Whether this may be accessed now.
    fn check(&self, offset: usize, width: Width, now_ns: u64) -> Result<(), String> {
        if width != Width::U32 || !offset.is_multiple_of(4) {
            let bytes = width.bytes();
            return Err(format!("access of {bytes} bytes at {offset:#x}"));
        }
        if let Some(since) = self.resetting_since {
            // SDM 13.4.1: nothing for a microsecond, then CTRL, until the bit is clear.
            if now_ns < since + RESET_SILENCE_NS {
                return Err(format!("access at {offset:#x} within 1 µs of a reset"));
            }
            if offset != CTRL {
                return Err(format!("access at {offset:#x} during a reset"));
            }
        }
        let from_eeprom = offset == EERD || (RAL..RAL_END).contains(&offset);
        if self.loading && from_eeprom {
            return Err(format!("access at {offset:#x} while the EEPROM is loaded"));
        }
        let messages = offset == EIAC || (IAM..EITR_END).contains(&offset);
        if messages && self.kind == Kind::I82540em {
            return Err(format!(
                "access at {offset:#x}, which the 82540EM does not have"
            ));
        }
        Ok(())
    }

    fn status(&self) -> u32 {
        const SPEED_1000: u32 = 2 << status::SPEED_SHIFT;
        let mut value = status::FD | SPEED_1000;
        if self.link {
            value |= status::LU;
        }
        let quiet = !self.may_reach_memory() && !self.rx_busy && !self.tx_busy;
        if self.kind == Kind::I82574l && !quiet {
            value |= status::GIO_MASTER_ENABLE;
        }
        value
    }
}

impl E1000Model {
    fn read_register(&self, state: &mut State, offset: usize) -> Result<u32, String> {
        Ok(match offset {
            CTRL => state.ctrl,
            STATUS => state.status(),
            EERD => state.eerd,
            CTRL_EXT => state.ctrl_ext,
            ICR => self.read_causes(state),
            IMS => state.interrupts.ims,
            EIAC => state.interrupts.eiac,
            IAM => state.interrupts.iam,
            IVAR => state.interrupts.ivar,
            EITR..EITR_END => state.interrupts.eitr[(offset - EITR) / 4],
            RCTL => state.rctl,
            TCTL => state.tctl,
            RDTR => state.rdtr,
            TXDCTL => state.txdctl,
            RXCSUM => state.rxcsum,
            // What they count does not happen on this wire.
            CRCERRS | RXERRC => 0,
            MPC => std::mem::take(&mut state.missed),
            MTA..MTA_END => state.filter[(offset - MTA) / 4],
            RAL..RAL_END => {
                let (low, high) = state.addresses[(offset - RAL) / 8];
                if offset.is_multiple_of(8) { low } else { high }
            }
            _ => match ring_register(offset) {
                Some((RDBAL, register)) => state.rx.read(register),
                Some((_, register)) => state.tx.read(register),
                None => return Err(format!("read of {offset:#x}")),
            },
        })
    }

    fn write_register(&self, state: &mut State, offset: usize, value: u32) -> Result<(), String> {
        match offset {
            CTRL => return self.control(state, value),
            EERD => self.start_eeprom_read(state, value),
            CTRL_EXT => state.ctrl_ext = value,
            ICR => state.interrupts.icr &= !value,
            IMS => {
                state.interrupts.ims |= value;
                self.message(state, value);
            }
            IMC => state.interrupts.ims &= !value,
            EIAC | IAM if offset == EIAC && value & !(0x1f << 20) != 0 => {
                return Err(format!("EIAC = {value:#x}"));
            }
            EIAC => state.interrupts.eiac = value,
            IAM => state.interrupts.iam = value,
            IVAR => state.interrupts.ivar = value,
            EITR..EITR_END if value <= 0xffff => {
                state.interrupts.eitr[(offset - EITR) / 4] = value;
            }
            RCTL => {
                let types = value >> 10 & 3;
                let starts = value & rctl::EN != 0 && state.rctl & rctl::EN == 0;
                if types != 0 || starts && state.rx.length == 0 {
                    return Err(format!("RCTL = {value:#x} before its ring exists"));
                }
                state.rctl = value;
                self.pump_receive(state);
            }
            TCTL => {
                let starts = value & tctl::EN != 0 && state.tctl & tctl::EN == 0;
                if starts && state.tx.length == 0 {
                    return Err(format!("TCTL = {value:#x} before its ring exists"));
                }
                state.tctl = value;
                self.pump_transmit(state);
            }
            // The gap is for wires with other speeds and collisions.
            TIPG => {}
            RDTR if value <= 0xffff => state.rdtr = value,
            TXDCTL => {
                let is_pcie = state.kind == Kind::I82574l;
                if is_pcie != (value & TXDCTL_BIT_22 != 0) {
                    return Err(format!("TXDCTL = {value:#x}: bit 22"));
                }
                state.txdctl = value;
            }
            RXCSUM => state.rxcsum = value,
            MTA..MTA_END => state.filter[(offset - MTA) / 4] = value,
            RAL..RAL_END => {
                let entry = &mut state.addresses[(offset - RAL) / 8];
                if offset.is_multiple_of(8) {
                    entry.0 = value;
                } else {
                    entry.1 = value;
                }
            }
            _ => match ring_register(offset) {
                Some((RDBAL, register)) => {
                    let in_use = state.rctl & rctl::EN != 0;
                    let written = state.rx.write(register, value, in_use);
                    self.pump_receive(state);
                    return written.map_err(|what| format!("receive: {what}"));
                }
                Some((_, register)) => {
                    let in_use = state.tctl & tctl::EN != 0;
                    let written = state.tx.write(register, value, in_use);
                    self.pump_transmit(state);
                    return written.map_err(|what| format!("transmit: {what}"));
                }
                None => return Err(format!("write of {value:#x} at {offset:#x}")),
            },
        }
        Ok(())
    }

    /// A write to CTRL (SDM 13.4.1).
    fn control(&self, state: &mut State, value: u32) -> Result<(), String> {
        if state.kind == Kind::I82540em && value & ctrl::GIO_MASTER_DISABLE != 0 {
            return Err(format!("CTRL = {value:#x}: bit 2 of the 82540EM"));
        }
        if value & ctrl::RST != 0 {
            state.ctrl = value;
            state.resetting_since = Some(self.sim.now_ns());
            if state.misbehaviour != Misbehaviour::Dead {
                let least = RESET_SILENCE_NS;
                let most = least + self.timing.reset_ns.end();
                self.later(state.life, least..=most, |me, state| me.reset(state));
            }
            return Ok(());
        }
        state.ctrl = value;
        self.negotiate(state);
        self.pump_receive(state);
        self.pump_transmit(state);
        Ok(())
    }
}

/// Which ring a register is of, and which of its registers.
fn ring_register(offset: usize) -> Option<(usize, usize)> {
    let ring = [RDBAL, TDBAL]
        .into_iter()
        .find(|ring| (*ring..=ring + TAIL).contains(&offset))?;
    let register = offset - ring;
    let known = [BASE_LOW, BASE_HIGH, LENGTH, HEAD, TAIL].contains(&register);
    known.then_some((ring, register))
}

impl Bus for E1000Model {
    fn read(&self, offset: usize, width: Width) -> u64 {
        let state = &mut *self.state.lock().unwrap();
        if state.gone {
            return width.all_ones();
        }
        let seen = state
            .check(offset, width, self.sim.now_ns())
            .and_then(|()| self.read_register(state, offset));
        match seen {
            Ok(value) => value.into(),
            Err(text) => {
                self.violation(text);
                0
            }
        }
    }

    fn write(&self, offset: usize, width: Width, value: u64) {
        let state = &mut *self.state.lock().unwrap();
        if state.gone {
            return;
        }
        let done = state
            .check(offset, width, self.sim.now_ns())
            .and_then(|()| self.write_register(state, offset, value as u32));
        if let Err(text) = done {
            self.violation(text);
        }
    }
}
