//! The client's half of the block protocol ([`proto::block`]).
//!
//! [`Disk`] is an endpoint (`disk:/NAME`), [`Session`] a pair of rings to its driver, [`DiskReader`] plain
//! `read_at` and `write_at` for those who need no speed. It knows neither partitions nor file systems, and it
//! caches nothing.
//!
//! # A session
//!
//! ```no_run
//! # use block_client::{Disk, Request, BufferAccess, SessionError};
//! # fn demo(endpoint: ipc::Channel, vmo: &sys::Vmo) -> Result<(), block_client::SessionError> {
//! let disk = Disk::new(endpoint)?;
//! let mut session = disk.open_session(32)?;
//! let buffer = session.register(vmo, 0, 1 << 20, BufferAccess::DeviceWrites)?;
//! session.submit(&Request::read(buffer, 0, 4096, 128), 7)?;      // 7 comes back with the completion
//! session.kick()?;
//! loop {
//!     while let Some(done) = session.poll()? {
//!         assert_eq!(done.token, 7);
//!         return done.result().map_err(SessionError::Refused);
//!     }
//!     session.wait(sys::Deadline::after(core::time::Duration::from_secs(30)))?;
//! }
//! # }
//! ```
//!
//! An executor waits for [`Session::completed_event`] instead of calling [`Session::wait`]: after
//! [`Session::arm`] said that there is nothing, the event is rung with the next completion.
//!
//! # The ledger
//!
//! Each request in flight has an entry in [`Ledger`] under its id: what it does and where, and whether it may
//! be repeated. When a driver is replaced, the entries are what its successor is asked to do again; an answer
//! to an older incarnation never matches an id of a newer one.
//!
//! # When the driver dies
//!
//! A session of a disk with a name ([`Disk::named`]) outlives its driver: [`Session::wait`], or
//! [`Session::recover`] for those who wait with an executor, finds the next incarnation, registers the buffers
//! with it and repeats what was in flight, in the order in which it was submitted. All block operations may be
//! repeated: a client leaves a buffer alone until its request is done, and requests that are in flight together have no
//! order among them. A flush covers what *completed* before it was submitted; that is on the device, whose reset
//! keeps its cache (virtio 1.2, 2.4; NVMe 2.0, 3.7.2: data is lost with the power, not with the controller's state).
//!
//! A driver that lives and is of no use is complained of to the device manager, which ends it: one that breaks the
//! protocol, one that comes up with another disk, and one that owes the answer to a request for longer than
//! [`Session::set_patience`] says. That is longer than what drivers themselves need to see that a device does not answer.
#![cfg_attr(target_os = "none", no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod disk;
mod error;
mod ledger;
mod patience;
mod reader;
mod recovery;
mod request;
mod session;

pub use disk::Disk;
pub use error::SessionError;
pub use ledger::{Entry, Ledger, LedgerError, Repeat};
pub use proto::block::{Access, BlockInfo, BufferAccess, Operation, SessionInfo, Status};
pub use reader::DiskReader;
pub use request::{Buffer, Done, Request};
pub use session::Session;
