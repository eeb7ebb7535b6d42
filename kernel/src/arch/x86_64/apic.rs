//! The local APIC (SDM volume 3A, chapter 11), in xAPIC or x2APIC mode.

use core::sync::atomic::{AtomicUsize, Ordering};

use super::features::cpu_features;
use super::port::{msr, read_msr, write_msr};
use super::{cpu, kernel_map, vectors};
use crate::arch::NoMemory;

// Offsets of the xAPIC's registers in bytes; the x2APIC's number is offset / 16.
const ID: u32 = 0x20;
const TASK_PRIORITY: u32 = 0x80;
const END_OF_INTERRUPT: u32 = 0xb0;
const SPURIOUS_VECTOR: u32 = 0xf0;
const ERROR_STATUS: u32 = 0x280;
const COMMAND_LOW: u32 = 0x300;
const COMMAND_HIGH: u32 = 0x310;
const LVT_TIMER: u32 = 0x320;
const LVT_LINT0: u32 = 0x350;
const LVT_LINT1: u32 = 0x360;
const LVT_ERROR: u32 = 0x370;
const TIMER_INITIAL: u32 = 0x380;
const TIMER_CURRENT: u32 = 0x390;
const TIMER_DIVIDE: u32 = 0x3e0;

const REGISTERS_LEN: usize = 0x400;
const MASKED: u32 = 1 << 16;
const ENABLE: u32 = 1 << 8;
const DELIVERY_NMI: u32 = 0b100 << 8;
const DELIVERY_INIT: u32 = 0b101 << 8;
const DELIVERY_STARTUP: u32 = 0b110 << 8;
const ASSERT: u32 = 1 << 14;
const PENDING: u32 = 1 << 12;
const TIMER_MODE_DEADLINE: u32 = 0b10 << 17;
const DIVIDE_BY_1: u32 = 0b1011;

/// Where the registers are mapped; 0 means x2APIC mode.
static REGISTERS: AtomicUsize = AtomicUsize::new(0);

/// Maps the registers at `address`. Called once, before [`enable`].
pub fn init(address: u64) -> Result<(), NoMemory> {
    if !cpu_features().x2apic {
        REGISTERS.store(
            kernel_map::registers(address, REGISTERS_LEN)?,
            Ordering::Relaxed,
        );
    }
    Ok(())
}

#[inline]
fn read(register: u32) -> u32 {
    match REGISTERS.load(Ordering::Relaxed) {
        // SAFETY: the processor is in x2APIC mode and has the register.
        0 => unsafe { read_msr(msr::X2APIC + register / 16) as u32 },
        // SAFETY: the registers are mapped and `register` is inside.
        base => unsafe { ((base + register as usize) as *const u32).read_volatile() },
    }
}

#[inline]
fn write(register: u32, value: u32) {
    match REGISTERS.load(Ordering::Relaxed) {
        // SAFETY: as in `read`.
        0 => unsafe { write_msr(msr::X2APIC + register / 16, value.into()) },
        // SAFETY: as in `read`.
        base => unsafe { ((base + register as usize) as *mut u32).write_volatile(value) },
    }
}

/// Enables this processor's APIC, with the timer stopped, and records its ID.
pub fn enable() {
    let x2apic = REGISTERS.load(Ordering::Relaxed) == 0;
    // SAFETY: sets enable bits. The step over xAPIC mode is the only legal way from
    // disabled to x2APIC mode (SDM 3A, 11.12.5); from there both bits stay set.
    unsafe {
        let base = read_msr(msr::APIC_BASE) | 1 << 11;
        write_msr(msr::APIC_BASE, base);
        if x2apic {
            write_msr(msr::APIC_BASE, base | 1 << 10);
        }
    }
    write(SPURIOUS_VECTOR, ENABLE | u32::from(vectors::SPURIOUS));
    write(TASK_PRIORITY, 0);
    write(LVT_LINT0, MASKED);
    write(LVT_LINT1, DELIVERY_NMI);
    write(LVT_ERROR, MASKED);
    write(ERROR_STATUS, 0);
    write(TIMER_DIVIDE, DIVIDE_BY_1);
    let mode = if cpu_features().tsc_deadline {
        TIMER_MODE_DEADLINE
    } else {
        0
    };
    write(LVT_TIMER, mode | u32::from(vectors::TIMER));
    // In deadline mode, the register's write must come before the first deadline
    // (SDM 3A, 11.5.4.1).
    // SAFETY: a fence.
    unsafe { core::arch::asm!("mfence", options(nostack, preserves_flags)) };
    let id = if x2apic { read(ID) } else { read(ID) >> 24 };
    cpu::this().apic_id.store(id, Ordering::Release);
}

/// Acknowledges the interrupt in service.
#[inline]
pub fn end_of_interrupt() {
    write(END_OF_INTERRUPT, 0);
}

fn command(apic_id: u32, low: u32) {
    if REGISTERS.load(Ordering::Relaxed) == 0 {
        // SAFETY: an x2APIC register. The fence makes earlier stores visible first:
        // this write does not wait for them (SDM 3A, 11.12.3).
        unsafe {
            core::arch::asm!("mfence", "lfence", options(nostack, preserves_flags));
            write_msr(
                msr::X2APIC + COMMAND_LOW / 16,
                u64::from(apic_id) << 32 | u64::from(low),
            );
        }
        return;
    }
    // The previous command must have left; the bound is for dead hardware.
    let idle = (0..1_000_000).any(|_| read(COMMAND_LOW) & PENDING == 0);
    debug_assert!(idle, "the local APIC does not send");
    write(COMMAND_HIGH, apic_id << 24);
    write(COMMAND_LOW, low);
}

/// Sends `vector` to a processor.
pub fn send_interrupt(apic_id: u32, vector: u8) {
    command(apic_id, ASSERT | u32::from(vector));
}

/// Sends a non-maskable interrupt to a processor.
pub fn send_nmi(apic_id: u32) {
    command(apic_id, ASSERT | DELIVERY_NMI);
}

/// Resets a processor; it then waits for [`send_startup`].
pub fn send_init(apic_id: u32) {
    command(apic_id, ASSERT | DELIVERY_INIT);
}

/// Starts a processor that waits, in real mode at the physical address `page` (a
/// multiple of 4 KiB below 1 MiB).
pub fn send_startup(apic_id: u32, page: u64) {
    command(
        apic_id,
        ASSERT | DELIVERY_STARTUP | (page >> 12) as u32 & 0xff,
    );
}

/// Starts the one-shot timer; 0 stops it. Not for deadline mode.
pub fn start_timer(ticks: u32) {
    write(TIMER_INITIAL, ticks);
}

/// Ticks until the one-shot timer fires.
pub fn timer_remaining() -> u32 {
    read(TIMER_CURRENT)
}

/// Sends the scheduler's interrupt to processor `cpu`.
pub fn send_reschedule(cpu: usize) {
    if let Some(data) = cpu::of(cpu).filter(|data| data.online.load(Ordering::Acquire)) {
        send_interrupt(data.apic_id.load(Ordering::Relaxed), vectors::RESCHEDULE);
    }
}
