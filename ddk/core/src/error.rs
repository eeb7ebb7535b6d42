//! Why a driver fails, and why the system refuses.

use crate::Word;

/// Why the system under a driver refuses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PlatformError {
    /// The driver was not granted it.
    NotGranted,
    /// No memory or another limit is reached.
    NoMemory,
    /// The backend or the machine does not offer it.
    Unsupported,
    /// An argument is outside of its range.
    Invalid,
    /// The deadline passed.
    TimedOut,
    /// The other side is gone.
    Closed,
    /// The backend's own error code.
    Code(i32),
}

impl core::fmt::Display for PlatformError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            PlatformError::NotGranted => f.write_str("not granted"),
            PlatformError::NoMemory => f.write_str("no memory"),
            PlatformError::Unsupported => f.write_str("not supported"),
            PlatformError::Invalid => f.write_str("invalid argument"),
            PlatformError::TimedOut => f.write_str("timed out"),
            PlatformError::Closed => f.write_str("the other side is gone"),
            PlatformError::Code(code) => write!(f, "error {code}"),
        }
    }
}

impl core::error::Error for PlatformError {}

/// Why a driver cannot start or go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DriverError {
    /// A register read all ones: the device was unplugged or cut off.
    DeviceGone {
        /// The register or structure that told.
        register: &'static str,
    },
    /// The device did not do something in time.
    TimedOut {
        /// What was waited for.
        operation: &'static str,
        /// How long, in milliseconds.
        waited_ms: u32,
    },
    /// The device gave an answer that its specification rules out.
    Protocol {
        /// What it was about.
        what: &'static str,
        /// What was expected, or the limit.
        expected: u64,
        /// What the device said.
        seen: u64,
    },
    /// The device lacks something that the driver cannot do without.
    Unsupported {
        /// What it lacks.
        what: &'static str,
    },
    /// The system refused something.
    Platform {
        /// What was asked for.
        what: &'static str,
        /// Its answer.
        error: PlatformError,
    },
}

impl DriverError {
    /// The system refused `what`.
    pub const fn platform(what: &'static str, error: PlatformError) -> DriverError {
        DriverError::Platform { what, error }
    }
}

impl core::fmt::Display for DriverError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            DriverError::DeviceGone { register } => {
                write!(f, "device gone: {register} reads all ones")
            }
            DriverError::TimedOut {
                operation,
                waited_ms,
            } => {
                write!(f, "{operation}: no answer within {waited_ms} ms")
            }
            DriverError::Protocol {
                what,
                expected,
                seen,
            } => {
                write!(
                    f,
                    "{what}: expected {expected:#x}, the device says {seen:#x}"
                )
            }
            DriverError::Unsupported { what } => write!(f, "the device does not offer {what}"),
            DriverError::Platform { what, error } => write!(f, "{what}: {error}"),
        }
    }
}

impl core::error::Error for DriverError {}

/// Hands a register's value on unless it is all ones.
///
/// # Errors
/// [`DriverError::DeviceGone`].
#[inline]
pub fn alive<T: Word>(register: &'static str, value: T) -> Result<T, DriverError> {
    if value.to_u64() == T::WIDTH.all_ones() {
        return Err(DriverError::DeviceGone { register });
    }
    Ok(value)
}
