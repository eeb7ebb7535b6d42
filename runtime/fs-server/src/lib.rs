//! The process around a file-system format: it serves [`proto::fs`]'s volume and
//! files for any [`volume::FileSystem`], and joins the page cache to a block
//! session, so that the device writes straight into the cache.
//!
//! A file-system service is [`disk_service`] with a format; `bootfs`, which has
//! no disk, implements [`Contents`] itself and calls [`serve`].
//!
//! It knows no format and no mounts, and it is one thread: a volume that hangs
//! keeps nobody else.
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

mod convert;
mod disk;
mod file;
mod memory;
mod queue;
mod server;

pub use disk::{DiskCache, Format, disk_service, serve_disk};
pub use memory::{BufferSink, MappedMemory};
pub use queue::DiskQueue;
pub use server::{Contents, serve};
