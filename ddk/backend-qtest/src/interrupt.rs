//! Interrupts of QEMU's devices.
//!
//! A message is a write to memory (PCI Express Base, 6.1.4): its address leads to a word of RAM of ours, where
//! it is seen. A word holds one message, so messages that come before the last was seen count once, as in an
//! interrupt controller. Masks and pending bits are the device's own. A line is an input of the I/O APIC,
//! which QEMU reports instead of passing it on.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ddk::{DmaRegion, PlatformError};
use ddk_backend_host::{InterruptSource, Source};
use proto::bus::{Message, VectorState};

use crate::function::Function;

/// What a message writes. Not 0, which stands for no message; MSI has 16 bits.
const MESSAGE: u32 = 0x4d49;

/// A message-signalled interrupt.
pub(crate) struct MessageSource {
    function: Arc<Function>,
    vector: u16,
    words: DmaRegion,
}

impl MessageSource {
    /// Vector `vector` of a function, whose messages go to `words`.
    pub(crate) fn new(function: Arc<Function>, vector: u16, words: DmaRegion) -> MessageSource {
        MessageSource {
            function,
            vector,
            words,
        }
    }

    /// What to program for vector `vector`.
    pub(crate) fn message(words: &DmaRegion, vector: u16) -> Message {
        Message {
            address: words.device_address(usize::from(vector) * 4),
            data: MESSAGE,
        }
    }
}

impl Source for MessageSource {
    fn take(&self) -> u64 {
        self.function.machine().wire.pump();
        let at = usize::from(self.vector) * 4;
        if self.words.read::<u32>(at) == 0 {
            return 0;
        }
        // A message that comes between the two is the one that is taken: what the device wrote to memory
        // before it is seen by whoever looks after this.
        self.words.write::<u32>(at, 0);
        std::sync::atomic::fence(Ordering::SeqCst);
        1
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

impl InterruptSource for MessageSource {
    fn unmask(&self) -> Result<(), PlatformError> {
        self.function.set_vector(self.vector, VectorState::Unmasked)
    }

    fn mask(&self) {
        // A device that is gone sends nothing either.
        let _ = self.function.set_vector(self.vector, VectorState::Masked);
    }
}

/// A level-triggered line, shared with other functions.
pub(crate) struct LineSource {
    function: Arc<Function>,
    line: usize,
    /// Told and not yet acknowledged.
    told: AtomicBool,
    masked: AtomicBool,
}

impl LineSource {
    pub(crate) fn new(function: Arc<Function>, line: usize) -> LineSource {
        LineSource {
            function,
            line,
            told: AtomicBool::new(false),
            masked: AtomicBool::new(true),
        }
    }
}

impl Source for LineSource {
    fn take(&self) -> u64 {
        let wire = &self.function.machine().wire;
        wire.pump();
        if self.masked.load(Ordering::Relaxed) || !wire.is_asserted(self.line) {
            return 0;
        }
        u64::from(!self.told.swap(true, Ordering::Relaxed))
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

impl InterruptSource for LineSource {
    fn unmask(&self) -> Result<(), PlatformError> {
        let intercepted = self.function.machine().wire.intercept_lines();
        intercepted.map_err(|_| PlatformError::Closed)?;
        self.masked.store(false, Ordering::Relaxed);
        self.told.store(false, Ordering::Relaxed);
        Ok(())
    }

    fn mask(&self) {
        self.masked.store(true, Ordering::Relaxed);
    }

    fn acknowledge(&self) {
        self.told.store(false, Ordering::Relaxed);
    }
}
