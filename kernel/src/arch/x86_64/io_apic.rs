//! The I/O APICs (Intel 82093AA data sheet) and the interrupt lines that they
//! route. Lines are named by their global system interrupt number (GSI).

use super::lock::SpinLock;
use super::{cpu, kernel_map, vectors};
use crate::arch::{NoMemory, Trigger};
use core::sync::atomic::Ordering;

const CONTROLLERS_MAX: usize = 8;
const OVERRIDES_MAX: usize = 16;

// Registers of the window: index at 0, data at 0x10.
const DATA_OFFSET: usize = 0x10;
const VERSION: u32 = 1;
const REDIRECTION: u32 = 0x10;

const ACTIVE_LOW: u32 = 1 << 13;
const LEVEL: u32 = 1 << 15;
const MASKED: u32 = 1 << 16;

#[derive(Clone, Copy)]
struct Controller {
    registers: usize,
    gsi_base: u32,
    inputs: u32,
}

impl Controller {
    fn read(&self, register: u32) -> u32 {
        // SAFETY: the window is mapped; the lock around the controllers keeps index
        // and data together.
        unsafe {
            (self.registers as *mut u32).write_volatile(register);
            ((self.registers + DATA_OFFSET) as *const u32).read_volatile()
        }
    }

    fn write(&self, register: u32, value: u32) {
        // SAFETY: as in `read`.
        unsafe {
            (self.registers as *mut u32).write_volatile(register);
            ((self.registers + DATA_OFFSET) as *mut u32).write_volatile(value);
        }
    }
}

struct Lines {
    controllers: [Option<Controller>; CONTROLLERS_MAX],
    overrides: [Option<(u8, u32, Trigger)>; OVERRIDES_MAX],
}

impl Lines {
    /// The controller of a line and the register with the low half of its entry.
    fn find(&self, gsi: u32) -> Option<(&Controller, u32)> {
        let mut controllers = self.controllers.iter().flatten();
        let owner = controllers.find(|c| {
            gsi.checked_sub(c.gsi_base)
                .is_some_and(|input| input < c.inputs)
        })?;
        Some((owner, REDIRECTION + 2 * (gsi - owner.gsi_base)))
    }
}

static LINES: SpinLock<Lines> = SpinLock::new(Lines {
    controllers: [None; CONTROLLERS_MAX],
    overrides: [None; OVERRIDES_MAX],
});

/// Takes over a controller and masks its lines. More than eight are ignored.
pub fn add_controller(address: u64, gsi_base: u32) -> Result<(), NoMemory> {
    let registers = kernel_map::registers(address, 0x20)?;
    let mut lines = LINES.lock();
    let mut controller = Controller {
        registers,
        gsi_base,
        inputs: 0,
    };
    controller.inputs = (controller.read(VERSION) >> 16 & 0xff) + 1;
    for input in 0..controller.inputs {
        controller.write(REDIRECTION + 2 * input, MASKED);
    }
    if let Some(slot) = lines.controllers.iter_mut().find(|slot| slot.is_none()) {
        *slot = Some(controller);
    }
    Ok(())
}

/// Notes how an ISA interrupt is wired; `flags` as in the MADT (ACPI 6.5, table
/// 5.26), where "as the bus does" means high edges.
pub fn add_override(irq: u8, gsi: u32, flags: u16) {
    let low = flags & 0b11 == 0b11;
    let level = flags >> 2 & 0b11 == 0b11;
    let trigger = match (level, low) {
        (false, false) => Trigger::EdgeHigh,
        (false, true) => Trigger::EdgeLow,
        (true, false) => Trigger::LevelHigh,
        (true, true) => Trigger::LevelLow,
    };
    if let Some(slot) = LINES
        .lock()
        .overrides
        .iter_mut()
        .find(|slot| slot.is_none())
    {
        *slot = Some((irq, gsi, trigger));
    }
}

/// The line and trigger of an ISA interrupt.
pub fn isa_irq_to_gsi(irq: u8) -> (u32, Trigger) {
    let lines = LINES.lock();
    let wired = lines
        .overrides
        .iter()
        .flatten()
        .find(|wired| wired.0 == irq);
    wired.map_or((irq.into(), Trigger::EdgeHigh), |wired| (wired.1, wired.2))
}

/// Routes a line to processor `cpu` and returns its vector. The line is masked.
/// `None` if there is no such line or processor, the line is in use, or no vector
/// is left.
pub fn line_allocate(gsi: u32, trigger: Trigger, cpu: usize) -> Option<u8> {
    let data = cpu::of(cpu).filter(|data| data.online.load(Ordering::Acquire))?;
    let apic_id = u8::try_from(data.apic_id.load(Ordering::Relaxed)).ok()?;
    let lines = LINES.lock();
    let (controller, register) = lines.find(gsi)?;
    if controller.read(register) & 0xff != 0 {
        return None;
    }
    let vector = vectors::allocate()?;
    if trigger.is_level() {
        vectors::set_level_line(vector, gsi);
    }
    let level = if trigger.is_level() { LEVEL } else { 0 };
    let low = if matches!(trigger, Trigger::EdgeLow | Trigger::LevelLow) {
        ACTIVE_LOW
    } else {
        0
    };
    controller.write(register + 1, u32::from(apic_id) << 24);
    controller.write(register, MASKED | level | low | u32::from(vector));
    Some(vector)
}

/// Masks a line and frees its vector.
pub fn line_free(gsi: u32) {
    let lines = LINES.lock();
    if let Some((controller, register)) = lines.find(gsi) {
        let vector = controller.read(register) as u8;
        controller.write(register, MASKED);
        if vector != 0 {
            vectors::free(vector);
        }
    }
}

fn change(gsi: u32, change: impl FnOnce(u32) -> u32) {
    let lines = LINES.lock();
    if let Some((controller, register)) = lines.find(gsi) {
        controller.write(register, change(controller.read(register)));
    }
}

/// Masks a line.
pub fn line_mask(gsi: u32) {
    change(gsi, |entry| entry | MASKED);
}

/// Unmasks an allocated line. A level-triggered one that is still asserted fires
/// at once.
pub fn line_unmask(gsi: u32) {
    change(gsi, |entry| {
        if entry & 0xff == 0 {
            entry
        } else {
            entry & !MASKED
        }
    });
}
