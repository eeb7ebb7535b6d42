//! Entries of submission and completion queues (4.2, 4.6).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::status::Status;

/// A command (4.2).
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Submission {
    /// Opcode; admin and I/O queues have different ones.
    pub opcode: u8,
    /// Fused operation (bits 1:0) and kind of data pointer (bits 7:6, 0 for PRPs).
    pub flags: u8,
    /// Command identifier, unique among the commands that the queue has outstanding.
    pub id: u16,
    /// Namespace.
    pub namespace: u32,
    /// Dwords 2 and 3, reserved in the commands used here.
    pub reserved: [u32; 2],
    /// Metadata pointer.
    pub metadata: u64,
    /// First PRP entry (4.3).
    pub prp1: u64,
    /// Second PRP entry, or the address of a PRP list (4.3).
    pub prp2: u64,
    /// Dwords 10 to 15: what the command is about.
    pub dwords: [u32; 6],
}

/// A completion (4.6).
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Completion {
    /// Depends on the command.
    pub result: u32,
    /// Reserved.
    pub reserved: u32,
    /// Head of the submission queue when this entry was made.
    pub submission_head: u16,
    /// The submission queue.
    pub submission_queue: u16,
    /// Identifier of the command.
    pub id: u16,
    /// Phase tag (bit 0) and status field (bits 15:1).
    pub status: u16,
}

const _: () = assert!(size_of::<Submission>() == SUBMISSION_BYTES);
const _: () = assert!(size_of::<Completion>() == COMPLETION_BYTES);

/// Bytes of a command.
pub const SUBMISSION_BYTES: usize = 64;
/// Bytes of a completion.
pub const COMPLETION_BYTES: usize = 16;
/// Bit of [`Completion::status`] that changes each time that the controller comes round (4.6).
pub const PHASE: u16 = 1;

/// Second half of a completion as one word: what a host looks at for each entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tail(pub u64);

impl Tail {
    /// Where it is in the entry.
    pub const OFFSET: usize = 8;

    /// Phase tag: 0 or 1.
    pub const fn phase(self) -> u16 {
        (self.0 >> 48) as u16 & PHASE
    }
    /// See [`Completion::submission_head`].
    pub const fn submission_head(self) -> u16 {
        self.0 as u16
    }
    /// See [`Completion::submission_queue`].
    pub const fn submission_queue(self) -> u16 {
        (self.0 >> 16) as u16
    }
    /// See [`Completion::id`].
    pub const fn id(self) -> u16 {
        (self.0 >> 32) as u16
    }
    /// The status field.
    pub const fn status(self) -> Status {
        Status((self.0 >> 49) as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_the_second_half() {
        let entry = Completion {
            submission_head: 0x1234,
            submission_queue: 3,
            id: 0xabcd,
            status: Status::ABORT_REQUESTED.0 << 1 | PHASE,
            ..Completion::default()
        };
        let bytes = entry.as_bytes();
        let tail = u64::from_le_bytes(bytes[Tail::OFFSET..].try_into().unwrap());
        let tail = Tail(tail);
        assert_eq!(
            (tail.submission_head(), tail.submission_queue(), tail.id()),
            (0x1234, 3, 0xabcd)
        );
        assert_eq!((tail.phase(), tail.status()), (1, Status::ABORT_REQUESTED));
    }
}
