//! The console: a person's terminal, or the raw output of a headless run (scheme `console`, served by
//! the `console` service).
//!
//! The bytes themselves go over [`stream`](crate::stream) channels that [`ConsoleClient::open`] gives
//! out; this protocol is what a stream cannot say: modes, ctrl-C, size, and that everything is out.
//!
//! In a headless run output is passed on unchanged and input is empty; errors do not come here but go
//! to the log ([`StreamKind::Log`](crate::startup::StreamKind::Log)).

use ipc::{Channel, Event};
use serde::{Deserialize, Serialize};

/// How the terminal treats what is typed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Mode {
    /// By line: echo, erase (backspace, ctrl-U, ctrl-W), ctrl-D for the end of input, ctrl-C as an
    /// interrupt. Each line is one message.
    Cooked,
    /// Every byte at once, without echo; ctrl-C and ctrl-D are bytes like others.
    Raw,
}

/// What the console is for in this run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Session {
    /// A person types: newline becomes carriage return and newline on output.
    Interactive,
    /// Nobody types: output is passed on byte by byte.
    Headless,
}

/// Size of the terminal in characters.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Size {
    /// Columns, at least 1.
    pub columns: u16,
    /// Rows, at least 1.
    pub rows: u16,
}

/// Why the console refuses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ConsoleError {
    /// The serial port behind it is gone.
    Gone,
    /// It ran out of memory or handles.
    NoResources,
}

impl core::fmt::Display for ConsoleError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            ConsoleError::Gone => "the serial port is gone",
            ConsoleError::NoResources => "out of resources",
        })
    }
}

ipc::protocol! {
    /// The terminal: scheme `console`.
    pub protocol Console("console", version = 1, error = ConsoleError) {
        /// The ends to read input from and to write output to. They are the same streams for all who
        /// ask: what one of them reads the others do not get. Ctrl-D in cooked mode is a message of
        /// one byte, 0x04, at the beginning of a line.
        1 = open() -> (session: Session; input: Channel, output: Channel);
        /// Sets the mode; it begins with what is typed next.
        2 = set_mode(mode: Mode) -> ();
        /// An event that is set at each ctrl-C in cooked mode, for whoever runs the foreground job.
        3 = interrupt_event() -> (; event: Event);
        /// Size of the terminal.
        4 = size() -> (size: Size);
        /// Answered when everything that was written before the call has left the serial port.
        5 = drain() -> ();
    }
}
