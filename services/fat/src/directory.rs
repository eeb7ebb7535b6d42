//! Directory entries: from the bytes of a directory to names and numbers.

use core::ops::ControlFlow;

use volume::{DirectoryEntry, FileKind, Timestamp};
use zerocopy::FromBytes;

use crate::{
    layout::{ENTRY_BYTES, RawEntry, RawLongEntry},
    names::{LongName, short_name},
};

/// Attribute bits.
pub const READ_ONLY: u8 = 0x01;
pub const VOLUME_LABEL: u8 = 0x08;
pub const DIRECTORY: u8 = 0x10;
/// All four low bits: a piece of a long name.
const LONG_NAME: u8 = 0x0F;
const LONG_NAME_MASK: u8 = 0x3F;

/// First byte of a name: deleted, and nothing follows.
const DELETED: u8 = 0xE5;
const END: u8 = 0;

/// Whether an entry names a file or directory.
pub fn is_object(entry: &RawEntry) -> bool {
    entry.attributes & VOLUME_LABEL == 0 && !matches!(entry.name[0], END | DELETED)
}

/// Why a stretch of entries was left.
pub enum Left {
    /// Its bytes are used up; the directory goes on.
    Used,
    /// The directory's end.
    End,
    /// The receiver did not take the entry at this position.
    Refused(u64),
}

/// Goes through the entries of a directory, stretch by stretch.
pub struct Scanner {
    long_name: LongName,
    /// Entries that begin before this position were handed over earlier.
    from: u64,
    /// Position in the directory of the entry being put together: that of its
    /// first piece.
    start: u64,
}

impl Scanner {
    /// Hands over entries from position `from` on.
    pub fn new(from: u64) -> Self {
        Self {
            long_name: LongName::default(),
            from,
            start: 0,
        }
    }

    /// Takes a stretch that lies at `position` of the directory and at byte
    /// `offset` of the volume, both multiples of 32.
    pub fn scan(
        &mut self,
        bytes: &[u8],
        position: u64,
        offset: u64,
        sink: &mut dyn FnMut(DirectoryEntry<'_>) -> ControlFlow<()>,
    ) -> Left {
        for (at, bytes) in bytes.chunks_exact(ENTRY_BYTES).enumerate() {
            let at = (at * ENTRY_BYTES) as u64;
            let (Ok(entry), Ok(piece)) = (
                RawEntry::ref_from_bytes(bytes),
                RawLongEntry::ref_from_bytes(bytes),
            ) else {
                continue;
            };
            let here = position + at;
            match entry.name[0] {
                END => return Left::End,
                DELETED => {
                    self.long_name.drop();
                    continue;
                }
                _ => {}
            }
            if entry.attributes & LONG_NAME_MASK == LONG_NAME {
                if piece.order & 0x40 != 0 {
                    self.start = here;
                }
                self.long_name.add(piece);
                continue;
            }
            let long = self.long_name.take(&entry.name);
            let start = if long.is_some() { self.start } else { here };
            if !is_object(entry) || entry.name.starts_with(b".") || start < self.from {
                continue;
            }
            let name = long.unwrap_or_else(|| short_name(entry));
            let kind = if entry.attributes & DIRECTORY != 0 {
                FileKind::Directory
            } else {
                FileKind::File
            };
            let node = (offset + at) / ENTRY_BYTES as u64;
            let next = here + ENTRY_BYTES as u64;
            if sink(DirectoryEntry {
                name: &name,
                node,
                kind,
                next,
            })
            .is_break()
            {
                return Left::Refused(start);
            }
        }
        Left::Used
    }
}

/// Date and time of an entry (FATGEN "Date and Time Formats"), which know no
/// time zone and are taken as UTC.
pub fn timestamp(date: u16, time: u16, hundredths: u8) -> Timestamp {
    let (year, month, day) = (1980 + i64::from(date >> 9), date >> 5 & 15, date & 31);
    if !(1..=12).contains(&month) || day == 0 {
        return Timestamp::default();
    }
    // Days since 1970-01-01, counting years from March.
    let month = i64::from(month);
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + i64::from(day) - 1;
    let days = year * 365 + year / 4 - year / 100 + year / 400 + day_of_year - 719_468;
    let seconds = i64::from(time >> 11) * 3600
        + i64::from(time >> 5 & 63) * 60
        + i64::from(time & 31) * 2
        + i64::from(hundredths / 100);
    Timestamp {
        seconds: days * 86_400 + seconds,
        nanoseconds: u32::from(hundredths % 100) * 10_000_000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_date() {
        // date -u -d '2000-02-29 12:34:56' +%s
        let date = (20 << 9) | (2 << 5) | 29;
        let time = (12 << 11) | (34 << 5) | 28;
        assert_eq!(timestamp(date, time, 0).seconds, 951_827_696);
        // date -u -d '1980-01-01' +%s
        assert_eq!(
            timestamp(0x21, 0, 150),
            Timestamp {
                seconds: 315_532_801,
                nanoseconds: 500_000_000
            }
        );
        assert_eq!(timestamp(0, 0, 0), Timestamp::default());
    }
}
