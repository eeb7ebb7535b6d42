//! The device manager without the machine: which driver matches, what it is granted, how a node's state
//! moves, in which order a device is torn down, what endpoints are called.
//!
//! The process (src/main.rs) puts processes, handles and channels to it.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod binding;
pub mod endpoints;
pub mod grants;
pub mod life;
pub mod names;
pub mod node;
pub mod pci_names;
pub mod program;

pub use supervision::restart;
