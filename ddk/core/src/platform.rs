//! What a backend implements: the one interface between drivers and a home for them.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::{DmaRegion, EventQueue, Interrupt, Mmio, PlatformError, PortIo, SavedState, Width};

/// Work for a thread of its own.
pub type Work = Box<dyn FnOnce() + Send>;

/// How much a line of the log matters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum LogLevel {
    /// Something is broken.
    Error,
    /// Something is odd.
    Warning,
    /// Something that an operator wants to know.
    Info,
    /// For the driver's author.
    Debug,
}

/// I/O ports of a range; offsets are checked by the caller.
pub trait PortBus: Send + Sync {
    /// Reads a byte.
    fn read8(&self, offset: u16) -> u8;
    /// Writes a byte.
    fn write8(&self, offset: u16, value: u8);
    /// Reads 16 bits.
    fn read16(&self, offset: u16) -> u16;
    /// Writes 16 bits.
    fn write16(&self, offset: u16, value: u16);
    /// Reads 32 bits.
    fn read32(&self, offset: u16) -> u32;
    /// Writes 32 bits.
    fn write32(&self, offset: u16, value: u32);
    /// Writes bytes one after the other to one port.
    fn write8_all(&self, offset: u16, bytes: &[u8]) {
        for &byte in bytes {
            self.write8(offset, byte);
        }
    }
}

/// A home for a driver: one device, and the system around it. Wrappers that trace or inject faults implement
/// it over another one.
pub trait Platform: Send + Sync {
    /// Nanoseconds of a clock that never goes back.
    fn now_ns(&self) -> u64;

    /// Writes a line to the log.
    fn log(&self, level: LogLevel, text: core::fmt::Arguments<'_>);

    /// A new queue to wait on.
    ///
    /// # Errors
    /// When the system refuses.
    fn event_queue(&self) -> Result<Box<dyn EventQueue>, PlatformError>;

    /// CPUs of the machine.
    fn cpu_count(&self) -> usize;

    /// Runs `work` on a thread of its own, on the CPU given if there is one.
    ///
    /// # Errors
    /// When the system refuses.
    fn spawn(&self, name: &str, cpu: Option<usize>, work: Work) -> Result<(), PlatformError>;

    /// Incarnation of this driver on this device, from 1.
    fn epoch(&self) -> u32;

    /// The state that the version before left for this one. Homes without versions have none.
    fn restored(&self) -> Option<SavedState> {
        None
    }

    /// The accessible windows of a memory BAR: offset in the BAR, and the window.
    ///
    /// # Errors
    /// [`PlatformError::NotGranted`] when the device has no such BAR or it was not granted.
    fn bar(&self, index: u8) -> Result<Vec<(u64, Mmio)>, PlatformError>;

    /// Reads configuration space at an aligned offset.
    ///
    /// # Errors
    /// When the device has none, or the access is outside of it.
    fn config_read(&self, offset: u16, width: Width) -> Result<u32, PlatformError>;

    /// Writes configuration space; registers that the bus owns are refused.
    ///
    /// # Errors
    /// As [`Platform::config_read`], and for protected registers.
    fn config_write(&self, offset: u16, width: Width, value: u32) -> Result<(), PlatformError>;

    /// Switches memory decoding, bus mastering and interrupts on.
    ///
    /// # Errors
    /// When the bus refuses.
    fn enable_device(&self) -> Result<(), PlatformError>;

    /// Switches bus mastering and interrupts off.
    ///
    /// # Errors
    /// When the bus refuses.
    fn disable_device(&self) -> Result<(), PlatformError>;

    /// Interrupts granted: MSI-X vectors from 0 on, or lines.
    fn interrupt_count(&self) -> u16;

    /// One of them.
    ///
    /// # Errors
    /// When it was not granted.
    fn interrupt(&self, index: u16) -> Result<Arc<dyn Interrupt>, PlatformError>;

    /// A range of I/O ports.
    ///
    /// # Errors
    /// When it was not granted.
    fn io_ports(&self, index: u8) -> Result<PortIo, PlatformError>;

    /// Zeroed memory for control structures, at least `len` bytes in whole pages.
    ///
    /// # Errors
    /// When no DMA domain was granted or there is no memory.
    fn dma_region(&self, len: usize) -> Result<DmaRegion, PlatformError>;
}
