//! The network block device protocol, the server's side, without network and disks: messages of the fixed newstyle
//! negotiation and of transmission, parsed and made (the NBD project's doc/proto.md).
//!
//! The process (src/main.rs) connects it with sockets and with sessions of disks.
#![cfg_attr(target_os = "none", no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod arena;
pub mod negotiation;
pub mod transmission;
pub mod work;
