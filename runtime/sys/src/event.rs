//! Events (a set of signals) and timers.

use core::time::Duration;

use crate::abi::{Result, Signals, Syscall};
use crate::handle::{handle_type, new_handle};
use crate::raw::syscall;
use crate::time::Deadline;

handle_type! {
    /// A set of signals that its holders raise, clear and wait for.
    Event
}

impl Event {
    /// An event with all signals clear.
    pub fn create() -> Result<Event> {
        // SAFETY: no memory is passed.
        let raw = unsafe { syscall(Syscall::EventCreate, []) };
        Ok(new_handle(raw.result()?))
    }

    /// Clears, then sets signals (`SIGNALED` and `USER`). A bit in both counts as a new edge. Needs `SIGNAL`.
    pub fn signal(&self, clear: Signals, set: Signals) -> Result<()> {
        // SAFETY: no memory is passed.
        unsafe {
            syscall(
                Syscall::ObjectSignal,
                [self.arg(), clear.0 as usize, set.0 as usize],
            )
        }
        .unit()
    }

    /// Rings the event as a doorbell: a new edge of `SIGNALED` whether or not it was set.
    #[inline]
    pub fn ring(&self) -> Result<()> {
        self.signal(Signals::SIGNALED, Signals::SIGNALED)
    }

    /// Sets `SIGNALED`.
    pub fn set(&self) -> Result<()> {
        self.signal(Signals::NONE, Signals::SIGNALED)
    }

    /// Clears `SIGNALED`.
    pub fn clear(&self) -> Result<()> {
        self.signal(Signals::SIGNALED, Signals::NONE)
    }
}

handle_type! {
    /// Raises `SIGNALED` at a time, once or periodically.
    Timer
}

impl Timer {
    /// A timer that is not armed.
    pub fn create() -> Result<Timer> {
        // SAFETY: no memory is passed.
        let raw = unsafe { syscall(Syscall::TimerCreate, []) };
        Ok(new_handle(raw.result()?))
    }

    /// Clears and arms for one firing; `FOREVER` disarms.
    pub fn set(&self, deadline: Deadline) -> Result<()> {
        self.set_periodic(deadline, Duration::ZERO)
    }

    /// Clears and arms; after the deadline it fires again each period, an edge each.
    pub fn set_periodic(&self, deadline: Deadline, period: Duration) -> Result<()> {
        let period_ns = u64::try_from(period.as_nanos()).unwrap_or(u64::MAX);
        // SAFETY: no memory is passed.
        unsafe {
            syscall(
                Syscall::TimerSet,
                [self.arg(), deadline.as_ns() as usize, period_ns as usize],
            )
        }
        .unit()
    }

    /// Disarms and clears.
    pub fn cancel(&self) -> Result<()> {
        self.set(Deadline::FOREVER)
    }
}
