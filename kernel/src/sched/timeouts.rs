//! The queue of deadlines: waits of threads, timers, and the end of budget periods.
//!
//! A thread's entry stays when its wait ends early and is looked at again when it comes up: most deadlines never
//! come, and so cost nothing.

use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};

use bulkhead_abi::FOREVER;

use crate::lock::{Cell, Locked};
use crate::object::thread::{RunState, Thread};
use crate::object::timer::Timer;
use crate::sched;

/// What happens at a deadline.
#[derive(Clone)]
pub enum Target {
    /// The thread's wait times out.
    Thread(Weak<Thread>),
    /// The timer fires.
    Timer(Weak<Timer>),
    /// The thread gets a new budget.
    Budget(Weak<Thread>),
}

/// By time and koid. A thread's budget has its own entry beside that of its wait, told apart by the last number.
static QUEUE: Locked<BTreeMap<(u64, u64, u8), Target>> = Locked::new(BTreeMap::new());
static EARLIEST: Cell<u64> = Cell::new(FOREVER);

/// The earliest deadline.
#[inline]
pub fn earliest() -> u64 {
    EARLIEST.get()
}

fn key(deadline: u64, koid: u64, target: &Target) -> (u64, u64, u8) {
    (
        deadline,
        koid,
        u8::from(matches!(target, Target::Budget(_))),
    )
}

/// Adds an entry.
pub fn insert(deadline: u64, koid: u64, target: Target) {
    QUEUE
        .borrow_mut()
        .insert(key(deadline, koid, &target), target);
    if deadline < EARLIEST.get() {
        EARLIEST.set(deadline);
        sched::arm(deadline);
    }
}

/// Removes the entry of a timer or a thread's wait.
pub fn remove(deadline: u64, koid: u64) {
    let mut queue = QUEUE.borrow_mut();
    queue.remove(&(deadline, koid, 0));
    EARLIEST.set(queue.keys().next().map_or(FOREVER, |k| k.0));
}

/// Makes sure that the thread's wait ends at its deadline.
#[inline]
pub fn watch(thread: &Arc<Thread>) {
    let deadline = thread.deadline.get();
    let queued = thread.queued_deadline.get();
    if deadline < queued {
        if queued != FOREVER {
            remove(queued, thread.base.koid());
        }
        thread.queued_deadline.set(deadline);
        insert(
            deadline,
            thread.base.koid(),
            Target::Thread(Arc::downgrade(thread)),
        );
    }
}

/// Serves every deadline up to `now`.
pub fn expire(now: u64) {
    while EARLIEST.get() <= now {
        let target = {
            let mut queue = QUEUE.borrow_mut();
            let target = queue.pop_first().map(|(_, target)| target);
            EARLIEST.set(queue.keys().next().map_or(FOREVER, |k| k.0));
            target
        };
        match target {
            Some(Target::Timer(timer)) => {
                if let Some(timer) = timer.upgrade() {
                    timer.fire(now);
                }
            }
            Some(Target::Thread(thread)) => {
                let Some(thread) = thread.upgrade() else {
                    continue;
                };
                thread.queued_deadline.set(FOREVER);
                if thread.state.get() != RunState::Blocked {
                    continue;
                }
                if thread.deadline.get() <= now {
                    thread.timed_out.set(true);
                    thread.unlink();
                    sched::wake(thread);
                } else {
                    watch(&thread);
                }
            }
            Some(Target::Budget(thread)) => {
                if let Some(thread) = thread.upgrade() {
                    sched::refill(&thread);
                }
            }
            None => break,
        }
    }
}
