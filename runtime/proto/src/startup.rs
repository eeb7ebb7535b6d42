//! The first message on a process's bootstrap channel: arguments, environment, current directory
//! and named handles. It is a message without reply; `rt::process` writes it, `rt::startup` reads it.

use alloc::string::String;
use alloc::vec::Vec;

use ipc::Handle;
use serde::{Deserialize, Serialize};

/// Well-known names of handles.
pub mod name {
    /// Standard input: a stream to read, see [`stream`](crate::stream).
    pub const STDIN: &str = "stdin";
    /// Standard output.
    pub const STDOUT: &str = "stdout";
    /// Standard error.
    pub const STDERR: &str = "stderr";
    /// A `Log` resource with WRITE.
    pub const LOG: &str = "log";
    /// Scheme `file:`, see [`fs`](crate::fs).
    pub const FILE: &str = "file";
    /// Scheme `disk:`, see [`devmgr`](crate::devmgr).
    pub const DISK: &str = "disk";
    /// Scheme `dev:`, see [`devmgr`](crate::devmgr).
    pub const DEV: &str = "dev";
    /// Scheme `proc:`, see [`proc`](crate::proc).
    pub const PROC: &str = "proc";
    /// Scheme `tcp:`, see [`inet`](crate::inet).
    pub const TCP: &str = "tcp";
    /// Scheme `udp:`, see [`inet`](crate::inet).
    pub const UDP: &str = "udp";
    /// Scheme `dns:`, see [`inet`](crate::inet).
    pub const DNS: &str = "dns";
    /// Scheme `ip:`, see [`inet`](crate::inet).
    pub const IP: &str = "ip";
    /// See [`power`](crate::power).
    pub const POWER: &str = "power";
    /// See [`console`](crate::console).
    pub const CONSOLE: &str = "console";
}

/// Data of the startup message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Startup {
    /// Arguments; the first is the program's name.
    pub args: Vec<String>,
    /// Environment.
    pub env: Vec<(String, String)>,
    /// Current directory, absolute.
    pub cwd: String,
    /// Names of the handles, in their order.
    pub handle_names: Vec<String>,
    /// The standard streams (input, output, error).
    pub streams: [StreamKind; 3],
}

/// What is behind a standard stream's handle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum StreamKind {
    /// Nothing: reads end at once, writes vanish.
    #[default]
    Null,
    /// A byte stream ([`stream`](crate::stream)): a pipe or such.
    Pipe,
    /// A byte stream from or to a person's terminal: output goes out line by line.
    Terminal,
    /// An open file ([`fs`](crate::fs)): input from its start on, output to its end (it is opened for
    /// appending).
    File,
    /// The `Log` resource, as raw text.
    Log,
}

ipc::protocol! {
    /// How a process gets what it starts with.
    pub protocol Bootstrap("startup", version = 1, error = ()) {
        /// Sent once, before the first thread runs.
        1 = start(startup: Startup; handles: Vec<Handle>);
    }
}
