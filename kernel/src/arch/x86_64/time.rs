//! The clock (time-stamp counter) and each processor's timer.

use core::arch::asm;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU64, Ordering};

use super::acpi::Fadt;
use super::clock::{self, Rate};
use super::features::cpu_features;
use super::port::{in8, in32, msr, out8, write_msr};
use super::{apic, cpu, kernel_map, rtc};
use crate::arch::ClockParameters;

const NS_PER_S: u64 = 1_000_000_000;
const FS_PER_NS: u64 = 1_000_000;
/// How long counters are compared. Long enough for the error of reading two
/// counters, about a microsecond under emulation, to be below 0.01 %.
const CALIBRATION_NS: u64 = 10_000_000;

/// Readings of which the quickest counts.
const SAMPLES: usize = 32;

/// ACPI 6.5, 4.8.3.3.
const PM_TIMER_HZ: u64 = 3_579_545;
/// Intel 8254 data sheet; the PC's input clock.
const PIT_HZ: u64 = 1_193_182;
/// No timer is armed.
const NEVER: u64 = u64::MAX;

struct Rates {
    clock: ClockParameters,
    tsc: Rate,
    apic_timer: Rate,
}

struct Storage(UnsafeCell<Rates>);
// SAFETY: written by `start` and `calibrate` on the boot processor before others run.
unsafe impl Sync for Storage {}

static RATES: Storage = Storage(UnsafeCell::new(Rates {
    clock: ClockParameters {
        tsc_base: 0,
        mult: 0,
        shift: 0,
        tsc_hz: 0,
    },
    tsc: Rate::from_hz(0),
    apic_timer: Rate::from_hz(0),
}));

/// Unix time at time 0.
static BOOT_TIME_NS: AtomicU64 = AtomicU64::new(0);

#[inline]
fn rates() -> &'static Rates {
    // SAFETY: see `Storage`.
    unsafe { &*RATES.0.get() }
}

#[inline]
fn tsc() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: reads a counter.
    unsafe {
        asm!("rdtsc", out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags))
    };
    u64::from(high) << 32 | u64::from(low)
}

/// Time 0 is now.
pub fn start() {
    // SAFETY: see `Storage`.
    unsafe { (*RATES.0.get()).clock.tsc_base = tsc() };
}

/// Nanoseconds since the kernel's start; 0 before `init`.
#[inline]
pub fn now_ns() -> u64 {
    clock::nanoseconds(&rates().clock, tsc())
}

/// How user space computes [`now_ns`] by itself.
pub fn clock_parameters() -> ClockParameters {
    rates().clock
}

/// The current Unix time in nanoseconds: the battery-backed clock at start, and
/// the time since.
pub fn wall_clock_ns() -> u64 {
    BOOT_TIME_NS
        .load(Ordering::Relaxed)
        .saturating_add(now_ns())
}

/// Waits. For the start of processors.
pub fn delay_ns(ns: u64) {
    let end = now_ns() + ns;
    while now_ns() < end {
        core::hint::spin_loop();
    }
}

/// Sets this processor's timer to fire at `deadline_ns` (on the scale of
/// [`now_ns`]), or at once if that has passed; `None` stops it. It fires early if
/// the deadline is further away than the timer can count (seconds, for the APIC's);
/// whoever waits then arms it again.
#[inline]
pub fn arm_timer(deadline_ns: Option<u64>) {
    let armed = &cpu::this().armed_deadline;
    let deadline = deadline_ns.unwrap_or(NEVER);
    if armed.replace(deadline) == deadline {
        return;
    }
    if cpu_features().tsc_deadline {
        let value = match deadline {
            NEVER => 0,
            _ => rates()
                .clock
                .tsc_base
                .saturating_add(rates().tsc.cycles(deadline)),
        };
        // SAFETY: the register exists; the deadline's interrupt is ours.
        unsafe { write_msr(msr::TSC_DEADLINE, value) };
        return;
    }
    let ticks = match deadline {
        NEVER => 0,
        _ => rates()
            .apic_timer
            .cycles(deadline.saturating_sub(now_ns()))
            .clamp(1, u32::MAX.into()),
    };
    apic::start_timer(ticks as u32);
}

/// A counter whose rate is known.
enum Reference {
    /// IA-PC HPET specification 1.0a, 2.3: address of the registers and femtoseconds
    /// per tick.
    Hpet { registers: usize, period_fs: u64 },
    /// ACPI's timer.
    PmTimer { port: u16, mask: u64 },
    /// Channel 2 of the 8254, which counts down from 65536 once.
    Pit,
}

const HPET_CAPABILITIES: usize = 0;
const HPET_CONFIGURATION: usize = 0x10;
const HPET_COUNTER: usize = 0xf0;

fn hpet_read(registers: usize, offset: usize) -> u64 {
    // SAFETY: the registers are mapped. Two halves, as a 32-bit HPET wants; of the
    // counter only the low one is used, so that a carry between them does not matter.
    unsafe {
        let low = ((registers + offset) as *const u32).read_volatile();
        let high = ((registers + offset + 4) as *const u32).read_volatile();
        u64::from(high) << 32 | u64::from(low)
    }
}

impl Reference {
    fn hpet(address: u64) -> Option<Reference> {
        let registers = kernel_map::registers(address, 0x400).ok()?;
        let period_fs = hpet_read(registers, HPET_CAPABILITIES) >> 32;
        // The specification's maximum is 100 ns.
        (1..=100 * FS_PER_NS).contains(&period_fs).then_some(())?;
        let configuration = hpet_read(registers, HPET_CONFIGURATION) as u32;
        // SAFETY: starts the main counter; legacy replacement (bit 1) off.
        unsafe {
            ((registers + HPET_CONFIGURATION) as *mut u32).write_volatile(configuration & !2 | 1)
        };
        let start = hpet_read(registers, HPET_COUNTER);
        let runs = (0..100_000).any(|_| hpet_read(registers, HPET_COUNTER) != start);
        runs.then_some(Reference::Hpet {
            registers,
            period_fs,
        })
    }

    fn pm_timer(fadt: &Fadt) -> Option<Reference> {
        let port = fadt.pm_timer_port?;
        let mask = if fadt.pm_timer_is_32_bit {
            u32::MAX.into()
        } else {
            0xff_ffff
        };
        // SAFETY: the FADT says that the port is the timer; reading it changes nothing.
        let read = || unsafe { in32(port) };
        let start = read();
        let runs = start != u32::MAX && (0..100_000).any(|_| read() != start);
        runs.then_some(Reference::PmTimer { port, mask })
    }

    fn pit() -> Reference {
        // SAFETY: the 8254 and the speaker's gate are the kernel's. Gate on, speaker
        // off; channel 2, low then high byte, mode 0, binary, from 65536.
        unsafe {
            out8(0x61, in8(0x61) & !2 | 1);
            out8(0x43, 0b1011_0000);
            out8(0x42, 0);
            out8(0x42, 0);
        }
        Reference::Pit
    }

    fn read(&self) -> u64 {
        match *self {
            // The low half is enough: 10 ms are far from its overflow.
            Reference::Hpet { registers, .. } => {
                hpet_read(registers, HPET_COUNTER) & u64::from(u32::MAX)
            }
            // SAFETY: as in `pm_timer`.
            Reference::PmTimer { port, mask } => u64::from(unsafe { in32(port) }) & mask,
            // SAFETY: latches and reads channel 2.
            Reference::Pit => unsafe {
                out8(0x43, 0b1000_0000);
                let low = in8(0x42);
                0x1_0000 - u64::from(u16::from_le_bytes([low, in8(0x42)]))
            },
        }
    }

    /// Nanoseconds between two readings, less than an overflow apart.
    fn elapsed_ns(&self, from: u64, to: u64) -> u64 {
        match *self {
            Reference::Hpet { period_fs, .. } => {
                (u128::from(to.wrapping_sub(from) & u64::from(u32::MAX)) * u128::from(period_fs)
                    / u128::from(FS_PER_NS)) as u64
            }
            Reference::PmTimer { mask, .. } => {
                (to.wrapping_sub(from) & mask) * NS_PER_S / PM_TIMER_HZ
            }
            Reference::Pit => to.saturating_sub(from) * NS_PER_S / PIT_HZ,
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Reference::Hpet { .. } => "HPET",
            Reference::PmTimer { .. } => "ACPI PM timer",
            Reference::Pit => "8254",
        }
    }

    /// The counters at one instant: cycles, this reference, the APIC timer's rest.
    /// Of some readings, the one that took the least time.
    fn sample(&self) -> (u64, u64, u32) {
        let mut best = (u64::MAX, (0, 0, 0));
        for _ in 0..SAMPLES {
            let before = tsc();
            let ticks = apic::timer_remaining();
            let reference = self.read();
            let took = tsc() - before;
            if took < best.0 {
                best = (took, (before + took / 2, reference, ticks));
            }
        }
        best.1
    }
}

/// Which counter the clock was calibrated against, and the APIC timer's rate.
pub struct Calibration {
    /// For the log.
    pub reference: &'static str,
    /// Hz.
    pub apic_timer_hz: u64,
}

/// Measures the rates of the cycle counter and the APIC timer, and reads the
/// battery-backed clock.
pub fn calibrate(hpet: Option<u64>, fadt: &Fadt) -> Calibration {
    let reference = hpet
        .and_then(Reference::hpet)
        .or_else(|| Reference::pm_timer(fadt))
        .unwrap_or_else(Reference::pit);
    let one_shot = !cpu_features().tsc_deadline;
    if one_shot {
        apic::start_timer(u32::MAX);
    }
    let start = reference.sample();
    let end = loop {
        let sample = reference.sample();
        if reference.elapsed_ns(start.1, sample.1) >= CALIBRATION_NS {
            break sample;
        }
    };
    apic::start_timer(0);
    let elapsed = u128::from(reference.elapsed_ns(start.1, end.1).max(1));
    let hz = |count: u64| (u128::from(count) * u128::from(NS_PER_S) / elapsed) as u64;
    let tsc_hz = cpu_features()
        .tsc_hz
        .unwrap_or_else(|| hz(end.0.wrapping_sub(start.0)));
    let apic_timer_hz = if one_shot {
        hz(start.2.wrapping_sub(end.2).into())
    } else {
        0
    };
    // SAFETY: see `Storage`.
    unsafe {
        let rates = &mut *RATES.0.get();
        rates.clock = clock::parameters(rates.clock.tsc_base, tsc_hz);
        rates.tsc = Rate::from_hz(tsc_hz);
        rates.apic_timer = Rate::from_hz(apic_timer_hz);
    }
    let wall = rtc::unix_time(fadt.century)
        .unwrap_or(0)
        .saturating_mul(NS_PER_S);
    BOOT_TIME_NS.store(wall.saturating_sub(now_ns()), Ordering::Relaxed);
    Calibration {
        reference: reference.name(),
        apic_timer_hz,
    }
}
