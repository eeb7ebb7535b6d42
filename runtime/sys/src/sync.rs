//! Locks between threads of a process, on futexes: no system call unless a thread has to wait.

use core::cell::UnsafeCell;
use core::fmt;
use core::mem::MaybeUninit;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicU32, Ordering};

use crate::abi::{Error, Result, Syscall};
use crate::raw::syscall;
use crate::time::Deadline;

/// Blocks if the word still holds `expected`, until it is woken or the deadline passes. Ends early
/// now and then; look at the word again. Errors: `ValueChanged`, `TimedOut`.
pub fn futex_wait(word: &AtomicU32, expected: u32, deadline: Deadline) -> Result<()> {
    // SAFETY: the kernel reads an aligned word that is borrowed for the whole call.
    unsafe {
        syscall(
            Syscall::FutexWait,
            [
                word.as_ptr() as usize,
                expected as usize,
                deadline.as_ns() as usize,
            ],
        )
    }
    .unit()
}

/// Wakes up to `count` threads that wait on the word; tells how many.
pub fn futex_wake(word: &AtomicU32, count: u32) -> usize {
    // SAFETY: the address only names the queue; the word is borrowed for the call.
    let woken = unsafe { syscall(Syscall::FutexWake, [word.as_ptr() as usize, count as usize]) };
    woken.result().unwrap_or(0)
}

const UNLOCKED: u32 = 0;
const LOCKED: u32 = 1;
const CONTENDED: u32 = 2;

/// Mutual exclusion. Not fair; a thread that panics ends the process, so there is no poisoning.
pub struct Mutex<T: ?Sized> {
    state: AtomicU32,
    value: UnsafeCell<T>,
}

// SAFETY: the lock lets one thread at a time at the value.
unsafe impl<T: ?Sized + Send> Send for Mutex<T> {}
// SAFETY: as above.
unsafe impl<T: ?Sized + Send> Sync for Mutex<T> {}

impl<T> Mutex<T> {
    /// A mutex that holds `value`.
    pub const fn new(value: T) -> Mutex<T> {
        Mutex {
            state: AtomicU32::new(UNLOCKED),
            value: UnsafeCell::new(value),
        }
    }
    /// The value, when nobody else has the mutex any more.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }
}

impl<T: ?Sized> Mutex<T> {
    /// Waits for the lock. The holder is a thread of this process that is about to release it, so
    /// this wait has no deadline.
    #[inline]
    pub fn lock(&self) -> MutexGuard<'_, T> {
        if self
            .state
            .compare_exchange(UNLOCKED, LOCKED, Ordering::Acquire, Ordering::Relaxed)
            .is_err()
        {
            self.lock_contended();
        }
        MutexGuard { mutex: self }
    }

    /// The lock if it is free.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        self.state
            .compare_exchange(UNLOCKED, LOCKED, Ordering::Acquire, Ordering::Relaxed)
            .ok()
            .map(|_| MutexGuard { mutex: self })
    }

    /// Access without locking, by exclusive borrow.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    #[cold]
    fn lock_contended(&self) {
        while self.state.swap(CONTENDED, Ordering::Acquire) != UNLOCKED {
            let _ = futex_wait(&self.state, CONTENDED, Deadline::FOREVER);
        }
    }

    #[inline]
    fn unlock(&self) {
        if self.state.swap(UNLOCKED, Ordering::Release) == CONTENDED {
            futex_wake(&self.state, 1);
        }
    }
}

impl<T: Default> Default for Mutex<T> {
    fn default() -> Mutex<T> {
        Mutex::new(T::default())
    }
}

impl<T: ?Sized> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mutex")
    }
}

/// A held lock.
pub struct MutexGuard<'a, T: ?Sized> {
    mutex: &'a Mutex<T>,
}

// SAFETY: the guard gives what a shared reference to the value gives.
unsafe impl<T: ?Sized + Sync> Sync for MutexGuard<'_, T> {}

impl<T: ?Sized> Deref for MutexGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the guard exists, so this thread holds the lock.
        unsafe { &*self.mutex.value.get() }
    }
}

impl<T: ?Sized> DerefMut for MutexGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and the guard is borrowed exclusively.
        unsafe { &mut *self.mutex.value.get() }
    }
}

impl<T: ?Sized> Drop for MutexGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.mutex.unlock();
    }
}

/// Waits for a condition that a mutex guards.
#[derive(Default)]
pub struct Condvar {
    sequence: AtomicU32,
}

impl Condvar {
    /// A condition variable.
    pub const fn new() -> Condvar {
        Condvar {
            sequence: AtomicU32::new(0),
        }
    }

    /// Releases the lock, waits for a notification, locks again. Wakes without reason now and then.
    /// `TimedOut` when the deadline passed; the lock is held again in any case.
    pub fn wait<'a, T: ?Sized>(
        &self,
        guard: MutexGuard<'a, T>,
        deadline: Deadline,
    ) -> (MutexGuard<'a, T>, Result<()>) {
        let mutex = guard.mutex;
        let sequence = self.sequence.load(Ordering::Relaxed);
        drop(guard);
        let result = match futex_wait(&self.sequence, sequence, deadline) {
            Err(Error::TimedOut) => Err(Error::TimedOut),
            _ => Ok(()),
        };
        (mutex.lock(), result)
    }

    /// Waits until `condition` no longer holds or the deadline passes (`TimedOut`).
    pub fn wait_while<'a, T: ?Sized>(
        &self,
        mut guard: MutexGuard<'a, T>,
        deadline: Deadline,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> (MutexGuard<'a, T>, Result<()>) {
        while condition(&mut guard) {
            let (again, result) = self.wait(guard, deadline);
            guard = again;
            if result.is_err() && condition(&mut guard) {
                return (guard, result);
            }
        }
        (guard, Ok(()))
    }

    /// Wakes one waiter.
    pub fn notify_one(&self) {
        self.sequence.fetch_add(1, Ordering::Relaxed);
        futex_wake(&self.sequence, 1);
    }

    /// Wakes every waiter.
    pub fn notify_all(&self) {
        self.sequence.fetch_add(1, Ordering::Relaxed);
        futex_wake(&self.sequence, u32::MAX);
    }
}

const EMPTY: u32 = 0;
const RUNNING: u32 = 1;
const WAITED_FOR: u32 = 2;
const DONE: u32 = 3;

/// A value that is made once, by the first thread that needs it.
pub struct Once<T> {
    state: AtomicU32,
    value: UnsafeCell<MaybeUninit<T>>,
}

// SAFETY: the value is written once before `DONE`, and only shared afterwards.
unsafe impl<T: Send> Send for Once<T> {}
// SAFETY: as above; `T: Send` because any thread may be the one that makes it.
unsafe impl<T: Send + Sync> Sync for Once<T> {}

impl<T> Once<T> {
    /// Not made yet.
    pub const fn new() -> Once<T> {
        Once {
            state: AtomicU32::new(EMPTY),
            value: UnsafeCell::new(MaybeUninit::uninit()),
        }
    }

    /// The value, if it has been made.
    #[inline]
    pub fn get(&self) -> Option<&T> {
        if self.state.load(Ordering::Acquire) != DONE {
            return None;
        }
        // SAFETY: `DONE` is set after the value was written, and it is never written again.
        Some(unsafe { (*self.value.get()).assume_init_ref() })
    }

    /// The value, made now if need be. `make` must not ask for the same value (it would wait for
    /// itself).
    pub fn get_or_init(&self, make: impl FnOnce() -> T) -> &T {
        let mut make = Some(make);
        loop {
            if let Some(value) = self.get() {
                return value;
            }
            match self
                .state
                .compare_exchange(EMPTY, RUNNING, Ordering::Acquire, Ordering::Acquire)
            {
                Ok(_) => {
                    let Some(make) = make.take() else {
                        unreachable!("the state is EMPTY once")
                    };
                    let value = make();
                    // SAFETY: only the thread that moved the state to RUNNING comes here, once.
                    unsafe { (*self.value.get()).write(value) };
                    if self.state.swap(DONE, Ordering::Release) == WAITED_FOR {
                        futex_wake(&self.state, u32::MAX);
                    }
                }
                Err(DONE) => {}
                Err(_) => {
                    let _ = self.state.compare_exchange(
                        RUNNING,
                        WAITED_FOR,
                        Ordering::Relaxed,
                        Ordering::Relaxed,
                    );
                    let _ = futex_wait(&self.state, WAITED_FOR, Deadline::FOREVER);
                }
            }
        }
    }

    /// Sets the value; gives it back if there is one already.
    pub fn set(&self, value: T) -> core::result::Result<(), T> {
        let mut value = Some(value);
        self.get_or_init(|| match value.take() {
            Some(value) => value,
            None => unreachable!("the closure runs once"),
        });
        value.map_or(Ok(()), Err)
    }
}

impl<T> Default for Once<T> {
    fn default() -> Once<T> {
        Once::new()
    }
}

impl<T> Drop for Once<T> {
    fn drop(&mut self) {
        if *self.state.get_mut() == DONE {
            // SAFETY: the value was written and is dropped once, here.
            unsafe { self.value.get_mut().assume_init_drop() }
        }
    }
}
