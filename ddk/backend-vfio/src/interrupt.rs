//! Interrupts, which Linux counts in an eventfd each.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;

use ddk::PlatformError;
use ddk_backend_host::{InterruptSource, Source};
use vfio_bindings::bindings::vfio::VFIO_PCI_INTX_IRQ_INDEX;
use vmm_sys_util::eventfd::EventFd;

use crate::opened::Opened;

/// An interrupt. While it is not bound the eventfd keeps what comes: it is the pending bit.
pub(crate) struct EventSource {
    events: Arc<EventFd>,
    /// The device whose line it is; Linux masks a line when it fires.
    line_of: Option<Arc<Opened>>,
}

impl EventSource {
    /// A vector of MSI-X or MSI.
    pub(crate) fn message(events: Arc<EventFd>) -> EventSource {
        EventSource {
            events,
            line_of: None,
        }
    }

    /// The INTx line.
    pub(crate) fn line(events: Arc<EventFd>, device: Arc<Opened>) -> EventSource {
        EventSource {
            events,
            line_of: Some(device),
        }
    }
}

impl Source for EventSource {
    fn take(&self) -> u64 {
        // Not blocking: an error says that nothing came.
        self.events.read().unwrap_or(0)
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        // SAFETY: the descriptor is open as long as the eventfd, which outlives the borrow.
        Some(unsafe { BorrowedFd::borrow_raw(self.events.as_raw_fd()) })
    }
}

impl InterruptSource for EventSource {
    fn unmask(&self) -> Result<(), PlatformError> {
        Ok(())
    }

    fn mask(&self) {}

    fn acknowledge(&self) {
        if let Some(device) = &self.line_of {
            // A line that is not masked is none the worse.
            let _ = device.device.unmask_irq(VFIO_PCI_INTX_IRQ_INDEX);
        }
    }
}
