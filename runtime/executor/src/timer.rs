//! Timers of an executor: an ordered set whose first entry is the deadline of the next wait.

use alloc::collections::BTreeMap;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use core::time::Duration;

use sys::{Deadline, time::now_ns};

use crate::run::Executor;

#[derive(Default)]
pub(crate) struct Timers {
    /// By time, then by order of arming.
    waiting: BTreeMap<(u64, u64), Waker>,
    armed: u64,
}

impl Timers {
    fn arm(&mut self, time_ns: u64, waker: Waker) -> (u64, u64) {
        self.armed = self.armed.wrapping_add(1);
        let key = (time_ns, self.armed);
        self.waiting.insert(key, waker);
        key
    }

    /// The first timer's time.
    pub(crate) fn next(&self) -> Deadline {
        match self.waiting.first_key_value() {
            // 0 would mean something else to the kernel than "long ago".
            Some(((time, _), _)) => Deadline::from_ns((*time).max(1)),
            None => Deadline::FOREVER,
        }
    }

    /// Wakes whom it is time for. The clock is read only if somebody waits.
    pub(crate) fn fire(&mut self, now_ns: impl Fn() -> u64) {
        if self.waiting.is_empty() {
            return;
        }
        let now = now_ns();
        while let Some(entry) = self.waiting.first_entry() {
            if entry.key().0 > now {
                break;
            }
            entry.remove().wake();
        }
    }
}

/// Ends at a deadline.
#[must_use = "a future does nothing unless it is awaited"]
pub struct Sleep {
    executor: Executor,
    deadline: Deadline,
    armed: Option<(u64, u64)>,
}

impl Sleep {
    fn disarm(&mut self) {
        if let Some(key) = self.armed.take() {
            self.executor.0.timers.borrow_mut().waiting.remove(&key);
        }
    }
}

impl Future for Sleep {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.deadline == Deadline::FOREVER {
            return Poll::Pending;
        }
        if self.deadline.as_ns() <= now_ns() {
            self.disarm();
            return Poll::Ready(());
        }
        let executor = self.executor.clone();
        let mut timers = executor.0.timers.borrow_mut();
        match self.armed.and_then(|key| timers.waiting.get_mut(&key)) {
            Some(waker) => waker.clone_from(context.waker()),
            None => {
                let time = self.deadline.as_ns();
                self.armed = Some(timers.arm(time, context.waker().clone()));
            }
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.disarm();
    }
}

impl Executor {
    /// Waits for a moment; `FOREVER` never comes.
    pub fn sleep_until(&self, deadline: Deadline) -> Sleep {
        Sleep {
            executor: self.clone(),
            deadline,
            armed: None,
        }
    }

    /// Waits for a while.
    pub fn sleep(&self, duration: Duration) -> Sleep {
        self.sleep_until(Deadline::after(duration))
    }
}
