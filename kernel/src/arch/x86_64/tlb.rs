//! Invalidation of cached translations, here and on other processors.

use core::arch::asm;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::layout::PAGE_SIZE;
use super::{apic, cpu, paging, vectors};

/// More pages than that are invalidated by forgetting everything.
const PAGES_MAX: usize = 32;

/// The one request; the kernel's lock lets only one processor make it.
static ADDRESS: AtomicUsize = AtomicUsize::new(0);
static PAGES: AtomicUsize = AtomicUsize::new(0);
/// The processors that have not served the request yet.
static PENDING: AtomicU64 = AtomicU64::new(0);

/// Forgets this processor's translation of the page at `va` in the current address
/// space.
#[inline]
pub fn flush_page(va: usize) {
    // SAFETY: forgetting a translation is always allowed.
    unsafe { asm!("invlpg [{}]", in(reg) va, options(nostack, preserves_flags)) };
}

/// Forgets all of this processor's translations of the current address space.
pub fn flush_all() {
    let root: u64;
    // SAFETY: loads what is loaded; bit 63 reads as 0, so that nothing is kept.
    unsafe {
        asm!("mov {}, cr3", out(reg) root, options(nostack, preserves_flags));
        paging::load_cr3(root);
    }
}

fn flush(va: usize, pages: usize) {
    if pages > PAGES_MAX {
        flush_all();
    } else {
        (0..pages).for_each(|page| flush_page(va.wrapping_add(page * PAGE_SIZE)));
    }
}

/// Forgets `pages` translations from `va` on each processor in the mask `cpus`
/// except this one, and returns when all have. The caller holds the kernel's lock,
/// and the processors in `cpus` have the address space loaded (others notice at
/// their next activation).
pub fn shootdown(cpus: u64, va: usize, pages: usize) {
    let targets = || cpu::others().filter(|(cpu, _)| cpus & 1 << cpu != 0);
    let mask = targets().fold(0, |mask, (cpu, _)| mask | 1 << cpu);
    if mask == 0 {
        return;
    }
    ADDRESS.store(va, Ordering::Relaxed);
    PAGES.store(pages, Ordering::Relaxed);
    // Release: who sees its bit sees the request, and the changed tables.
    PENDING.store(mask, Ordering::Release);
    for (_, data) in targets() {
        apic::send_interrupt(data.apic_id.load(Ordering::Relaxed), vectors::SHOOTDOWN);
    }
    while PENDING.load(Ordering::Acquire) != 0 {
        core::hint::spin_loop();
    }
}

/// Serves a request to this processor, if there is one. The interrupt does this;
/// so must every loop that waits with interrupts disabled for a processor that
/// might be waiting here.
#[inline]
pub fn poll_shootdown() {
    if PENDING.load(Ordering::Relaxed) == 0 {
        return;
    }
    let own = 1 << cpu::cpu_id();
    if PENDING.load(Ordering::Acquire) & own != 0 {
        flush(
            ADDRESS.load(Ordering::Relaxed),
            PAGES.load(Ordering::Relaxed),
        );
        PENDING.fetch_and(!own, Ordering::AcqRel);
    }
}
