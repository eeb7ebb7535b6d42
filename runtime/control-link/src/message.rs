//! Messages.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

/// Version of the protocol; the two sides have the same one or do not talk.
pub const VERSION: u16 = 1;
/// Most bytes of data in a message.
pub const DATA_BYTES_MAX: usize = 16 * 1024;
/// Most bytes of a command line.
pub const COMMAND_BYTES_MAX: usize = 32 * 1024;
/// Most bytes of a driver's program.
pub const PROGRAM_BYTES_MAX: u64 = 64 << 20;
/// Bytes that a receiver grants at a time; at most this much of a request is under way.
pub const CREDIT_BYTES: u32 = 256 * 1024;
/// Bytes that a system has on the line at most, [`FRAME_OVERHEAD_BYTES`] more for each frame: what a socket
/// holds. A virtual serial port drops what its socket has no room for.
pub const WINDOW_BYTES: usize = 96 * 1024;
/// What a frame costs a socket beside its bytes.
pub const FRAME_OVERHEAD_BYTES: usize = 1024;
/// Requests that a system serves at a time.
pub const REQUESTS_MAX: usize = 16;

/// What the standard input of a command is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Input {
    /// Nothing.
    Empty,
    /// What follows as [`ToSystem::Data`], up to [`ToSystem::End`].
    Stream,
}

/// Which output of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OutputStream {
    /// Standard output.
    Output,
    /// Standard error.
    Errors,
}

/// From a host to a system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToSystem {
    /// Who is there? Answered by [`FromSystem::Hello`].
    Hello,
    /// So many frames were received since this was told last ([`WINDOW_BYTES`]).
    Received {
        /// Number of frames.
        frames: u32,
    },
    /// Runs a command line with `sh`.
    Execute {
        /// Number of the request.
        id: u32,
        /// The command line, at most [`COMMAND_BYTES_MAX`] bytes.
        command: String,
        /// Its standard input.
        input: Input,
        /// Bytes of output that are granted to begin with, both streams together.
        credit: u32,
    },
    /// Puts a driver's program in the place of the one that runs, on every device that it drives; one that
    /// drives none yet is started where it is the best. The program follows as [`ToSystem::Data`], up to
    /// [`ToSystem::End`]; a [`ToSystem::Cancel`] after that comes too late.
    Replace {
        /// Number of the request.
        id: u32,
        /// The driver's name in its manifest.
        driver: String,
        /// Bytes of the program, at most [`PROGRAM_BYTES_MAX`].
        length: u64,
    },
    /// Bytes of a request, at most [`DATA_BYTES_MAX`], after those up to `offset`.
    Data {
        /// Number of the request.
        id: u32,
        /// How many bytes were sent before.
        offset: u64,
        /// The bytes.
        #[serde(with = "serde_bytes")]
        bytes: Vec<u8>,
    },
    /// There are no more bytes of this request.
    End {
        /// Number of the request.
        id: u32,
    },
    /// So many more bytes of the request's output may be sent.
    Credit {
        /// Number of the request.
        id: u32,
        /// Bytes.
        bytes: u32,
    },
    /// Nobody wants the request's result any more. A command is killed with what it started.
    Cancel {
        /// Number of the request.
        id: u32,
    },
}

/// From a system to a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromSystem {
    /// The service is there. Also sent unasked when it starts; with another number than before it has
    /// forgotten all requests.
    Hello {
        /// Version of the protocol.
        version: u16,
        /// Tells this start of the service from others.
        incarnation: u64,
    },
    /// So many frames came damaged since this was told last; what they said is lost.
    Damaged {
        /// Number of frames.
        frames: u32,
    },
    /// So many more bytes of the request may be sent.
    Credit {
        /// Number of the request.
        id: u32,
        /// Bytes.
        bytes: u32,
    },
    /// What a command wrote, at most [`DATA_BYTES_MAX`] bytes.
    Output {
        /// Number of the request.
        id: u32,
        /// Which of its outputs.
        stream: OutputStream,
        /// The bytes.
        #[serde(with = "serde_bytes")]
        bytes: Vec<u8>,
    },
    /// The request is over.
    Ended {
        /// Number of the request.
        id: u32,
        /// How.
        ending: Ending,
    },
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// The command ended with this status, as a shell's `$?`.
    Exited {
        /// 0 to 255.
        status: u8,
    },
    /// The program was offered to these devices.
    Replaced {
        /// Each device, and what became of it.
        devices: Vec<Replaced>,
    },
    /// It was cancelled.
    Cancelled,
    /// The system switched itself off meanwhile; not the system says this, but who runs it.
    SwitchedOff {
        /// The status that the system ended with.
        status: u8,
    },
    /// It could not be served.
    Failed {
        /// Why, for people.
        reason: String,
    },
}

/// What a new program did to a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replaced {
    /// Path of the device's node.
    pub node: String,
    /// The swap, or why nothing was swapped.
    pub swap: Result<Swap, String>,
}

/// One program in another one's place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Swap {
    /// Version that served before, if one did.
    pub before: Option<String>,
    /// Version that serves now.
    pub now: String,
    /// Incarnation that serves now.
    pub epoch: u32,
    /// Why the version of before serves again, if it does.
    pub fell_back: Option<String>,
    /// How long nobody served, in nanoseconds of the system's clock.
    pub gap_ns: u64,
}

impl ToSystem {
    /// The request that it belongs to, to be renumbered.
    pub fn id_mut(&mut self) -> Option<&mut u32> {
        match self {
            ToSystem::Hello | ToSystem::Received { .. } => None,
            ToSystem::Execute { id, .. }
            | ToSystem::Replace { id, .. }
            | ToSystem::Data { id, .. }
            | ToSystem::End { id }
            | ToSystem::Credit { id, .. }
            | ToSystem::Cancel { id } => Some(id),
        }
    }

    /// Whether it begins a request.
    pub fn begins(&self) -> bool {
        matches!(self, ToSystem::Execute { .. } | ToSystem::Replace { .. })
    }
}

impl FromSystem {
    /// The request that it belongs to, to be renumbered.
    pub fn id_mut(&mut self) -> Option<&mut u32> {
        match self {
            FromSystem::Hello { .. } | FromSystem::Damaged { .. } => None,
            FromSystem::Credit { id, .. }
            | FromSystem::Output { id, .. }
            | FromSystem::Ended { id, .. } => Some(id),
        }
    }
}
