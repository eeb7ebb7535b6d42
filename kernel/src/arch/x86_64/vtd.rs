//! DMA remapping (Intel Virtualization Technology for Directed I/O, specification 4.1): a device reaches the pages that
//! its domain maps, at their physical addresses, and nothing else. A device without a domain reaches nothing, but for
//! what the firmware reserved for it.
//!
//! All units of segment 0 share one root table, so which unit a device sits behind does not matter. Devices of other
//! segments are not contained. Interrupts are not remapped. Requests of conventional PCI devices behind a bridge carry
//! the bridge's number (3.9.2); such devices are not told apart from each other and get no translation of their own.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering, fence};

use super::acpi::{DmarEntry, for_each_dmar_entry};
use super::layout::{PAGE_SIZE, phys_to_virt};
use super::{kernel_map, time, vectors};
use crate::arch::NoMemory;
use crate::lock::Locked;
use crate::memory::frames;

/// Registers (chapter 11).
mod register {
    pub const CAPABILITY: usize = 0x08;
    pub const EXTENDED: usize = 0x10;
    pub const COMMAND: usize = 0x18;
    pub const STATUS: usize = 0x1c;
    pub const ROOT: usize = 0x20;
    pub const CONTEXT: usize = 0x28;
    pub const FAULT_STATUS: usize = 0x34;
    pub const FAULT_CONTROL: usize = 0x38;
    pub const FAULT_DATA: usize = 0x3c;
    pub const FAULT_ADDRESS: usize = 0x40;
    pub const PROTECTED: usize = 0x64;
}

/// Bits of the command and status registers (11.4.4, 11.4.5).
const ENABLE: u32 = 1 << 31;
const SET_ROOT: u32 = 1 << 30;
const FLUSH_WRITES: u32 = 1 << 27;
/// Bits of the status that a command repeats; the others act once.
const LASTING: u32 = 0x96ff_ffff;

/// Invalidate the context cache, all of it (11.4.6.1).
const CONTEXT_ALL: u64 = 1 << 63 | 1 << 61;
/// Invalidate translations once reads and writes under way are through (11.4.6.2).
const TRANSLATIONS: u64 = 1 << 63 | 1 << 49 | 1 << 48;
const OF_ALL: u64 = 1 << 60;
const OF_DOMAIN: u64 = 2 << 60;

/// A fault that is recorded: at bit 63 of the second half (11.4.14).
const FAULT: u64 = 1 << 63;
/// In the same half: it was a read.
const FAULT_READ: u64 = 1 << 62;

/// In root and context entries (9.1, 9.3).
const PRESENT: u64 = 1;
/// In context entries (9.3): no further fault of this device is recorded.
const QUIET: u64 = 1 << 1;
/// In second-stage entries (9.8).
const READ: u64 = 1;
const WRITE: u64 = 2;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// Bits that the hardware ignores: how many pins hold the page.
const HOLDS_SHIFT: u32 = 52;
const HOLDS_MAX: u64 = 0x1ff;

const UNITS_MAX: usize = 16;
/// Domain numbers in use at most; the hardware has 16 or more (11.4.2, ND).
const DOMAINS_MAX: usize = 256;
/// The hardware answers a command within microseconds.
const ANSWER_NS: u64 = 1_000_000_000;

/// Why a device cannot be given a page.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum IoError {
    /// No frame for a table, or no number for a domain.
    NoMemory,
    /// The address is wider than the unit's, or the page is held too often.
    OutOfRange,
}

#[derive(Clone, Copy)]
struct Unit {
    registers: usize,
    /// Offset of the register that invalidates translations.
    invalidate: usize,
    /// Offset and number of fault records.
    faults: (usize, usize),
    capability: u64,
    /// It reads tables through the caches.
    coherent: bool,
}

impl Unit {
    fn new(address: u64) -> Result<Unit, NoMemory> {
        let registers = kernel_map::registers(address, PAGE_SIZE)?;
        let mut unit = Unit {
            registers,
            invalidate: 0,
            faults: (0, 0),
            capability: 0,
            coherent: false,
        };
        let extended = unit.read64(register::EXTENDED);
        unit.capability = unit.read64(register::CAPABILITY);
        unit.coherent = extended & 1 != 0;
        unit.invalidate = (extended >> 8 & 0x3ff) as usize * 16 + 8;
        unit.faults = (
            (unit.capability >> 24 & 0x3ff) as usize * 16,
            (unit.capability >> 40 & 0xff) as usize + 1,
        );
        let len = (unit.invalidate + 8).max(unit.faults.0 + unit.faults.1 * 16);
        if len > PAGE_SIZE {
            unit.registers = kernel_map::registers(address, len)?;
        }
        Ok(unit)
    }

    fn read32(&self, register: usize) -> u32 {
        // SAFETY: the unit's registers are mapped up to the last that is used.
        unsafe { ((self.registers + register) as *const u32).read_volatile() }
    }

    fn write32(&self, register: usize, value: u32) {
        // SAFETY: as in `read32`; tables are complete before the unit is told of them.
        unsafe { ((self.registers + register) as *mut u32).write_volatile(value) }
    }

    fn read64(&self, register: usize) -> u64 {
        // SAFETY: as in `read32`.
        unsafe { ((self.registers + register) as *const u64).read_volatile() }
    }

    fn write64(&self, register: usize, value: u64) {
        // SAFETY: as in `write32`.
        unsafe { ((self.registers + register) as *mut u64).write_volatile(value) }
    }

    /// Waits for the hardware. One that does not answer contains nothing any more: there is no system with it.
    fn until(&self, what: &str, done: impl Fn(&Unit) -> bool) {
        let end = time::now_ns() + ANSWER_NS;
        while !done(self) {
            assert!(time::now_ns() < end, "the IOMMU does not {what}");
            core::hint::spin_loop();
        }
    }

    fn command(&self, bit: u32, what: &str) {
        let lasting = self.read32(register::STATUS) & LASTING;
        self.write32(register::COMMAND, lasting | bit);
        self.until(what, |unit| unit.read32(register::STATUS) & bit != 0);
    }

    /// Writes that wait in the chipset reach memory, where the unit would not look for them (6.8).
    fn flush_writes(&self) {
        if self.capability & 1 << 4 != 0 {
            let lasting = self.read32(register::STATUS) & LASTING;
            self.write32(register::COMMAND, lasting | FLUSH_WRITES);
            self.until("flush its writes", |unit| {
                unit.read32(register::STATUS) & FLUSH_WRITES == 0
            });
        }
    }

    fn forget_contexts(&self) {
        self.flush_writes();
        self.write64(register::CONTEXT, CONTEXT_ALL);
        self.until("forget contexts", |unit| {
            unit.read64(register::CONTEXT) >> 63 == 0
        });
    }

    fn forget_translations(&self, which: u64) {
        self.flush_writes();
        self.write64(self.invalidate, TRANSLATIONS | which);
        self.until("forget translations", |unit| {
            unit.read64(unit.invalidate) >> 63 == 0
        });
    }

    /// Tables of three or four levels, as bits 1 and 2 (11.4.2, SAGAW).
    fn widths(&self) -> u64 {
        self.capability >> 8 & 0b110
    }

    /// Whether it remembers that something was not there (11.4.2, CM).
    fn remembers_absence(&self) -> bool {
        self.capability & 1 << 7 != 0
    }

    /// Has it interrupt this processor when it refuses something; without an address it keeps quiet (11.4.7).
    fn report_faults(&self) {
        let Some(address) = vectors::message_address() else {
            return;
        };
        self.write32(register::FAULT_DATA, vectors::REFUSAL.into());
        self.write32(register::FAULT_ADDRESS, address as u32);
        self.write32(register::FAULT_ADDRESS + 4, (address >> 32) as u32);
        self.write32(register::FAULT_CONTROL, 0);
    }

    /// Takes the records of what it refused: logs each, and adds its device to `devices`.
    fn take_faults(&self, devices: &mut Vec<u16>) {
        if self.read32(register::FAULT_STATUS) & 0b11 == 0 {
            return;
        }
        for record in 0..self.faults.1 {
            let at = self.faults.0 + record * 16;
            let what = self.read64(at + 8);
            if what & FAULT == 0 {
                continue;
            }
            log!(
                "IOMMU: device {:02x}:{:02x}.{} was refused to {} {:#x} (reason {:#x})",
                what >> 8 & 0xff,
                what >> 3 & 0x1f,
                what & 7,
                if what & FAULT_READ != 0 {
                    "read"
                } else {
                    "write"
                },
                self.read64(at) & !0xfff,
                what >> 32 & 0xff
            );
            devices.push(what as u16);
            self.write64(at + 8, FAULT);
        }
        // Overflow: more faults than records. Whose the others were is lost (PFO); such a device is refused all the
        // same, and is told of at its next stray access.
        self.write32(register::FAULT_STATUS, 1);
    }
}

struct Remapping {
    units: Vec<Unit>,
    root: u64,
    /// Levels of second-stage tables.
    levels: u32,
    domains: [u64; DOMAINS_MAX / 64],
    domain_count: usize,
    /// What the firmware reserved: device, and the space that maps it.
    reserved: Vec<(u16, Space)>,
}

static REMAPPING: Locked<Option<Remapping>> = Locked::new(None);

/// Second-stage tables with their domain number.
struct Space {
    table: u64,
    levels: u32,
    coherent: bool,
    number: u16,
}

/// What one device reaches.
pub struct IoSpace {
    device: u16,
    space: Space,
}

/// Takes over the units that a DMAR table names, and lets no device reach anything. Without memory for the tables, or
/// with units that have no table format in common, DMA stays as it was.
pub fn init(dmar: &[u8]) {
    let mut units = Vec::new();
    for_each_dmar_entry(dmar, |entry| {
        if let DmarEntry::Unit {
            segment: 0,
            address,
        } = entry
            && units.len() < UNITS_MAX
            && let Ok(unit) = Unit::new(address)
        {
            units.push(unit);
        }
    });
    if units.is_empty() {
        return;
    }
    let widths = units.iter().fold(0b110, |all, unit| all & unit.widths());
    let levels = match widths {
        0 => {
            log!("IOMMU: its units have no table format in common: DMA is not contained");
            return;
        }
        _ if widths & 0b100 != 0 => 4,
        _ => 3,
    };
    let numbers = units
        .iter()
        .map(|unit| 16usize << (2 * (unit.capability & 7)))
        .min();
    let Some(root) = frames::alloc_zeroed() else {
        return;
    };
    let mut remapping = Remapping {
        units,
        root,
        levels,
        // Number 0 means "none" to units that remember absence (6.1).
        domains: [1, 0, 0, 0],
        domain_count: numbers.unwrap_or(0).min(DOMAINS_MAX),
        reserved: Vec::new(),
    };
    for_each_dmar_entry(dmar, |entry| {
        if let DmarEntry::Reserved { device, range } = entry {
            remapping.reserve(device, range);
        }
    });
    remapping.start();
    log!(
        "IOMMU: VT-d, {} units, {} domains, tables of {levels} levels",
        remapping.units.len(),
        remapping.domain_count
    );
    *REMAPPING.borrow_mut() = Some(remapping);
}

impl Remapping {
    fn start(&self) {
        flush(self.root, PAGE_SIZE, self.is_coherent());
        for unit in &self.units {
            unit.flush_writes();
            unit.write64(register::ROOT, self.root);
            unit.command(SET_ROOT, "take its root table");
            unit.forget_contexts();
            unit.forget_translations(OF_ALL);
            unit.report_faults();
            unit.command(ENABLE, "start");
            // Areas that firmware had closed to all devices are covered by the tables now (11.4.8).
            if unit.capability & 0b110_0000 != 0 {
                unit.write32(register::PROTECTED, 0);
                unit.until("open its protected memory", |unit| {
                    unit.read32(register::PROTECTED) & 1 == 0
                });
            }
        }
    }

    fn is_coherent(&self) -> bool {
        self.units.iter().all(|unit| unit.coherent)
    }

    fn space(&mut self) -> Result<Space, IoError> {
        let number = (0..self.domain_count)
            .find(|n| self.domains[n / 64] & 1 << (n % 64) == 0)
            .ok_or(IoError::NoMemory)?;
        let table = frames::alloc_zeroed().ok_or(IoError::NoMemory)?;
        let coherent = self.is_coherent();
        flush(table, PAGE_SIZE, coherent);
        self.domains[number / 64] |= 1 << (number % 64);
        Ok(Space {
            table,
            levels: self.levels,
            coherent,
            number: number as u16,
        })
    }

    /// Firmware may go on using what it reserved, until a driver has the device (8.4). Half a reservation is none.
    fn reserve(&mut self, device: u16, range: (u64, u64)) {
        let known = self.reserved.iter().position(|(d, _)| *d == device);
        let at = match known {
            Some(at) => at,
            None => {
                let Ok(space) = self.space() else { return };
                self.reserved.push((device, space));
                self.reserved.len() - 1
            }
        };
        if let Some((_, space)) = self.reserved.get(at) {
            let mapped = (range.0 & ADDRESS..=range.1)
                .step_by(PAGE_SIZE)
                .try_for_each(|page| space.map(page, READ | WRITE));
            if mapped.is_err() {
                log!("IOMMU: no memory for what firmware reserved for device {device:#x}");
            }
            self.point(device, Some(at));
        }
    }

    /// Points a device at a reservation, or at nothing.
    fn point(&mut self, device: u16, reserved: Option<usize>) {
        let entry = reserved
            .and_then(|at| self.reserved.get(at))
            .map(|(_, space)| space.context());
        if entry.is_some() || self.context(device, false).is_some() {
            let _ = self.set(device, entry);
        }
    }

    /// Where a device's context entry is; `make` makes its table.
    fn context(&self, device: u16, make: bool) -> Option<u64> {
        let bus = usize::from(device >> 8);
        let root = entry(self.root, bus * 2);
        let mut table = root.load(Ordering::Relaxed);
        if table & PRESENT == 0 {
            if !make {
                return None;
            }
            let new = frames::alloc_zeroed()?;
            flush(new, PAGE_SIZE, self.is_coherent());
            table = new | PRESENT;
            root.store(table, Ordering::Release);
            flush(self.root + bus as u64 * 16, 16, self.is_coherent());
        }
        Some((table & ADDRESS) + u64::from(device & 0xff) * 16)
    }

    /// Changes a device's context entry, and makes all units forget the old one.
    fn set(&mut self, device: u16, context: Option<(u64, u64)>) -> Result<(), IoError> {
        let at = self.context(device, true).ok_or(IoError::NoMemory)?;
        let (page, slot) = (at & ADDRESS, (at & 0xfff) as usize / 8);
        let (low, high) = (entry(page, slot), entry(page, slot + 1));
        low.store(0, Ordering::Release);
        flush(at, 16, self.is_coherent());
        self.forget(OF_ALL);
        if let Some((first, second)) = context {
            high.store(second, Ordering::Release);
            low.store(first, Ordering::Release);
            flush(at, 16, self.is_coherent());
            if self.units.iter().any(Unit::remembers_absence) {
                self.forget(OF_ALL);
            }
        }
        Ok(())
    }

    /// Records no further fault of a device until it is attached anew: one that goes on and on would keep a processor busy.
    fn quiet(&mut self, device: u16) {
        if let Some(at) = self.context(device, true) {
            let low = entry(at & ADDRESS, (at & 0xfff) as usize / 8);
            low.fetch_or(QUIET, Ordering::Release);
            flush(at, 8, self.is_coherent());
        }
    }

    fn forget(&self, which: u64) {
        fence(Ordering::SeqCst);
        for unit in &self.units {
            unit.forget_contexts();
            unit.forget_translations(which);
        }
    }
}

impl Space {
    /// The context entry that points here (9.3): second-stage translation, address width, number.
    fn context(&self) -> (u64, u64) {
        let width = u64::from(self.levels - 2);
        (self.table | PRESENT, width | u64::from(self.number) << 8)
    }

    /// The entry of a page; `make` makes the tables on the way.
    fn leaf(&self, page: u64, make: bool) -> Result<Option<&'static AtomicU64>, IoError> {
        if page >> (12 + 9 * self.levels) != 0 {
            return Err(IoError::OutOfRange);
        }
        let mut table = self.table;
        for level in (1..self.levels).rev() {
            let slot = (page >> (12 + 9 * level) & 0x1ff) as usize;
            let pointer = entry(table, slot);
            let mut next = pointer.load(Ordering::Relaxed);
            if next & (READ | WRITE) == 0 {
                if !make {
                    return Ok(None);
                }
                let new = frames::alloc_zeroed().ok_or(IoError::NoMemory)?;
                flush(new, PAGE_SIZE, self.coherent);
                next = new | READ | WRITE;
                pointer.store(next, Ordering::Release);
                flush(table + slot as u64 * 8, 8, self.coherent);
            }
            table = next & ADDRESS;
        }
        Ok(Some(entry(table, (page >> 12 & 0x1ff) as usize)))
    }

    /// Lets the device reach a page, also after one of several that did so takes it back.
    fn map(&self, page: u64, access: u64) -> Result<(), IoError> {
        let Some(leaf) = self.leaf(page, true)? else {
            return Err(IoError::NoMemory);
        };
        let old = leaf.load(Ordering::Relaxed);
        let holds = old >> HOLDS_SHIFT;
        if holds == HOLDS_MAX {
            return Err(IoError::OutOfRange);
        }
        let rights = old & (READ | WRITE) | access;
        leaf.store(
            page & ADDRESS | rights | (holds + 1) << HOLDS_SHIFT,
            Ordering::Release,
        );
        flush_entry(leaf, self.coherent);
        Ok(())
    }

    fn unmap(&self, page: u64) {
        let Ok(Some(leaf)) = self.leaf(page, false) else {
            return;
        };
        let old = leaf.load(Ordering::Relaxed);
        let holds = (old >> HOLDS_SHIFT).saturating_sub(1);
        let kept = if holds == 0 {
            0
        } else {
            old & !(HOLDS_MAX << HOLDS_SHIFT) | holds << HOLDS_SHIFT
        };
        leaf.store(kept, Ordering::Release);
        flush_entry(leaf, self.coherent);
    }

    fn free(&self) {
        free_tables(self.table, self.levels);
    }
}

/// Frees a table of this level and those below. Nothing points to it any more.
fn free_tables(table: u64, level: u32) {
    if level > 1 {
        for slot in 0..PAGE_SIZE / 8 {
            let next = entry(table, slot).load(Ordering::Relaxed);
            if next & (READ | WRITE) != 0 {
                free_tables(next & ADDRESS, level - 1);
            }
        }
    }
    frames::free(table);
}

/// The devices that were refused something since the last call. Each is told once, until it is attached anew.
pub fn refusals() -> Vec<u16> {
    let mut devices = Vec::new();
    if let Some(remapping) = REMAPPING.borrow_mut().as_mut() {
        for unit in &remapping.units {
            unit.take_faults(&mut devices);
        }
        devices.iter().for_each(|device| remapping.quiet(*device));
        remapping.forget(OF_ALL);
    }
    devices
}

impl IoSpace {
    /// An empty space for a device (segment in bits 16 and up, requester ID below); `None` when nothing contains it.
    ///
    /// # Errors
    /// [`IoError::NoMemory`].
    pub fn attach(device: u64) -> Result<Option<IoSpace>, IoError> {
        let mut remapping = REMAPPING.borrow_mut();
        let (Some(remapping), Ok(device)) = (remapping.as_mut(), u16::try_from(device)) else {
            return Ok(None);
        };
        let space = remapping.space()?;
        let context = space.context();
        let io = IoSpace { device, space };
        if let Err(error) = remapping.set(device, Some(context)) {
            remapping.release(io.space.number);
            io.space.free();
            return Err(error);
        }
        Ok(Some(io))
    }

    /// Lets the device reach a page, at its physical address.
    ///
    /// # Errors
    /// See [`IoError`].
    pub fn map(&self, page: u64, read: bool, write: bool) -> Result<(), IoError> {
        let access = if read { READ } else { 0 } | if write { WRITE } else { 0 };
        self.space.map(page, access)
    }

    /// Takes back one [`IoSpace::map`]. Holds for the device after [`IoSpace::flush`].
    pub fn unmap(&self, page: u64) {
        self.space.unmap(page);
    }

    /// Pages that were mapped can be reached now, if a unit could have remembered that they could not.
    pub fn publish(&self) {
        if let Some(remapping) = REMAPPING.borrow().as_ref() {
            fence(Ordering::SeqCst);
            for unit in remapping.units.iter() {
                if unit.remembers_absence() {
                    unit.forget_translations(OF_DOMAIN | u64::from(self.space.number) << 32);
                } else {
                    unit.flush_writes();
                }
            }
        }
    }

    /// What was unmapped is out of the device's reach on return, and what it had under way is through.
    pub fn flush(&self) {
        if let Some(remapping) = REMAPPING.borrow().as_ref() {
            fence(Ordering::SeqCst);
            for unit in &remapping.units {
                unit.forget_translations(OF_DOMAIN | u64::from(self.space.number) << 32);
            }
        }
    }

    /// The device reaches nothing of this space any more.
    pub fn detach(self) {
        let mut remapping = REMAPPING.borrow_mut();
        let Some(remapping) = remapping.as_mut() else {
            return;
        };
        let ours = remapping.context(self.device, false).is_some_and(|at| {
            let low = entry(at & ADDRESS, (at & 0xfff) as usize / 8);
            low.load(Ordering::Relaxed) & ADDRESS == self.space.table
        });
        // Another domain may have the device already.
        if ours {
            let reserved = remapping
                .reserved
                .iter()
                .position(|(device, _)| *device == self.device);
            remapping.point(self.device, reserved);
        }
        remapping.forget(OF_DOMAIN | u64::from(self.space.number) << 32);
        remapping.release(self.space.number);
        self.space.free();
    }
}

impl Remapping {
    fn release(&mut self, number: u16) {
        self.domains[usize::from(number) / 64] &= !(1 << (number % 64));
    }
}

/// An entry of a table in the direct map.
fn entry(table: u64, slot: usize) -> &'static AtomicU64 {
    // SAFETY: the frame was allocated for a table and is freed only when nothing points to it; units and processors
    // both read and write whole words of it.
    unsafe { &*phys_to_virt(table).cast::<AtomicU64>().add(slot) }
}

fn flush_entry(entry: &AtomicU64, coherent: bool) {
    if !coherent {
        flush_line(core::ptr::from_ref(entry) as usize);
    }
}

/// Writes lines of the cache back to memory, where a unit that does not look into caches reads them.
fn flush(address: u64, len: usize, coherent: bool) {
    if !coherent {
        let start = phys_to_virt(address) as usize;
        (start..start + len).step_by(64).for_each(flush_line);
    }
}

fn flush_line(address: usize) {
    // SAFETY: writes back a line of memory that is mapped; changes nothing.
    unsafe { core::arch::asm!("clflush [{}]", in(reg) address, options(nostack, preserves_flags)) }
}
