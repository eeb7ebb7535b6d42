//! The status field of a completion (4.6.1).

/// Status field: code (bits 7:0), type (bits 10:8), retry delay (bits 12:11), more (bit 13), do not retry
/// (bit 14).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Status(pub u16);

impl Status {
    /// Generic: successful completion.
    pub const SUCCESS: Status = Status(0x000);
    /// Generic: invalid opcode.
    pub const INVALID_OPCODE: Status = Status(0x001);
    /// Generic: invalid field.
    pub const INVALID_FIELD: Status = Status(0x002);
    /// Generic: data transfer error.
    pub const DATA_TRANSFER_ERROR: Status = Status(0x004);
    /// Generic: internal error.
    pub const INTERNAL_ERROR: Status = Status(0x006);
    /// Generic: aborted because an Abort command asked for it.
    pub const ABORT_REQUESTED: Status = Status(0x007);
    /// Generic: invalid namespace or format.
    pub const INVALID_NAMESPACE: Status = Status(0x00b);
    /// Generic: PRP offset invalid.
    pub const PRP_OFFSET_INVALID: Status = Status(0x013);
    /// Generic: namespace is write protected.
    pub const WRITE_PROTECTED: Status = Status(0x020);
    /// Generic, NVM command set: LBA out of range.
    pub const LBA_OUT_OF_RANGE: Status = Status(0x080);
    /// Command specific: completion queue invalid.
    pub const COMPLETION_QUEUE_INVALID: Status = Status(0x100);
    /// Command specific: invalid queue identifier.
    pub const INVALID_QUEUE: Status = Status(0x101);
    /// Command specific: invalid queue size.
    pub const INVALID_QUEUE_SIZE: Status = Status(0x102);
    /// Command specific: more asynchronous event requests than allowed.
    pub const EVENT_LIMIT: Status = Status(0x105);
    /// Command specific: invalid interrupt vector.
    pub const INVALID_VECTOR: Status = Status(0x108);
    /// Command specific: invalid log page.
    pub const INVALID_LOG_PAGE: Status = Status(0x109);
    /// Command specific, NVM command set: attempted write to read-only range.
    pub const READ_ONLY_RANGE: Status = Status(0x182);
    /// Media: write fault.
    pub const WRITE_FAULT: Status = Status(0x280);
    /// Media: unrecovered read error.
    pub const UNRECOVERED_READ: Status = Status(0x281);

    /// Do not retry.
    pub const DO_NOT_RETRY: u16 = 1 << 14;

    /// Type and code, without the hints on retrying.
    pub const fn code(self) -> Status {
        Status(self.0 & 0x7ff)
    }
}
