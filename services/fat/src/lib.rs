//! FAT12, FAT16 and FAT32 volumes with long names, read-only.
//!
//! Pure format code over [`volume::Volume`]: it reads metadata and says where
//! the bytes of a file lie. It moves no file data.
//!
//! Everything on the disk is taken as hostile: fields are checked against the
//! volume's size, chains against loops. Layout: Microsoft's "FAT File System
//! Specification" (2005), cited as FATGEN by section.
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

mod bpb;
mod chain;
mod directory;
mod filesystem;
mod layout;
mod names;
mod table;

pub use bpb::has_signature;
pub use filesystem::{Fat, File};
