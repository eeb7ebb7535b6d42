//! I/O ports.

use alloc::sync::Arc;

use ddk::{PlatformError, PortBus, PortIo};
use rt::{IoPorts, Resource};

use crate::queue::refused;

/// Asks for the ports of a resource.
pub(crate) fn grant(resource: &Resource) -> Result<PortIo, PlatformError> {
    let info = resource.resource_info().map_err(refused)?;
    let base = u16::try_from(info.base).map_err(|_| PlatformError::Invalid)?;
    let len = u16::try_from(info.len).map_err(|_| PlatformError::Invalid)?;
    let ports = IoPorts::grant(resource, base, len).map_err(refused)?;
    Ok(PortIo::new(Arc::new(Ports(ports)), len))
}

/// A grant; a port outside of it reads all ones.
struct Ports(IoPorts);

impl PortBus for Ports {
    fn read8(&self, offset: u16) -> u8 {
        self.0.read8(offset).unwrap_or(u8::MAX)
    }
    fn write8(&self, offset: u16, value: u8) {
        let _ = self.0.write8(offset, value);
    }
    fn read16(&self, offset: u16) -> u16 {
        self.0.read16(offset).unwrap_or(u16::MAX)
    }
    fn write16(&self, offset: u16, value: u16) {
        let _ = self.0.write16(offset, value);
    }
    fn read32(&self, offset: u16) -> u32 {
        self.0.read32(offset).unwrap_or(u32::MAX)
    }
    fn write32(&self, offset: u16, value: u32) {
        let _ = self.0.write32(offset, value);
    }
}
