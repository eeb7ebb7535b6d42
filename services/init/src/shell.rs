//! The console's streams for the shell.

use alloc::string::{String, ToString};
use core::time::Duration;

use proto::console::ConsoleClient;
use rt::Channel;

/// What the shell reads from and writes to.
pub struct Streams {
    /// Input.
    pub input: Channel,
    /// Output.
    pub output: Channel,
}

/// Opens the console: waits until its service has found a serial port.
///
/// # Errors
/// The console's answer, or that it did not answer within a minute.
pub fn open(console: Channel) -> Result<Streams, String> {
    let console = ConsoleClient::new(console)
        .with_timeout(Duration::from_secs(60))
        .repeating();
    match console.open() {
        Ok((_session, input, output)) => Ok(Streams { input, output }),
        Err(error) => Err(error.to_string()),
    }
}
