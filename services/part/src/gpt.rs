//! GPT (UEFI specification 2.10, section 5.3): header and entries, primary and
//! backup, both with CRCs.

use alloc::{string::String, vec::Vec};

use crc::{CRC_32_ISO_HDLC, Crc};
use volume::{FsError, Volume};
use zerocopy::{
    FromBytes, Immutable, KnownLayout,
    little_endian::{U16, U32, U64},
};

use crate::{Note, Partition, PartitionKind, Scheme, Table, TableError};

static CRC32: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);

const SIGNATURE: [u8; 8] = *b"EFI PART";
const HEADER_BYTES: u32 = 92;
/// Most bytes of entries that are read; tools make 16 KiB.
const ENTRIES_BYTES_MAX: u64 = 1 << 20;

/// GPT header (table 5.5).
#[derive(FromBytes, KnownLayout, Immutable)]
#[repr(C)]
struct RawHeader {
    signature: [u8; 8],
    revision: U32,
    header_bytes: U32,
    header_crc: U32,
    reserved: U32,
    my_lba: U64,
    alternate_lba: U64,
    first_usable_lba: U64,
    last_usable_lba: U64,
    disk: [u8; 16],
    entries_lba: U64,
    entries: U32,
    entry_bytes: U32,
    entries_crc: U32,
}
const _: () = assert!(size_of::<RawHeader>() == HEADER_BYTES as usize);

/// GPT partition entry (table 5.6).
#[derive(FromBytes, KnownLayout, Immutable)]
#[repr(C)]
struct RawEntry {
    kind: [u8; 16],
    unique: [u8; 16],
    first_lba: U64,
    last_lba: U64,
    attributes: U64,
    name: [U16; 36],
}
const _: () = assert!(size_of::<RawEntry>() == 128);

/// A GUID as it lies on the disk: the first three groups little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guid(pub [u8; 16]);

impl core::fmt::Display for Guid {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        const ORDER: [usize; 16] = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
        for (at, index) in ORDER.iter().enumerate() {
            if matches!(at, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{:02X}", self.0.get(*index).copied().unwrap_or(0))?;
        }
        Ok(())
    }
}

/// Which copy of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GptCopy {
    /// At block 1.
    Primary,
    /// At the last block.
    Backup,
}

/// What is wrong with a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GptError {
    /// The device did not deliver.
    Device(FsError),
    /// No signature.
    Signature,
    /// The header's length is not one.
    HeaderLength(u32),
    /// The header's CRC.
    HeaderCrc {
        /// Computed.
        expected: u32,
        /// In the header.
        seen: u32,
    },
    /// The header says that it lies elsewhere.
    Place {
        /// Where it was read.
        expected: u64,
        /// What it says.
        seen: u64,
    },
    /// Number or size of the entries, or where they lie.
    Entries {
        /// How many.
        count: u32,
        /// Size of one.
        bytes: u32,
        /// First block.
        lba: u64,
    },
    /// The entries' CRC.
    EntriesCrc {
        /// Computed.
        expected: u32,
        /// In the header.
        seen: u32,
    },
    /// A partition that is not between the first and the last usable block.
    Range {
        /// Its number.
        number: u32,
        /// First block.
        first: u64,
        /// Last block.
        last: u64,
    },
    /// Two partitions share blocks.
    Overlap {
        /// One.
        first: u32,
        /// The other.
        second: u32,
    },
}

impl core::fmt::Display for GptError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Device(error) => error.fmt(f),
            Self::Signature => f.write_str("no header (signature missing)"),
            Self::HeaderLength(seen) => write!(f, "header length {seen}"),
            Self::HeaderCrc { expected, seen } => {
                write!(
                    f,
                    "bad header CRC (expected {expected:#010x}, seen {seen:#010x})"
                )
            }
            Self::Place { expected, seen } => {
                write!(
                    f,
                    "header at block {expected} says that it is at block {seen}"
                )
            }
            Self::Entries { count, bytes, lba } => {
                write!(
                    f,
                    "{count} entries of {bytes} bytes at block {lba} cannot be"
                )
            }
            Self::EntriesCrc { expected, seen } => {
                write!(
                    f,
                    "bad CRC of the entries (expected {expected:#010x}, seen {seen:#010x})"
                )
            }
            Self::Range {
                number,
                first,
                last,
            } => {
                write!(
                    f,
                    "partition {number} has blocks {first} to {last}, outside the usable ones"
                )
            }
            Self::Overlap { first, second } => {
                write!(f, "partitions {first} and {second} overlap")
            }
        }
    }
}

/// Reads both copies; the primary counts if it is good.
pub async fn read(
    device: &impl Volume,
    block_bytes: u32,
    blocks: u64,
) -> Result<Table, TableError> {
    let last = blocks.saturating_sub(1);
    let primary = read_copy(device, block_bytes, blocks, 1).await;
    let backup = read_copy(device, block_bytes, blocks, last).await;
    let (copy, partitions, note) = match (primary, backup) {
        (Ok(partitions), Ok(_)) => (GptCopy::Primary, partitions, None),
        (Ok(partitions), Err(error)) => (
            GptCopy::Primary,
            partitions,
            Some(Note::BackupGptBad(error)),
        ),
        (Err(error), Ok(partitions)) => (
            GptCopy::Backup,
            partitions,
            Some(Note::PrimaryGptBad(error)),
        ),
        (Err(primary), Err(backup)) => return Err(TableError::BothGptBad { primary, backup }),
    };
    Ok(Table {
        scheme: Scheme::Gpt(copy),
        partitions,
        notes: note.into_iter().collect(),
    })
}

async fn read_copy(
    device: &impl Volume,
    block_bytes: u32,
    blocks: u64,
    lba: u64,
) -> Result<Vec<Partition>, GptError> {
    let block = u64::from(block_bytes);
    let mut bytes = alloc::vec![0; block_bytes as usize];
    let offset = lba.saturating_mul(block);
    device
        .read_at(offset, &mut bytes)
        .await
        .map_err(GptError::Device)?;
    let (header, _) = RawHeader::ref_from_prefix(&bytes).map_err(|_| GptError::Signature)?;
    if header.signature != SIGNATURE {
        return Err(GptError::Signature);
    }
    let header_bytes = header.header_bytes.get();
    let covered = bytes.get(..header_bytes as usize);
    let Some(covered) = covered.filter(|_| header_bytes >= HEADER_BYTES) else {
        return Err(GptError::HeaderLength(header_bytes));
    };
    // The CRC's own field counts as zero.
    let mut digest = CRC32.digest();
    digest.update(covered.get(..16).unwrap_or_default());
    digest.update(&[0; 4]);
    digest.update(covered.get(20..).unwrap_or_default());
    let (expected, seen) = (digest.finalize(), header.header_crc.get());
    if expected != seen {
        return Err(GptError::HeaderCrc { expected, seen });
    }
    if header.my_lba.get() != lba {
        return Err(GptError::Place {
            expected: lba,
            seen: header.my_lba.get(),
        });
    }
    let (count, size) = (header.entries.get(), header.entry_bytes.get());
    let entries_lba = header.entries_lba.get();
    let total = u64::from(count) * u64::from(size);
    let in_device = entries_lba
        .checked_mul(block)
        .and_then(|start| start.checked_add(total))
        .is_some_and(|end| entries_lba >= 2 && end <= blocks.saturating_mul(block));
    if size < 128 || !size.is_multiple_of(128) || total > ENTRIES_BYTES_MAX || !in_device {
        return Err(GptError::Entries {
            count,
            bytes: size,
            lba: entries_lba,
        });
    }
    let mut entries = alloc::vec![0; total as usize];
    device
        .read_at(entries_lba * block, &mut entries)
        .await
        .map_err(GptError::Device)?;
    let (expected, seen) = (CRC32.checksum(&entries), header.entries_crc.get());
    if expected != seen {
        return Err(GptError::EntriesCrc { expected, seen });
    }
    let usable = header.first_usable_lba.get()..=header.last_usable_lba.get();
    let mut partitions = Vec::new();
    for (number, bytes) in (1u32..).zip(entries.chunks_exact(size as usize)) {
        let Ok((entry, _)) = RawEntry::ref_from_prefix(bytes) else {
            continue;
        };
        if entry.kind == [0; 16] {
            continue;
        }
        let (first, last) = (entry.first_lba.get(), entry.last_lba.get());
        if first > last || !usable.contains(&first) || !usable.contains(&last) || last >= blocks {
            return Err(GptError::Range {
                number,
                first,
                last,
            });
        }
        let units = entry
            .name
            .iter()
            .map(|unit| unit.get())
            .take_while(|unit| *unit != 0);
        let name: String = char::decode_utf16(units)
            .map(|c| c.unwrap_or('\u{FFFD}'))
            .collect();
        let kind = PartitionKind::Gpt(Guid(entry.kind));
        // Not more than 2^64 - 1: `last` is below the number of blocks.
        let blocks = last - first + 1;
        partitions.push(Partition {
            number,
            first_lba: first,
            blocks,
            kind,
            name,
        });
    }
    check_overlaps(&partitions)?;
    Ok(partitions)
}

fn check_overlaps(partitions: &[Partition]) -> Result<(), GptError> {
    let mut by_start: Vec<_> = partitions.iter().collect();
    by_start.sort_by_key(|partition| partition.first_lba);
    for pair in by_start.windows(2) {
        if let [a, b] = pair
            && a.first_lba + a.blocks > b.first_lba
        {
            return Err(GptError::Overlap {
                first: a.number,
                second: b.number,
            });
        }
    }
    Ok(())
}
