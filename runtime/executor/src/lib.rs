//! A single-threaded executor of asynchronous tasks on a port.
//!
//! ```ignore
//! let executor = Executor::new()?;
//! let server = FileSystemServer::new(channel);
//! executor.block_on(async {
//!     let mut requests = executor.requests(server)?;
//!     while let Some(request) = requests.next().await? {
//!         let task = executor.spawn(handle(request));     // cancelled when dropped
//!         task.detach();
//!     }
//!     Ok(())
//! })
//! ```
//!
//! - Sources: [`Executor::watch`] (signals of any object), [`Executor::interrupt`],
//!   [`Executor::channel`] (messages), [`Executor::requests`] (a protocol's server),
//!   [`Executor::caller`] (a protocol's asynchronous client). A source watches as long as it lives and
//!   is edge-triggered: use what is there until it says "would have to wait", then await. In a steady
//!   state the one system call of an await is the executor's own `port_wait`.
//! - Every wait takes a [`Deadline`], or says `FOREVER`; [`Executor::with_deadline`] puts one around
//!   any future. Timers are the executor's own and make no system call.
//! - Dropping a future or a [`Task`] cancels it.
//! - Wakers may be used from any thread. Tasks stay on the thread that runs [`Executor::block_on`].
//!
//! What it is not: a way to run several threads (make an executor in each), and not for a driver's
//! data path itself, which is queue-shaped and polled between waits.
#![cfg_attr(target_os = "none", no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod caller;
mod channel;
mod combine;
mod local;
mod run;
mod source;
mod timer;

pub use caller::Caller;
pub use channel::{AsyncChannel, Requests};
pub use combine::{Either, join, select};
pub use local::{Notify, Queue};
pub use run::{Executor, Task};
pub use source::{InterruptSource, Source};
pub use sys::{Deadline, Error, Result, Signals};
pub use timer::Sleep;
