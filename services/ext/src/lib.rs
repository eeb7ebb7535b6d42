//! ext2, ext3 and ext4 volumes, read-only.
//!
//! Pure format code over [`volume::Volume`]: it reads metadata and says where
//! the bytes of a file lie. It moves no file data and replays no journal (a
//! volume that needs that is mounted as it stands, with a warning).
//!
//! Everything on the disk is taken as hostile: each field is checked before it
//! is used, against the volume's size and against what else claims the blocks,
//! and the checksums of `metadata_csum` are verified. Layout: the kernel's
//! `Documentation/filesystems/ext4`.
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

mod blockmap;
mod checksum;
mod directory;
mod extents;
mod filesystem;
mod indirect;
mod inode;
mod layout;
mod superblock;

pub use filesystem::{Ext, File};
pub use superblock::{Warnings, has_signature};
