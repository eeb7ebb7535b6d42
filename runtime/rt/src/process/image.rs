//! What a loader needs of an ELF executable's head. Everything in it is checked here; the file may be
//! anybody's.
//!
//! ELF-64 object file format, version 1.5, and the x86-64 psABI. Only statically linked executables
//! (`ET_EXEC`) whose segments do not share pages.

use alloc::vec::Vec;
use core::fmt;

use sys::abi::{PAGE_SIZE, SYSTEM_INFO_ADDR, USER_MIN};

/// Bytes from the start of a file that [`Image::parse`] looks at: headers beyond are refused.
pub const HEAD_BYTES: usize = 4096;
/// Most loadable segments.
const SEGMENTS_MAX: usize = 16;
/// Bytes of the ELF header.
const HEADER_BYTES: usize = 64;
/// Bytes of a program header.
const PROGRAM_HEADER_BYTES: usize = 56;

const PT_LOAD: u32 = 1;
const PF_X: u32 = 1;
const PF_W: u32 = 2;

/// Why a file is not a program that can be loaded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ImageError {
    /// It is shorter than its headers.
    Truncated,
    /// It does not start as ELF files do.
    NotElf,
    /// It is not a 64-bit little-endian executable for this machine: type and machine seen.
    NotForThisMachine {
        /// `e_type`.
        kind: u16,
        /// `e_machine`.
        machine: u16,
    },
    /// Its program headers are not where or as many as they can be.
    Headers,
    /// A segment is writable and executable.
    WritableCode,
    /// A segment lies outside of the file or of what a process can map, or segments overlap, or are
    /// not page-aligned: its address.
    Segment(u64),
    /// The entry is in no executable segment.
    Entry(u64),
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ImageError::Truncated => f.write_str("program file is truncated"),
            ImageError::NotElf => f.write_str("not an ELF file"),
            ImageError::NotForThisMachine { kind, machine } => {
                write!(
                    f,
                    "not an executable for this machine (type {kind}, machine {machine})"
                )
            }
            ImageError::Headers => f.write_str("program headers are out of place"),
            ImageError::WritableCode => f.write_str("a segment is writable and executable"),
            ImageError::Segment(at) => write!(f, "segment at {at:#x} cannot be mapped"),
            ImageError::Entry(at) => write!(f, "entry {at:#x} is not in a code segment"),
        }
    }
}

impl core::error::Error for ImageError {}

/// What a segment is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SegmentKind {
    /// Read-only data.
    Constants,
    /// Code.
    Code,
    /// Writable data.
    Data,
}

/// A loadable segment; checked so that the sums below cannot overflow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    /// Kind.
    pub kind: SegmentKind,
    /// First byte in the file.
    pub offset: u64,
    /// Bytes in the file.
    pub file_len: usize,
    /// Address.
    pub address: usize,
    /// Bytes in memory, at least those in the file; the rest is zero.
    pub memory_len: usize,
}

impl Segment {
    /// First page.
    pub fn page_start(&self) -> usize {
        self.address / PAGE_SIZE * PAGE_SIZE
    }
    /// End of the last page.
    pub fn page_end(&self) -> usize {
        (self.address + self.memory_len).next_multiple_of(PAGE_SIZE)
    }
    /// Offset in the file of the first page.
    pub fn page_offset(&self) -> u64 {
        self.offset - (self.address % PAGE_SIZE) as u64
    }
}

/// A program's layout.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Image {
    /// First instruction.
    pub entry: usize,
    /// Loadable segments in order of their address, not sharing pages.
    pub segments: Vec<Segment>,
}

struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn bytes<const N: usize>(&self, at: usize) -> Result<[u8; N], ImageError> {
        let end = at.checked_add(N).ok_or(ImageError::Truncated)?;
        let bytes = self.0.get(at..end).ok_or(ImageError::Truncated)?;
        bytes.try_into().map_err(|_| ImageError::Truncated)
    }
    fn u16(&self, at: usize) -> Result<u16, ImageError> {
        self.bytes(at).map(u16::from_le_bytes)
    }
    fn u32(&self, at: usize) -> Result<u32, ImageError> {
        self.bytes(at).map(u32::from_le_bytes)
    }
    fn u64(&self, at: usize) -> Result<u64, ImageError> {
        self.bytes(at).map(u64::from_le_bytes)
    }
}

impl Image {
    /// Reads the layout from the first [`HEAD_BYTES`] of a file (or all of a shorter one) of
    /// `file_len` bytes.
    pub fn parse(head: &[u8], file_len: u64) -> Result<Image, ImageError> {
        let fields = Fields(head);
        // e_ident: magic, 64 bits (2), little-endian (1), version 1.
        if fields.bytes::<4>(0)? != *b"\x7fELF" {
            return Err(ImageError::NotElf);
        }
        let (kind, machine) = (fields.u16(16)?, fields.u16(18)?);
        const ET_EXEC: u16 = 2;
        const EM_X86_64: u16 = 62;
        if fields.bytes::<3>(4)? != [2, 1, 1] || kind != ET_EXEC || machine != EM_X86_64 {
            return Err(ImageError::NotForThisMachine { kind, machine });
        }
        let entry = fields.u64(24)?;
        let headers = usize::try_from(fields.u64(32)?).map_err(|_| ImageError::Headers)?;
        let (size, count) = (fields.u16(54)?, usize::from(fields.u16(56)?));
        if usize::from(size) != PROGRAM_HEADER_BYTES
            || !(HEADER_BYTES..=HEAD_BYTES).contains(&headers)
            || count > HEAD_BYTES / PROGRAM_HEADER_BYTES
        {
            return Err(ImageError::Headers);
        }

        let mut segments: Vec<Segment> = Vec::new();
        for i in 0..count {
            let at = headers + i * PROGRAM_HEADER_BYTES;
            if fields.u32(at)? != PT_LOAD {
                continue;
            }
            let flags = fields.u32(at + 4)?;
            let (offset, address) = (fields.u64(at + 8)?, fields.u64(at + 16)?);
            let (in_file, in_memory) = (fields.u64(at + 32)?, fields.u64(at + 40)?);
            if in_memory == 0 {
                continue;
            }
            let kind = match flags & (PF_W | PF_X) {
                0 => SegmentKind::Constants,
                PF_X => SegmentKind::Code,
                PF_W => SegmentKind::Data,
                _ => return Err(ImageError::WritableCode),
            };
            let wrong = ImageError::Segment(address);
            let page = PAGE_SIZE as u64;
            let end = address.checked_add(in_memory).ok_or(wrong)?;
            let file_end = offset.checked_add(in_file).ok_or(wrong)?;
            let mapped_from_file = kind != SegmentKind::Data;
            if address < USER_MIN as u64
                || end > SYSTEM_INFO_ADDR as u64
                || in_file > in_memory
                || file_end > file_len
                || offset % page != address % page
                || (mapped_from_file && in_file != in_memory)
            {
                return Err(wrong);
            }
            let segment = Segment {
                kind,
                offset,
                file_len: usize::try_from(in_file).map_err(|_| wrong)?,
                address: usize::try_from(address).map_err(|_| wrong)?,
                memory_len: usize::try_from(in_memory).map_err(|_| wrong)?,
            };
            let previous_end = segments.last().map_or(0, Segment::page_end);
            if segment.page_start() < previous_end || segments.len() == SEGMENTS_MAX {
                return Err(wrong);
            }
            segments.push(segment);
        }

        let in_code = |s: &Segment| {
            s.kind == SegmentKind::Code
                && (s.address as u64..(s.address + s.memory_len) as u64).contains(&entry)
        };
        if !segments.iter().any(in_code) {
            return Err(ImageError::Entry(entry));
        }
        let entry = usize::try_from(entry).map_err(|_| ImageError::Entry(entry))?;
        Ok(Image { entry, segments })
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    /// An executable that the host's linker made, and what `readelf` says of it.
    fn linked() -> Option<(Vec<u8>, String)> {
        static CALLS: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let call = CALLS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("image-test-{}-{call}", std::process::id()));
        std::fs::create_dir_all(&dir).ok()?;
        let (source, program) = (dir.join("a.c"), dir.join("a"));
        let text = "int data = 5; int zero[3000]; const int c[4] = {1, 2, 3, 4};\n\
                    void _start(void) { zero[data] = c[data & 3]; for (;;); }\n";
        std::fs::write(&source, text).ok()?;
        let status = Command::new("gcc")
            .args(["-static", "-nostdlib", "-no-pie", "-Wl,--build-id=none"])
            .args([
                "-Wl,-z,separate-code,-z,max-page-size=4096,-z,noexecstack",
                "-o",
            ])
            .arg(&program)
            .arg(&source)
            .status()
            .ok()?;
        assert!(status.success());
        let readelf = Command::new("readelf")
            .args(["-hlW"])
            .arg(&program)
            .output()
            .ok()?;
        let bytes = std::fs::read(&program).ok()?;
        let _ = std::fs::remove_dir_all(&dir);
        Some((bytes, String::from_utf8(readelf.stdout).ok()?))
    }

    fn hex(text: &str) -> u64 {
        u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap()
    }

    #[test]
    fn agrees_with_readelf() {
        let Some((bytes, said)) = linked() else {
            eprintln!("not run: no gcc or readelf");
            return;
        };
        let head = &bytes[..bytes.len().min(HEAD_BYTES)];
        let image = Image::parse(head, bytes.len() as u64).unwrap();
        let loads: Vec<Vec<&str>> = said
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .filter(|words| words.first() == Some(&"LOAD"))
            .collect();
        assert!(loads.len() >= 3);
        assert_eq!(image.segments.len(), loads.len());
        for (segment, words) in image.segments.iter().zip(&loads) {
            assert_eq!(segment.offset, hex(words[1]));
            assert_eq!(segment.address as u64, hex(words[2]));
            assert_eq!(segment.file_len as u64, hex(words[4]));
            assert_eq!(segment.memory_len as u64, hex(words[5]));
            let flags = words[6..words.len() - 1].concat();
            let kind = match flags.as_str() {
                "R" => SegmentKind::Constants,
                "RE" => SegmentKind::Code,
                "RW" => SegmentKind::Data,
                other => panic!("flags {other}"),
            };
            assert_eq!(segment.kind, kind);
        }
        let entry = said
            .lines()
            .find_map(|l| l.trim().strip_prefix("Entry point address:"));
        assert_eq!(image.entry as u64, hex(entry.unwrap().trim()));
    }

    proptest! {
        #[test]
        fn random_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Image::parse(&bytes, bytes.len() as u64);
        }

        #[test]
        fn what_is_accepted_can_be_mapped(
            changes in proptest::collection::vec((0usize..400, any::<u8>()), 1..6),
        ) {
            static LINKED: std::sync::OnceLock<Option<Vec<u8>>> = std::sync::OnceLock::new();
            let Some(bytes) = LINKED.get_or_init(|| linked().map(|(b, _)| b)) else {
                return Ok(());
            };
            let mut head = bytes[..bytes.len().min(HEAD_BYTES)].to_vec();
            for (at, byte) in changes {
                if let Some(place) = head.get_mut(at) {
                    *place = byte;
                }
            }
            let file_len = bytes.len() as u64;
            if let Ok(image) = Image::parse(&head, file_len) {
                let mut last = 0;
                for s in &image.segments {
                    prop_assert!(s.page_start() >= last && s.page_start() >= USER_MIN);
                    prop_assert!(s.page_end() > s.page_start() && s.page_end() <= SYSTEM_INFO_ADDR);
                    prop_assert!(s.offset + s.file_len as u64 <= file_len);
                    prop_assert!(s.page_offset().is_multiple_of(PAGE_SIZE as u64));
                    last = s.page_end();
                }
            }
        }
    }
}
