//! What those who watch over processes share, and what a service needs that is watched over.
//!
//! [`restart`] and [`heartbeat`] are pure: time comes in as a number. [`Supervised`] is a service's end of its
//! channel to init: it answers pings, and keeps in init's vault what is to outlive the service. Starting and
//! ending processes is the supervisor's own.
#![cfg_attr(target_os = "none", no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod heartbeat;
pub mod restart;
mod supervised;

pub use supervised::{Supervised, VaultError};
