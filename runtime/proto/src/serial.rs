//! Serial ports: the endpoint of a driver of class serial (scheme `serial`).
//!
//! Bytes go both ways over one channel, as a [`stream`](crate::stream) each: what the client writes is sent,
//! what it reads was received. Nothing is translated; a terminal's line discipline is the console's
//! ([`console`](crate::console)). The driver takes no more than it can send, so a writer that is faster than
//! the line waits for `WRITABLE`. What is received while nobody reads is kept up to the channel's limit and
//! then lost, which the driver counts in its log.

use ipc::Channel;
use serde::{Deserialize, Serialize};

/// What a port is like.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SerialInfo {
    /// Bits per second that are set.
    pub rate: u32,
    /// Bytes of the transmitter's FIFO; 1 without one.
    pub fifo: u16,
}

/// Why a port refuses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum SerialError {
    /// Somebody has it open; it is free again when their channel is closed.
    Busy,
    /// The rate cannot be set.
    Invalid,
    /// The device is gone.
    Gone,
}

impl core::fmt::Display for SerialError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            SerialError::Busy => "the serial port is in use",
            SerialError::Invalid => "the rate cannot be set",
            SerialError::Gone => "the serial port is gone",
        })
    }
}

ipc::protocol! {
    /// A serial port.
    pub protocol SerialEndpoint("serial", version = 1, error = SerialError) {
        /// What the port is like.
        1 = info() -> (info: SerialInfo);
        /// Opens it, 8 data bits, no parity, one stop bit. Closing the stream's channel closes it.
        2 = open(rate: u32) -> (; stream: Channel);
        /// Answered when everything that was written has left the transmitter.
        3 = drain() -> ();
    }
}
