//! One inode: checked, and taken apart.

use alloc::vec::Vec;

use volume::{Attributes, FileKind, FsError, Timestamp, Volume};
use zerocopy::FromBytes;

use crate::{
    checksum::crc32c,
    layout::{RawAttribute, RawInode, RawInodeExtra},
    superblock::Geometry,
};

/// Number of the root directory's inode.
pub const ROOT: u32 = 2;

// i_flags.
const FLAG_COMPRESSED: u32 = 0x4;
const FLAG_ENCRYPTED: u32 = 0x800;
const FLAG_INDEX: u32 = 0x1000;
const FLAG_HUGE_FILE: u32 = 0x4_0000;
const FLAG_EXTENTS: u32 = 0x8_0000;
const FLAG_EA_INODE: u32 = 0x20_0000;
const FLAG_INLINE_DATA: u32 = 0x1000_0000;

/// Signature before the attributes inside an inode.
const ATTRIBUTE_MAGIC: u32 = 0xEA02_0000;
/// Name index of "system."; inline data is `system.data`.
const ATTRIBUTE_SYSTEM: u8 = 7;

/// How a file's blocks are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mapping {
    /// Extent tree, rooted in the inode.
    Extents,
    /// Block pointers, direct and indirect.
    Pointers,
    /// The contents stand in the inode.
    Inline,
}

/// An inode's contents.
pub struct Inode {
    pub number: u32,
    pub attributes: Attributes,
    pub mapping: Mapping,
    /// The 60 bytes that hold pointers, the root of the extent tree, or a target.
    pub block: [u8; 60],
    /// Contents, if [`Mapping::Inline`].
    pub inline: Vec<u8>,
    /// Seed of the checksums of what belongs to this inode.
    pub checksum_seed: Option<u32>,
    /// The directory has a hashed index.
    pub indexed: bool,
}

impl Inode {
    /// Reads and checks inode `number`.
    pub async fn read(
        volume: &impl Volume,
        geometry: &Geometry,
        number: u32,
    ) -> Result<Self, FsError> {
        let offset = geometry.inode_offset(number)?;
        if number < geometry.first_inode && number != ROOT {
            let least = geometry.first_inode.into();
            return Err(corrupt(
                number,
                "a reserved inode has a name",
                least,
                number.into(),
            ));
        }
        let mut bytes = alloc::vec![0; usize::from(geometry.inode_bytes)];
        volume.read_at(offset, &mut bytes).await?;
        Self::parse(geometry, number, &bytes)
    }

    fn parse(geometry: &Geometry, number: u32, bytes: &[u8]) -> Result<Self, FsError> {
        let short = || corrupt(number, "too short", 128, bytes.len() as u64);
        let (raw, rest) = RawInode::ref_from_prefix(bytes).map_err(|_| short())?;
        let extra_bytes = match RawInodeExtra::ref_from_prefix(rest) {
            Ok((extra, _)) => usize::from(extra.extra_size.get()),
            Err(_) => 0,
        };
        if extra_bytes > rest.len() || extra_bytes % 4 != 0 {
            let (expected, seen) = (rest.len() as u64, extra_bytes as u64);
            return Err(corrupt(number, "extra_isize out of range", expected, seen));
        }
        // A field of the extra part counts only if extra_isize covers it.
        let mut extra_part = [0; size_of::<RawInodeExtra>()];
        for (to, from) in extra_part.iter_mut().zip(rest.iter().take(extra_bytes)) {
            *to = *from;
        }
        let extra = RawInodeExtra::ref_from_bytes(&extra_part).map_err(|_| short())?;
        let checksum_seed = check_checksum(geometry, number, raw, extra_bytes, bytes)?;

        let mode = raw.mode.get();
        let links = raw.links.get();
        if links == 0 || mode == 0 {
            return Err(corrupt(number, "a free inode has a name", 1, links.into()));
        }
        let kind = match mode >> 12 {
            0x1 => FileKind::Fifo,
            0x2 => FileKind::CharacterDevice,
            0x4 => FileKind::Directory,
            0x6 => FileKind::BlockDevice,
            0x8 => FileKind::File,
            0xA => FileKind::Symlink,
            0xC => FileKind::Socket,
            other => {
                return Err(corrupt(
                    number,
                    "mode names no kind of file",
                    8,
                    other.into(),
                ));
            }
        };
        let flags = raw.flags.get();
        for (flag, what) in [
            (FLAG_COMPRESSED, "compressed file"),
            (FLAG_ENCRYPTED, "encrypted file"),
            (FLAG_EA_INODE, "inode that holds an attribute's value"),
        ] {
            if flags & flag != 0 {
                return Err(FsError::Unsupported {
                    what,
                    seen: number.into(),
                });
            }
        }
        let large =
            kind == FileKind::File || (kind == FileKind::Directory && geometry.large_directories);
        let size_high = if large { raw.size_high.get() } else { 0 };
        let size_bytes = u64::from(raw.size_low.get()) | u64::from(size_high) << 32;
        // Logical block numbers have 32 bits.
        let size_max = u64::from(geometry.block_bytes) << 32;
        if size_bytes > size_max {
            return Err(corrupt(
                number,
                "size beyond the largest file",
                size_max,
                size_bytes,
            ));
        }
        let sectors = u64::from(raw.blocks_low.get()) | u64::from(raw.blocks_high.get()) << 32;
        let unit = if flags & FLAG_HUGE_FILE != 0 {
            u64::from(geometry.block_bytes)
        } else {
            512
        };
        let attribute_block = raw.file_acl_low.get() != 0 || raw.file_acl_high.get() != 0;
        let attribute_sectors = if attribute_block {
            u64::from(geometry.block_bytes / 512)
        } else {
            0
        };
        let fast_symlink = kind == FileKind::Symlink
            && flags & (FLAG_EXTENTS | FLAG_INLINE_DATA) == 0
            && size_bytes < 60
            && sectors <= attribute_sectors;

        let mapping = if flags & FLAG_INLINE_DATA != 0 || fast_symlink {
            Mapping::Inline
        } else if flags & FLAG_EXTENTS != 0 {
            Mapping::Extents
        } else {
            Mapping::Pointers
        };
        let inline = if fast_symlink {
            raw.block
                .get(..size_bytes as usize)
                .unwrap_or_default()
                .to_vec()
        } else if mapping == Mapping::Inline {
            let mut data = raw.block.to_vec();
            data.extend_from_slice(inline_rest(number, rest.get(extra_bytes..).unwrap_or(&[]))?);
            if size_bytes > data.len() as u64 {
                let expected = data.len() as u64;
                return Err(corrupt(
                    number,
                    "size beyond its inline data",
                    expected,
                    size_bytes,
                ));
            }
            data
        } else {
            Vec::new()
        };
        let device = matches!(kind, FileKind::CharacterDevice | FileKind::BlockDevice)
            .then(|| device_number(&raw.block));
        let attributes = Attributes {
            node: number.into(),
            kind,
            permissions: mode & 0o7777,
            links: links.into(),
            user: u32::from(raw.user_low.get()) | u32::from(raw.user_high.get()) << 16,
            group: u32::from(raw.group_low.get()) | u32::from(raw.group_high.get()) << 16,
            size_bytes,
            allocated_bytes: sectors.saturating_mul(unit),
            block_bytes: geometry.block_bytes,
            device,
            accessed: timestamp(raw.accessed.get(), extra.accessed_extra.get()),
            modified: timestamp(raw.modified.get(), extra.modified_extra.get()),
            changed: timestamp(raw.changed.get(), extra.changed_extra.get()),
            created: (extra_bytes >= 24)
                .then(|| timestamp(extra.created.get(), extra.created_extra.get())),
        };
        Ok(Self {
            number,
            attributes,
            mapping,
            block: raw.block,
            inline,
            checksum_seed,
            indexed: flags & FLAG_INDEX != 0,
        })
    }
}

/// Verifies the inode's checksum; returns the seed for what belongs to it.
fn check_checksum(
    geometry: &Geometry,
    number: u32,
    raw: &RawInode,
    extra_bytes: usize,
    bytes: &[u8],
) -> Result<Option<u32>, FsError> {
    let Some(seed) = geometry.checksum_seed else {
        return Ok(None);
    };
    let seed = crc32c(seed, &number.to_le_bytes());
    let seed = crc32c(seed, &raw.generation.get().to_le_bytes());
    // The two halves of the checksum count as zero: bytes 124 and 130.
    let has_high = extra_bytes >= 4;
    let part = |from: usize, to: usize| bytes.get(from..to.min(bytes.len())).unwrap_or_default();
    let mut computed = crc32c(seed, part(0, 124));
    computed = crc32c(computed, &[0, 0]);
    let mut stored = u32::from(raw.checksum_low.get());
    if has_high {
        computed = crc32c(computed, part(126, 130));
        computed = crc32c(computed, &[0, 0]);
        computed = crc32c(computed, part(132, bytes.len()));
        let high = part(130, 132)
            .first_chunk::<2>()
            .map_or(0, |half| u16::from_le_bytes(*half));
        stored |= u32::from(high) << 16;
    } else {
        computed = crc32c(computed, part(126, bytes.len())) & 0xFFFF;
    }
    if computed == stored {
        Ok(Some(seed))
    } else {
        Err(corrupt(
            number,
            "checksum mismatch",
            computed.into(),
            stored.into(),
        ))
    }
}

/// The part of inline data behind the first 60 bytes: attribute `system.data`.
fn inline_rest(number: u32, attributes: &[u8]) -> Result<&[u8], FsError> {
    let Some((magic, entries)) = attributes.split_first_chunk::<4>() else {
        return Ok(&[]);
    };
    if u32::from_le_bytes(*magic) != ATTRIBUTE_MAGIC {
        return Ok(&[]);
    }
    let mut at = entries;
    // Ends at a zero word; each step takes at least 16 bytes.
    while at.first_chunk::<4>().is_some_and(|word| *word != [0; 4]) {
        let bad = |seen: usize| {
            let (limit, problem) = (entries.len() as u64, "attribute outside the inode");
            corrupt(number, problem, limit, seen as u64)
        };
        let (entry, rest) = RawAttribute::ref_from_prefix(at).map_err(|_| bad(at.len()))?;
        let name_len = usize::from(entry.name_len);
        let name = rest.get(..name_len).ok_or(bad(name_len))?;
        if entry.name_index == ATTRIBUTE_SYSTEM && name == b"data" {
            let start = usize::from(entry.value_offset.get());
            let len = entry.value_size.get() as usize;
            let value = start
                .checked_add(len)
                .and_then(|end| entries.get(start..end));
            return if len == 0 {
                Ok(&[])
            } else {
                value.ok_or(bad(len))
            };
        }
        at = rest.get(name_len.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(&[])
}

/// Seconds and the extra word: two high bits of the seconds, then nanoseconds
/// ("Inode Timestamps").
fn timestamp(seconds: u32, extra: u32) -> Timestamp {
    let seconds = i64::from(seconds.cast_signed()) + (i64::from(extra & 3) << 32);
    Timestamp {
        seconds,
        nanoseconds: (extra >> 2).min(999_999_999),
    }
}

/// Old encoding in the first pointer, else the new one in the second.
fn device_number(block: &[u8; 60]) -> (u32, u32) {
    let word = |at: usize| {
        block
            .get(at..)
            .and_then(|b| b.first_chunk::<4>())
            .map_or(0, |b| u32::from_le_bytes(*b))
    };
    let (old, new) = (word(0), word(4));
    if old != 0 {
        (old >> 8 & 0xFF, old & 0xFF)
    } else {
        (new >> 8 & 0xFFF, new & 0xFF | new >> 12 & 0xFFF00)
    }
}

fn corrupt(number: u32, problem: &'static str, expected: u64, seen: u64) -> FsError {
    FsError::corrupt("inode", number.into(), problem, expected, seen)
}
