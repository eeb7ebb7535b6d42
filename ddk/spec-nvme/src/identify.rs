//! What Identify answers with (5.15.2). Only the fields that a host of disks looks at are here, by their
//! offsets; everything else is vendor's or another class's.

/// Identify Controller (5.15.2.2).
pub mod controller {
    /// Serial number: 20 characters, padded with spaces.
    pub const SERIAL: usize = 4;
    /// Bytes of the serial number.
    pub const SERIAL_BYTES: usize = 20;
    /// Model: 40 characters, padded with spaces.
    pub const MODEL: usize = 24;
    /// Bytes of the model.
    pub const MODEL_BYTES: usize = 40;
    /// Maximum data transfer size, 8 bits: a power of two of smallest memory pages, 0 for no limit.
    pub const MDTS: usize = 77;
    /// Events that can be configured, 32 bits ([`crate::event::CONFIGURE_NAMESPACES`]).
    pub const OAES: usize = 92;
    /// Abort commands outstanding at most, 8 bits, zero-based.
    pub const ACL: usize = 258;
    /// Asynchronous event requests outstanding at most, 8 bits, zero-based.
    pub const AERL: usize = 259;
    /// Sizes of submission queue entries, 8 bits: smallest (3:0) and largest (7:4) power of two.
    pub const SQES: usize = 512;
    /// Sizes of completion queue entries, as [`SQES`].
    pub const CQES: usize = 513;
    /// Highest namespace identifier, 32 bits.
    pub const NN: usize = 516;
    /// Optional NVM commands, 16 bits.
    pub const ONCS: usize = 520;
    /// Volatile write cache, 8 bits; bit 0: there is one.
    pub const VWC: usize = 525;

    /// [`ONCS`]: dataset management.
    pub const ONCS_DATASET_MANAGEMENT: u16 = 1 << 2;
    /// [`ONCS`]: write zeroes.
    pub const ONCS_WRITE_ZEROES: u16 = 1 << 3;
    /// [`VWC`]: there is a volatile write cache.
    pub const VWC_PRESENT: u8 = 1;
}

/// Identify Namespace (5.15.2.1).
pub mod namespace {
    /// Size in logical blocks, 64 bits.
    pub const NSZE: usize = 0;
    /// Features, 8 bits.
    pub const NSFEAT: usize = 24;
    /// LBA formats, 8 bits, zero-based.
    pub const NLBAF: usize = 25;
    /// LBA format in use, 8 bits: index in bits 3:0.
    pub const FLBAS: usize = 26;
    /// Deallocated blocks, 8 bits: what they read as (2:0), and whether write-zeroes may deallocate (3).
    pub const DLFEAT: usize = 33;
    /// Preferred write granularity in blocks, 16 bits, zero-based; with [`NSFEAT_OPTIMAL_IO`].
    pub const NPWG: usize = 64;
    /// Attributes, 8 bits; bit 0: write protected.
    pub const NSATTR: usize = 99;
    /// The first of 16 LBA formats of 4 bytes each: metadata bytes (15:0), block size as a power of two (23:16).
    pub const LBAF: usize = 128;

    /// [`NSFEAT`]: the fields from NPWG on are valid.
    pub const NSFEAT_OPTIMAL_IO: u8 = 1 << 4;
    /// [`DLFEAT`]: what deallocated blocks read as.
    pub const DLFEAT_READ_MASK: u8 = 7;
    /// [`DLFEAT`]: deallocated blocks read as zeroes.
    pub const DLFEAT_READ_ZEROES: u8 = 1;
    /// [`DLFEAT`]: write-zeroes can deallocate.
    pub const DLFEAT_WRITE_ZEROES: u8 = 1 << 3;
    /// [`NSATTR`]: write protected.
    pub const NSATTR_WRITE_PROTECTED: u8 = 1;
}
