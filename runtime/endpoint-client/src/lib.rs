//! What the clients of all device classes share: the buffers that they register with a session, and finding an
//! endpoint again when its driver died.
//!
//! No class protocol is spoken here: how a buffer is registered, and what is repeated with the next incarnation, is
//! said by the class's client (`block-client`, `net-client`).
#![cfg_attr(target_os = "none", no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod buffers;
mod reopen;

pub use buffers::{Buffers, Registered};
pub use proto::block::BufferAccess;
pub use reopen::{EndpointName, Refusal, ReopenError};
