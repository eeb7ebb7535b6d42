//! Starting programs and watching them.
//!
//! ```ignore
//! let mut child = Command::new(&program_vmo, "grep")
//!     .args(["-c", "x"])
//!     .stdin(Stdio::Pipe(reading_end))
//!     .inherit_all()
//!     .spawn()?;
//! let ended = child.wait(Deadline::FOREVER)?;
//! if !ended.success() { eprintln!("{ended}") }
//! ```
//!
//! A program is an ELF file in a VMO (from a file system or the boot archive). Text and constants are
//! mapped from that VMO, without a copy; writable data gets fresh memory. A child has only the
//! handles that it is given: nothing is inherited that is not named.

mod autopsy;
mod child;
mod command;
pub mod image;

pub use child::{Child, ExitReason, Exited, exited};
pub use command::{Command, SpawnError, Stdio};
