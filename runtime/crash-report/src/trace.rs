//! The memory into which a driver writes its trace, and which outlives it: a recording from the driver's start on, until there is no
//! more room, and the last records as text. Here is its layout and nothing of what is recorded.
//!
//! First a head of 32 bytes: magic (8 bytes), records so far (8), records of the recording (8), its length in bytes (8);
//! little-endian. Then [`LINES`] places of [`LINE_BYTES`] for the last records, in turn: number of the record from 1 on (8, 0: empty),
//! length (8), text. From [`RECORDING_AT`] on the recording.
//!
//! Every record is written whole before the head tells of it, and the writer may end between any two writes. The reader does not trust it.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::{self, Write};

use serde::{Deserialize, Serialize};

/// Bytes of the area.
pub const AREA_BYTES: usize = 1024 * 1024;
/// Where the recording begins.
pub const RECORDING_AT: usize = 8192;
/// Places for the last records.
pub const LINES: usize = 32;
/// Bytes of a place.
pub const LINE_BYTES: usize = 144;
const HEAD_BYTES: usize = 32;
const LINES_AT: usize = 64;
const TEXT_MAX: usize = LINE_BYTES - 16;
const MAGIC: [u8; 8] = *b"BHTRACE\x01";

const _: () = assert!(LINES_AT + LINES * LINE_BYTES <= RECORDING_AT);

/// What a report says of a trace.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct TraceNote {
    /// Records in all.
    pub records: u64,
    /// Those of the recording, from the first on.
    pub recorded: u64,
    /// Bytes of the recording.
    pub bytes: u64,
    /// The last records, oldest first, with their numbers from 0 on.
    pub last: Vec<String>,
}

/// Writes an area.
#[derive(Debug)]
pub struct Writer {
    records: u64,
    recorded: u64,
    /// Bytes of the recording.
    len: usize,
    is_full: bool,
}

/// A text that is cut where its place ends.
struct Line {
    bytes: [u8; LINE_BYTES],
    len: usize,
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            let mut utf8 = [0; 4];
            let utf8 = c.encode_utf8(&mut utf8).as_bytes();
            let end = self.len.saturating_add(utf8.len());
            let Some(place) = self.bytes.get_mut(16 + self.len..16 + end) else {
                return Err(fmt::Error);
            };
            place.copy_from_slice(utf8);
            self.len = end;
        }
        Ok(())
    }
}

impl Writer {
    /// Begins an area with what the recording begins with. `write` puts bytes at an offset.
    pub fn new(start: &[u8], mut write: impl FnMut(usize, &[u8])) -> Writer {
        let mut writer = Writer {
            records: 0,
            recorded: 0,
            len: 0,
            is_full: false,
        };
        writer.append(start, &mut write);
        writer.put_head(&mut write);
        writer
    }

    fn append(&mut self, bytes: &[u8], write: &mut impl FnMut(usize, &[u8])) {
        let at = RECORDING_AT.saturating_add(self.len);
        self.is_full |= bytes.len() > AREA_BYTES.saturating_sub(at);
        if !self.is_full {
            write(at, bytes);
            self.len = self.len.saturating_add(bytes.len());
        }
    }

    fn put_head(&self, write: &mut impl FnMut(usize, &[u8])) {
        let mut head = [0; HEAD_BYTES];
        let fields = [self.records, self.recorded, self.len as u64];
        let words = head.as_chunks_mut::<8>().0.iter_mut();
        let contents = [MAGIC].into_iter().chain(fields.map(u64::to_le_bytes));
        words.zip(contents).for_each(|(word, field)| *word = field);
        write(0, &head);
    }

    /// One more record: its bytes, and it for people.
    pub fn record(
        &mut self,
        entry: &[u8],
        text: fmt::Arguments<'_>,
        mut write: impl FnMut(usize, &[u8]),
    ) {
        let place = (self.records % LINES as u64) as usize;
        self.records = self.records.saturating_add(1);
        self.append(entry, &mut write);
        if !self.is_full {
            self.recorded = self.records;
        }
        let mut line = Line {
            bytes: [0; LINE_BYTES],
            len: 0,
        };
        // What is too long is cut.
        let _ = line.write_fmt(text);
        let mut head = line.bytes.as_chunks_mut::<8>().0.iter_mut();
        let fields = [self.records, line.len as u64];
        head.by_ref()
            .zip(fields)
            .for_each(|(word, field)| *word = field.to_le_bytes());
        let used = line.bytes.get(..16 + line.len).unwrap_or_default();
        write(LINES_AT + place * LINE_BYTES, used);
        self.put_head(&mut write);
    }
}

/// What an area says; `None` if nothing was ever written to it. `read` fills a buffer from an offset, and says whether it could.
pub fn read(mut read: impl FnMut(usize, &mut [u8]) -> bool) -> Option<TraceNote> {
    let mut head = [0; HEAD_BYTES];
    if !read(0, &mut head) {
        return None;
    }
    let [magic, records, recorded, len] = *head.as_chunks::<8>().0 else {
        return None;
    };
    if magic != MAGIC {
        return None;
    }
    let bytes = u64::from_le_bytes(len).min((AREA_BYTES - RECORDING_AT) as u64);
    let mut lines: Vec<(u64, String)> = Vec::new();
    for place in 0..LINES {
        let mut line = [0; LINE_BYTES];
        if !read(LINES_AT + place * LINE_BYTES, &mut line) {
            continue;
        }
        let (head, text) = line.split_at(16);
        let [number, len] = *head.as_chunks::<8>().0 else {
            continue;
        };
        let len = u64::from_le_bytes(len).min(TEXT_MAX as u64) as usize;
        let text = String::from_utf8_lossy(text.get(..len).unwrap_or_default());
        if let Some(number) = u64::from_le_bytes(number).checked_sub(1) {
            lines.push((number, alloc::format!("{number} thread {text}")));
        }
    }
    lines.sort_unstable();
    Some(TraceNote {
        records: u64::from_le_bytes(records),
        recorded: u64::from_le_bytes(recorded),
        bytes,
        last: lines.into_iter().map(|(_, text)| text).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    struct Memory(Vec<u8>);

    impl Memory {
        fn write(&mut self) -> impl FnMut(usize, &[u8]) {
            |at, bytes| self.0[at..at + bytes.len()].copy_from_slice(bytes)
        }
        fn note(&self) -> Option<TraceNote> {
            read(|at, buffer| {
                buffer.copy_from_slice(&self.0[at..at + buffer.len()]);
                true
            })
        }
    }

    #[test]
    fn the_beginning_and_the_last_are_kept() {
        let mut memory = Memory(vec![0; AREA_BYTES]);
        assert_eq!(memory.note(), None);
        let mut writer = Writer::new(b"start", memory.write());
        assert_eq!(memory.note().unwrap().bytes, 5);
        let entry = [7; 1000];
        for n in 0..2000 {
            writer.record(&entry, format_args!("0: record {n}"), memory.write());
        }
        let note = memory.note().unwrap();
        let fits = (AREA_BYTES - RECORDING_AT - 5) / 1000;
        assert_eq!((note.records, note.recorded), (2000, fits as u64));
        assert_eq!(note.bytes as usize, 5 + fits * 1000);
        assert_eq!(note.last.len(), LINES);
        assert_eq!(note.last[0], "1968 thread 0: record 1968");
        assert_eq!(note.last[31], "1999 thread 0: record 1999");
        assert_eq!(&memory.0[RECORDING_AT..RECORDING_AT + 6], b"start\x07");
        // A short record after a long one that found no room is not in the recording: it has no gap.
        writer.record(&[1], format_args!("short"), memory.write());
        assert_eq!(memory.note().unwrap().recorded, fits as u64);
    }

    #[test]
    fn texts_are_cut_and_numbers_of_strangers_are_bounded() {
        let mut memory = Memory(vec![0; AREA_BYTES]);
        let mut writer = Writer::new(&[], memory.write());
        let long = "ä".repeat(300);
        writer.record(&[1], format_args!("{long}"), memory.write());
        writer.record(&[1], format_args!("short"), memory.write());
        let last = memory.note().unwrap().last;
        assert_eq!(last[0], alloc::format!("0 thread {}", "ä".repeat(64)));
        assert_eq!(last[1], "1 thread short");
        memory.0[8..HEAD_BYTES].fill(0xff);
        memory.0[LINES_AT + 8..LINES_AT + 16].fill(0xff);
        let note = memory.note().unwrap();
        assert_eq!(note.bytes as usize, AREA_BYTES - RECORDING_AT);
        assert!(note.last[0].len() <= 9 + LINE_BYTES);
    }
}
