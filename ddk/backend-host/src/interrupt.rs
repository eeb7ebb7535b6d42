//! Interrupts: a source that is bound to one queue at a time.

use std::sync::{Arc, Mutex, PoisonError};

use ddk::{EventQueue, Interrupt, PlatformError};

use crate::{HostQueue, Source};

/// A source that is an interrupt of a device.
pub trait InterruptSource: Source {
    /// Lets it fire, also what is pending.
    ///
    /// # Errors
    /// When the system refuses.
    fn unmask(&self) -> Result<(), PlatformError>;

    /// Stops it from firing; what comes meanwhile stays pending.
    fn mask(&self);

    /// Allows the next event of a level-triggered line. Messages need none.
    fn acknowledge(&self) {}
}

/// An interrupt over a source.
pub struct HostInterrupt<S> {
    source: Arc<S>,
    bound: Mutex<Option<HostQueue>>,
}

impl<S: InterruptSource + 'static> HostInterrupt<S> {
    /// The interrupt; the source is masked until it is bound.
    pub fn new(source: S) -> HostInterrupt<S> {
        HostInterrupt {
            source: Arc::new(source),
            bound: Mutex::new(None),
        }
    }

    /// What it stands on.
    pub fn source(&self) -> &S {
        &self.source
    }

    /// Whether it is bound to a queue.
    pub fn is_bound(&self) -> bool {
        let bound = self.bound.lock().unwrap_or_else(PoisonError::into_inner);
        bound.is_some()
    }

    fn as_source(&self) -> Arc<dyn Source> {
        self.source.clone()
    }
}

impl<S: InterruptSource + 'static> Interrupt for HostInterrupt<S> {
    fn bind(&self, queue: &dyn EventQueue, key: u64) -> Result<(), PlatformError> {
        let queue = HostQueue::of(queue)?.clone();
        let mut bound = self.bound.lock().unwrap_or_else(PoisonError::into_inner);
        match bound.take() {
            Some(old) => old.detach(&self.as_source()),
            None => self.source.unmask()?,
        }
        queue.attach(self.source.clone(), key);
        *bound = Some(queue);
        Ok(())
    }

    fn unbind(&self) {
        let mut bound = self.bound.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = bound.take() {
            self.source.mask();
            queue.detach(&self.as_source());
        }
    }

    fn acknowledge(&self) {
        self.source.acknowledge();
    }
}

impl<S> Drop for HostInterrupt<S> {
    fn drop(&mut self) {
        let bound = self.bound.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = bound.take() {
            queue.forget(Arc::as_ptr(&self.source).cast());
        }
    }
}
