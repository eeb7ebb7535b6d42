//! The kernel lock, and cells that it protects.
//!
//! One lock covers all kernel state. System calls are short and the kernel never waits while it holds the lock,
//! so with at most eight CPUs it costs less than locks per object would, and there is no lock order to get
//! wrong. Every hook in [`crate::trap`] takes it on entry. While a CPU spins for it, the CPU serves TLB
//! shootdowns, since the holder may be waiting for just that.

use core::cell::{Ref, RefCell, RefMut};
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::arch;

/// A ticket lock: CPUs enter in the order in which they asked.
struct KernelLock {
    next: AtomicU32,
    serving: AtomicU32,
}

static LOCK: KernelLock = KernelLock { next: AtomicU32::new(0), serving: AtomicU32::new(0) };
static PANICKING: AtomicBool = AtomicBool::new(false);

/// Proof that this CPU holds the kernel lock; releases it when dropped.
pub struct Guard(());

/// Takes the kernel lock. Interrupts are disabled, and this CPU does not hold it.
#[inline]
pub fn lock() -> Guard {
    let ticket = LOCK.next.fetch_add(1, Ordering::Relaxed);
    while LOCK.serving.load(Ordering::Acquire) != ticket {
        arch::poll_shootdown();
        if PANICKING.load(Ordering::Relaxed) {
            arch::halt();
        }
        core::hint::spin_loop();
    }
    Guard(())
}

impl Drop for Guard {
    #[inline]
    fn drop(&mut self) {
        // Only the holder writes `serving`, so that no read-modify-write is needed.
        let next = LOCK.serving.load(Ordering::Relaxed).wrapping_add(1);
        LOCK.serving.store(next, Ordering::Release);
    }
}

/// A panic has begun: other CPUs that wait for the lock stop.
pub fn enter_panic() {
    PANICKING.store(true, Ordering::Relaxed);
}

/// A value that is used only under the kernel lock. Borrowing rules are checked at run time, so a function
/// that re-enters an object by mistake panics instead of corrupting it.
#[derive(Debug, Default)]
pub struct Locked<T>(RefCell<T>);

// SAFETY: every access happens under the kernel lock (hooks in `trap` take it first; before the other CPUs
// start there is only one), so that no two CPUs touch the cell at once and values may move between CPUs.
unsafe impl<T> Sync for Locked<T> {}
// SAFETY: as above.
unsafe impl<T> Send for Locked<T> {}

impl<T> Locked<T> {
    /// A cell with a value.
    pub const fn new(value: T) -> Locked<T> {
        Locked(RefCell::new(value))
    }
    /// Shared access.
    #[inline]
    #[track_caller]
    pub fn borrow(&self) -> Ref<'_, T> {
        self.0.borrow()
    }
    /// Exclusive access.
    #[inline]
    #[track_caller]
    pub fn borrow_mut(&self) -> RefMut<'_, T> {
        self.0.borrow_mut()
    }
}

/// A small value that is copied in and out under the kernel lock.
#[derive(Default)]
pub struct Cell<T>(core::cell::Cell<T>);

// SAFETY: as for `Locked`.
unsafe impl<T> Sync for Cell<T> {}
// SAFETY: as for `Locked`.
unsafe impl<T> Send for Cell<T> {}

impl<T: Copy + core::fmt::Debug> core::fmt::Debug for Cell<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.get().fmt(f)
    }
}

impl<T: Copy> Cell<T> {
    /// A cell with a value.
    pub const fn new(value: T) -> Cell<T> {
        Cell(core::cell::Cell::new(value))
    }
    /// The value.
    #[inline]
    pub fn get(&self) -> T {
        self.0.get()
    }
    /// Replaces the value.
    #[inline]
    pub fn set(&self, value: T) {
        self.0.set(value)
    }
    /// Replaces the value and returns the old one.
    #[inline]
    pub fn replace(&self, value: T) -> T {
        self.0.replace(value)
    }
}
