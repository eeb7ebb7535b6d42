//! What went through a queue pair.

use core::sync::atomic::{AtomicU64, Ordering};

use proto::net::NetCounters;

/// Counts of one worker, written by it alone.
#[derive(Debug, Default)]
pub struct QueueCounters {
    pub(crate) rx_frames: Count,
    pub(crate) rx_bytes: Count,
    pub(crate) tx_frames: Count,
    pub(crate) tx_bytes: Count,
    pub(crate) tx_errors: Count,
    pub(crate) tx_lost: Count,
    pub(crate) interrupts: Count,
}

/// A count with one writer.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    #[inline]
    pub(crate) fn add(&self, n: u64) {
        // One writer: no need for an atomic addition, which locks the bus.
        let sum = self.0.load(Ordering::Relaxed).wrapping_add(n);
        self.0.store(sum, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl QueueCounters {
    /// Adds them to a sum over all queues.
    pub(crate) fn add_to(&self, sum: &mut NetCounters) {
        let add = |to: &mut u64, count: &Count| *to = to.wrapping_add(count.get());
        add(&mut sum.rx_frames, &self.rx_frames);
        add(&mut sum.rx_bytes, &self.rx_bytes);
        add(&mut sum.tx_frames, &self.tx_frames);
        add(&mut sum.tx_bytes, &self.tx_bytes);
        add(&mut sum.tx_errors, &self.tx_errors);
        add(&mut sum.tx_lost, &self.tx_lost);
        add(&mut sum.interrupts, &self.interrupts);
    }
}
