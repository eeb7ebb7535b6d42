//! A platform over another one whose event queues can be looked into without taking anything from them.
//!
//! Worker threads of a driver sleep on a queue until an event comes. The adapter runs them all in one thread, and
//! it must not run one that would be asleep: a driver that forgets to ask for its interrupt would seem to
//! work. So each queue keeps what came for its worker, and tells whether there is something.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use ddk::{
    Deadline, DmaRegion, Event, EventQueue, Interrupt, LogLevel, Mmio, Platform, PlatformError,
    PortIo, Width, Work,
};

/// A queue of the platform beneath, and events that were taken from it for whoever waits.
pub struct Watched {
    inner: Box<dyn EventQueue>,
    taken: Mutex<VecDeque<Event>>,
    slept: AtomicBool,
}

impl Watched {
    /// Takes what has come, waiting for it until the deadline; tells whether there is anything.
    pub fn look(&self, deadline: Deadline) -> Result<bool, PlatformError> {
        let mut events = [Event::default(); 8];
        let there = !self.taken().is_empty();
        let deadline = if there { Deadline::NOW } else { deadline };
        let count = self.inner.wait(&mut events, deadline)?;
        let mut taken = self.taken();
        taken.extend(events.iter().take(count));
        Ok(!taken.is_empty())
    }

    /// Whether somebody waited in vain since the last time that this was asked.
    pub fn has_slept(&self) -> bool {
        self.slept.swap(false, Ordering::Relaxed)
    }

    fn taken(&self) -> std::sync::MutexGuard<'_, VecDeque<Event>> {
        self.taken
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// A driver's handle of a [`Watched`] queue.
#[derive(Clone)]
pub struct Queue(pub Arc<Watched>);

impl EventQueue for Queue {
    fn wait(&self, events: &mut [Event], deadline: Deadline) -> Result<usize, PlatformError> {
        let count = {
            let mut taken = self.0.taken();
            let count = taken.len().min(events.len());
            for (slot, event) in events.iter_mut().zip(taken.drain(..count)) {
                *slot = event;
            }
            count
        };
        if count > 0 {
            return Ok(count);
        }
        let count = self.0.inner.wait(events, deadline)?;
        if count == 0 {
            self.0.slept.store(true, Ordering::Relaxed);
        }
        Ok(count)
    }

    fn post(&self, key: u64) -> Result<(), PlatformError> {
        self.0.inner.post(key)
    }

    fn as_any(&self) -> &dyn Any {
        // Interrupts of the platform beneath look for its own kind of queue.
        self.0.inner.as_any()
    }
}

/// The platform.
pub struct Gateway {
    inner: Arc<dyn Platform>,
    queues: Mutex<Vec<Arc<Watched>>>,
    log: Mutex<Vec<String>>,
}

impl Gateway {
    /// Over another platform.
    pub fn new(inner: Arc<dyn Platform>) -> Arc<Gateway> {
        Arc::new(Gateway {
            inner,
            queues: Mutex::default(),
            log: Mutex::default(),
        })
    }

    /// A queue, as [`Platform::event_queue`] makes it.
    ///
    /// # Errors
    /// When the platform beneath refuses.
    pub fn queue(&self) -> Result<Queue, PlatformError> {
        let watched = Arc::new(Watched {
            inner: self.inner.event_queue()?,
            taken: Mutex::default(),
            slept: AtomicBool::new(false),
        });
        self.queues
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .push(watched.clone());
        Ok(Queue(watched))
    }

    /// The queues that were made so far, in order; forgets them.
    pub fn take_queues(&self) -> Vec<Arc<Watched>> {
        std::mem::take(
            &mut self
                .queues
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner),
        )
    }

    /// The last lines that the driver logged.
    pub fn last_log(&self, lines: usize) -> String {
        let log = self
            .log
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let from = log.len().saturating_sub(lines);
        log[from..].join(" | ")
    }
}

impl Platform for Gateway {
    fn now_ns(&self) -> u64 {
        self.inner.now_ns()
    }

    fn log(&self, level: LogLevel, text: std::fmt::Arguments<'_>) {
        self.log
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .push(format!("{level:?}: {text}"));
    }

    fn event_queue(&self) -> Result<Box<dyn EventQueue>, PlatformError> {
        Ok(Box::new(self.queue()?))
    }

    fn cpu_count(&self) -> usize {
        self.inner.cpu_count()
    }

    fn spawn(&self, name: &str, cpu: Option<usize>, work: Work) -> Result<(), PlatformError> {
        self.inner.spawn(name, cpu, work)
    }

    fn epoch(&self) -> u32 {
        self.inner.epoch()
    }

    fn bar(&self, index: u8) -> Result<Vec<(u64, Mmio)>, PlatformError> {
        self.inner.bar(index)
    }

    fn config_read(&self, offset: u16, width: Width) -> Result<u32, PlatformError> {
        self.inner.config_read(offset, width)
    }

    fn config_write(&self, offset: u16, width: Width, value: u32) -> Result<(), PlatformError> {
        self.inner.config_write(offset, width, value)
    }

    fn enable_device(&self) -> Result<(), PlatformError> {
        self.inner.enable_device()
    }

    fn disable_device(&self) -> Result<(), PlatformError> {
        self.inner.disable_device()
    }

    fn interrupt_count(&self) -> u16 {
        self.inner.interrupt_count()
    }

    fn interrupt(&self, index: u16) -> Result<Arc<dyn Interrupt>, PlatformError> {
        self.inner.interrupt(index)
    }

    fn io_ports(&self, index: u8) -> Result<PortIo, PlatformError> {
        self.inner.io_ports(index)
    }

    fn dma_region(&self, len: usize) -> Result<DmaRegion, PlatformError> {
        self.inner.dma_region(len)
    }
}
