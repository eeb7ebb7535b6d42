//! Controller registers in BAR 0 (3.1).

/// Offsets (3.1).
pub mod offset {
    /// Controller capabilities, 64 bits.
    pub const CAP: usize = 0x00;
    /// Version, 32 bits.
    pub const VS: usize = 0x08;
    /// Interrupt mask set, 32 bits; not with MSI-X.
    pub const INTMS: usize = 0x0c;
    /// Interrupt mask clear, 32 bits; not with MSI-X.
    pub const INTMC: usize = 0x10;
    /// Controller configuration, 32 bits.
    pub const CC: usize = 0x14;
    /// Controller status, 32 bits.
    pub const CSTS: usize = 0x1c;
    /// Subsystem reset, 32 bits.
    pub const NSSR: usize = 0x20;
    /// Admin queue attributes, 32 bits.
    pub const AQA: usize = 0x24;
    /// Address of the admin submission queue, 64 bits.
    pub const ASQ: usize = 0x28;
    /// Address of the admin completion queue, 64 bits.
    pub const ACQ: usize = 0x30;
    /// First doorbell (3.1.24).
    pub const DOORBELLS: usize = 0x1000;
}

/// Controller capabilities (3.1.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capabilities(pub u64);

impl Capabilities {
    /// Most entries of an I/O queue; the field is zero-based.
    pub const fn max_entries(self) -> u32 {
        (self.0 & 0xffff) as u32 + 1
    }
    /// Whether I/O queues have to be physically contiguous.
    pub const fn contiguous_queues(self) -> bool {
        self.0 >> 16 & 1 != 0
    }
    /// Worst case of becoming ready or not ready, in milliseconds (the field counts 500 ms).
    pub const fn timeout_ms(self) -> u32 {
        (self.0 >> 24 & 0xff) as u32 * 500
    }
    /// Distance of two doorbells in bytes: 4 to 2^17.
    pub const fn doorbell_stride(self) -> usize {
        4 << (self.0 >> 32 & 0xf)
    }
    /// Whether the NVM command set is there (bit 0 of CSS).
    pub const fn nvm_command_set(self) -> bool {
        self.0 >> 37 & 1 != 0
    }
    /// Smallest memory page in bytes, as a power of two: 12 to 27.
    pub const fn page_min_shift(self) -> u8 {
        12 + (self.0 >> 48 & 0xf) as u8
    }
    /// Largest memory page in bytes, as a power of two: 12 to 27.
    pub const fn page_max_shift(self) -> u8 {
        12 + (self.0 >> 52 & 0xf) as u8
    }
}

/// Controller configuration (3.1.5).
pub mod cc {
    /// Enable.
    pub const EN: u32 = 1;
    /// Memory page size, as a power of two from 4096 on.
    pub const fn page_shift(shift: u8) -> u32 {
        (shift.saturating_sub(12) as u32 & 0xf) << 7
    }
    /// Shutdown notification: the field.
    pub const SHN_MASK: u32 = 3 << 14;
    /// Shutdown notification: normal shutdown.
    pub const SHN_NORMAL: u32 = 1 << 14;
    /// Entry sizes of the NVM command set: 2^6 and 2^4 bytes (IOSQES, IOCQES).
    pub const NVM_ENTRY_SIZES: u32 = 6 << 16 | 4 << 20;
    /// Bits that are reserved.
    pub const RESERVED: u32 = 0xff00_000e;
}

/// Controller status (3.1.6).
pub mod csts {
    /// Ready.
    pub const RDY: u32 = 1;
    /// Fatal status: only a reset helps.
    pub const CFS: u32 = 1 << 1;
    /// Shutdown status: the field.
    pub const SHST_MASK: u32 = 3 << 2;
    /// Shutdown status: complete.
    pub const SHST_COMPLETE: u32 = 2 << 2;
}

/// Fewest entries of a queue (4.1.3).
pub const QUEUE_ENTRIES_MIN: u16 = 2;
/// Most entries of an admin queue (3.1.8).
pub const ADMIN_ENTRIES_MAX: u16 = 4096;

/// Admin queue attributes for two queues of `entries` (3.1.8); both fields are zero-based.
pub const fn admin_queue_attributes(entries: u16) -> u32 {
    let field = (entries.saturating_sub(1) & 0xfff) as u32;
    field << 16 | field
}

/// Which end of a queue pair a doorbell is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Doorbell {
    /// Tail of the submission queue.
    SubmissionTail,
    /// Head of the completion queue.
    CompletionHead,
}

/// Offset of a doorbell from [`offset::DOORBELLS`] on (3.1.24, 3.1.25).
pub const fn doorbell(queue: u16, end: Doorbell, stride: usize) -> usize {
    let index = 2 * queue as usize + matches!(end, Doorbell::CompletionHead) as usize;
    index * stride
}

/// Version as the register has it (3.1.2).
pub const fn version(major: u16, minor: u8) -> u32 {
    (major as u32) << 16 | (minor as u32) << 8
}
