//! Partition tables: GPT (UEFI specification, chapter 5) and MBR with extended
//! partitions.
//!
//! Pure code over [`volume::Volume`]: it says where the partitions lie. A table
//! that cannot be trusted yields none, and a [`TableError`] that says why; what is
//! wrong beside is in [`Table::notes`].
#![cfg_attr(target_os = "none", no_std)]
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic
    )
)]

extern crate alloc;

mod gpt;
mod mbr;

use alloc::{string::String, vec::Vec};

pub use gpt::{GptCopy, GptError, Guid};
use volume::{FsError, Volume};

/// A partition. Blocks are those of the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Number as Linux counts them: GPT entry from 1; MBR primary 1 to 4, logical from 5.
    pub number: u32,
    /// First logical block.
    pub first_lba: u64,
    /// Number of logical blocks, not 0.
    pub blocks: u64,
    /// What the table says it is for.
    pub kind: PartitionKind,
    /// Its name; MBR has none.
    pub name: String,
}

/// What a table says of a partition's purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartitionKind {
    /// GPT: a type.
    Gpt(Guid),
    /// MBR: a type byte.
    Mbr(u8),
}

/// Which kind of table was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// No table: the whole device may be one file system, or empty.
    None,
    /// GPT, from this copy.
    Gpt(GptCopy),
    /// MBR.
    Mbr,
}

/// A device's partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// The kind of table.
    pub scheme: Scheme,
    /// In order of their numbers.
    pub partitions: Vec<Partition>,
    /// What the operator should know.
    pub notes: Vec<Note>,
}

/// Something wrong that does not make the table useless.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// The primary GPT is bad; the backup is used.
    PrimaryGptBad(GptError),
    /// The backup GPT is bad or not at the device's end; the primary is used.
    BackupGptBad(GptError),
    /// An MBR partition is left out: it does not lie on the device.
    OutsideDevice {
        /// Its number.
        number: u32,
        /// Block after its last.
        end: u64,
        /// Blocks of the device.
        blocks: u64,
    },
    /// The chain of logical partitions ends here: its next link makes no sense.
    BadExtendedLink {
        /// Block that it leads to.
        lba: u64,
        /// What is wrong with it.
        problem: &'static str,
    },
}

impl core::fmt::Display for Note {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::PrimaryGptBad(error) => write!(f, "primary GPT: {error}; the backup is used"),
            Self::BackupGptBad(error) => write!(f, "backup GPT: {error}; the primary is used"),
            Self::OutsideDevice {
                number,
                end,
                blocks,
            } => write!(
                f,
                "MBR partition {number} ends at block {end}, the device at {blocks}; left out"
            ),
            Self::BadExtendedLink { lba, problem } => {
                write!(f, "extended partition: link to block {lba} {problem}")
            }
        }
    }
}

/// Why there are no partitions although there is a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TableError {
    /// Neither copy of the GPT can be trusted.
    BothGptBad {
        /// What is wrong with the primary.
        primary: GptError,
        /// What is wrong with the backup.
        backup: GptError,
    },
    /// The device did not deliver.
    Device(FsError),
}

impl core::fmt::Display for TableError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::BothGptBad { primary, backup } => {
                write!(f, "no usable GPT: primary: {primary}; backup: {backup}")
            }
            Self::Device(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for TableError {}

/// Reads the partition table of a device with logical blocks of `block_bytes`.
///
/// # Errors
/// See [`TableError`].
pub async fn read_table(device: &impl Volume, block_bytes: u32) -> Result<Table, TableError> {
    let none = Table {
        scheme: Scheme::None,
        partitions: Vec::new(),
        notes: Vec::new(),
    };
    let blocks = device.size_bytes() / u64::from(block_bytes.max(1));
    let mut sector = [0; 512];
    if blocks == 0 {
        return Ok(none);
    }
    device
        .read_at(0, &mut sector)
        .await
        .map_err(TableError::Device)?;
    let Some(record) = mbr::parse(&sector) else {
        return Ok(none);
    };
    if mbr::is_protective(&record) {
        gpt::read(device, block_bytes, blocks).await
    } else if mbr::is_boot_sector_of_fat(&sector) {
        Ok(none)
    } else {
        mbr::read(device, block_bytes, blocks, &record)
            .await
            .map_err(TableError::Device)
    }
}
