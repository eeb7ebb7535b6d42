//! x86_64 on a PC platform: PVH entry, traps, 4-level page tables, APICs, the
//! time-stamp counter, and the few legacy devices that a kernel needs.
//!
//! [`acpi`], [`clock`] and [`pvh`] are pure and run in host tests; everything else
//! touches the machine. References marked SDM are to Intel's *64 and IA-32
//! Architectures Software Developer's Manual*.

mod acpi;
mod clock;
mod layout;
mod pvh;

#[cfg(target_os = "none")]
mod apic;
#[cfg(target_os = "none")]
mod boot;
#[cfg(target_os = "none")]
mod cpu;
#[cfg(target_os = "none")]
mod features;
#[cfg(target_os = "none")]
mod fpu;
#[cfg(target_os = "none")]
mod frame;
#[cfg(target_os = "none")]
mod init;
#[cfg(target_os = "none")]
mod io_apic;
#[cfg(target_os = "none")]
mod io_bitmap;
#[cfg(target_os = "none")]
mod kernel_map;
#[cfg(target_os = "none")]
mod lock;
#[cfg(target_os = "none")]
mod paging;
#[cfg(target_os = "none")]
mod port;
#[cfg(target_os = "none")]
mod rtc;
#[cfg(target_os = "none")]
mod serial;
#[cfg(target_os = "none")]
mod smp;
#[cfg(target_os = "none")]
mod time;
#[cfg(target_os = "none")]
mod tlb;
#[cfg(target_os = "none")]
mod trap;
#[cfg(target_os = "none")]
mod vectors;
#[cfg(target_os = "none")]
mod vtd;

#[cfg(target_os = "none")]
mod interface {
    pub use super::apic::send_reschedule;
    pub use super::cpu::{MAX_CPUS, cpu_count, cpu_id, halt};
    pub use super::features::cpu_features;
    pub use super::fpu::{ThreadState, set_fs_base, switch_to};
    pub use super::frame::{Frame, backtrace, frame_pointer};
    pub use super::init::{acpi_tables, init};
    pub use super::io_apic::{isa_irq_to_gsi, line_allocate, line_free, line_mask, line_unmask};
    pub use super::io_bitmap::{IoBitmap, load_io_bitmap};
    pub use super::layout::{copy_bytes, phys_to_virt};
    pub use super::paging::{PageTable, activate_kernel};
    pub use super::serial::{outcome, serial_write};
    pub use super::smp::start_secondary_cpus;
    pub use super::time::{arm_timer, clock_parameters, now_ns, wall_clock_ns};
    pub use super::tlb::{flush_all, flush_page, poll_shootdown, shootdown};
    pub use super::trap::{enter_first, stop_other_cpus};
    pub use super::vectors::{msi_allocate, msi_free};
    pub use super::vtd::{IoError, IoSpace, refusals};
}
#[cfg(target_os = "none")]
pub use interface::*;
