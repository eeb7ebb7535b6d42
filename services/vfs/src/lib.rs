//! Names of files over all mounts: the mount table, and paths resolved across it.
//!
//! The pure part decides which volume is asked for which path, and what a symbolic
//! link or `..` makes of it. [`service`] asks, opens and mounts. File contents never
//! pass through the VFS.
#![cfg_attr(target_os = "none", no_std)]
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic
    )
)]

extern crate alloc;

mod mounts;
mod path;
mod policy;
mod resolve;
pub mod service;

pub use mounts::{Mount, MountTable};
pub use path::{Components, Ending, join, parse};
pub use policy::{Assignment, BootDisk, RootChoice, assign};
pub use resolve::{Question, Resolution};
