//! What a disk driver implements.

use alloc::string::String;
use alloc::vec::Vec;

use ddk::{Driver, DriverError, EventQueue, PlatformError, Segments};
use proto::block::{Operation, Status};

/// What a disk is like.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DiskInfo {
    /// Number by which the driver knows the disk (an NVMe namespace, a SCSI logical unit), 0 for the only one. It stays
    /// the same as long as the disk is there.
    pub unit: u32,
    /// What follows the device's name in the disk's, for instance `n1` in `nvme0n1`; empty for the only disk.
    pub suffix: String,
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
    /// Whether a single write can go past that cache ([`Request::durable`]). Without it the class layer lets a
    /// flush follow.
    pub durable_writes: bool,
    /// Identification; may be empty.
    pub serial: String,
}

/// A request that was checked: in range, aligned, with a buffer that the device may use so.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// Comes back with the completion. Below the queue's depth, and of one request at a time.
    pub token: u32,
    /// The disk: its [`DiskInfo::unit`].
    pub unit: u32,
    /// What to do.
    pub operation: Operation,
    /// Whether a write has to be on the medium when it completes; only where [`DiskInfo::durable_writes`] is set.
    pub durable: bool,
    /// Whether a write-zeroes may unmap.
    pub may_unmap: bool,
    /// First logical block of the disk.
    pub lba: u64,
    /// Logical blocks.
    pub blocks: u32,
    /// Bytes.
    pub length: u32,
    /// Device addresses of the data, in order (read and write).
    pub data: Option<&'a ddk::PinnedBuffer>,
    /// First byte of the data in its buffer.
    pub offset: u64,
}

impl<'a> Request<'a> {
    /// Empties the cache of a disk.
    pub(crate) fn flush(unit: u32, token: u32) -> Request<'a> {
        Request {
            token,
            unit,
            operation: Operation::Flush,
            durable: false,
            may_unmap: false,
            lba: 0,
            blocks: 0,
            length: 0,
            data: None,
            offset: 0,
        }
    }

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

/// What became of the wish to abort a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Abort {
    /// The device gives the request up: its completion comes soon, if with an error.
    Underway,
    /// It cannot, or does not want to.
    Refused,
}

/// A driver of a device with one or more disks.
#[expect(
    async_fn_in_trait,
    reason = "a driver's control path runs on one thread"
)]
pub trait BlockDevice: Driver {
    /// Its queues.
    type Queue: BlockQueue + 'static;

    /// The disks, in a stable order, with distinct units. There may be none, and more or fewer after
    /// [`BlockDevice::changed`] or [`BlockDevice::reset`].
    fn disks(&self) -> Vec<DiskInfo>;

    /// The queues, once after start. Each serves all disks.
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

    /// Looks what has changed after such an interrupt; [`BlockDevice::disks`] tells the news.
    ///
    /// # Errors
    /// When the device wants a reset, or is gone.
    async fn changed(&mut self) -> Result<(), DriverError>;

    /// Asks the device to give up a request that takes too long, by the number of its queue (in the order of
    /// [`BlockDevice::take_queues`]) and its token.
    ///
    /// # Errors
    /// When the device does not even answer that: it is reset.
    async fn abort(&mut self, queue: usize, token: u32) -> Result<Abort, DriverError> {
        let _ = (queue, token);
        Ok(Abort::Refused)
    }
}
