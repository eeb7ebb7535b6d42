//! Interrupts: message-signalled ones and lines.

use ddk::{EventQueue, PlatformError};
use rt::abi::IRQ_LINE;
use rt::{AckMode, Error};

use crate::queue::{OsQueue, refused};

/// An interrupt that was granted.
pub(crate) struct OsInterrupt {
    interrupt: rt::Interrupt,
    is_line: bool,
}

impl OsInterrupt {
    pub(crate) fn new(interrupt: rt::Interrupt) -> OsInterrupt {
        let is_line = interrupt
            .interrupt_info()
            .is_ok_and(|info| info.kind == IRQ_LINE as u32);
        OsInterrupt { interrupt, is_line }
    }
}

impl ddk::Interrupt for OsInterrupt {
    fn bind(&self, queue: &dyn EventQueue, key: u64) -> Result<(), PlatformError> {
        let port = OsQueue::of(queue)?.port();
        // A message is an edge: taking its packet acknowledges it, which saves a call per interrupt. A line
        // stays asserted until the driver has served the device.
        let mode = if self.is_line {
            AckMode::Explicit
        } else {
            AckMode::OnDequeue
        };
        match self.interrupt.bind(port, key, mode) {
            Err(Error::AlreadyExists | Error::BadState) => {
                self.interrupt.unbind().map_err(refused)?;
                self.interrupt.bind(port, key, mode).map_err(refused)
            }
            result => result.map_err(refused),
        }
    }

    fn unbind(&self) {
        let _ = self.interrupt.unbind();
    }

    #[inline]
    fn acknowledge(&self) {
        if self.is_line {
            let _ = self.interrupt.ack();
        }
    }
}
