//! Event queues, and the interrupts that models raise.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use ddk::{Deadline, Event, EventQueue, Interrupt, PlatformError};

use crate::Sim;
use crate::threads::Woken;

type Events = Arc<Mutex<VecDeque<Event>>>;
pub(crate) type Idle = Arc<Mutex<Option<Box<dyn FnMut() + Send>>>>;

/// A queue whose waiting lets other threads and the models run and the clock move.
#[derive(Clone)]
pub struct SimQueue {
    events: Events,
    sim: Sim,
    idle: Idle,
}

impl SimQueue {
    pub(crate) fn new(sim: Sim, idle: Idle) -> SimQueue {
        SimQueue {
            events: Events::default(),
            sim,
            idle,
        }
    }

    /// Puts an event in.
    pub fn push(&self, key: u64) {
        let mut events = self.events.lock().unwrap();
        match events.iter_mut().find(|e| e.key == key) {
            Some(event) => event.count += 1,
            None => events.push_back(Event { key, count: 1 }),
        }
    }

    fn take(&self, into: &mut [Event]) -> usize {
        let mut queued = self.events.lock().unwrap();
        let taken = queued.len().min(into.len());
        for (slot, event) in into.iter_mut().zip(queued.drain(..taken)) {
            *slot = event;
        }
        taken
    }
}

impl EventQueue for SimQueue {
    /// Fails with [`PlatformError::Closed`] when it would wait for ever: nothing is scheduled, no other thread can run,
    /// and there is no deadline.
    fn wait(&self, events: &mut [Event], deadline: Deadline) -> Result<usize, PlatformError> {
        self.sim.schedule().pass(0);
        let taken = self.take(events);
        if taken > 0 {
            return Ok(taken);
        }
        let idle = self.idle.lock().unwrap().take();
        if let Some(mut idle) = idle {
            idle();
            *self.idle.lock().unwrap() = Some(idle);
        }
        let queued = self.events.clone();
        let ready = Box::new(move || !queued.lock().unwrap().is_empty());
        match self.sim.threads().wait(ready, deadline.as_ns()) {
            Woken::Yes => Ok(self.take(events)),
            Woken::Never => Err(PlatformError::Closed),
        }
    }

    fn post(&self, key: u64) -> Result<(), PlatformError> {
        self.push(key);
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// How an interrupt is told to the machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Kind {
    #[default]
    Message,
    Line,
}

#[derive(Default)]
struct Line {
    asserted: bool,
    /// Told, and not acknowledged yet.
    told: bool,
}

/// An interrupt that a model raises: a message by default.
#[derive(Default)]
pub struct SimInterrupt {
    kind: Kind,
    line: Mutex<Line>,
    target: Mutex<Option<(SimQueue, u64)>>,
    /// It was told while it was not bound.
    pending: AtomicBool,
    wire: Mutex<Option<Box<dyn Fn() + Send>>>,
    fired: AtomicU64,
}

impl SimInterrupt {
    /// A level-triggered line. It is told once, and again when it is acknowledged while still asserted.
    pub fn line() -> SimInterrupt {
        SimInterrupt {
            kind: Kind::Line,
            ..Default::default()
        }
    }

    /// Leads it to `handler` as well, for platforms other than the simulator's.
    pub fn wire(&self, handler: impl Fn() + Send + 'static) {
        *self.wire.lock().unwrap() = Some(Box::new(handler));
    }

    /// Fires it; a line pulses.
    pub fn fire(&self) {
        match self.kind {
            Kind::Message => self.tell(),
            Kind::Line => {
                self.assert();
                self.release();
            }
        }
    }

    /// Asserts a line.
    pub fn assert(&self) {
        let mut line = self.line.lock().unwrap();
        line.asserted = true;
        if !std::mem::replace(&mut line.told, true) {
            drop(line);
            self.tell();
        }
    }

    /// Releases a line.
    pub fn release(&self) {
        self.line.lock().unwrap().asserted = false;
    }

    fn tell(&self) {
        self.fired.fetch_add(1, Ordering::Relaxed);
        let target = self.target.lock().unwrap();
        match &*target {
            Some((queue, key)) => queue.push(*key),
            None => self.pending.store(true, Ordering::Relaxed),
        }
        drop(target);
        if let Some(handler) = &*self.wire.lock().unwrap() {
            handler();
        }
    }

    /// How often it was told.
    pub fn fired(&self) -> u64 {
        self.fired.load(Ordering::Relaxed)
    }
}

impl Interrupt for SimInterrupt {
    fn bind(&self, queue: &dyn EventQueue, key: u64) -> Result<(), PlatformError> {
        let queue = queue
            .as_any()
            .downcast_ref::<SimQueue>()
            .ok_or(PlatformError::Invalid)?;
        let mut target = self.target.lock().unwrap();
        if self.pending.swap(false, Ordering::Relaxed) {
            queue.push(key);
        }
        *target = Some((queue.clone(), key));
        Ok(())
    }

    fn unbind(&self) {
        *self.target.lock().unwrap() = None;
    }

    fn acknowledge(&self) {
        let mut line = self.line.lock().unwrap();
        line.told = line.asserted;
        if line.told {
            drop(line);
            self.tell();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ddk::{DeviceContext, PlatformError, block_on};

    use super::SimInterrupt;
    use crate::Sim;

    #[test]
    fn what_fired_before_it_was_bound_is_heard() {
        let interrupt = Arc::new(SimInterrupt::default());
        let interrupts = vec![interrupt.clone()];
        let platform = Sim::new(1).platform().interrupts(interrupts).build();
        let cx = DeviceContext::new(platform).unwrap();
        let mut irq = cx.interrupt(0).unwrap();
        let mut wait = || {
            let deadline = cx.deadline_in_ms(1);
            block_on(&cx, irq.wait(deadline)).unwrap()
        };
        interrupt.fire();
        interrupt.fire();
        assert_eq!(wait(), Ok(1));
        assert_eq!(wait(), Err(PlatformError::TimedOut));
        interrupt.fire();
        assert_eq!(wait(), Ok(1));
    }
}
