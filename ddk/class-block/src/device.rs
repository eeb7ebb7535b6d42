//! What a disk driver implements.

use alloc::string::String;
use alloc::vec::Vec;

use ddk::{Driver, DriverError, EventQueue, PlatformError, Segments};
use proto::block::{Operation, Status};

/// What a disk is like.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DiskInfo {
    /// Bytes of a logical block as a power of two: 9 to 16.
    pub block_shift: u8,
    /// Bytes of a physical block.
    pub physical_block_size: u32,
    /// Logical blocks.
    pub block_count: u64,
    /// Whether it refuses to be changed.
    pub read_only: bool,
    /// Longest read or write in bytes, whatever the layout of its pages.
    pub max_transfer: u32,
    /// Longest discard in bytes, 0 for none.
    pub max_discard: u32,
    /// Longest write-zeroes in bytes, 0 for none.
    pub max_write_zeroes: u32,
    /// Whether there is a volatile cache that flush empties.
    pub volatile_cache: bool,
    /// Identification; may be empty.
    pub serial: String,
}

/// A request that was checked: in range, aligned, with a buffer that the device may use so.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// Comes back with the completion.
    pub token: u32,
    /// What to do.
    pub operation: Operation,
    /// Whether a write-zeroes may unmap.
    pub may_unmap: bool,
    /// First logical block of the disk.
    pub lba: u64,
    /// Bytes.
    pub length: u32,
    /// Device addresses of the data, in order (read and write).
    pub data: Option<&'a ddk::PinnedBuffer>,
    /// First byte of the data in its buffer.
    pub offset: u64,
}

impl<'a> Request<'a> {
    /// The data as segments of at most `segment_max` bytes (0: no limit).
    #[inline]
    pub fn segments(&self, segment_max: u32) -> Option<Segments<'a>> {
        self.data?.segments(self.offset, self.length, segment_max)
    }
}

/// Why a queue did not take a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PushError {
    /// No room; again after a completion.
    Full,
    /// The device cannot do it.
    Rejected(Status),
}

/// A request that the device has finished with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Completed {
    /// The request's.
    pub token: u32,
    /// How it ended.
    pub status: Status,
}

/// A queue of a disk. Nothing here waits, allocates or logs.
pub trait BlockQueue: Send {
    /// Most requests that it can have in flight.
    fn depth(&self) -> u16;

    /// Queues a request. The device sees it with [`BlockQueue::kick`].
    ///
    /// # Errors
    /// See [`PushError`].
    fn push(&mut self, request: &Request<'_>) -> Result<(), PushError>;

    /// Shows the device what was queued.
    fn kick(&mut self);

    /// The next request that the device has finished with.
    ///
    /// # Errors
    /// When the device broke the rules or is gone: it has to be reset.
    fn reap(&mut self) -> Result<Option<Completed>, DriverError>;

    /// Asks for an interrupt with the next completion. `true`: reap again before sleeping.
    fn arm(&mut self) -> bool;

    /// Interrupts are of no use until [`BlockQueue::arm`].
    fn disarm(&mut self);

    /// Delivers the queue's interrupts to `events` with this key.
    ///
    /// # Errors
    /// When the system refuses.
    fn bind(&mut self, events: &dyn EventQueue, key: u64) -> Result<(), PlatformError>;
}

/// A disk driver.
#[expect(
    async_fn_in_trait,
    reason = "a driver's control path runs on one thread"
)]
pub trait BlockDevice: Driver {
    /// Its queues.
    type Queue: BlockQueue + 'static;

    /// What the disk is like.
    fn info(&self) -> DiskInfo;

    /// The queues, once after start.
    fn take_queues(&mut self) -> Vec<Self::Queue>;

    /// Resets the device, after which it uses no memory any more, drops `old`, and takes it into service
    /// again with as many new queues.
    ///
    /// # Errors
    /// When the device does not come back.
    async fn reset(&mut self, old: Vec<Self::Queue>) -> Result<Vec<Self::Queue>, DriverError>;

    /// Delivers interrupts that announce changes of the device to `events`.
    ///
    /// # Errors
    /// When the system refuses.
    fn bind_changes(&mut self, events: &dyn EventQueue, key: u64) -> Result<(), PlatformError>;

    /// Looks what has changed after such an interrupt; [`BlockDevice::info`] tells the news.
    ///
    /// # Errors
    /// When the device wants a reset, or is gone.
    fn changed(&mut self) -> Result<(), DriverError>;
}
