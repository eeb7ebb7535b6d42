//! The control thread's bookkeeping: heartbeats, ticks, and queues handed over for a reset.

use alloc::vec::Vec;

use ddk::{Deadline, DeviceContext};

use crate::TICK_MS;
use crate::link::Notices;

/// A heartbeat that all workers answer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Heartbeat {
    asked: u32,
    owing: usize,
}

impl Heartbeat {
    /// So many workers were asked for this beat.
    pub fn ask(&mut self, beat: u32, workers: usize) {
        *self = Heartbeat {
            asked: beat,
            owing: workers,
        };
    }

    /// A worker answered; `true` when that was the last one. A late answer to an older beat says nothing of the present.
    pub fn answered(&mut self, beat: u32) -> bool {
        if beat != self.asked || self.owing == 0 {
            return false;
        }
        self.owing -= 1;
        self.owing == 0
    }
}

/// Queues that workers hand over, which has a reason.
#[derive(Debug)]
pub struct Handover<Q, R> {
    reason: R,
    queues: Vec<Option<Q>>,
}

impl<Q, R> Handover<Q, R> {
    /// As many workers are asked for their queues.
    pub fn new(workers: usize, reason: R) -> Handover<Q, R> {
        let queues = (0..workers).map(|_| None).collect();
        Handover { reason, queues }
    }

    /// A worker's queue, or nothing if it had none: a second message does not take back the first.
    pub fn take(&mut self, worker: usize, queue: Option<Q>) {
        if let Some(entry) = self.queues.get_mut(worker) {
            *entry = queue.or(entry.take());
        }
    }

    /// Why they are handed over.
    pub fn reason(&self) -> &R {
        &self.reason
    }

    /// There is another reason now. Queues that are here stay.
    pub fn change(&mut self, reason: R) {
        self.reason = reason;
    }

    /// Whether all queues are here, so that nobody touches the device.
    pub fn is_complete(&self) -> bool {
        self.queues.iter().all(Option::is_some)
    }

    /// The queues in their order, and the reason.
    pub fn into_parts(self) -> (Vec<Q>, R) {
        (self.queues.into_iter().flatten().collect(), self.reason)
    }
}

/// Ticks while the device has requests; none while it has nothing to do.
#[derive(Clone, Copy, Debug)]
pub struct Watchdog {
    next: Deadline,
}

impl Default for Watchdog {
    fn default() -> Self {
        Watchdog {
            next: Deadline::NEVER,
        }
    }
}

impl Watchdog {
    /// When the control thread wants to look again.
    pub fn next(&self) -> Deadline {
        self.next
    }

    /// To be called after each wait. `true`: a tick has passed, and every worker with requests wants to hear of it.
    pub fn is_due<N>(
        &mut self,
        cx: &DeviceContext,
        notices: &Notices<N>,
        busy: impl Fn() -> bool,
    ) -> bool {
        if notices.is_asleep() {
            self.next = Deadline::NEVER;
            return false;
        }
        if self.next == Deadline::NEVER {
            // Just woken: the first tick is a whole one.
            self.next = cx.deadline_in_ms(TICK_MS);
            return false;
        }
        if !self.next.is_over(cx.now_ns()) {
            return false;
        }
        self.next = cx.deadline_in_ms(TICK_MS);
        if busy() {
            return true;
        }
        if notices.fall_asleep(busy) {
            self.next = Deadline::NEVER;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::{Handover, Heartbeat};

    #[test]
    fn a_beat_needs_every_worker() {
        let mut beat = Heartbeat::default();
        beat.ask(7, 2);
        assert!(!beat.answered(6), "an older one");
        assert!(!beat.answered(7));
        assert!(beat.answered(7));
        assert!(!beat.answered(7), "once");
    }

    #[test]
    fn a_queue_that_was_handed_over_stays() {
        let mut handover = Handover::new(2, 'r');
        handover.take(1, Some('b'));
        handover.take(1, None);
        assert!(!handover.is_complete());
        handover.take(0, Some('a'));
        handover.take(9, Some('x'));
        assert!(handover.is_complete());
        assert_eq!(handover.into_parts(), (std::vec!['a', 'b'], 'r'));
    }
}
