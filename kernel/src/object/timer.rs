//! A timer: `SIGNALED` at a time, once or again and again.

use alloc::sync::{Arc, Weak};

use bulkhead_abi::{FOREVER, ObjectKind, Signals};

use crate::lock::Cell;
use crate::object::Base;
use crate::sched::timeouts::{self, Target};

/// Shortest period: a shorter one could keep a CPU in the timer interrupt.
const PERIOD_MIN_NS: u64 = 100_000;

/// A timer.
pub struct Timer {
    pub base: Base,
    deadline: Cell<u64>,
    period: Cell<u64>,
    this: Weak<Timer>,
}

impl Timer {
    /// A timer that is not armed.
    pub fn new() -> Arc<Timer> {
        Arc::new_cyclic(|this| Timer {
            base: Base::new(ObjectKind::Timer),
            deadline: Cell::new(FOREVER),
            period: Cell::new(0),
            this: this.clone(),
        })
    }

    /// Clears the signal and arms for `deadline_ns`; then every `period_ns` if that is not 0.
    pub fn set(&self, deadline_ns: u64, period_ns: u64) {
        self.disarm();
        self.base.update(Signals::SIGNALED, Signals::NONE);
        self.deadline.set(deadline_ns);
        self.period.set(if period_ns == 0 {
            0
        } else {
            period_ns.max(PERIOD_MIN_NS)
        });
        self.enqueue();
    }

    fn enqueue(&self) {
        if self.deadline.get() != FOREVER {
            timeouts::insert(
                self.deadline.get(),
                self.base.koid(),
                Target::Timer(self.this.clone()),
            );
        }
    }

    /// Disarms.
    pub fn disarm(&self) {
        let deadline = self.deadline.replace(FOREVER);
        if deadline != FOREVER {
            timeouts::remove(deadline, self.base.koid());
        }
    }

    /// Its time has come.
    pub fn fire(&self, now: u64) {
        self.base.update(Signals::SIGNALED, Signals::SIGNALED);
        let period = self.period.get();
        // Periods that were missed are skipped, so that a late timer does not fire in a burst.
        match now.saturating_sub(self.deadline.get()).checked_div(period) {
            None => self.deadline.set(FOREVER),
            Some(missed) => {
                let step = (missed + 1).saturating_mul(period);
                self.deadline.set(self.deadline.get().saturating_add(step));
                self.enqueue();
            }
        }
    }
}
