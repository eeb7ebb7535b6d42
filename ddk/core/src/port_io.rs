//! I/O ports.

use alloc::sync::Arc;

use crate::{PortBus, RegionError};

/// A range of I/O ports that was granted; offsets count from its first port.
#[derive(Clone)]
pub struct PortIo {
    bus: Arc<dyn PortBus>,
    len: u16,
}

impl PortIo {
    /// A range of `len` ports that `bus` reaches.
    pub fn new(bus: Arc<dyn PortBus>, len: u16) -> PortIo {
        PortIo { bus, len }
    }

    /// Ports.
    pub fn len(&self) -> u16 {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Checks that the driver's highest port offset is inside, once, at start.
    ///
    /// # Errors
    /// When the range has fewer than `ports` ports.
    pub fn require(&self, ports: u16) -> Result<(), RegionError> {
        if ports <= self.len {
            return Ok(());
        }
        Err(RegionError {
            offset: 0,
            len: ports.into(),
            region: self.len.into(),
        })
    }

    /// Reads a byte; all ones outside of the range.
    #[inline]
    pub fn read8(&self, offset: u16) -> u8 {
        if offset < self.len {
            self.bus.read8(offset)
        } else {
            0xff
        }
    }

    /// Writes a byte; nothing outside of the range.
    #[inline]
    pub fn write8(&self, offset: u16, value: u8) {
        if offset < self.len {
            self.bus.write8(offset, value);
        }
    }

    /// Writes bytes one after the other to the same port.
    #[inline]
    pub fn write8_all(&self, offset: u16, bytes: &[u8]) {
        if offset < self.len {
            self.bus.write8_all(offset, bytes);
        }
    }

    /// Reads a 32-bit word; all ones outside of the range.
    #[inline]
    pub fn read32(&self, offset: u16) -> u32 {
        if offset.checked_add(4).is_some_and(|end| end <= self.len) {
            self.bus.read32(offset)
        } else {
            u32::MAX
        }
    }

    /// Writes a 32-bit word; nothing outside of the range.
    #[inline]
    pub fn write32(&self, offset: u16, value: u32) {
        if offset.checked_add(4).is_some_and(|end| end <= self.len) {
            self.bus.write32(offset, value);
        }
    }

    /// Reads a 16-bit word; all ones outside of the range.
    #[inline]
    pub fn read16(&self, offset: u16) -> u16 {
        if offset.checked_add(2).is_some_and(|end| end <= self.len) {
            self.bus.read16(offset)
        } else {
            u16::MAX
        }
    }

    /// Writes a 16-bit word; nothing outside of the range.
    #[inline]
    pub fn write16(&self, offset: u16, value: u16) {
        if offset.checked_add(2).is_some_and(|end| end <= self.len) {
            self.bus.write16(offset, value);
        }
    }
}

impl core::fmt::Debug for PortIo {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "PortIo {{ len: {} }}", self.len)
    }
}
