//! Message-signalled interrupts of a function, by whichever capability it has: MSI-X, else MSI.

use proto::bus::{BusError, Message, PciFunctionInfo, VectorState};

use crate::config::{ConfigSpace, DeviceMemory};
use crate::{msi, msix};

/// Writes the messages; none is sent before [`set_function`].
///
/// # Errors
/// Those of [`msix::program`] and [`msi::program`]; [`BusError::BadAccess`] for more than one message by MSI.
pub fn program(
    config: &impl ConfigSpace,
    memory: &impl DeviceMemory,
    info: &PciFunctionInfo,
    messages: &[Message],
) -> Result<(), BusError> {
    if info.msix.is_some() {
        return msix::program(config, memory, info, messages);
    }
    match messages {
        [message] => msi::program(config, info, *message),
        _ => Err(BusError::BadAccess),
    }
}

/// Masks or unmasks the function as a whole.
///
/// # Errors
/// [`BusError::NotSupported`] with neither capability.
pub fn set_function(
    config: &impl ConfigSpace,
    info: &PciFunctionInfo,
    state: VectorState,
) -> Result<(), BusError> {
    if info.msix.is_some() {
        msix::set_function(config, info, state)
    } else {
        msi::set(config, info, state)
    }
}

/// Masks or unmasks one vector, which was programmed.
///
/// # Errors
/// Those of [`msix::set_vector`] and [`msi::set`].
pub fn set_vector(
    config: &impl ConfigSpace,
    memory: &impl DeviceMemory,
    info: &PciFunctionInfo,
    vector: u16,
    state: VectorState,
) -> Result<(), BusError> {
    if info.msix.is_some() {
        msix::set_vector(memory, info, vector, state)
    } else {
        msi::set(config, info, state)
    }
}
