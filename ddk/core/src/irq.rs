//! Interrupts.

use alloc::sync::Arc;
use core::future::poll_fn;
use core::task::Poll;

use crate::event::Hub;
use crate::{Deadline, DeviceContext, EventQueue, PlatformError};

/// An interrupt as a backend gives it.
pub trait Interrupt: Send + Sync {
    /// Sends an event with `key` to `queue` whenever it fires, and if it fired before it was bound, for a device may be
    /// faster than its driver. Bound to one queue at a time.
    ///
    /// # Errors
    /// When the queue is another backend's or the system refuses.
    fn bind(&self, queue: &dyn EventQueue, key: u64) -> Result<(), PlatformError>;

    /// Stops that.
    fn unbind(&self);

    /// Allows the next event of a level-triggered line, after the device was made to release it. A message
    /// interrupt is acknowledged by taking its event, and this does nothing.
    fn acknowledge(&self);
}

/// An interrupt of the device.
#[derive(Clone)]
pub struct Irq {
    source: Arc<dyn Interrupt>,
    cx: DeviceContext,
    /// Key on the control path's queue, once awaited there.
    key: Option<u64>,
}

impl Irq {
    pub(crate) fn new(source: Arc<dyn Interrupt>, cx: DeviceContext) -> Irq {
        Irq {
            source,
            cx,
            key: None,
        }
    }

    /// Delivers it to a queue of one's own, for a loop on the data path.
    ///
    /// # Errors
    /// See [`Interrupt::bind`].
    pub fn bind(&mut self, queue: &dyn EventQueue, key: u64) -> Result<(), PlatformError> {
        self.key = None;
        self.source.bind(queue, key)
    }

    /// See [`Interrupt::acknowledge`].
    pub fn acknowledge(&self) {
        self.source.acknowledge();
    }

    /// Waits until it has fired since the last wait; tells how often.
    ///
    /// # Errors
    /// [`PlatformError::TimedOut`] at the deadline.
    pub async fn wait(&mut self, deadline: Deadline) -> Result<u32, PlatformError> {
        let hub: &Hub = self.cx.hub();
        let key = match self.key {
            Some(key) => key,
            None => {
                let key = hub.new_source()?;
                self.source.bind(hub.queue(), key)?;
                self.key = Some(key);
                key
            }
        };
        let cx = &self.cx;
        poll_fn(|_| {
            let fired = cx.hub().take(key);
            if fired > 0 {
                return Poll::Ready(Ok(fired));
            }
            if deadline.is_over(cx.now_ns()) {
                return Poll::Ready(Err(PlatformError::TimedOut));
            }
            cx.hub().wake_at(deadline);
            Poll::Pending
        })
        .await
    }
}

impl Drop for Irq {
    fn drop(&mut self) {
        if Arc::strong_count(&self.source) == 1 {
            self.source.unbind();
        }
    }
}

impl core::fmt::Debug for Irq {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Irq")
    }
}
