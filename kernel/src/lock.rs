//! The kernel lock, and cells that it protects.
//!
//! One lock covers all kernel state. System calls are short and the kernel never waits while it holds the lock,
//! so with at most eight CPUs it costs less than locks per object would, and there is no lock order to get
//! wrong. Every hook in [`crate::trap`] takes it on entry. While a CPU spins for it, the CPU serves TLB
//! shootdowns, since the holder may be waiting for just that.

use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicBool, Ordering};

use crate::arch;

/// Whether a CPU holds the lock. Not a queue: a virtual CPU that the host does not run at the moment would hold up all
/// those behind it.
static HELD: AtomicBool = AtomicBool::new(false);
static PANICKING: AtomicBool = AtomicBool::new(false);

/// Proof that this CPU holds the kernel lock; releases it when dropped.
pub struct Guard(());

/// Takes the kernel lock. Interrupts are disabled, and this CPU does not hold it.
#[inline]
pub fn lock() -> Guard {
    if HELD.swap(true, Ordering::Acquire) {
        wait();
    }
    Guard(())
}

#[cold]
fn wait() {
    loop {
        while HELD.load(Ordering::Relaxed) {
            arch::poll_shootdown();
            if PANICKING.load(Ordering::Relaxed) {
                arch::halt();
            }
            core::hint::spin_loop();
        }
        if !HELD.swap(true, Ordering::Acquire) {
            return;
        }
    }
}

impl Drop for Guard {
    #[inline]
    fn drop(&mut self) {
        HELD.store(false, Ordering::Release);
    }
}

/// A panic has begun: other CPUs that wait for the lock stop.
pub fn enter_panic() {
    PANICKING.store(true, Ordering::Relaxed);
}

/// A value that is used only under the kernel lock. Builds with debug assertions check the borrowing rules at run time,
/// so that a function that re-enters an object by mistake panics; other builds rely on it (the check would be a fifth
/// of the cost of a call between processes).
#[derive(Debug, Default)]
pub struct Locked<T> {
    value: UnsafeCell<T>,
    #[cfg(debug_assertions)]
    borrows: core::cell::Cell<isize>,
}

// SAFETY: every access happens under the kernel lock (hooks in `trap` take it first; before the other CPUs
// start there is only one), so that no two CPUs touch the cell at once and values may move between CPUs.
unsafe impl<T> Sync for Locked<T> {}
// SAFETY: as above.
unsafe impl<T> Send for Locked<T> {}

/// Shared access to a [`Locked`].
pub struct Ref<'a, T> {
    value: &'a T,
    #[cfg(debug_assertions)]
    borrows: &'a core::cell::Cell<isize>,
}

/// Exclusive access to a [`Locked`].
pub struct RefMut<'a, T> {
    value: &'a mut T,
    #[cfg(debug_assertions)]
    borrows: &'a core::cell::Cell<isize>,
}

impl<T> Locked<T> {
    /// A cell with a value.
    pub const fn new(value: T) -> Locked<T> {
        Locked {
            value: UnsafeCell::new(value),
            #[cfg(debug_assertions)]
            borrows: core::cell::Cell::new(0),
        }
    }

    /// Shared access. Nobody holds exclusive access.
    #[inline(always)]
    #[track_caller]
    pub fn borrow(&self) -> Ref<'_, T> {
        #[cfg(debug_assertions)]
        {
            assert!(self.borrows.get() >= 0, "borrowed while it is changed");
            self.borrows.set(self.borrows.get() + 1);
        }
        Ref {
            // SAFETY: under the kernel lock, and nobody holds exclusive access (checked with debug assertions).
            value: unsafe { &*self.value.get() },
            #[cfg(debug_assertions)]
            borrows: &self.borrows,
        }
    }

    /// Exclusive access. Nobody holds any other.
    #[inline(always)]
    #[track_caller]
    pub fn borrow_mut(&self) -> RefMut<'_, T> {
        #[cfg(debug_assertions)]
        {
            assert!(self.borrows.get() == 0, "changed while it is borrowed");
            self.borrows.set(-1);
        }
        RefMut {
            // SAFETY: under the kernel lock, and nobody holds other access (checked with debug assertions).
            value: unsafe { &mut *self.value.get() },
            #[cfg(debug_assertions)]
            borrows: &self.borrows,
        }
    }
}

impl<T> Deref for Ref<'_, T> {
    type Target = T;
    #[inline(always)]
    fn deref(&self) -> &T {
        self.value
    }
}

impl<T> Deref for RefMut<'_, T> {
    type Target = T;
    #[inline(always)]
    fn deref(&self) -> &T {
        self.value
    }
}

impl<T> DerefMut for RefMut<'_, T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        self.value
    }
}

#[cfg(debug_assertions)]
impl<T> Drop for Ref<'_, T> {
    fn drop(&mut self) {
        self.borrows.set(self.borrows.get() - 1);
    }
}

#[cfg(debug_assertions)]
impl<T> Drop for RefMut<'_, T> {
    fn drop(&mut self) {
        self.borrows.set(0);
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
