//! Typed protocols over channels: one codec (postcard) and the [`protocol!`] macro, which turns the
//! description of a protocol into a blocking client, an asynchronous client and a server side.
//!
//! What it is not: the data plane. Bulk data goes through shared memory (`ring`, or a VMO that a
//! message carries) and byte streams (`proto::stream`).
//!
//! # A protocol
//!
//! ```ignore
//! ipc::protocol! {
//!     /// Files and directories by path.
//!     pub protocol FileSystem("fs", version = 1, error = FsError) {
//!         /// Opens a file.
//!         1 = open(path: String, flags: OpenFlags) -> (info: FileInfo; file: Channel);
//!         /// Who asks gets a copy of the list. Handles stand behind a semicolon, on both sides.
//!         2 = attach(name: String; disk: Channel, log: Option<Resource>, more: Vec<Handle>) -> ();
//!         /// A message without a reply has no arrow.
//!         3 = hint(offset: u64);
//!     }
//! }
//! ```
//!
//! Ordinals are for good: a method that goes takes its number with it. Arguments and results are
//! serde types that own their contents (no elements of size zero in a `Vec`; long byte strings as a
//! type that serde knows as bytes, such as `proto::fs::Bytes`, since a `Vec<u8>` goes byte by byte);
//! the error type is one per protocol. Handles are any [`HandleField`]: a typed handle, a client of another protocol, an
//! `Option` or `Vec` of one; at most eight fields and 64 handles a message. A message has at most
//! 64 KiB.
//!
//! # The client
//!
//! ```ignore
//! let fs = FileSystemClient::new(channel);          // 30 s for each call; `with_timeout` for others
//! let (info, file) = fs.open("/etc/motd", OpenFlags::READ)?;     // `&str` stands for `String`
//! ```
//!
//! One result comes as itself, several as a tuple, in the order of the declaration. Errors are
//! [`CallError`]: what the server answered (`Remote`), or why there was no answer. A client end may
//! be shared by threads and, duplicated, by processes: only calls go over it.
//!
//! # The server
//!
//! ```ignore
//! let (client, server) = FileSystemServer::pair()?;
//! loop {
//!     match server.next(Deadline::FOREVER)? {                      // `Err(PeerClosed)` at the end
//!         FileSystemRequest::Open { path, flags, reply } => match files.open(&path, flags) {
//!             Ok((info, file)) => reply.ok(&info, file)?,
//!             Err(error) => reply.error(&error)?,
//!         },
//!         FileSystemRequest::Hint { offset } => {}
//!     }
//! }
//! ```
//!
//! A reply may be kept and sent later, in any order, from any thread. One that is dropped tells the
//! client so ([`Refusal::Abandoned`]). Malformed messages, unknown ordinals and foreign protocols are
//! answered and skipped; a server sees only well-formed requests. In an asynchronous service use
//! `executor`'s `next_request` on the same server type.
#![cfg_attr(target_os = "none", no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod client;
mod codec;
mod handles;
mod protocol;
mod server;

pub use client::{
    AsyncTransport, CallError, DEFAULT_TIMEOUT, Message, OnDeath, call, call_async, send,
    send_async,
};
pub use codec::{CodecError, Encodes, Method, Refusal, protocol_id};
pub use handles::{HandleField, Handles};
pub use server::{Incoming, ReplyTo, Server, ServerEnd};
pub use sys;
pub use sys::{
    Channel, Deadline, DmaDomain, Error, Event, Handle, HandleList, Interrupt, Pin, Port, Process,
    Resource, Thread, Timer, Vmo,
};

#[doc(hidden)]
pub use pastey::paste;
