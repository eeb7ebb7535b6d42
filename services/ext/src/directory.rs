//! Entries of directories ("Directory Entries"). Blocks of a hashed index look
//! like blocks of unused entries and are passed over as such.

use core::ops::ControlFlow;

use volume::{DirectoryEntry, FileKind, FsError};
use zerocopy::FromBytes;

use crate::{checksum::crc32c, inode::Inode, layout::RawDirectoryEntry, superblock::Geometry};

const HEAD_BYTES: usize = size_of::<RawDirectoryEntry>();
/// The last entry of a block with a checksum: 8 bytes of an unused entry whose
/// kind is this, then the checksum.
const TAIL_KIND: u8 = 0xDE;
const TAIL_BYTES: usize = 12;

/// Verifies a directory block's checksum, if it has one.
pub fn check_tail(inode: &Inode, block_number: u64, block: &[u8]) -> Result<(), FsError> {
    let Some(seed) = inode.checksum_seed else {
        return Ok(());
    };
    let Some((body, tail)) = block.split_last_chunk::<TAIL_BYTES>() else {
        return Ok(());
    };
    let [0, 0, 0, 0, 12, 0, 0, TAIL_KIND, a, b, c, d] = *tail else {
        // Blocks of the index keep theirs elsewhere; others must have it.
        if inode.indexed {
            return Ok(());
        }
        let (problem, seen) = ("no checksum", u64::from(tail.get(7).copied().unwrap_or(0)));
        let error = FsError::corrupt;
        return Err(error(
            "directory block",
            block_number,
            problem,
            TAIL_KIND.into(),
            seen,
        ));
    };
    let (computed, stored) = (crc32c(seed, body), u32::from_le_bytes([a, b, c, d]));
    if computed == stored {
        return Ok(());
    }
    let (expected, seen) = (computed.into(), stored.into());
    Err(FsError::corrupt(
        "directory block",
        block_number,
        "checksum mismatch",
        expected,
        seen,
    ))
}

/// Where a stretch of entries lies, for resuming and for messages.
#[derive(Clone, Copy)]
pub struct Stretch {
    /// Position of its first byte in the directory.
    pub position: u64,
    /// Entries before this position were handed over earlier.
    pub from: u64,
    /// Block number, or the inode for entries that stand in it.
    pub block: u64,
}

/// Hands over the entries of one block. Breaks with the position of the entry
/// that `sink` did not take.
pub fn scan(
    geometry: &Geometry,
    bytes: &[u8],
    stretch: Stretch,
    sink: &mut dyn FnMut(DirectoryEntry<'_>) -> ControlFlow<()>,
) -> Result<ControlFlow<u64>, FsError> {
    let mut at = 0usize;
    while at < bytes.len() {
        let bad = |problem, expected: usize, seen: usize| {
            let number = stretch.block;
            FsError::corrupt(
                "directory block",
                number,
                problem,
                expected as u64,
                seen as u64,
            )
        };
        let rest = bytes.get(at..).unwrap_or_default();
        let (head, after) = RawDirectoryEntry::ref_from_prefix(rest)
            .map_err(|_| bad("entry cut off", HEAD_BYTES, rest.len()))?;
        let coded = usize::from(head.entry_len.get());
        // A block of 64 KiB does not fit the field.
        let whole = bytes.len() == 65536 && matches!(coded, 0 | 65535);
        let len = if whole { bytes.len() } else { coded };
        if len < HEAD_BYTES + 4 || !len.is_multiple_of(4) {
            return Err(bad("length of an entry (rec_len)", HEAD_BYTES + 4, len));
        }
        if len > rest.len() {
            return Err(bad(
                "entry reaches beyond its block (rec_len)",
                rest.len(),
                len,
            ));
        }
        let inode = head.inode.get();
        let position = stretch.position + at as u64;
        let next = position + len as u64;
        at += len;
        if inode == 0 || position < stretch.from {
            continue;
        }
        // Revision 0 has 16 bits of name length and no kind.
        let name_len = usize::from(head.name_len);
        if name_len + HEAD_BYTES > len {
            return Err(bad(
                "name longer than its entry",
                len - HEAD_BYTES,
                name_len,
            ));
        }
        let name = after.get(..name_len).unwrap_or_default();
        if name == b"." || name == b".." {
            continue;
        }
        if name.is_empty() || name.iter().any(|byte| matches!(byte, 0 | b'/')) {
            return Err(bad("a name that is empty or holds '/' or NUL", 1, name_len));
        }
        if inode > geometry.inodes {
            return Err(bad(
                "entry names an inode out of range",
                geometry.inodes as usize,
                inode as usize,
            ));
        }
        let kind = match head.kind {
            _ if !geometry.kinds_in_directories => FileKind::Unknown,
            1 => FileKind::File,
            2 => FileKind::Directory,
            3 => FileKind::CharacterDevice,
            4 => FileKind::BlockDevice,
            5 => FileKind::Fifo,
            6 => FileKind::Socket,
            7 => FileKind::Symlink,
            _ => FileKind::Unknown,
        };
        if sink(DirectoryEntry {
            name,
            node: inode.into(),
            kind,
            next,
        })
        .is_break()
        {
            return Ok(ControlFlow::Break(position));
        }
    }
    Ok(ControlFlow::Continue(()))
}
