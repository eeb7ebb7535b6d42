//! The block device as the cache sees it, and the volume as a parser sees it.
//!
//! The queue is shaped like the session that lies under it: push, kick, reap.
//! Sessions, registration of buffers, deadlines and replay belong to the block
//! client that implements it.

use core::task::{Context, Poll};

use crate::FsError;

/// Why the device did not deliver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockError {
    /// The device reported an error for these sectors.
    Device,
    /// No answer came before the deadline.
    TimedOut,
    /// The device or its driver is gone for good.
    Gone,
    /// The request does not fit the device: range, alignment or size.
    Invalid,
}

impl core::fmt::Display for BlockError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Device => "the device reported a read error",
            Self::TimedOut => "the device did not answer in time",
            Self::Gone => "the device is gone",
            Self::Invalid => "the request does not fit the device",
        })
    }
}

/// One transfer from the device into the cache's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadRequest {
    /// Chosen by the cache, returned in the completion.
    pub id: u64,
    /// Where to read, in bytes from the start of the volume; a multiple of 4096.
    pub device_offset: u64,
    /// Where to put it, in bytes from the start of the [`Memory`]; a multiple of 4096.
    pub memory_offset: usize,
    /// How much, in bytes: a multiple of the sector size, at most
    /// [`BlockQueue::max_transfer_bytes`].
    pub len_bytes: u32,
}

/// The outcome of one [`ReadRequest`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Completion {
    /// The request's id.
    pub id: u64,
    /// Whether all of it arrived.
    pub result: Result<(), BlockError>,
}

/// The queue has no room; push again after a completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueFull;

/// A queue of reads to one volume.
pub trait BlockQueue {
    /// Size of the volume in bytes, a multiple of its sector size.
    fn size_bytes(&self) -> u64;
    /// The longest transfer that one request may ask for; at least 4096.
    fn max_transfer_bytes(&self) -> u32;
    /// Queues a request. The device may not see it before [`BlockQueue::kick`].
    ///
    /// # Errors
    /// [`QueueFull`]: nothing was queued.
    fn push(&self, request: &ReadRequest) -> Result<(), QueueFull>;
    /// Makes everything that was pushed visible to the device.
    fn kick(&self);
    /// The next completion. Every pushed request completes exactly once, at the
    /// latest when its deadline passes.
    fn poll_reap(&self, cx: &mut Context<'_>) -> Poll<Completion>;
}

/// The memory that the device reads into.
pub trait Memory {
    /// Its size in bytes; the cache uses whole pages of it.
    fn len_bytes(&self) -> usize;
    /// Copies `into.len()` bytes from `offset` on. The cache never asks for
    /// bytes outside [`Memory::len_bytes`].
    fn read(&self, offset: usize, into: &mut [u8]);
}

/// The bytes of a volume.
#[expect(
    async_fn_in_trait,
    reason = "services are single-threaded; no Send bound is wanted"
)]
pub trait Volume {
    /// Size in bytes.
    fn size_bytes(&self) -> u64;
    /// Fills `into` from `offset` on.
    ///
    /// # Errors
    /// [`FsError::OutsideVolume`] when the range is not inside the volume,
    /// [`FsError::Device`] when the device did not deliver.
    async fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), FsError>;
}

impl<V: Volume + ?Sized> Volume for alloc::rc::Rc<V> {
    fn size_bytes(&self) -> u64 {
        (**self).size_bytes()
    }
    async fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), FsError> {
        (**self).read_at(offset, into).await
    }
}
