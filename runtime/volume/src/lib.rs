//! What a file system stands on, and the interface that it offers upwards.
//!
//! - [`BlockQueue`] and [`Memory`]: the block session and the memory that it
//!   reads into, as far as a file system needs them.
//! - [`Cache`]: the page cache of one volume. Metadata and file data share it;
//!   the device writes straight into it.
//! - [`Volume`]: bytes of a volume, which is all that the code that parses
//!   metadata sees.
//! - [`FileSystem`]: what `ext` and `fat` implement.
//! - [`Tree`]: names looked up in a file system, with an index per directory.
//! - [`reader`]: file contents through the cache, with read-ahead.
//!
//! It is not the protocol that clients speak, and it knows no on-disk format.
//! Nothing here is `Send`: a file-system service is one thread.
#![cfg_attr(target_os = "none", no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod block;
mod buddy;
mod cache;
#[cfg(test)]
mod cache_tests;
#[cfg(any(test, feature = "host"))]
pub mod compare;
mod error;
mod filesystem;
#[cfg(any(test, feature = "host"))]
pub mod host;
mod readahead;
pub mod reader;
mod tree;

pub use block::{BlockError, BlockQueue, Completion, Memory, QueueFull, ReadRequest, Volume};
pub use cache::{Cache, CacheStatistics};
pub use error::{Corruption, FsError};
pub use filesystem::{
    Attributes, DirectoryEntry, Extent, FileKind, FileSystem, NodeId, Place, Timestamp,
    VolumeStatistics,
};
pub use readahead::ReadAhead;
pub use tree::{FollowLast, Tree, Walk};

/// Size of a page of the cache, in bytes.
pub const PAGE_BYTES: usize = 4096;
