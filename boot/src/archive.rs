//! The boot archive: one file that carries the programs and the configuration
//! that the system needs before it has a file system.
//!
//! It is a flat list of named members. Names are paths such as `bin/ls`; there
//! are no folders, owners or times. Each member starts on a page boundary, so
//! that the kernel maps ELF segments straight from the archive. The archive is
//! read-only; it is not a general container format and has no compression.
//!
//! # Layout
//!
//! All integers are little endian.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 8 | magic, `BHARCHIV` |
//! | 8 | 4 | version, 1 |
//! | 12 | 4 | number of entries |
//! | 16 | 8 | length of the archive in bytes, a multiple of [`PAGE_SIZE`] |
//! | 24 | 4 | length of the index (entries and names) in bytes |
//! | 28 | 4 | CRC-32 (ISO-HDLC) of bytes 0 to 28 and of the index |
//! | 32 | 32 each | entries |
//! | | | names, UTF-8, not terminated |
//! | page aligned | | members |
//!
//! An entry is `{name_offset: u32, name_len: u32, data_offset: u64,
//! data_len: u64, flags: u32, reserved: u32}`. `name_offset` counts from the
//! start of the index, `data_offset` from the start of the archive. Entries are
//! sorted by name (bytewise) and names are unique.
//!
//! The CRC guards the index only: it finds truncated and mixed-up archives, and
//! costs nothing at boot however large the members are.

use crc::{CRC_32_ISO_HDLC, Crc};

/// First eight bytes of an archive.
pub const MAGIC: [u8; 8] = *b"BHARCHIV";
/// The version that this crate reads and writes.
pub const VERSION: u32 = 1;
/// Alignment of every member, and of the archive's length, in bytes.
pub const PAGE_SIZE: usize = 4096;
/// Size of the header in bytes.
pub const HEADER_SIZE: usize = 32;
/// Size of one index entry in bytes.
pub const ENTRY_SIZE: usize = 32;
/// Longest name in bytes.
pub const MAX_NAME_LEN: usize = 255;
/// Entry flag: the member is a program.
pub const FLAG_EXECUTABLE: u32 = 1;

const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);

/// Why bytes are not a boot archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArchiveError {
    /// Shorter than the header, the index or the length that the header states.
    Truncated {
        /// Bytes that the archive says it has.
        expected: u64,
        /// Bytes that are there.
        found: u64,
    },
    /// The first eight bytes are not [`MAGIC`].
    BadMagic([u8; 8]),
    /// A version other than [`VERSION`].
    UnknownVersion(u32),
    /// The index does not have the CRC that the header states.
    BadCrc {
        /// CRC in the header.
        expected: u32,
        /// CRC of the bytes.
        found: u32,
    },
    /// Entry number `index` is malformed: its name or its data lies outside the
    /// archive, is misaligned, is not UTF-8, or is out of order.
    BadEntry {
        /// Number of the entry, from 0.
        index: u32,
        /// Which rule it breaks.
        reason: &'static str,
    },
}

impl core::fmt::Display for ArchiveError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Truncated { expected, found } => {
                write!(f, "boot archive has {found} bytes, expected {expected}")
            }
            Self::BadMagic(magic) => write!(f, "not a boot archive: it starts with {magic:02x?}"),
            Self::UnknownVersion(version) => {
                write!(f, "boot archive has version {version}, expected {VERSION}")
            }
            Self::BadCrc { expected, found } => {
                write!(
                    f,
                    "boot archive index has CRC {found:08x}, expected {expected:08x}"
                )
            }
            Self::BadEntry { index, reason } => write!(f, "boot archive entry {index}: {reason}"),
        }
    }
}

impl core::error::Error for ArchiveError {}

/// A member of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member<'a> {
    /// Path without a leading slash, for example `bin/ls`.
    pub name: &'a str,
    /// Where the data starts in the archive, in bytes; a multiple of [`PAGE_SIZE`].
    pub offset: usize,
    /// The data, without the padding to the page's end.
    pub data: &'a [u8],
    /// `FLAG_*` bits.
    pub flags: u32,
}

impl Member<'_> {
    /// Whether the member is a program.
    #[must_use]
    pub fn is_executable(&self) -> bool {
        self.flags & FLAG_EXECUTABLE != 0
    }
}

/// An entry of the index: where a member is, without its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Path without a leading slash, for example `bin/ls`.
    pub name: &'a str,
    /// Where the data starts in the archive, in bytes; a multiple of [`PAGE_SIZE`].
    pub offset: usize,
    /// Bytes of data, without the padding to the page's end.
    pub len: usize,
    /// `FLAG_*` bits.
    pub flags: u32,
}

/// A checked index: for who reads the archive piece by piece and has only its head in memory.
/// [`Directory::parse`] looks at every entry once, so that the other functions have no errors.
#[derive(Clone, Copy, Debug)]
pub struct Directory<'a> {
    index: &'a [u8],
    count: u32,
    total_len: usize,
}

/// A checked archive, all of it in memory.
#[derive(Clone, Copy, Debug)]
pub struct Archive<'a> {
    bytes: &'a [u8],
    directory: Directory<'a>,
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    let field = bytes.get(offset..offset.checked_add(4)?)?;
    Some(u32::from_le_bytes(field.try_into().ok()?))
}

fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    let field = bytes.get(offset..offset.checked_add(8)?)?;
    Some(u64::from_le_bytes(field.try_into().ok()?))
}

fn checksum(header: &[u8], index: &[u8]) -> u32 {
    let mut digest = CRC.digest();
    digest.update(header);
    digest.update(index);
    digest.finalize()
}

impl<'a> Directory<'a> {
    /// Bytes at the start of the archive that [`Directory::parse`] needs, from the first
    /// [`HEADER_SIZE`] bytes.
    ///
    /// # Errors
    ///
    /// [`ArchiveError`] names the first rule that the bytes break.
    pub fn head_len(header: &[u8]) -> Result<usize, ArchiveError> {
        let truncated = ArchiveError::Truncated {
            expected: HEADER_SIZE as u64,
            found: header.len() as u64,
        };
        let header = header.get(..HEADER_SIZE).ok_or(truncated)?;
        let mut magic = [0; 8];
        magic.copy_from_slice(header.get(..8).unwrap_or(&[0; 8]));
        if magic != MAGIC {
            return Err(ArchiveError::BadMagic(magic));
        }
        let version = u32_at(header, 8).ok_or(truncated)?;
        if version != VERSION {
            return Err(ArchiveError::UnknownVersion(version));
        }
        let index_len = u32_at(header, 24).ok_or(truncated)? as usize;
        HEADER_SIZE.checked_add(index_len).ok_or(truncated)
    }

    /// Checks `head`, the first [`Directory::head_len`] bytes or more of an archive that has
    /// `archive_len` bytes at hand, and every entry.
    ///
    /// # Errors
    ///
    /// [`ArchiveError`] names the first rule that the bytes break.
    pub fn parse(head: &'a [u8], archive_len: u64) -> Result<Self, ArchiveError> {
        let index_end = Self::head_len(head)?;
        let truncated = |expected: u64, found: u64| ArchiveError::Truncated { expected, found };
        let too_short = truncated(HEADER_SIZE as u64, head.len() as u64);
        let header = head.get(..HEADER_SIZE).ok_or(too_short)?;
        let count = u32_at(header, 12).ok_or(too_short)?;
        let total_len = u64_at(header, 16).ok_or(too_short)?;
        let expected_crc = u32_at(header, 28).ok_or(too_short)?;
        if total_len > archive_len {
            return Err(truncated(total_len, archive_len));
        }
        let index = head
            .get(HEADER_SIZE..index_end)
            .filter(|_| index_end as u64 <= total_len)
            .ok_or(truncated(
                index_end as u64,
                total_len.min(head.len() as u64),
            ))?;
        let found_crc = checksum(header.get(..28).unwrap_or(&[]), index);
        if found_crc != expected_crc {
            return Err(ArchiveError::BadCrc {
                expected: expected_crc,
                found: found_crc,
            });
        }
        let directory = Self {
            index,
            count,
            total_len: usize::try_from(total_len).map_err(|_| truncated(total_len, archive_len))?,
        };
        let mut previous: Option<&str> = None;
        for number in 0..count {
            let entry = directory
                .entry(number)
                .map_err(|reason| ArchiveError::BadEntry {
                    index: number,
                    reason,
                })?;
            if previous.is_some_and(|previous| previous >= entry.name) {
                return Err(ArchiveError::BadEntry {
                    index: number,
                    reason: "names are not sorted",
                });
            }
            previous = Some(entry.name);
        }
        Ok(directory)
    }

    fn entry(&self, number: u32) -> Result<Entry<'a>, &'static str> {
        const OUTSIDE_INDEX: &str = "entry is outside the index";
        const OUTSIDE_ARCHIVE: &str = "data is outside the archive";
        let start = (number as usize)
            .checked_mul(ENTRY_SIZE)
            .ok_or(OUTSIDE_INDEX)?;
        let end = start.checked_add(ENTRY_SIZE).ok_or(OUTSIDE_INDEX)?;
        let entry = self.index.get(start..end).ok_or(OUTSIDE_INDEX)?;
        let name_offset = u32_at(entry, 0).ok_or(OUTSIDE_INDEX)? as usize;
        let name_len = u32_at(entry, 4).ok_or(OUTSIDE_INDEX)? as usize;
        let data_offset = u64_at(entry, 8).ok_or(OUTSIDE_INDEX)?;
        let data_len = u64_at(entry, 16).ok_or(OUTSIDE_INDEX)?;
        let flags = u32_at(entry, 24).ok_or(OUTSIDE_INDEX)?;
        if name_len == 0 || name_len > MAX_NAME_LEN {
            return Err("name is empty or too long");
        }
        let name = name_offset
            .checked_add(name_len)
            .and_then(|end| self.index.get(name_offset..end))
            .ok_or("name is outside the index")?;
        let name = core::str::from_utf8(name).map_err(|_| "name is not UTF-8")?;
        let offset = usize::try_from(data_offset).map_err(|_| OUTSIDE_ARCHIVE)?;
        if !offset.is_multiple_of(PAGE_SIZE) {
            return Err("data is not page aligned");
        }
        let len = usize::try_from(data_len).map_err(|_| OUTSIDE_ARCHIVE)?;
        let inside = offset
            .checked_add(len)
            .is_some_and(|end| end <= self.total_len);
        if !inside {
            return Err(OUTSIDE_ARCHIVE);
        }
        Ok(Entry {
            name,
            offset,
            len,
            flags,
        })
    }

    /// Length of the whole archive in bytes.
    #[must_use]
    pub fn archive_len(&self) -> usize {
        self.total_len
    }

    /// Number of members.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there are no members.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Entry number `index`, counted in the order of names.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<Entry<'a>> {
        let number = u32::try_from(index).ok().filter(|n| *n < self.count)?;
        self.entry(number).ok()
    }

    /// All entries, sorted by name.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'a>> + '_ {
        (0..self.count).filter_map(|number| self.entry(number).ok())
    }

    /// The entry of that name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Entry<'a>> {
        let (mut low, mut high) = (0_usize, self.len());
        while low < high {
            let middle = low.midpoint(high);
            let entry = self.get(middle)?;
            match entry.name.cmp(name) {
                core::cmp::Ordering::Equal => return Some(entry),
                core::cmp::Ordering::Less => low = middle.saturating_add(1),
                core::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }
}

impl<'a> Archive<'a> {
    /// Checks `bytes` and every entry. Bytes after the archive's stated length
    /// are ignored.
    ///
    /// # Errors
    ///
    /// [`ArchiveError`] names the first rule that the bytes break.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ArchiveError> {
        let directory = Directory::parse(bytes, bytes.len() as u64)?;
        Ok(Self {
            bytes: bytes.get(..directory.total_len).unwrap_or(bytes),
            directory,
        })
    }

    fn member(&self, entry: Entry<'a>) -> Option<Member<'a>> {
        let end = entry.offset.checked_add(entry.len)?;
        Some(Member {
            name: entry.name,
            offset: entry.offset,
            data: self.bytes.get(entry.offset..end)?,
            flags: entry.flags,
        })
    }

    /// Number of members.
    #[must_use]
    pub fn len(&self) -> usize {
        self.directory.len()
    }

    /// Whether there are no members.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.directory.is_empty()
    }

    /// The archive's bytes, a whole number of pages.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Member number `index`, counted in the order of names.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<Member<'a>> {
        self.member(self.directory.get(index)?)
    }

    /// All members, sorted by name.
    pub fn members(&self) -> impl Iterator<Item = Member<'a>> + '_ {
        self.directory.entries().filter_map(|e| self.member(e))
    }

    /// The member of that name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Member<'a>> {
        self.member(self.directory.find(name)?)
    }
}

#[cfg(feature = "write")]
pub use writer::{WriteError, Writer};

#[cfg(feature = "write")]
mod writer {
    use super::{
        ENTRY_SIZE, FLAG_EXECUTABLE, HEADER_SIZE, MAGIC, MAX_NAME_LEN, PAGE_SIZE, VERSION, checksum,
    };
    use std::collections::BTreeMap;

    /// Why an archive cannot be written.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub enum WriteError {
        /// Empty, longer than [`MAX_NAME_LEN`] bytes, or with a leading slash.
        BadName(String),
        /// The name was added before.
        Duplicate(String),
        /// More entries or longer names than the header can state.
        IndexTooLarge,
    }

    impl core::fmt::Display for WriteError {
        fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
            match self {
                Self::BadName(name) => write!(f, "{name:?} cannot name an archive member"),
                Self::Duplicate(name) => write!(f, "{name:?} is in the archive already"),
                Self::IndexTooLarge => write!(f, "the archive's index is larger than 4 GiB"),
            }
        }
    }

    impl std::error::Error for WriteError {}

    /// Collects members and lays out an archive.
    #[derive(Debug, Default)]
    pub struct Writer {
        members: BTreeMap<String, (Vec<u8>, u32)>,
    }

    impl Writer {
        /// An archive without members.
        #[must_use]
        pub fn new() -> Self {
            Self::default()
        }

        /// Adds a data file.
        ///
        /// # Errors
        ///
        /// [`WriteError::BadName`] and [`WriteError::Duplicate`].
        pub fn add_file(&mut self, name: &str, data: Vec<u8>) -> Result<(), WriteError> {
            self.add(name, data, 0)
        }

        /// Adds a program.
        ///
        /// # Errors
        ///
        /// [`WriteError::BadName`] and [`WriteError::Duplicate`].
        pub fn add_program(&mut self, name: &str, data: Vec<u8>) -> Result<(), WriteError> {
            self.add(name, data, FLAG_EXECUTABLE)
        }

        fn add(&mut self, name: &str, data: Vec<u8>, flags: u32) -> Result<(), WriteError> {
            if name.is_empty() || name.len() > MAX_NAME_LEN || name.starts_with('/') {
                return Err(WriteError::BadName(name.to_owned()));
            }
            if self.members.contains_key(name) {
                return Err(WriteError::Duplicate(name.to_owned()));
            }
            self.members.insert(name.to_owned(), (data, flags));
            Ok(())
        }

        /// The archive's bytes; the same members always give the same bytes.
        ///
        /// # Errors
        ///
        /// [`WriteError::IndexTooLarge`].
        pub fn finish(self) -> Result<Vec<u8>, WriteError> {
            let names_len: usize = self.members.keys().map(String::len).sum();
            let index_len = self.members.len() * ENTRY_SIZE + names_len;
            let too_large = |_| WriteError::IndexTooLarge;
            let count = u32::try_from(self.members.len()).map_err(too_large)?;
            let mut index = Vec::with_capacity(index_len);
            let mut name_offset = self.members.len() * ENTRY_SIZE;
            let mut data_offset = (HEADER_SIZE + index_len).next_multiple_of(PAGE_SIZE);
            for (name, (data, flags)) in &self.members {
                let name_at = u32::try_from(name_offset).map_err(too_large)?;
                index.extend_from_slice(&name_at.to_le_bytes());
                index.extend_from_slice(&(name.len() as u32).to_le_bytes());
                index.extend_from_slice(&(data_offset as u64).to_le_bytes());
                index.extend_from_slice(&(data.len() as u64).to_le_bytes());
                index.extend_from_slice(&flags.to_le_bytes());
                index.extend_from_slice(&0_u32.to_le_bytes());
                name_offset += name.len();
                data_offset = (data_offset + data.len()).next_multiple_of(PAGE_SIZE);
            }
            for name in self.members.keys() {
                index.extend_from_slice(name.as_bytes());
            }
            let mut bytes = Vec::with_capacity(data_offset);
            bytes.extend_from_slice(&MAGIC);
            bytes.extend_from_slice(&VERSION.to_le_bytes());
            bytes.extend_from_slice(&count.to_le_bytes());
            bytes.extend_from_slice(&(data_offset as u64).to_le_bytes());
            let index_len = u32::try_from(index.len()).map_err(too_large)?;
            bytes.extend_from_slice(&index_len.to_le_bytes());
            let crc = checksum(&bytes, &index);
            bytes.extend_from_slice(&crc.to_le_bytes());
            bytes.extend_from_slice(&index);
            for (data, _) in self.members.values() {
                bytes.resize(bytes.len().next_multiple_of(PAGE_SIZE), 0);
                bytes.extend_from_slice(data);
            }
            bytes.resize(bytes.len().next_multiple_of(PAGE_SIZE), 0);
            Ok(bytes)
        }
    }
}

#[cfg(all(test, feature = "write"))]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let mut writer = Writer::new();
        writer.add_program("bin/ls", vec![0x7f; 5000]).unwrap();
        writer
            .add_file("etc/boot.cfg", b"root = x\n".to_vec())
            .unwrap();
        writer.add_program("bin/cat", vec![1; PAGE_SIZE]).unwrap();
        writer.add_file("etc/empty", Vec::new()).unwrap();
        writer.finish().unwrap()
    }

    /// Gives `bytes` the CRC that its header and index call for, so that a test
    /// reaches the checks behind it.
    fn reseal(bytes: &mut [u8]) {
        let index_len = u32_at(bytes, 24).unwrap() as usize;
        let crc = checksum(&bytes[..28], &bytes[HEADER_SIZE..HEADER_SIZE + index_len]);
        bytes[28..32].copy_from_slice(&crc.to_le_bytes());
    }

    #[test]
    fn members_come_back_sorted_aligned_and_whole() {
        let bytes = sample();
        let archive = Archive::parse(&bytes).unwrap();
        let names: Vec<_> = archive.members().map(|m| m.name).collect();
        assert_eq!(names, ["bin/cat", "bin/ls", "etc/boot.cfg", "etc/empty"]);
        for member in archive.members() {
            assert_eq!(member.offset % PAGE_SIZE, 0);
            assert_eq!(
                &bytes[member.offset..member.offset + member.data.len()],
                member.data
            );
        }
        let ls = archive.find("bin/ls").unwrap();
        assert_eq!(ls.data, vec![0x7f; 5000]);
        assert!(ls.is_executable());
        let config = archive.find("etc/boot.cfg").unwrap();
        assert_eq!(config.data, b"root = x\n");
        assert!(!config.is_executable());
        assert!(archive.find("bin/l").is_none());
        assert!(archive.find("zzz").is_none());
        assert_eq!(bytes.len() % PAGE_SIZE, 0);
    }

    #[test]
    fn an_empty_archive_is_valid() {
        let bytes = Writer::new().finish().unwrap();
        let archive = Archive::parse(&bytes).unwrap();
        assert!(archive.is_empty());
        assert!(archive.find("a").is_none());
    }

    #[test]
    fn trailing_bytes_are_ignored() {
        let mut bytes = sample();
        let len = bytes.len();
        bytes.extend_from_slice(&[0xaa; 100]);
        assert_eq!(Archive::parse(&bytes).unwrap().bytes().len(), len);
    }

    #[test]
    fn every_truncation_is_an_error() {
        let bytes = sample();
        for len in 0..bytes.len() {
            assert!(
                matches!(
                    Archive::parse(&bytes[..len]),
                    Err(ArchiveError::Truncated { .. })
                ),
                "length {len}"
            );
        }
    }

    #[test]
    fn every_bit_of_the_index_is_guarded() {
        let bytes = sample();
        let index_end = HEADER_SIZE + u32_at(&bytes, 24).unwrap() as usize;
        for position in 0..index_end {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[position] ^= 1 << bit;
                assert!(
                    Archive::parse(&damaged).is_err(),
                    "byte {position} bit {bit}"
                );
            }
        }
    }

    #[test]
    fn a_hostile_index_with_a_right_crc_never_panics() {
        let bytes = sample();
        let index_end = HEADER_SIZE + u32_at(&bytes, 24).unwrap() as usize;
        for position in 12..index_end {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut damaged = bytes.clone();
                damaged[position] = value;
                if u32_at(&damaged, 24) == u32_at(&bytes, 24) {
                    reseal(&mut damaged);
                }
                if let Ok(archive) = Archive::parse(&damaged) {
                    assert!(archive.members().count() <= archive.len());
                }
            }
        }
    }

    #[test]
    fn a_member_outside_the_archive_is_named() {
        let mut bytes = sample();
        let end = bytes.len() as u64;
        let at = HEADER_SIZE + ENTRY_SIZE + 8;
        bytes[at..at + 8].copy_from_slice(&end.to_le_bytes());
        reseal(&mut bytes);
        assert_eq!(
            Archive::parse(&bytes).unwrap_err(),
            ArchiveError::BadEntry {
                index: 1,
                reason: "data is outside the archive"
            }
        );
    }

    #[test]
    fn names_are_checked_when_written() {
        let mut writer = Writer::new();
        assert!(writer.add_file("", Vec::new()).is_err());
        assert!(writer.add_file("/abs", Vec::new()).is_err());
        assert!(writer.add_file(&"x".repeat(256), Vec::new()).is_err());
        writer.add_file("a", Vec::new()).unwrap();
        assert_eq!(
            writer.add_file("a", Vec::new()),
            Err(WriteError::Duplicate("a".into()))
        );
    }
}
