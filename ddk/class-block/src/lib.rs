//! The block class: what a disk driver implements ([`BlockDevice`], [`BlockQueue`]), and the engine that
//! serves it to sessions of clients ([`Worker`], [`Supervisor`]). Drivers contain no IPC.
//!
//! How sessions come about (channels, handles, pinning) is a backend's business; the engine takes rings,
//! doorbells and pinned buffers, and is the same at every home.
//!
//! # Threads
//!
//! A [`Worker`] per device queue runs on a thread of its own: it takes requests from the rings of its
//! sessions, checks them, pushes them to the queue, and passes completions back. It shares nothing with other
//! workers on that path. The control thread opens sessions, registers buffers, watches over deadlines and
//! resets the device; it talks to workers by [`Command`]s, and they to it by [`Notice`]s.
//!
//! # Trust
//!
//! Whatever a client writes into its rings costs it an error status or its session. Buffers stay pinned
//! until the device has finished with them, also when the session is gone.
//!
//! # Example
//!
//! A partition is a part of its disk, and never more than that:
//!
//! ```
//! use ddk_class_block::Extent;
//!
//! let disk = Extent { unit: 0, first_lba: 0, count: 1000, writable: true };
//! let partition = disk.part(100, 50, false).expect("it lies inside");
//! assert_eq!((partition.first_lba, partition.count), (100, 50));
//! assert!(partition.part(0, 51, false).is_none(), "longer than the partition");
//! assert!(!partition.part(0, 10, true).expect("inside").writable, "no more rights");
//! ```
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod check;
mod device;
mod direct;
mod link;
mod session;
mod supervisor;
mod worker;

pub use ddk_class_core::{Doorbell, SessionId, TICK_MS};
pub use device::{Abort, BlockDevice, BlockQueue, Completed, DiskInfo, PushError, Request};
pub use direct::{Access, DirectDisks};
pub use link::{Command, Notice, Notices, WorkerLink};
pub use proto::block::{Operation, Status, flags};
pub use session::{Extent, Session};
pub use supervisor::{Supervisor, Verdict};
pub use worker::{ABORT_LIMIT_TICKS, REQUEST_LIMIT_TICKS, Worker};
