//! The doorbells of a session whose two sides run in one thread.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ddk::{EventQueue, PlatformError};
use ddk_class_core::Doorbell;

use crate::gateway::{Queue, Watched};

/// The one that a client rings.
#[derive(Clone)]
pub struct ToDriver {
    queue: Queue,
    key: Arc<Mutex<Option<u64>>>,
}

impl ToDriver {
    /// Leads to a worker's queue.
    pub fn new(queue: &Arc<Watched>) -> ToDriver {
        ToDriver {
            queue: Queue(queue.clone()),
            key: Arc::default(),
        }
    }

    fn key(&self) -> std::sync::MutexGuard<'_, Option<u64>> {
        self.key.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Doorbell for ToDriver {
    fn ring(&self) {
        if let Some(key) = *self.key() {
            let _ = self.queue.post(key);
        }
    }

    fn watch(&self, _: &dyn EventQueue, key: u64) -> Result<(), PlatformError> {
        *self.key() = Some(key);
        Ok(())
    }

    fn unwatch(&self, _: &dyn EventQueue, _: u64) {
        *self.key() = None;
    }
}

/// The one that a driver rings.
#[derive(Clone, Default)]
pub struct ToClient(Arc<AtomicBool>);

impl ToClient {
    /// Whether it was rung since it was cleared.
    pub fn is_rung(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Nobody has rung it.
    pub fn clear(&self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

impl Doorbell for ToClient {
    fn ring(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn watch(&self, _: &dyn EventQueue, _: u64) -> Result<(), PlatformError> {
        Ok(())
    }

    fn unwatch(&self, _: &dyn EventQueue, _: u64) {}
}
