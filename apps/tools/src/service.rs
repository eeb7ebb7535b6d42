//! Connections to the system's services, by the names of the start-up message.

use alloc::string::String;
use core::fmt::Display;

use rt::ipc::{CallError, Refusal};
use rt::{AsHandle, Channel, startup};
use unix::{Stop, Tool};

/// A client of the service that the process was given under `name`. Without it the tool ends with a
/// message: a process has only the authority that it was given.
pub fn connect<T: From<Channel>>(tool: &mut Tool, name: &str) -> Result<T, Stop> {
    match startup::handle::<Channel>(name).map(AsHandle::duplicate) {
        Some(Ok(channel)) => Ok(T::from(channel)),
        Some(Err(error)) => Err(tool.fatal(1, format_args!("{name}: {error}"))),
        None => Err(tool.fatal(1, format_args!("no access to the service '{name}'"))),
    }
}

/// The answer, or the tool's end with a message.
pub fn answer<T, E: Display>(
    tool: &mut Tool,
    what: &str,
    result: Result<T, CallError<E>>,
) -> Result<T, Stop> {
    result.map_err(|error| tool.fatal(1, format_args!("{what}: {}", text(error))))
}

/// Why a call failed, for people.
pub fn text<E: Display>(error: CallError<E>) -> String {
    match error {
        CallError::Remote(error) => alloc::format!("{error}"),
        CallError::Transport(error) => alloc::format!("{error}"),
        CallError::ServerDied { .. } => String::from("the service is gone"),
        CallError::Refused(refusal @ Refusal::Unavailable) => alloc::format!("{refusal}"),
        CallError::Refused(_) | CallError::Codec(_) => {
            String::from("the service speaks another protocol")
        }
    }
}
