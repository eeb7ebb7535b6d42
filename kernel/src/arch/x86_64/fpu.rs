//! What a thread switch changes besides the frame: segment bases and the
//! floating-point and vector registers.
//!
//! A thread has no floating-point state until it uses one. CR0.TS is set while such
//! a thread runs; its first instruction of that kind faults, gets the state an area,
//! and from then on each switch saves and restores it (never lazily: a thread's
//! registers must not stay in the processor for others to find).

use alloc::alloc::{alloc_zeroed, dealloc};
use core::alloc::Layout;
use core::arch::asm;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering};

use super::cpu;
use super::features::{cpu_features, cpuid};
use super::frame::Frame;
use super::layout::USER_MAX;
use super::port::{msr, write_msr};

/// XCR0's components that threads may use: x87, SSE, AVX, AVX-512.
const COMPONENTS: u64 = 0b1110_0111;
/// The legacy area and the XSAVE header.
const AREA_MIN: usize = 512 + 64;
const CONTROL_WORD_RESET: u16 = 0x37f;
const MXCSR_RESET: u32 = 0x1f80;
const MXCSR_OFFSET: usize = 24;

/// Bytes of an area; the same for all threads.
static AREA_LEN: AtomicUsize = AtomicUsize::new(AREA_MIN);

/// A thread's state outside its frame.
#[derive(Debug, Default)]
pub struct ThreadState {
    fs_base: u64,
    gs_base: u64,
    area: Option<Area>,
}

#[derive(Debug)]
struct Area(NonNull<u8>);

// SAFETY: an area is plain memory, owned by the thread's state.
unsafe impl Send for Area {}
// SAFETY: it is used through `&mut ThreadState` or by the processor that runs it.
unsafe impl Sync for Area {}

impl Area {
    fn layout() -> Layout {
        // 64 is what XSAVE wants; the length was checked against isize by `enable`.
        Layout::from_size_align(AREA_LEN.load(Ordering::Relaxed), 64)
            .unwrap_or(Layout::new::<[u64; 72]>())
    }

    /// An area in the processor's initial state.
    fn new() -> Option<Area> {
        // SAFETY: the layout's size is not zero.
        let area = NonNull::new(unsafe { alloc_zeroed(Area::layout()) })?;
        // SAFETY: both lie in the first 512 bytes. An XSAVE header of zeros means
        // that every component is in its initial state (SDM volume 1, 13.8).
        unsafe {
            area.cast::<u16>().write(CONTROL_WORD_RESET);
            area.add(MXCSR_OFFSET).cast::<u32>().write(MXCSR_RESET);
        }
        Some(Area(area))
    }

    fn save(&self) {
        let area = self.0.as_ptr();
        let features = cpu_features();
        // SAFETY: the area has the size and alignment for all enabled components,
        // and CR0.TS is clear. REX.W keeps 64-bit pointers.
        unsafe {
            if features.xsaveopt {
                asm!("xsaveopt64 [{}]", in(reg) area, in("eax") u32::MAX, in("edx") u32::MAX, options(nostack));
            } else if features.xsave {
                asm!("xsave64 [{}]", in(reg) area, in("eax") u32::MAX, in("edx") u32::MAX, options(nostack));
            } else {
                asm!("fxsave64 [{}]", in(reg) area, options(nostack));
            }
        }
    }

    fn restore(&self) {
        let area = self.0.as_ptr();
        // SAFETY: as above; the content was made by `new` or `save`, so that it has
        // no reserved bits set.
        unsafe {
            if cpu_features().xsave {
                asm!("xrstor64 [{}]", in(reg) area, in("eax") u32::MAX, in("edx") u32::MAX, options(nostack));
            } else {
                asm!("fxrstor64 [{}]", in(reg) area, options(nostack));
            }
        }
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with the same layout.
        unsafe { dealloc(self.0.as_ptr(), Area::layout()) };
    }
}

/// Permits the components that threads may use, on this processor.
pub fn enable_components() {
    let features = cpu_features();
    if !features.xsave {
        return;
    }
    let components = features.xsave_components & COMPONENTS;
    // SAFETY: CR4.OSXSAVE is set, and CPUID announces each of the components.
    unsafe {
        asm!("xsetbv", in("ecx") 0, in("eax") components as u32, in("edx") (components >> 32) as u32, options(nomem, nostack));
    }
    // EBX: the length for the components that are enabled now.
    let len = cpuid(0xd, 0)[1] as usize;
    AREA_LEN.store(len.max(AREA_MIN), Ordering::Relaxed);
}

/// Sets the base of the thread's FS segment, which takes effect the next time the
/// thread is switched to, or at once if it is the current one. An address that no
/// process can have becomes 0.
pub fn set_fs_base(state: &mut ThreadState, base: u64) {
    state.fs_base = if base < USER_MAX as u64 { base } else { 0 };
    if core::ptr::eq(cpu::this().state.get(), state) {
        write_fs_base(state.fs_base);
    }
}

/// The thread's first use of floating-point registers. False if it has no
/// explanation for the fault or no memory.
pub fn first_use() -> bool {
    let cpu = cpu::this();
    // SAFETY: the state of the current thread; the portable kernel keeps it alive
    // and does not use it while the thread runs.
    let Some(state) = (unsafe { cpu.state.get().as_mut() }) else {
        return false;
    };
    if cpu.fpu_live.get() {
        return false;
    }
    if state.area.is_none() {
        state.area = Area::new();
    }
    let Some(area) = &state.area else {
        return false;
    };
    clear_task_switched();
    area.restore();
    cpu.fpu_live.set(true);
    true
}

/// Makes `frame` the one that this processor returns to, and changes the rest of
/// the thread's state from `old` (`None`: the thread is gone) to `new`.
///
/// # Safety
/// `frame` and `new` stay valid and in place until the next switch on this
/// processor, and `old` is the state that was switched to before.
#[inline]
pub unsafe fn switch_to(
    mut old: Option<&mut ThreadState>,
    new: &mut ThreadState,
    frame: *mut Frame,
) {
    let cpu = cpu::this();
    cpu.set_trap_frame(frame);
    cpu.state.set(new);
    if cpu_features().fsgsbase {
        // SAFETY: CR4.FSGSBASE is set. The user's GS base is the one behind SWAPGS
        // now; nothing uses GS in between, and NMIs never do.
        unsafe {
            if let Some(old) = old.as_deref_mut() {
                // The user may have changed both.
                asm!("rdfsbase {fs}", "swapgs", "rdgsbase {gs}", "wrgsbase {new}", "swapgs",
                    fs = out(reg) old.fs_base, gs = out(reg) old.gs_base,
                    new = in(reg) new.gs_base, options(nomem, nostack, preserves_flags));
            } else {
                asm!("swapgs", "wrgsbase {new}", "swapgs",
                    new = in(reg) new.gs_base, options(nomem, nostack, preserves_flags));
            }
            asm!("wrfsbase {}", in(reg) new.fs_base, options(nomem, nostack, preserves_flags));
        }
    } else if old.as_ref().is_none_or(|old| old.fs_base != new.fs_base) {
        write_fs_base(new.fs_base);
    }
    if cpu.fpu_live.get() {
        if let Some(area) = old.and_then(|old| old.area.as_ref()) {
            area.save();
        }
        match &new.area {
            Some(area) => area.restore(),
            None => {
                set_task_switched();
                cpu.fpu_live.set(false);
            }
        }
    } else if let Some(area) = &new.area {
        clear_task_switched();
        area.restore();
        cpu.fpu_live.set(true);
    }
}

fn write_fs_base(base: u64) {
    // SAFETY: the register exists on every 64-bit processor and the kernel does not
    // use FS; every base that is stored in a state is canonical.
    unsafe { write_msr(msr::FS_BASE, base) };
}

fn clear_task_switched() {
    // SAFETY: allows floating-point instructions, which the kernel has none of.
    unsafe { asm!("clts", options(nomem, nostack, preserves_flags)) };
}

fn set_task_switched() {
    // SAFETY: the next floating-point instruction faults; see `first_use`.
    unsafe {
        asm!("mov {0}, cr0", "or {0}, 8", "mov cr0, {0}", out(reg) _, options(nomem, nostack));
    }
}
