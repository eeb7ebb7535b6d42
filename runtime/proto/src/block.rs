//! Block devices: the endpoint of a disk or partition, and sessions on it.
//!
//! Control goes over channels ([`BlockEndpoint`](BlockEndpointClient), [`BlockSession`](BlockSessionClient)); requests go over two rings in shared
//! memory ([`Submission`], [`Completion`]); payload lies in VMOs that the client owns and registers.
//! File systems and partition tables are not here.
//!
//! # A session
//!
//! [`BlockEndpointClient::open_session`] gives the session's channel, a VMO with both rings (submissions at
//! offset 0, completions at [`SessionInfo::completion_offset`]), and two events. After publishing, the
//! producer of a ring rings its event ([`Event::ring`]), if the ring says that the consumer sleeps. Closing the session's channel ends the session;
//! its buffers are unpinned as soon as the device has finished with them.
//!
//! A client has at most [`SessionInfo::depth`] requests outstanding, counted from the submission to the
//! taking of the completion, so that neither ring ever overflows. A client that breaks this, or whose
//! ring is corrupt, loses its session and nothing else happens. A request that is wrong by itself costs a
//! completion with the reason.
//!
//! # Addresses
//!
//! `lba` counts logical blocks of [`BlockInfo::block_size`] bytes from the start of the endpoint (a
//! partition starts at 0 too). Lengths and offsets are in bytes; lengths are multiples of the block size.

use alloc::string::String;

use ipc::{Channel, Event, Vmo};
use serde::{Deserialize, Serialize};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Most buffers registered with a session; slots are numbered below this.
pub const BUFFERS_MAX: u16 = 256;

/// Most requests outstanding in a session.
pub const DEPTH_MAX: u16 = 256;

/// A request in the submission ring.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Submission {
    /// Chosen by the client, returned in the completion.
    pub id: u64,
    /// First logical block.
    pub lba: u64,
    /// First byte in the buffer (read and write only), a multiple of 4.
    pub offset: u64,
    /// Bytes; 0 for flush.
    pub length: u32,
    /// Registered buffer (read and write only).
    pub slot: u16,
    /// An [`Operation`] as a number.
    pub operation: u8,
    /// [`flags`].
    pub flags: u8,
}

/// Flags of a [`Submission`]; bits that are not named here must be clear.
pub mod flags {
    /// Write: durable when it completes (force unit access).
    pub const FUA: u8 = 1;
    /// Write-zeroes: the device may unmap the blocks.
    pub const MAY_UNMAP: u8 = 2;
    /// Every flag that is defined.
    pub const ALL: u8 = FUA | MAY_UNMAP;
}

/// The answer in the completion ring.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Completion {
    /// That of the submission.
    pub id: u64,
    /// A [`Status`] as a number.
    pub status: u32,
    /// Bytes transferred: the request's length on success, else 0.
    pub length: u32,
}

const _: () = assert!(size_of::<Submission>() == 32 && size_of::<Completion>() == 16);

/// What a request does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum Operation {
    /// Device to buffer.
    Read = 1,
    /// Buffer to device.
    Write = 2,
    /// Everything that completed before is durable afterwards.
    Flush = 3,
    /// The blocks' contents are no longer needed.
    Discard = 4,
    /// The blocks read as zeroes.
    WriteZeroes = 5,
}

impl Operation {
    /// The operation with this number.
    pub const fn from_number(n: u8) -> Option<Operation> {
        Some(match n {
            1 => Operation::Read,
            2 => Operation::Write,
            3 => Operation::Flush,
            4 => Operation::Discard,
            5 => Operation::WriteZeroes,
            _ => return None,
        })
    }
    /// Whether it changes the medium.
    pub const fn modifies(self) -> bool {
        matches!(
            self,
            Operation::Write | Operation::Discard | Operation::WriteZeroes
        )
    }
}

/// How a request ended: an open number.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Serialize, Deserialize)]
pub struct Status(pub u32);

impl Status {
    /// Done.
    pub const OK: Status = Status(0);
    /// The device reported an error (medium, transport).
    pub const IO_ERROR: Status = Status(1);
    /// The device or endpoint does not offer the operation.
    pub const UNSUPPORTED: Status = Status(2);
    /// A modifying request to a read-only endpoint or device.
    pub const READ_ONLY: Status = Status(3);
    /// The blocks are not all inside the endpoint.
    pub const OUT_OF_RANGE: Status = Status(4);
    /// Unknown operation or flag, misaligned offset or length, nothing to do.
    pub const INVALID: Status = Status(5);
    /// No such buffer, or the range is not inside it, or it lacks the right.
    pub const BAD_BUFFER: Status = Status(6);
    /// Longer than [`BlockInfo::max_transfer`].
    pub const TOO_LONG: Status = Status(7);
    /// The device did not answer in time and was reset. Whether a write took place is unknown.
    pub const TIMED_OUT: Status = Status(8);
    /// The device is gone.
    pub const GONE: Status = Status(9);

    /// A short text for people.
    pub const fn text(self) -> &'static str {
        match self.0 {
            0 => "ok",
            1 => "the device reported an error",
            2 => "not supported by the device",
            3 => "the device is read-only",
            4 => "outside of the device",
            5 => "invalid request",
            6 => "bad buffer",
            7 => "request too long",
            8 => "the device did not answer in time",
            9 => "the device is gone",
            _ => "unknown status",
        }
    }
}

/// What can be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Serialize, Deserialize)]
pub enum Access {
    /// Reads and flushes only.
    ReadOnly,
    /// Everything.
    ReadWrite,
}

/// What the device may do with a registered buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Serialize, Deserialize)]
pub enum BufferAccess {
    /// The device reads it: source of writes. The VMO handle needs PIN and READ.
    DeviceReads,
    /// The device writes it: target of reads. The VMO handle needs PIN and WRITE.
    DeviceWrites,
    /// Both.
    Both,
}

/// What an endpoint offers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BlockInfo {
    /// Bytes of a logical block, a power of two from 512 to 65536.
    pub block_size: u32,
    /// Bytes of a physical block, at least `block_size`.
    pub physical_block_size: u32,
    /// Logical blocks of this endpoint.
    pub block_count: u64,
    /// First logical block on the whole device; 0 for the device itself.
    pub first_lba: u64,
    /// What can be written.
    pub access: Access,
    /// Longest read or write in bytes: a longer one is refused, whatever the layout of its pages.
    pub max_transfer: u32,
    /// Longest discard in bytes; 0 when the device has none.
    pub max_discard: u32,
    /// Longest write-zeroes in bytes; 0 when the device has none.
    pub max_write_zeroes: u32,
    /// Whether the device has a volatile cache that flush empties.
    pub volatile_cache: bool,
    /// Queues of the device; sessions are spread over them.
    pub queues: u16,
    /// Most requests outstanding that a session can ask for.
    pub max_depth: u16,
    /// Serial number or identification; may be empty.
    pub serial: String,
    /// Name of the driver.
    pub driver: String,
    /// Counts changes of the device (capacity); a new one makes `info` worth asking again.
    pub generation: u32,
}

/// What a new session looks like.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SessionInfo {
    /// Entries of each ring: the most requests outstanding. A power of two, at most [`DEPTH_MAX`].
    pub depth: u16,
    /// Where the completion ring starts in the VMO, in bytes.
    pub completion_offset: u32,
    /// Queue that serves it.
    pub queue: u16,
    /// Number of the session since the driver started.
    pub session: u32,
    /// Incarnation of the driver.
    pub epoch: u32,
}

/// Why a control request was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum BlockError {
    /// An argument is outside of its range.
    Invalid,
    /// Not inside the endpoint.
    OutOfRange,
    /// The endpoint is read-only.
    ReadOnly,
    /// The slot is taken, or, for unregistering, free.
    BadSlot,
    /// The VMO could not be pinned with the access that was asked for.
    BadBuffer,
    /// Too many sessions, buffers or too little memory.
    LimitReached,
    /// The device is gone or being reset.
    Gone,
}

impl core::fmt::Display for BlockError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            BlockError::Invalid => "invalid argument",
            BlockError::OutOfRange => "outside of the device",
            BlockError::ReadOnly => "the device is read-only",
            BlockError::BadSlot => "buffer slot is in use or free",
            BlockError::BadBuffer => "the buffer cannot be pinned with this access",
            BlockError::LimitReached => "too many sessions or buffers",
            BlockError::Gone => "the device is gone",
        })
    }
}

ipc::protocol! {
    /// A disk or a part of it. The channel carries calls only, so clients may share it.
    pub protocol BlockEndpoint("block", version = 1, error = BlockError) {
        /// What the endpoint offers.
        1 = info() -> (info: BlockInfo);
        /// Opens a session with room for at least `depth` requests (rounded up to a power of two, limited by
        /// [`BlockInfo::max_depth`]). `cpu` is where the client will run, or `u32::MAX`. The handles are the
        /// session's channel ([`BlockSession`]), the VMO with the rings, and the doorbells of submissions
        /// and completions.
        2 = open_session(depth: u16, cpu: u32) -> (info: SessionInfo; session: Channel, rings: Vmo, submitted: Event, completed: Event);
        /// A new endpoint for `count` blocks from `first_lba` (of this endpoint) on. Requests to it go to the
        /// same driver; it costs no hop.
        3 = derive(first_lba: u64, count: u64, access: Access) -> (; endpoint: Channel);
    }
}

ipc::protocol! {
    /// A session. Its channel belongs to one client; closing it ends the session.
    pub protocol BlockSession("block-session", version = 1, error = BlockError) {
        /// Registers `length` bytes of `vmo` from `offset` on (both multiples of the page size) as buffer
        /// `slot`. The pages are pinned until the slot is unregistered or the session ends. The driver
        /// needs no MAP right and should not get one.
        1 = register_buffer(slot: u16, access: BufferAccess, offset: u64, length: u64; vmo: Vmo) -> ();
        /// Ends the use of a slot. Answered when no request uses it any more and its pages are unpinned.
        2 = unregister_buffer(slot: u16) -> ();
    }
}
