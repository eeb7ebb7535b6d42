//! MSI: programming of the capability (PCI Local Bus 3.0, 6.8.1), one message at most.
//!
//! The address and data registers are written by the bus driver only, as the MSI-X table is.

use proto::bus::{BusError, Message, PciFunctionInfo, VectorState};

use crate::capability;
use crate::config::{ConfigSpace, command, id, register};

/// Message control: MSI is on.
pub const ENABLE: u16 = 1;
/// Message control: log2 of the messages in use.
const MULTIPLE_ENABLED: u16 = 7 << 4;
/// Message control: the address has an upper half.
const ADDRESS_64: u16 = 1 << 7;
/// Bytes of the longest form: 64-bit address and masks per vector.
const LONGEST: u16 = 24;

fn capability(info: &PciFunctionInfo) -> Result<u16, BusError> {
    capability::find(&info.capabilities, id::MSI)
        .filter(|at| *at <= 0x100 - LONGEST)
        .ok_or(BusError::NotSupported)
}

/// Writes the message and leaves MSI off; INTx is off before, so that nothing falls back to it.
///
/// # Errors
/// [`BusError::NotSupported`] without MSI or for a message that the function cannot send,
/// [`BusError::NotVerified`] when the registers do not hold what was written.
pub fn program(
    config: &impl ConfigSpace,
    info: &PciFunctionInfo,
    message: Message,
) -> Result<(), BusError> {
    let (address, at) = (info.address, capability(info)?);
    let held = config.read16(address, at.saturating_add(2));
    let wide = held & ADDRESS_64 != 0;
    let data = u16::try_from(message.data).map_err(|_| BusError::NotSupported)?;
    let (low, high) = (message.address as u32, (message.address >> 32) as u32);
    if !wide && high != 0 {
        return Err(BusError::NotSupported);
    }
    let old = config.read16(address, register::COMMAND);
    config.write16(address, register::COMMAND, old | command::INTX_DISABLE);
    let off = held & !(ENABLE | MULTIPLE_ENABLED);
    config.write16(address, at.saturating_add(2), off);
    config.write32(address, at.saturating_add(4), low);
    let data_at = if wide {
        config.write32(address, at.saturating_add(8), high);
        at.saturating_add(12)
    } else {
        at.saturating_add(8)
    };
    config.write16(address, data_at, data);
    for (what, expected, found) in [
        (
            "MSI address",
            low,
            config.read32(address, at.saturating_add(4)),
        ),
        (
            "MSI data",
            data.into(),
            config.read16(address, data_at).into(),
        ),
    ] {
        if found != expected {
            return Err(BusError::NotVerified {
                what: what.into(),
                expected,
                found,
            });
        }
    }
    Ok(())
}

/// Lets the message out, or not. Masks per vector are optional, the enable bit is not.
///
/// # Errors
/// [`BusError::NotSupported`] without MSI.
pub fn set(
    config: &impl ConfigSpace,
    info: &PciFunctionInfo,
    state: VectorState,
) -> Result<(), BusError> {
    let at = capability(info)?.saturating_add(2);
    let held = config.read16(info.address, at);
    let value = match state {
        VectorState::Masked => held & !ENABLE,
        VectorState::Unmasked => held | ENABLE,
    };
    config.write16(info.address, at, value);
    Ok(())
}
