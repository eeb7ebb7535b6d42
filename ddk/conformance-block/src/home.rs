//! What a home offers to the suite.

use alloc::boxed::Box;
use alloc::string::String;

pub use ddk_conformance_core::{Fault, Problem, Woken};
pub use proto::block::BufferAccess as Access;
use proto::block::{BlockInfo, Operation, Status};

/// What kind of disk a test wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Shape {
    /// 512-byte blocks, writable, with a volatile cache; at least 2048 blocks.
    Plain,
    /// The same with 4096-byte blocks; at least 256.
    LargeBlocks,
    /// Few blocks of 512 bytes (less than 2048), an odd number of them, and without a volatile cache.
    Odd,
    /// Like `Plain`, and refuses to be changed.
    ReadOnly,
    /// Like `Plain`, and the block [`Promise::damaged`] can be neither read nor written.
    Damaged,
}

impl Shape {
    /// All of them.
    pub const ALL: [Shape; 5] = [
        Shape::Plain,
        Shape::LargeBlocks,
        Shape::Odd,
        Shape::ReadOnly,
        Shape::Damaged,
    ];

    /// Its name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Shape::Plain => "plain",
            Shape::LargeBlocks => "large-blocks",
            Shape::Odd => "odd",
            Shape::ReadOnly => "read-only",
            Shape::Damaged => "damaged",
        }
    }

    /// The shape with this name.
    pub fn from_name(name: &str) -> Option<Shape> {
        Shape::ALL.into_iter().find(|shape| shape.name() == name)
    }
}

impl core::fmt::Display for Shape {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

/// What a home knows of a disk because it made it; the driver has to report the same.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Promise {
    /// Bytes of a logical block.
    pub block_size: u32,
    /// Logical blocks.
    pub block_count: u64,
    /// Whether the device refuses to be changed.
    pub read_only: bool,
    /// Whether it has a volatile cache, if the home knows.
    pub volatile_cache: Option<bool>,
    /// What its serial number begins with, if the home chose one.
    pub serial: Option<String>,
    /// Whether discarded blocks read as zeroes, if the home knows.
    pub discard_zeroes: bool,
    /// The block that can be neither read nor written.
    pub damaged: Option<u64>,
    /// Whether every block holds its [stamp](crate::stamp) of generation 0 now.
    pub stamped: bool,
}

/// Number of a session of a [`Disk`].
pub type SessionNumber = usize;

/// A request to the driver under test, as a client writes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    /// What to do.
    pub operation: Operation,
    /// First logical block.
    pub lba: u64,
    /// Bytes.
    pub length: u32,
    /// Buffer slot (read and write).
    pub slot: u16,
    /// First byte in the buffer (read and write).
    pub offset: u64,
    /// [`proto::block::flags`].
    pub flags: u8,
}

/// An answer of the driver.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Answer {
    /// The token of the request that it belongs to.
    pub token: u64,
    /// How it ended.
    pub status: Status,
}

/// A disk, taken into service for one test.
///
/// Everything that waits runs driver and device meanwhile, where the home has to do that itself.
pub trait Disk {
    /// What the driver says of the disk.
    fn info(&self) -> BlockInfo;

    /// What the home knows of it.
    fn promise(&self) -> Promise;

    /// Opens a session for at least `depth` requests, as far as [`BlockInfo::max_depth`] goes.
    ///
    /// # Errors
    /// When the driver or the home refuses.
    fn open_session(&mut self, depth: u16) -> Result<SessionNumber, Problem>;

    /// Most requests in flight in a session.
    fn depth(&self, session: SessionNumber) -> u16;

    /// Registers a zeroed buffer of at least `len` bytes; gives its slot.
    ///
    /// # Errors
    /// When the driver or the home refuses.
    fn register(
        &mut self,
        session: SessionNumber,
        len: usize,
        access: Access,
    ) -> Result<u16, Problem>;

    /// Ends the use of a buffer: its pages are not pinned any more.
    ///
    /// # Errors
    /// When it is still pinned afterwards, or the driver refuses.
    fn unregister(&mut self, session: SessionNumber, slot: u16) -> Result<(), Problem>;

    /// Copies bytes into a buffer, as its owner.
    ///
    /// # Errors
    /// When they do not fit.
    fn put(
        &mut self,
        session: SessionNumber,
        slot: u16,
        offset: usize,
        bytes: &[u8],
    ) -> Result<(), Problem>;

    /// Copies bytes out of a buffer.
    ///
    /// # Errors
    /// When they are not inside.
    fn get(
        &self,
        session: SessionNumber,
        slot: u16,
        offset: usize,
        into: &mut [u8],
    ) -> Result<(), Problem>;

    /// Queues a request. `false`: as many as the session's depth are in flight.
    ///
    /// # Errors
    /// [`Problem::NotOffered`] when this home's client cannot say such a thing.
    fn submit(
        &mut self,
        session: SessionNumber,
        request: &Request,
        token: u64,
    ) -> Result<bool, Problem>;

    /// Shows the driver what was queued.
    ///
    /// # Errors
    /// When the session is broken.
    fn kick(&mut self, session: SessionNumber) -> Result<(), Problem>;

    /// The next answer that is there.
    ///
    /// # Errors
    /// When the driver broke the protocol.
    fn poll(&mut self, session: SessionNumber) -> Result<Option<Answer>, Problem>;

    /// Sleeps until there is an answer to poll, for at most `limit_ms` of the device's time.
    ///
    /// # Errors
    /// When the home breaks.
    fn wait(&mut self, session: SessionNumber, limit_ms: u32) -> Result<Woken, Problem>;

    /// Resets the device, whatever it is doing. Takes effect with the waiting that follows.
    ///
    /// # Errors
    /// [`Problem::NotOffered`], or when the driver refuses.
    fn reset(&mut self) -> Result<(), Problem> {
        Err(Problem::not_offered("a client cannot reset the device"))
    }

    /// Suspends the device: returns when it is quiet. Clients wait meanwhile.
    ///
    /// # Errors
    /// [`Problem::NotOffered`], or when the driver refuses.
    fn suspend(&mut self) -> Result<(), Problem> {
        Err(Problem::not_offered("a client cannot suspend the device"))
    }

    /// Takes it up again.
    ///
    /// # Errors
    /// As for [`Disk::suspend`].
    fn resume(&mut self) -> Result<(), Problem> {
        Err(Problem::not_offered("a client cannot resume the device"))
    }

    /// Makes the device go wrong, or right again.
    ///
    /// # Errors
    /// [`Problem::NotOffered`].
    fn fault(&mut self, fault: Fault) -> Result<(), Problem> {
        fault.unless_offered()
    }

    /// The ways in which the device can be made to break the rules, by name.
    fn lies(&self) -> &'static [&'static str] {
        &[]
    }

    /// Copies whole blocks from `lba` on from the device's own view of its medium, past the driver.
    ///
    /// # Errors
    /// [`Problem::NotOffered`].
    fn medium(&mut self, _lba: u64, _into: &mut [u8]) -> Result<(), Problem> {
        Err(Problem::not_offered("no view of the medium"))
    }

    /// The same as it would be after a power cut now.
    ///
    /// # Errors
    /// [`Problem::NotOffered`].
    fn durable(&mut self, _lba: u64, _into: &mut [u8]) -> Result<(), Problem> {
        Err(Problem::not_offered("no view of what a power cut leaves"))
    }

    /// Ends the use of the disk: the driver stops, and everything that it broke is told.
    ///
    /// # Errors
    /// What it broke.
    fn close(self: Box<Self>) -> Result<(), Problem>;
}

/// Where drivers run.
pub trait Home {
    /// A disk of this shape. What the home leaves open (limits of the device, features) it takes from
    /// `seed`.
    ///
    /// # Errors
    /// [`Problem::NotOffered`], or when the driver does not start.
    fn open(&mut self, shape: Shape, seed: u64) -> Result<Box<dyn Disk + '_>, Problem>;
}
