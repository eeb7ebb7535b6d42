//! The supervisor without the machine: configuration, the table of services and their handles, the
//! records that `proc:` shows.
//!
//! The process (src/main.rs) starts and watches what is described here.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod config;
pub mod life;
pub mod records;
pub mod services;
pub mod vault;
