//! A machine's configuration space in memory: functions with writable masks, bridges that route, reset
//! and decoding side effects, for the tests of this crate.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use proto::bus::PciAddress;

use crate::config::{Clock, ConfigSpace, DeviceMemory, Width, command, id, register};

/// One function: 4096 bytes and which bits a write changes.
#[derive(Clone)]
pub struct FakeFunction {
    pub bytes: Vec<u8>,
    pub writable: Vec<u8>,
    /// Whether function-level reset clears command and BARs.
    pub on_flr: bool,
}

impl FakeFunction {
    pub fn device(vendor: u16, device: u16, class: [u8; 3]) -> Self {
        let mut f = Self {
            bytes: vec![0; 4096],
            writable: vec![0; 4096],
            on_flr: false,
        };
        f.set16(register::VENDOR, vendor);
        f.set16(register::DEVICE, device);
        f.bytes[0x09] = class[2];
        f.bytes[0x0a] = class[1];
        f.bytes[0x0b] = class[0];
        f.writable[0x04] = 0x07;
        f.writable[0x05] = 0x04;
        f.writable[0x0c] = 0xff;
        f.writable[0x3c] = 0xff;
        f
    }

    pub fn bridge(secondary: u8, subordinate: u8) -> Self {
        let mut f = Self::device(0x1b36, 0x000c, [6, 4, 0]);
        f.bytes[0x0e] = 1;
        f.bytes[0x19] = secondary;
        f.bytes[0x1a] = subordinate;
        for at in [0x18, 0x19, 0x1a] {
            f.writable[at] = 0xff;
        }
        f.bytes[0x1c] = 0xf0; // I/O window closed
        for at in [0x1c, 0x1d, 0x20, 0x22] {
            f.writable[at] = 0xf0;
        }
        for at in [0x21, 0x23, 0x3e] {
            f.writable[at] = 0xff;
        }
        f.set16(register::MEMORY_BASE, 0xfff0);
        f.set16(register::PREFETCH_BASE, 0xfff0);
        f
    }

    pub fn multi(mut self) -> Self {
        self.bytes[0x0e] |= 0x80;
        self
    }

    pub fn set16(&mut self, at: u16, value: u16) {
        self.bytes[usize::from(at)..][..2].copy_from_slice(&value.to_le_bytes());
    }

    pub fn set32(&mut self, at: u16, value: u32) {
        self.bytes[usize::from(at)..][..4].copy_from_slice(&value.to_le_bytes());
    }

    /// A BAR of `len` bytes with these low bits at `base`.
    pub fn bar(mut self, index: u8, len: u64, low: u32, base: u64) -> Self {
        let at = crate::bar::offset(index);
        let mask = (len - 1) ^ u64::MAX;
        self.set32(at, base as u32 | low);
        let writable = (mask as u32)
            & if low & 1 != 0 {
                0xffff_fffc
            } else {
                0xffff_fff0
            };
        self.writable[usize::from(at)..][..4].copy_from_slice(&writable.to_le_bytes());
        if low & 6 == 4 {
            self.set32(at + 4, (base >> 32) as u32);
            let high = ((mask >> 32) as u32).to_le_bytes();
            self.writable[usize::from(at) + 4..][..4].copy_from_slice(&high);
        }
        self
    }

    /// A capability with a body; they must be added from the last to the first.
    pub fn capability(mut self, at: u8, id: u16, body: &[u8]) -> Self {
        let next = self.bytes[usize::from(register::CAPABILITIES)];
        self.bytes[0x06] |= 0x10;
        self.bytes[usize::from(register::CAPABILITIES)] = at;
        self.bytes[usize::from(at)] = id as u8;
        self.bytes[usize::from(at) + 1] = next;
        self.bytes[usize::from(at) + 2..][..body.len()].copy_from_slice(body);
        self
    }

    pub fn writable_at(mut self, at: usize, mask: &[u8]) -> Self {
        self.writable[at..][..mask.len()].copy_from_slice(mask);
        self
    }

    /// A virtio function as QEMU shows it on a root bus: BAR 1 with MSI-X, BAR 4 with the common
    /// configuration.
    pub fn virtio(bar1: u64, bar4: u64) -> Self {
        Self::device(0x1af4, 0x1042, [1, 0, 0])
            .bar(1, 0x1000, 0, bar1)
            .bar(4, 0x4000, 0xc, bar4)
            .capability(
                0x84,
                id::VENDOR,
                &[20, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            )
            .capability(
                0x40,
                id::VENDOR,
                &[16, 1, 4, 0, 0, 0, 0, 0x10, 0, 0, 0, 1, 0, 0],
            )
            .capability(0x98, id::MSIX, &[4, 0, 1, 0, 0, 0, 1, 8, 0, 0])
            .writable_at(0x9b, &[0xc0])
    }
}

pub fn at(bus: u8, device: u8, function: u8) -> PciAddress {
    PciAddress {
        segment: 0,
        bus,
        device,
        function,
    }
}

#[derive(Default)]
pub struct Machine {
    pub functions: RefCell<BTreeMap<PciAddress, FakeFunction>>,
    pub memory: RefCell<BTreeMap<u64, u8>>,
    /// Every write: what happened in which order.
    pub trace: RefCell<Vec<String>>,
    pub now_ms: Cell<u64>,
    /// A virtio device status that a write does not clear.
    pub stuck: Cell<bool>,
}

impl Machine {
    pub fn with(functions: impl IntoIterator<Item = (PciAddress, FakeFunction)>) -> Self {
        Self {
            functions: RefCell::new(functions.into_iter().collect()),
            ..Self::default()
        }
    }

    /// Whether bridges (or a root bus) lead to this bus.
    fn routed(&self, bus: u8) -> bool {
        [0, 0x40].contains(&bus)
            || self.functions.borrow().iter().any(|(a, f)| {
                let (secondary, subordinate) = (f.bytes[0x19], f.bytes[0x1a]);
                f.bytes[0x0e] & 0x7f == 1
                    && a.bus < bus
                    && secondary != 0
                    && (secondary..=subordinate).contains(&bus)
                    && self.routed(a.bus)
            })
    }

    pub fn get16(&self, address: PciAddress, offset: u16) -> u16 {
        self.read16(address, offset)
    }
}

impl ConfigSpace for Machine {
    fn read(&self, address: PciAddress, offset: u16, width: Width) -> u32 {
        let functions = self.functions.borrow();
        let Some(f) = functions.get(&address).filter(|_| self.routed(address.bus)) else {
            return width.all_ones();
        };
        let mut value = [0; 4];
        let len = usize::from(width.bytes());
        value[..len].copy_from_slice(&f.bytes[usize::from(offset)..][..len]);
        u32::from_le_bytes(value)
    }

    fn write(&self, address: PciAddress, offset: u16, width: Width, value: u32) {
        if !self.routed(address.bus) {
            return;
        }
        let mut functions = self.functions.borrow_mut();
        let Some(f) = functions.get_mut(&address) else {
            return;
        };
        let mut text = format!("{address} {offset:#x} = {value:#x}");
        for (i, byte) in value
            .to_le_bytes()
            .iter()
            .take(width.bytes().into())
            .enumerate()
        {
            let at = usize::from(offset) + i;
            let mask = f.writable[at];
            f.bytes[at] = f.bytes[at] & !mask | byte & mask;
        }
        let express = (0..6).find_map(|_| {
            let mut at = usize::from(f.bytes[0x34]);
            for _ in 0..48 {
                if at == 0 {
                    return None;
                }
                if u16::from(f.bytes[at]) == id::EXPRESS {
                    return Some(at);
                }
                at = usize::from(f.bytes[at + 1]);
            }
            None
        });
        if f.on_flr && express.is_some_and(|e| usize::from(offset) == e + 8) && value & 0x8000 != 0
        {
            text.push_str(" (FLR)");
            f.set16(register::COMMAND, 0);
            for index in 0..6 {
                f.set32(crate::bar::offset(index), 0);
            }
        }
        self.trace.borrow_mut().push(text);
    }

    fn size(&self) -> u16 {
        4096
    }

    fn buses(&self) -> (u8, u8) {
        (0, 255)
    }
}

impl DeviceMemory for Machine {
    fn read(&self, physical: u64, width: Width) -> Option<u32> {
        let memory = self.memory.borrow();
        let mut value = [0; 4];
        for (i, byte) in value.iter_mut().enumerate().take(width.bytes().into()) {
            *byte = memory.get(&(physical + i as u64)).copied().unwrap_or(0);
        }
        Some(u32::from_le_bytes(value))
    }

    fn write(&self, physical: u64, width: Width, value: u32) -> Option<()> {
        self.trace
            .borrow_mut()
            .push(format!("[{physical:#x}] = {value:#x}"));
        if self.stuck.get() {
            return Some(());
        }
        let mut memory = self.memory.borrow_mut();
        for (i, byte) in value
            .to_le_bytes()
            .iter()
            .take(width.bytes().into())
            .enumerate()
        {
            memory.insert(physical + i as u64, *byte);
        }
        Some(())
    }
}

impl Clock for Machine {
    fn now_ns(&self) -> u64 {
        self.now_ms.get() * 1_000_000
    }
    fn sleep_ms(&self, ms: u32) {
        self.now_ms.set(self.now_ms.get() + u64::from(ms));
    }
}

/// Keeps `command` in use here: what a running driver has on.
pub fn start(machine: &Machine, address: PciAddress) {
    machine.write16(
        address,
        register::COMMAND,
        command::MEMORY | command::BUS_MASTER,
    );
}
