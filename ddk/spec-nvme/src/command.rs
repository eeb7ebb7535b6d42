//! Commands: opcodes, their dwords, and their data structures (5, 6).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Opcodes of the admin queue (5).
pub mod admin {
    /// Delete I/O submission queue (5.6).
    pub const DELETE_SUBMISSION_QUEUE: u8 = 0x00;
    /// Create I/O submission queue (5.4).
    pub const CREATE_SUBMISSION_QUEUE: u8 = 0x01;
    /// Get log page (5.14).
    pub const GET_LOG_PAGE: u8 = 0x02;
    /// Delete I/O completion queue (5.5).
    pub const DELETE_COMPLETION_QUEUE: u8 = 0x04;
    /// Create I/O completion queue (5.3).
    pub const CREATE_COMPLETION_QUEUE: u8 = 0x05;
    /// Identify (5.15).
    pub const IDENTIFY: u8 = 0x06;
    /// Abort (5.1).
    pub const ABORT: u8 = 0x08;
    /// Set features (5.21).
    pub const SET_FEATURES: u8 = 0x09;
    /// Asynchronous event request (5.2).
    pub const EVENT_REQUEST: u8 = 0x0c;
}

/// Opcodes of the NVM command set (6).
pub mod nvm {
    /// Flush (6.8).
    pub const FLUSH: u8 = 0x00;
    /// Write (6.15).
    pub const WRITE: u8 = 0x01;
    /// Read (6.9).
    pub const READ: u8 = 0x02;
    /// Write zeroes (6.17).
    pub const WRITE_ZEROES: u8 = 0x08;
    /// Dataset management (6.7).
    pub const DATASET_MANAGEMENT: u8 = 0x09;
}

/// What Identify is asked for: CNS in dword 10 (5.15.1).
pub mod cns {
    /// A namespace.
    pub const NAMESPACE: u32 = 0x00;
    /// The controller.
    pub const CONTROLLER: u32 = 0x01;
    /// Active namespaces above the one in the command.
    pub const ACTIVE_NAMESPACES: u32 = 0x02;
}

/// Features (5.21.1).
pub mod feature {
    /// Number of queues (5.21.1.7).
    pub const QUEUES: u32 = 0x07;
    /// Asynchronous event configuration (5.21.1.11).
    pub const EVENTS: u32 = 0x0b;
}

/// Queue created by Create I/O Completion or Submission Queue: dword 10 (5.3, 5.4); the size is zero-based.
pub const fn queue_dword10(queue: u16, entries: u16) -> u32 {
    (entries.saturating_sub(1) as u32) << 16 | queue as u32
}

/// Create I/O Completion Queue, dword 11 (5.3): contiguous, interrupts on this vector.
pub const fn completion_queue_dword11(vector: u16) -> u32 {
    (vector as u32) << 16 | 1 << 1 | QUEUE_CONTIGUOUS
}

/// Create I/O Submission Queue, dword 11 (5.4): contiguous, completes to this queue.
pub const fn submission_queue_dword11(completion_queue: u16) -> u32 {
    (completion_queue as u32) << 16 | QUEUE_CONTIGUOUS
}

/// The queue is physically contiguous (5.3, 5.4).
pub const QUEUE_CONTIGUOUS: u32 = 1;

/// Number of queues, dword 11 of Set Features and dword 0 of its completion (5.21.1.7); both fields are
/// zero-based.
pub const fn queue_count(pairs: u16) -> u32 {
    let field = pairs.saturating_sub(1) as u32;
    field << 16 | field
}

/// Queue pairs out of dword 0 of the completion of Set Features, Number of Queues (5.21.1.7).
pub const fn queue_pairs(result: u32) -> u32 {
    let (submission, completion) = (result & 0xffff, result >> 16);
    if submission < completion {
        submission + 1
    } else {
        completion + 1
    }
}

/// Abort, dword 10 (5.1).
pub const fn abort_dword10(queue: u16, command: u16) -> u32 {
    (command as u32) << 16 | queue as u32
}

/// Abort, dword 0 of the completion: the command was not aborted (5.1).
pub const NOT_ABORTED: u32 = 1;

/// Get Log Page, dword 10 (5.14): page, and its length in bytes, a multiple of 4 up to 256 KiB.
pub const fn log_page_dword10(page: u8, bytes: u32) -> u32 {
    ((bytes / 4).saturating_sub(1) & 0xffff) << 16 | page as u32
}

/// Read and Write, dword 12 (6.9, 6.15): force unit access.
pub const FORCE_UNIT_ACCESS: u32 = 1 << 30;
/// Write Zeroes, dword 12 (6.17): the controller may deallocate.
pub const DEALLOCATE: u32 = 1 << 25;
/// Dataset Management, dword 11 (6.7): deallocate.
pub const ATTRIBUTE_DEALLOCATE: u32 = 1 << 2;
/// Most blocks of a read, write or write-zeroes: a zero-based field of 16 bits (6.9).
pub const BLOCKS_MAX: u32 = 1 << 16;

/// A range of Dataset Management (6.7).
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Range {
    /// Context attributes: hints.
    pub attributes: u32,
    /// Logical blocks.
    pub blocks: u32,
    /// First logical block.
    pub lba: u64,
}

const _: () = assert!(size_of::<Range>() == 16);
