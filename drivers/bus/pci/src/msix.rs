//! MSI-X: programming of the vector table (PCI Express Base, 6.1.4.2 and 7.7.2).
//!
//! The table is written by the bus driver only. A driver that could write it could make its device
//! write to any address as an "interrupt".

use proto::bus::{Bar, BusError, Message, PciAddress, PciFunctionInfo, VectorState};

use crate::capability::{self, MSIX_ENTRY_BYTES};
use crate::config::{ConfigSpace, DeviceMemory, Width, command, id, register};

/// Message control: MSI-X is on.
pub const ENABLE: u16 = 1 << 15;
/// Message control: no vector fires.
pub const FUNCTION_MASK: u16 = 1 << 14;
const VECTOR_MASKED: u32 = 1;

fn control(info: &PciFunctionInfo) -> Result<u16, BusError> {
    capability::find(&info.capabilities, id::MSIX)
        .map(|at| at.saturating_add(2))
        .ok_or(BusError::NotSupported)
}

/// Physical address of table entry `vector`.
fn entry(info: &PciFunctionInfo, vector: u16) -> Result<u64, BusError> {
    let msix = info.msix.ok_or(BusError::NotSupported)?;
    if vector >= msix.vectors {
        return Err(BusError::BadAccess);
    }
    let bar: &Bar = info
        .bars
        .iter()
        .find(|b| b.index == msix.table_bar && b.base != 0)
        .ok_or(BusError::NotSupported)?;
    let offset = u64::from(msix.table_offset) + u64::from(vector) * u64::from(MSIX_ENTRY_BYTES);
    bar.base.checked_add(offset).ok_or(BusError::BadAccess)
}

fn write(memory: &impl DeviceMemory, at: u64, value: u32) -> Result<(), BusError> {
    memory
        .write(at, Width::Dword, value)
        .ok_or(BusError::NotSupported)
}

/// Writes the vectors and turns MSI-X on with the whole function masked. Vectors beyond `messages` are
/// masked one by one.
///
/// # Errors
/// [`BusError::NotSupported`] without MSI-X, [`BusError::BadAccess`] for more vectors than there are,
/// [`BusError::NotVerified`] when the table does not hold what was written.
pub fn program(
    config: &impl ConfigSpace,
    memory: &impl DeviceMemory,
    info: &PciFunctionInfo,
    messages: &[Message],
) -> Result<(), BusError> {
    let address = info.address;
    let control = control(info)?;
    let vectors = info.msix.ok_or(BusError::NotSupported)?.vectors;
    if messages.len() > usize::from(vectors) {
        return Err(BusError::BadAccess);
    }
    let old = config.read16(address, register::COMMAND);
    config.write16(address, register::COMMAND, old | command::MEMORY);
    config.write16(address, control, ENABLE | FUNCTION_MASK);
    for vector in 0..vectors {
        let at = entry(info, vector)?;
        let message = messages.get(usize::from(vector));
        let (message, mask) = match message {
            Some(m) => (*m, 0),
            None => (
                Message {
                    address: 0,
                    data: 0,
                },
                VECTOR_MASKED,
            ),
        };
        write(memory, at.saturating_add(12), VECTOR_MASKED)?;
        write(memory, at, message.address as u32)?;
        write(memory, at.saturating_add(4), (message.address >> 32) as u32)?;
        write(memory, at.saturating_add(8), message.data)?;
        write(memory, at.saturating_add(12), mask)?;
        let found = memory
            .read(at.saturating_add(8), Width::Dword)
            .ok_or(BusError::NotSupported)?;
        if found != message.data {
            return Err(BusError::NotVerified {
                what: alloc::format!("MSI-X data of vector {vector}"),
                expected: message.data,
                found,
            });
        }
    }
    Ok(())
}

/// Masks or unmasks the function as a whole.
///
/// # Errors
/// [`BusError::NotSupported`] without MSI-X.
pub fn set_function(
    config: &impl ConfigSpace,
    info: &PciFunctionInfo,
    state: VectorState,
) -> Result<(), BusError> {
    let at = control(info)?;
    let value = match state {
        VectorState::Masked => ENABLE | FUNCTION_MASK,
        VectorState::Unmasked => ENABLE,
    };
    config.write16(info.address, at, value);
    Ok(())
}

/// Masks or unmasks one vector.
///
/// # Errors
/// [`BusError::BadAccess`] beyond the table, [`BusError::NotSupported`] without MSI-X.
pub fn set_vector(
    memory: &impl DeviceMemory,
    info: &PciFunctionInfo,
    vector: u16,
    state: VectorState,
) -> Result<(), BusError> {
    let at = entry(info, vector)?.saturating_add(12);
    let value = match state {
        VectorState::Masked => VECTOR_MASKED,
        VectorState::Unmasked => 0,
    };
    write(memory, at, value)
}

/// Sees to it that the function interrupts nobody, and reads that back. MSI-X stays on, masked as a whole: a function whose
/// MSI-X is off falls back to INTx, and QEMU's 82574L ends the emulator when a moderated message comes due then.
///
/// # Errors
/// [`BusError::NotVerified`] with the register that did not take it.
pub fn mask(
    config: &impl ConfigSpace,
    address: PciAddress,
    info: &PciFunctionInfo,
) -> Result<(), BusError> {
    const MSI_ENABLE: u16 = 1;
    let held = config.read16(address, register::COMMAND);
    config.write16(address, register::COMMAND, held | command::INTX_DISABLE);
    verify(
        config,
        address,
        register::COMMAND,
        command::INTX_DISABLE,
        command::INTX_DISABLE,
        "interrupt disable",
    )?;
    if let Some(at) = capability::find(&info.capabilities, id::MSIX) {
        let at = at.saturating_add(2);
        let held = config.read16(address, at);
        config.write16(address, at, held | FUNCTION_MASK);
        verify(
            config,
            address,
            at,
            FUNCTION_MASK,
            FUNCTION_MASK,
            "MSI-X function mask",
        )?;
    }
    if let Some(at) = capability::find(&info.capabilities, id::MSI) {
        let at = at.saturating_add(2);
        let held = config.read16(address, at);
        config.write16(address, at, held & !MSI_ENABLE);
        verify(config, address, at, MSI_ENABLE, 0, "MSI enable")?;
    }
    Ok(())
}

/// Turns off MSI-X, MSI and INTx of a function that has nothing to tell any more, and reads back that they are off.
///
/// # Errors
/// [`BusError::NotVerified`] with the register that did not take it.
pub fn turn_off(
    config: &impl ConfigSpace,
    address: PciAddress,
    info: &PciFunctionInfo,
) -> Result<(), BusError> {
    mask(config, address, info)?;
    if let Some(at) = capability::find(&info.capabilities, id::MSIX) {
        let at = at.saturating_add(2);
        config.write16(address, at, FUNCTION_MASK);
        verify(config, address, at, ENABLE, 0, "MSI-X enable")?;
    }
    Ok(())
}

/// Reads a 16-bit register back.
pub(crate) fn verify(
    config: &impl ConfigSpace,
    address: PciAddress,
    offset: u16,
    mask: u16,
    expected: u16,
    what: &str,
) -> Result<(), BusError> {
    let found = config.read16(address, offset);
    if found == 0xffff && config.read16(address, register::VENDOR) == 0xffff {
        return Err(BusError::Gone);
    }
    if found & mask != expected {
        return Err(BusError::NotVerified {
            what: what.into(),
            expected: expected.into(),
            found: found.into(),
        });
    }
    Ok(())
}
