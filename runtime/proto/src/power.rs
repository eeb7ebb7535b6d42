//! Power (scheme `power`, served by init): an orderly end of the system.
//!
//! The switch itself belongs to the `acpi` service (see [`Firmware`](crate::bus::FirmwareClient)).

use serde::{Deserialize, Serialize};

/// Why the system does not end.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum PowerError {
    /// Firmware and fallbacks failed.
    NotSupported,
    /// It is under way already.
    InProgress,
}

impl core::fmt::Display for PowerError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            PowerError::NotSupported => f.write_str("the machine offers no way"),
            PowerError::InProgress => f.write_str("already under way"),
        }
    }
}

ipc::protocol! {
    /// Power: scheme `power`.
    pub protocol Power("power", version = 1, error = PowerError) {
        /// Reports `status` as the outcome, flushes the log, switches the machine off. Answers at once.
        1 = power_off(status: i32) -> ();
        /// Flushes the log and resets the machine. Answers at once.
        2 = reboot() -> ();
    }
}
