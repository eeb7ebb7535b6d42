//! The block device (5.2).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Device type (5).
pub const DEVICE_TYPE: u16 = 2;
/// Unit of `sector` in requests and of the capacity, whatever the block size (5.2.6).
pub const SECTOR_BYTES: u32 = 512;
/// Bytes of the identification that `GET_ID` answers with (5.2.6).
pub const ID_BYTES: u32 = 20;

/// Feature bits (5.2.3).
pub mod feature {
    /// `size_max` is valid: longest segment.
    pub const SIZE_MAX: u64 = 1 << 1;
    /// `seg_max` is valid: most segments of a request.
    pub const SEG_MAX: u64 = 1 << 2;
    /// `geometry` is valid.
    pub const GEOMETRY: u64 = 1 << 4;
    /// Read-only.
    pub const RO: u64 = 1 << 5;
    /// `blk_size` is valid.
    pub const BLK_SIZE: u64 = 1 << 6;
    /// Flush requests.
    pub const FLUSH: u64 = 1 << 9;
    /// `topology` is valid.
    pub const TOPOLOGY: u64 = 1 << 10;
    /// `writeback` can be written.
    pub const CONFIG_WCE: u64 = 1 << 11;
    /// `num_queues` is valid.
    pub const MQ: u64 = 1 << 12;
    /// Discard requests.
    pub const DISCARD: u64 = 1 << 13;
    /// Write-zeroes requests.
    pub const WRITE_ZEROES: u64 = 1 << 14;
}

/// Offsets in the configuration (5.2.4).
pub mod config {
    /// Capacity in sectors, 64 bits.
    pub const CAPACITY: usize = 0;
    /// Longest segment in bytes, 32 bits.
    pub const SIZE_MAX: usize = 8;
    /// Most segments of a request, 32 bits.
    pub const SEG_MAX: usize = 12;
    /// Block size in bytes, 32 bits.
    pub const BLK_SIZE: usize = 20;
    /// Logical blocks per physical block, as a power of two, 8 bits.
    pub const PHYSICAL_BLOCK_EXP: usize = 24;
    /// 1: the cache is in write-back mode, 8 bits.
    pub const WRITEBACK: usize = 32;
    /// Request queues, 16 bits.
    pub const NUM_QUEUES: usize = 34;
    /// Longest discard segment in sectors, 32 bits.
    pub const MAX_DISCARD_SECTORS: usize = 36;
    /// Most segments of a discard, 32 bits.
    pub const MAX_DISCARD_SEG: usize = 40;
    /// Alignment of discards in sectors, 32 bits.
    pub const DISCARD_SECTOR_ALIGNMENT: usize = 44;
    /// Longest write-zeroes segment in sectors, 32 bits.
    pub const MAX_WRITE_ZEROES_SECTORS: usize = 48;
    /// Most segments of a write-zeroes, 32 bits.
    pub const MAX_WRITE_ZEROES_SEG: usize = 52;
    /// Whether write-zeroes may unmap, 8 bits.
    pub const WRITE_ZEROES_MAY_UNMAP: usize = 56;
    /// Bytes up to here.
    pub const LEN: usize = 60;
}

/// Types of request (5.2.6).
pub mod request {
    /// Read.
    pub const IN: u32 = 0;
    /// Write.
    pub const OUT: u32 = 1;
    /// Flush.
    pub const FLUSH: u32 = 4;
    /// Identification.
    pub const GET_ID: u32 = 8;
    /// Discard.
    pub const DISCARD: u32 = 11;
    /// Write zeroes.
    pub const WRITE_ZEROES: u32 = 13;
}

/// Status byte of a request (5.2.6).
pub mod status {
    /// Done.
    pub const OK: u8 = 0;
    /// Device or driver error.
    pub const IOERR: u8 = 1;
    /// The device does not support the request.
    pub const UNSUPP: u8 = 2;
}

/// First part of every request (5.2.6).
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Header {
    /// [`request`].
    pub kind: u32,
    /// Zero.
    pub reserved: u32,
    /// First sector, for `IN` and `OUT`.
    pub sector: u64,
}

/// `struct virtio_blk_discard_write_zeroes` (5.2.6).
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Range {
    /// First sector.
    pub sector: u64,
    /// Sectors.
    pub count: u32,
    /// Bit 0 ([`UNMAP`]) for write-zeroes.
    pub flags: u32,
}

/// [`Range::flags`]: the device may unmap the sectors.
pub const UNMAP: u32 = 1;

const _: () = assert!(size_of::<Header>() == 16 && size_of::<Range>() == 16);
