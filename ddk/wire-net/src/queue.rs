//! A queue pair at a bad wire.

use alloc::sync::Arc;

use ddk::{DeviceContext, DmaRegion, DriverError, EventQueue, PlatformError};
use ddk_class_net::{Frame, NetQueue, PushError, QueueLimits, Received, Segment, Wish};

use crate::chance::Lottery;
use crate::receive::Receive;
use crate::transmit::Transmit;
use crate::{Counts, Payload, Wire};

/// Between looks at frames that wait, in nanoseconds.
const POLL_NS: u64 = 1_000_000;

/// See the crate.
pub struct WiredQueue<Q> {
    queue: Q,
    cx: DeviceContext,
    limits: QueueLimits,
    receive: Receive,
    transmit: Transmit,
    payload: Arc<dyn Payload>,
    counts: Arc<Counts>,
}

impl<Q: NetQueue> WiredQueue<Q> {
    pub(crate) fn new(
        cx: &DeviceContext,
        queue: Q,
        (wire, number): (Wire, u64),
        payload: Arc<dyn Payload>,
        counts: Arc<Counts>,
    ) -> Result<WiredQueue<Q>, DriverError> {
        let mut limits = queue.limits();
        let seed = u64::from(wire.seed) << 32 | number << 1;
        let receive = Receive::new(Lottery::new(wire.receive, seed), limits.rx_depth);
        let lottery = Lottery::new(wire.transmit, seed | 1);
        let transmit = Transmit::new(cx, lottery, limits.tx_depth)?;
        limits.tx_depth = transmit.depth();
        Ok(WiredQueue {
            queue,
            cx: cx.clone(),
            limits,
            receive,
            transmit,
            payload,
            counts,
        })
    }

    /// The queue, and memory that its device may read until it is reset.
    pub(crate) fn into_parts(self) -> (Q, DmaRegion) {
        (self.queue, self.transmit.into_memory())
    }

    #[cfg(test)]
    pub(crate) fn inner(&mut self) -> &mut Q {
        &mut self.queue
    }

    /// The clock, where somebody waits for it.
    fn now_ns(&self) -> u64 {
        if self.receive.has_delayed() || self.transmit.has_waiting() {
            self.cx.now_ns()
        } else {
            0
        }
    }

    fn release(&mut self) {
        let now_ns = self.now_ns();
        if self.transmit.has_waiting() && self.transmit.release(&mut self.queue, now_ns) {
            self.queue.kick();
        }
    }
}

impl<Q: NetQueue> NetQueue for WiredQueue<Q> {
    fn limits(&self) -> QueueLimits {
        self.limits
    }

    fn provide(&mut self, token: u32, segments: &[Segment]) -> Result<(), PushError> {
        self.receive.provide(&mut self.queue, token, segments)
    }

    fn received(&mut self) -> Result<Option<Received>, DriverError> {
        self.release();
        let (mut taken, mut given_back) = (false, false);
        loop {
            let now_ns = self.now_ns();
            let next = self.receive.next(now_ns);
            if next.is_none()
                && let Some(received) = self.queue.received()?
            {
                taken = true;
                given_back |= self.receive.came(
                    &mut self.queue,
                    received,
                    &*self.payload,
                    &self.counts.receive,
                    self.cx.now_ns(),
                );
                continue;
            }
            if given_back {
                self.queue.kick();
                given_back = false;
            }
            // Who sees nothing does not ask for the next interrupt.
            if next.is_none() && taken && self.queue.arm(Wish::Any) {
                taken = false;
                continue;
            }
            return Ok(next);
        }
    }

    fn transmit(&mut self, frame: &Frame<'_>) -> Result<(), PushError> {
        let now_ns = self.cx.now_ns();
        self.transmit.transmit(
            &mut self.queue,
            frame,
            &*self.payload,
            &self.counts.transmit,
            now_ns,
        )
    }

    fn sent(&mut self) -> Result<Option<u32>, DriverError> {
        self.release();
        loop {
            if let Some(token) = self.transmit.next_done() {
                return Ok(Some(token));
            }
            let taken = self.transmit.reap(&mut self.queue)?;
            if taken && !self.transmit.has_done() && !self.queue.arm(Wish::Any) {
                return Ok(None);
            }
            if !taken {
                return Ok(None);
            }
        }
    }

    fn kick(&mut self) {
        let now_ns = self.now_ns();
        self.transmit.release(&mut self.queue, now_ns);
        self.receive.share(&mut self.queue);
        self.queue.kick();
    }

    fn arm(&mut self, wish: Wish) -> bool {
        let own = self.receive.has_ready() || wish == Wish::Any && self.transmit.has_done();
        own || self.queue.arm(wish)
    }

    fn disarm(&mut self) {
        self.queue.disarm();
    }

    fn poll_ns(&self) -> Option<u64> {
        let own = self.receive.has_delayed() || self.transmit.has_waiting();
        let polled = self.queue.poll_ns();
        let own = own.then_some(POLL_NS);
        polled.map_or(own, |ns| Some(own.map_or(ns, |own| own.min(ns))))
    }

    fn interrupted(&mut self) -> bool {
        self.queue.interrupted()
    }

    fn bind(&mut self, events: &dyn EventQueue, key: u64) -> Result<(), PlatformError> {
        self.queue.bind(events, key)
    }
}
