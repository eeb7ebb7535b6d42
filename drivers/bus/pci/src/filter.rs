//! Which configuration registers a driver may write through its device channel.
//!
//! A short list of what is allowed, not of what is forbidden: whatever moves a BAR, lets the device reach
//! memory, raises interrupts elsewhere or touches a bridge stays with the bus driver, and so does what
//! nobody thought of. virtio's configuration-access capability is closed too: it reaches into BARs,
//! and so into the MSI-X table.

use proto::bus::{BusError, PciFunctionInfo};

use crate::config::{Width, id, register};

/// Checks that an access is aligned and inside of `size` bytes.
///
/// # Errors
/// [`BusError::BadAccess`].
pub fn check_access(offset: u16, width: u8, size: u16) -> Result<Width, BusError> {
    let width = Width::from_bytes(width).ok_or(BusError::BadAccess)?;
    let end = offset
        .checked_add(width.bytes())
        .ok_or(BusError::BadAccess)?;
    if !offset.is_multiple_of(width.bytes()) || end > size {
        return Err(BusError::BadAccess);
    }
    Ok(width)
}

/// Checks that a driver may write there.
///
/// # Errors
/// [`BusError::BadAccess`] and [`BusError::Protected`].
pub fn check_write(
    info: &PciFunctionInfo,
    offset: u16,
    width: u8,
    size: u16,
    vendor_length: impl Fn(u16) -> u16,
) -> Result<Width, BusError> {
    let width = check_access(offset, width, size)?;
    let end = offset.saturating_add(width.bytes());
    let inside = |first: u16, len: u16| first <= offset && end <= first.saturating_add(len);
    let header = inside(register::CACHE_LINE, 1)
        || inside(register::LATENCY_TIMER, 1)
        || inside(register::INTERRUPT_LINE, 1);
    if header && info.header == 0 {
        return Ok(width);
    }
    const VIRTIO: u16 = 0x1af4;
    let body = info.vendor != VIRTIO
        && info.header == 0
        && info
            .capabilities
            .iter()
            .filter(|c| !c.extended && c.id == id::VENDOR)
            .any(|c| {
                // The byte behind the header is the capability's length, told by the device: it must not
                // reach into the next capability.
                let next = info
                    .capabilities
                    .iter()
                    .filter(|o| !o.extended && o.offset > c.offset)
                    .map(|o| o.offset)
                    .min()
                    .unwrap_or(0x100);
                let len = vendor_length(c.offset).min(next.saturating_sub(c.offset));
                len > 3 && inside(c.offset.saturating_add(3), len.saturating_sub(3))
            });
    if body {
        Ok(width)
    } else {
        Err(BusError::Protected)
    }
}
