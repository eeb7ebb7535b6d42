//! Waiting: a queue of events, and the loop that runs a driver's control path on one.

use alloc::boxed::Box;
use core::any::Any;
use core::future::Future;
use core::pin::pin;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use core::task::{Context, Poll, Waker};

use crate::{Deadline, PlatformError};

/// Something that happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Event {
    /// The key that its source was bound with.
    pub key: u64,
    /// How often since the last event of this source, at least 1.
    pub count: u64,
}

/// A queue that interrupts, doorbells and other threads put events into. One thread waits on it.
pub trait EventQueue: Send + Sync {
    /// Takes events, waiting for the first until the deadline; 0 when that passed.
    ///
    /// # Errors
    /// When the queue itself is broken.
    fn wait(&self, events: &mut [Event], deadline: Deadline) -> Result<usize, PlatformError>;

    /// Puts an event in, from any thread.
    ///
    /// # Errors
    /// When the queue is full or broken.
    fn post(&self, key: u64) -> Result<(), PlatformError>;

    /// The backend's own type, for its sources.
    fn as_any(&self) -> &dyn Any;
}

/// Most interrupts that can be awaited on the control path.
const SOURCES: usize = 64;

/// The control path's queue with what has arrived on it.
pub(crate) struct Hub {
    queue: Box<dyn EventQueue>,
    arrived: [AtomicU32; SOURCES],
    sources: AtomicU32,
    /// Earliest deadline that a future waits for, in nanoseconds.
    earliest_ns: AtomicU64,
}

impl Hub {
    pub(crate) fn new(queue: Box<dyn EventQueue>) -> Hub {
        Hub {
            queue,
            arrived: [const { AtomicU32::new(0) }; SOURCES],
            sources: AtomicU32::new(0),
            earliest_ns: AtomicU64::new(u64::MAX),
        }
    }

    pub(crate) fn queue(&self) -> &dyn EventQueue {
        &*self.queue
    }

    /// A key for a new source.
    pub(crate) fn new_source(&self) -> Result<u64, PlatformError> {
        let key = self.sources.fetch_add(1, Ordering::Relaxed);
        if key as usize >= SOURCES {
            return Err(PlatformError::NoMemory);
        }
        Ok(u64::from(key))
    }

    /// Takes what has arrived from a source.
    pub(crate) fn take(&self, key: u64) -> u32 {
        match self.arrived.get(key as usize) {
            Some(count) => count.swap(0, Ordering::Relaxed),
            None => 0,
        }
    }

    /// Asks to be polled again at the deadline at the latest.
    pub(crate) fn wake_at(&self, deadline: Deadline) {
        self.earliest_ns
            .fetch_min(deadline.as_ns(), Ordering::Relaxed);
    }

    fn park(&self) -> Result<(), PlatformError> {
        let deadline = Deadline::at_ns(self.earliest_ns.swap(u64::MAX, Ordering::Relaxed));
        let mut events = [Event::default(); 8];
        let taken = self.queue.wait(&mut events, deadline)?;
        for event in events.iter().take(taken) {
            if let Some(count) = self.arrived.get(event.key as usize) {
                count.fetch_add(
                    event.count.min(u64::from(u32::MAX)) as u32,
                    Ordering::Relaxed,
                );
            }
        }
        Ok(())
    }
}

/// Runs a driver's asynchronous code on this thread to its end.
///
/// The futures of this crate look at what has arrived each time they are polled, so one future is polled
/// again after each batch of events; there are no wakers and nothing is allocated. The data path does not
/// run here: it is a plain loop over a queue (see the class crates).
///
/// # Errors
/// When the queue under it is broken.
pub fn block_on<F: Future>(
    cx: &crate::DeviceContext,
    future: F,
) -> Result<F::Output, PlatformError> {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return Ok(output);
        }
        cx.hub().park()?;
    }
}
