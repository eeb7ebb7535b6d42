//! MBR partition tables: four entries in sector 0, and logical partitions in a
//! chain of further records inside an extended one.

use alloc::{collections::BTreeSet, vec::Vec};

use volume::{FsError, Volume};
use zerocopy::{
    FromBytes, Immutable, KnownLayout,
    little_endian::{U16, U32},
};

use crate::{Note, Partition, PartitionKind, Scheme, Table};

const SIGNATURE: u16 = 0xAA55;
/// Type of the entry that protects a GPT.
const PROTECTIVE: u8 = 0xEE;
/// Most logical partitions that are followed.
const LOGICAL_MAX: usize = 128;

/// The last 66 bytes of a sector with a table.
#[derive(FromBytes, KnownLayout, Immutable)]
#[repr(C)]
struct RawRecord {
    code: [u8; 446],
    entries: [RawEntry; 4],
    signature: U16,
}
const _: () = assert!(size_of::<RawRecord>() == 512);

#[derive(FromBytes, KnownLayout, Immutable)]
#[repr(C)]
struct RawEntry {
    status: u8,
    first_chs: [u8; 3],
    kind: u8,
    last_chs: [u8; 3],
    first_lba: U32,
    blocks: U32,
}
const _: () = assert!(size_of::<RawEntry>() == 16);

/// An entry that is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    slot: u32,
    kind: u8,
    first_lba: u64,
    blocks: u64,
}

impl Entry {
    fn is_extended(&self) -> bool {
        matches!(self.kind, 0x05 | 0x0F | 0x85)
    }
}

/// The entries in use of a sector that is a partition record.
pub fn parse(sector: &[u8; 512]) -> Option<Vec<Entry>> {
    let record = RawRecord::ref_from_bytes(sector).ok()?;
    // Boot code where the status bytes would be: not a table.
    let plausible = record.entries.iter().all(|entry| entry.status & 0x7F == 0);
    if record.signature.get() != SIGNATURE || !plausible {
        return None;
    }
    let entries = (0u32..).zip(&record.entries).filter_map(|(slot, entry)| {
        let (first_lba, blocks) = (entry.first_lba.get().into(), entry.blocks.get().into());
        let used = entry.kind != 0 && blocks != 0;
        used.then_some(Entry {
            slot,
            kind: entry.kind,
            first_lba,
            blocks,
        })
    });
    Some(entries.collect())
}

/// Whether the record protects a GPT.
pub fn is_protective(entries: &[Entry]) -> bool {
    entries.iter().any(|entry| entry.kind == PROTECTIVE)
}

/// Whether the sector begins a bare FAT volume, whose code may look like entries.
pub fn is_boot_sector_of_fat(sector: &[u8; 512]) -> bool {
    let [jump, _, nop, ..] = *sector;
    let sector_bytes = u16::from_le_bytes([sector[11], sector[12]]);
    (jump == 0xEB && nop == 0x90 || jump == 0xE9)
        && matches!(sector_bytes, 512 | 1024 | 2048 | 4096)
        && sector[13].is_power_of_two()
        && (1..=4).contains(&sector[16])
        && (sector[21] == 0xF0 || sector[21] >= 0xF8)
}

/// The partitions of a record and of the chain in its extended partition.
pub async fn read(
    device: &impl Volume,
    block_bytes: u32,
    blocks: u64,
    entries: &[Entry],
) -> Result<Table, FsError> {
    let mut partitions = Vec::new();
    let mut notes = Vec::new();
    for entry in entries {
        let end = entry.first_lba + entry.blocks;
        let number = entry.slot + 1;
        if end > blocks {
            notes.push(Note::OutsideDevice {
                number,
                end,
                blocks,
            });
        } else if !entry.is_extended() {
            partitions.push(partition(number, entry.first_lba, entry));
        }
    }
    let extended = entries.iter().find(|entry| entry.is_extended());
    if let Some(extended) = extended.filter(|entry| entry.first_lba + entry.blocks <= blocks) {
        read_logical(device, block_bytes, extended, &mut partitions, &mut notes).await?;
    }
    let scheme = if entries.is_empty() {
        Scheme::None
    } else {
        Scheme::Mbr
    };
    Ok(Table {
        scheme,
        partitions,
        notes,
    })
}

/// Follows the chain: in each record the first entry is a partition, counted
/// from the record, the second the next record, counted from the extended
/// partition.
async fn read_logical(
    device: &impl Volume,
    block_bytes: u32,
    extended: &Entry,
    partitions: &mut Vec<Partition>,
    notes: &mut Vec<Note>,
) -> Result<(), FsError> {
    let range = extended.first_lba..extended.first_lba + extended.blocks;
    let mut seen = BTreeSet::new();
    let mut lba = extended.first_lba;
    let mut number = 5;
    loop {
        let problem = if !range.contains(&lba) {
            Some("leads out of the partition")
        } else if !seen.insert(lba) {
            Some("leads back: the chain loops")
        } else if seen.len() > LOGICAL_MAX {
            Some("is one too many")
        } else {
            None
        };
        if let Some(problem) = problem {
            notes.push(Note::BadExtendedLink { lba, problem });
            return Ok(());
        }
        let mut sector = [0; 512];
        device
            .read_at(lba * u64::from(block_bytes), &mut sector)
            .await?;
        let Some(entries) = parse(&sector) else {
            notes.push(Note::BadExtendedLink {
                lba,
                problem: "finds no record there",
            });
            return Ok(());
        };
        for entry in entries.iter().filter(|entry| !entry.is_extended()) {
            let first = lba + entry.first_lba;
            let end = first + entry.blocks;
            if end > range.end {
                notes.push(Note::OutsideDevice {
                    number,
                    end,
                    blocks: range.end,
                });
            } else {
                partitions.push(partition(number, first, entry));
            }
            number += 1;
        }
        match entries.iter().find(|entry| entry.is_extended()) {
            Some(next) => lba = extended.first_lba + next.first_lba,
            None => return Ok(()),
        }
    }
}

fn partition(number: u32, first_lba: u64, entry: &Entry) -> Partition {
    Partition {
        number,
        first_lba,
        blocks: entry.blocks,
        kind: PartitionKind::Mbr(entry.kind),
        name: Default::default(),
    }
}
