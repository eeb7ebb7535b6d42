//! What stands between a driver and its home.

use ddk::{Deadline, Event, PlatformError, Width};
use serde::{Deserialize, Serialize};

use crate::Record;

/// Where registers are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Place {
    /// A window of a BAR.
    Bar {
        /// The BAR.
        index: u8,
        /// Which of its windows, in the order that the platform lists them.
        window: u8,
    },
    /// A range of I/O ports.
    Ports(u8),
    /// Configuration space.
    Config,
}

impl core::fmt::Display for Place {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Place::Bar { index, window: 0 } => write!(f, "bar{index}"),
            Place::Bar { index, window } => write!(f, "bar{index}.{window}"),
            Place::Ports(index) => write!(f, "ports{index}"),
            Place::Config => f.write_str("config"),
        }
    }
}

/// An access to a register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Access {
    /// Where.
    pub place: Place,
    /// Byte offset there.
    pub offset: u32,
    /// How wide.
    pub width: Width,
}

impl core::fmt::Display for Access {
    /// Width, place and offset: `32 bar0+0x14`.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let bits = self.width.bytes() * 8;
        write!(f, "{bits} {}+{:#x}", self.place, self.offset)
    }
}

/// What a driver wants of the system that there may be no more of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wanted {
    /// Memory to share with the device.
    Memory,
    /// A queue of events.
    Queue,
    /// A thread.
    Thread,
}

/// A wait that is about to begin.
pub struct Waiting<'a> {
    /// The queue, counted from 0.
    pub queue: u32,
    /// Its end.
    pub deadline: Deadline,
    pub(crate) inner: &'a dyn ddk::EventQueue,
    pub(crate) clock: &'a dyn Fn() -> u64,
}

impl Waiting<'_> {
    /// Waits.
    ///
    /// # Errors
    /// When the queue is broken.
    pub fn wait(&self, events: &mut [Event], deadline: Deadline) -> Result<usize, PlatformError> {
        self.inner.wait(events, deadline)
    }

    /// The clock of the home.
    pub fn now_ns(&self) -> u64 {
        (self.clock)()
    }
}

/// Something between a driver and its home: sees what passes, and may change it. Each method passes on what it is
/// given unless it is written otherwise.
pub trait Probe: Send + Sync + 'static {
    /// The driver reads a register; `inner` does it.
    fn read(&self, access: Access, inner: &dyn Fn() -> u64) -> u64 {
        let _ = access;
        inner()
    }

    /// The driver writes a register; `inner` does it.
    fn write(&self, access: Access, value: u64, inner: &dyn Fn(u64)) {
        let _ = access;
        inner(value);
    }

    /// The driver reads shared memory and has got `bytes`.
    fn dma_read(&self, region: u32, offset: usize, bytes: &mut [u8]) {
        let _ = (region, offset, bytes);
    }

    /// The driver is about to write shared memory.
    fn dma_write(&self, region: u32, offset: usize, bytes: &mut [u8]) {
        let _ = (region, offset, bytes);
    }

    /// The driver wants something of the system.
    ///
    /// # Errors
    /// What the driver is told instead of what the system would answer.
    fn want(&self, wanted: Wanted) -> Result<(), PlatformError> {
        let _ = wanted;
        Ok(())
    }

    /// The driver waits.
    ///
    /// # Errors
    /// When the queue is broken.
    fn wait(&self, waiting: &Waiting<'_>, events: &mut [Event]) -> Result<usize, PlatformError> {
        waiting.wait(events, waiting.deadline)
    }

    /// The driver looks at the clock.
    fn now_ns(&self, inner: &dyn Fn() -> u64) -> u64 {
        inner()
    }

    /// A thread that the driver started, with this number, begins; called on it.
    fn began(&self, thread: u16) {
        let _ = thread;
    }

    /// Anything else that passed.
    fn note(&self, record: Record) {
        let _ = record;
    }
}
