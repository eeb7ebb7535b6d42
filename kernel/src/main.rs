//! The Bulkhead microkernel: address spaces, threads, handles, channels, ports, interrupts, DMA domains and timers;
//! at most forty system calls. Everything else (PCI, ACPI's language, file systems, networks) lives in processes.
//!
//! Start reading at [`trap`] (how the kernel is entered), [`syscall`] (what it is asked), [`object`] (what it
//! keeps), [`sched`] (who runs).
#![no_std]
#![no_main]

extern crate alloc;

#[macro_use]
mod log;
mod arch;
mod boot_process;
mod dma;
mod ipc;
mod irq;
mod lock;
mod memory;
mod object;
mod report;
mod sched;
mod syscall;
mod trap;

use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};

use boot::info::{BootInfo, MemoryKind, MemoryRegion};
use bulkhead_abi::{ABI_VERSION, SystemInfo};
use lock::{Cell, lock};
use memory::{frames, user};

static MEMORY_MAP: Cell<&[MemoryRegion]> = Cell::new(&[]);
static INFO_PAGE: Cell<u64> = Cell::new(0);

/// Entered once, by the architecture's start code, on the boot CPU.
pub fn main(info: &'static BootInfo) -> ! {
    frames::init(info);
    MEMORY_MAP.set(info.memory);
    arch::init(info);
    log!(
        "Bulkhead {} on {}",
        env!("CARGO_PKG_VERSION"),
        arch::cpu_features().brand()
    );
    log!(
        "memory: {} MiB in {} pages",
        frames::total() / 256,
        frames::total()
    );
    {
        let _lock = lock();
        sched::init_cpu(0);
    }
    if !info
        .command_line
        .split_whitespace()
        .any(|word| word == "nosmp")
    {
        arch::start_secondary_cpus();
    }
    let guard = lock();
    log!(
        "{} CPUs, timer and clock at {} MHz",
        arch::cpu_count(),
        arch::clock_parameters().tsc_hz / 1_000_000
    );
    fill_info_page();
    if let Err(error) = boot_process::start(info) {
        panic!("cannot start init: {error}");
    }
    sched::request();
    sched::finish_hook();
    drop(guard);
    arch::enter_first()
}

/// Entered by every further CPU.
pub fn secondary_main(cpu: usize) -> ! {
    {
        let _lock = lock();
        sched::init_cpu(cpu);
    }
    arch::enter_first()
}

fn fill_info_page() {
    let Some(page) = frames::alloc() else {
        panic!("no memory for the system-information page")
    };
    frames::zero(page);
    let clock = arch::clock_parameters();
    let info = SystemInfo {
        abi_version: ABI_VERSION,
        cpu_count: arch::cpu_count() as u32,
        clock_base: clock.tsc_base,
        clock_mult: clock.mult,
        clock_shift: u32::from(clock.shift),
        counter_hz: clock.tsc_hz,
        wall_clock_at_boot_ns: arch::wall_clock_ns(),
        total_pages: frames::total() as u64,
        features: u64::from(arch::cpu_features().fsgsbase),
    };
    let bytes = user::bytes_of(&info);
    // SAFETY: the page was just allocated and is bigger than the record.
    unsafe { arch::phys_to_virt(page).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    INFO_PAGE.set(page);
}

/// Physical address of the page that every process sees at `SYSTEM_INFO_ADDR`.
pub fn system_info_page() -> u64 {
    INFO_PAGE.get()
}

/// Whether a physical range touches RAM that the kernel manages or holds.
pub fn overlaps_ram(base: u64, len: u64) -> bool {
    let end = base.saturating_add(len);
    let ours = |kind| {
        matches!(
            kind,
            MemoryKind::Usable | MemoryKind::Kernel | MemoryKind::Archive
        )
    };
    MEMORY_MAP
        .get()
        .iter()
        .any(|r| ours(r.kind) && r.start < end && base < r.end())
}

static PANICKED: AtomicBool = AtomicBool::new(false);

/// Stops the other CPUs; a panic inside of a panic stops this one.
pub fn begin_panic() {
    if PANICKED.swap(true, Ordering::Relaxed) {
        arch::halt();
    }
    lock::enter_panic();
    arch::stop_other_cpus();
}

/// Tells the outside, and stops.
pub fn end_panic() -> ! {
    arch::outcome("panic");
    arch::halt()
}

#[panic_handler]
fn panic(info: &PanicInfo) -> ! {
    begin_panic();
    log::panic_line(format_args!(
        "KERNEL PANIC on CPU {}: {info}",
        arch::cpu_id()
    ));
    report::print_backtrace(arch::frame_pointer());
    end_panic()
}
