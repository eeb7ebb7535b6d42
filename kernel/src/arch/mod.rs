//! What the portable kernel needs of a processor and its platform.
//!
//! `cfg` on the architecture stands here and below, nowhere else in the kernel.
//! This file defines the types that cross the border; the functions come from
//! the architecture's own folder and are re-exported.
//!
//! # How a trap works
//!
//! There is one kernel stack per processor. A trap saves the registers of the
//! interrupted thread in the processor's *current frame*, changes to the kernel
//! stack and calls a hook in `crate::trap` with interrupts disabled. When the hook
//! returns, the processor restores whatever is then its current frame; the
//! scheduler changes threads by calling `switch_to` in between. The kernel never
//! waits and is never interrupted; the only kernel-mode code that runs with
//! interrupts enabled is the idle loop of `Frame::idle`, whose state is not saved.
//!
//! The kernel never uses a user address: it translates with `PageTable::query`
//! and goes through the direct map.
//!
//! # Start
//!
//! The entry code calls `crate::main(&'static BootInfo)` on the boot processor
//! with the final page tables, serial port and exception handlers in place. Main
//! sets up frames and heap, then calls `init`, later `start_secondary_cpus`,
//! after which each further processor arrives in `crate::secondary_main(cpu)`.
//! Both end in `enter_first`.

#[cfg(target_arch = "x86_64")]
pub mod x86_64;
#[cfg(all(target_arch = "x86_64", target_os = "none"))]
pub use x86_64::*;

/// How a mapping is cached.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CacheMode {
    /// Ordinary memory.
    WriteBack,
    /// Device registers: every access reaches the device, in order.
    Uncached,
    /// Framebuffers: stores may be merged and reordered.
    WriteCombining,
}

/// The rights and caching of a user page. Every user page is readable.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct MapFlags {
    /// The user may write.
    pub write: bool,
    /// The user may execute.
    pub exec: bool,
    /// How accesses are cached.
    pub cache: CacheMode,
}

/// No frame was left for a page table.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NoMemory;

/// What a user's access to memory was when it faulted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Access {
    /// It was a write.
    pub write: bool,
    /// It was an instruction fetch.
    pub exec: bool,
    /// The page is mapped, with rights that do not permit this access.
    pub present: bool,
}

/// A processor exception, as the reports name it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Exception {
    /// The processor's number for it.
    pub vector: u8,
    /// Its name in the processor's manual.
    pub name: &'static str,
    /// The error code, or 0 if this exception has none.
    pub code: u64,
    /// The address whose access faulted, for page and double faults; otherwise 0.
    pub addr: u64,
}

/// When an interrupt line fires.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Trigger {
    /// On the edge from low to high.
    EdgeHigh,
    /// On the edge from high to low.
    EdgeLow,
    /// As long as it is high.
    LevelHigh,
    /// As long as it is low.
    LevelLow,
}

impl Trigger {
    /// Whether the line fires for as long as it is asserted.
    pub fn is_level(self) -> bool {
        matches!(self, Trigger::LevelHigh | Trigger::LevelLow)
    }
}

/// A message-signalled interrupt: what a device writes, and where, to raise it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Msi {
    /// The number with which `crate::trap::device_interrupt` is called.
    pub vector: u8,
    /// The physical address to write to.
    pub address: u64,
    /// The value to write.
    pub data: u32,
}

/// How to compute the kernel's clock from the cycle counter:
/// `now_ns = ((counter - tsc_base) * mult) >> shift`, the product in 128 bits.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ClockParameters {
    /// The counter's value at time 0.
    pub tsc_base: u64,
    /// Nanoseconds per cycle, times 2^`shift`.
    pub mult: u32,
    /// See `mult`.
    pub shift: u8,
    /// The counter's frequency in Hz, for information.
    pub tsc_hz: u64,
}
