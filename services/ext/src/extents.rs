//! Extent trees ("Extent Tree"): from the node in the inode down to the leaf
//! that covers a block. A leaf goes into the file's block map whole.

use alloc::vec::Vec;
use core::cell::RefCell;

use volume::{FsError, Volume};
use zerocopy::FromBytes;

use crate::{
    blockmap::{BlockMap, BlockRun},
    checksum::crc32c,
    inode::Inode,
    layout::{RawExtent, RawExtentHeader, RawExtentIndex},
    superblock::Geometry,
};

const MAGIC: u16 = 0xF30A;
/// Deepest tree that the format allows.
const DEPTH_MAX: u16 = 5;
/// Longest written extent; above it the extent is unwritten.
const LEN_WRITTEN_MAX: u16 = 32768;
const ENTRY_BYTES: usize = 12;

/// Makes the run that covers `logical` known in `map`.
pub async fn resolve(
    volume: &impl Volume,
    geometry: &Geometry,
    inode: &Inode,
    map: &RefCell<BlockMap>,
    logical: u64,
) -> Result<(), FsError> {
    let mut node: Vec<u8> = inode.block.to_vec();
    // Blocks of the file that this node may speak of.
    let mut range = (0u64, 1u64 << 32);
    let mut depth_expected = None;
    loop {
        let (depth, entries) = check_node(inode.number, &node, depth_expected)?;
        if depth == 0 {
            let mut map = map.borrow_mut();
            // Another reader may have been here while this one waited.
            if map.get(logical).is_some() {
                return Ok(());
            }
            return insert_leaf(geometry, inode.number, entries, range, &mut map);
        }
        let (child, child_range) = find_child(inode.number, entries, range, logical)?;
        let Some(child) = child else {
            // Before the first entry: nothing is mapped there.
            let run = BlockRun {
                logical: child_range.0,
                len: child_range.1 - child_range.0,
                physical: None,
            };
            let mut map = map.borrow_mut();
            return if map.get(logical).is_some() {
                Ok(())
            } else {
                map.insert(run, inode.number)
            };
        };
        geometry.check_file_blocks(child, 1, inode.number)?;
        node.resize(geometry.block_bytes as usize, 0);
        volume.read_at(geometry.offset_of(child), &mut node).await?;
        check_tail(inode, child, &node)?;
        range = child_range;
        depth_expected = Some(depth - 1);
    }
}

/// Checks a node's head; returns its depth and the bytes of its entries.
fn check_node(
    inode: u32,
    node: &[u8],
    depth_expected: Option<u16>,
) -> Result<(u16, &[u8]), FsError> {
    let (header, rest) = RawExtentHeader::ref_from_prefix(node)
        .map_err(|_| corrupt(inode, "extent node too short", 12, node.len() as u64))?;
    let magic = header.magic.get();
    if magic != MAGIC {
        return Err(corrupt(
            inode,
            "extent node without signature",
            MAGIC.into(),
            magic.into(),
        ));
    }
    let (entries, max) = (header.entries.get(), header.max.get());
    let room = rest.len() / ENTRY_BYTES;
    if usize::from(max) > room {
        return Err(corrupt(
            inode,
            "extent node larger than its place",
            room as u64,
            max.into(),
        ));
    }
    if entries > max {
        let problem = "extent node with more entries than fit";
        return Err(corrupt(inode, problem, max.into(), entries.into()));
    }
    let depth = header.depth.get();
    match depth_expected {
        Some(expected) if expected != depth => {
            return Err(corrupt(
                inode,
                "depth of extent node",
                expected.into(),
                depth.into(),
            ));
        }
        None if depth > DEPTH_MAX => {
            return Err(corrupt(
                inode,
                "extent tree too deep",
                DEPTH_MAX.into(),
                depth.into(),
            ));
        }
        _ => {}
    }
    if depth > 0 && entries == 0 {
        return Err(corrupt(inode, "inner extent node without entries", 1, 0));
    }
    let bytes = rest
        .get(..usize::from(entries) * ENTRY_BYTES)
        .unwrap_or_default();
    Ok((depth, bytes))
}

/// The child that covers `logical` and the blocks that it may speak of; no
/// child, and the range of the hole, if `logical` lies before the first.
fn find_child(
    inode: u32,
    entries: &[u8],
    range: (u64, u64),
    logical: u64,
) -> Result<(Option<u64>, (u64, u64)), FsError> {
    let mut found = (None, range);
    let mut previous: Option<u64> = None;
    for bytes in entries.chunks_exact(ENTRY_BYTES) {
        let Ok(entry) = RawExtentIndex::ref_from_bytes(bytes) else {
            continue;
        };
        let first = u64::from(entry.logical.get());
        let ordered = previous.is_none_or(|previous| previous < first);
        if !ordered || first < range.0 || first >= range.1 {
            let expected = previous.unwrap_or(range.0);
            return Err(corrupt(inode, "extent index out of order", expected, first));
        }
        previous = Some(first);
        if first > logical {
            found.1.1 = first;
            break;
        }
        let child = u64::from(entry.child_low.get()) | u64::from(entry.child_high.get()) << 32;
        found = (Some(child), (first, range.1));
    }
    Ok(found)
}

/// Enters all extents of a leaf, and the holes between them.
fn insert_leaf(
    geometry: &Geometry,
    inode: u32,
    entries: &[u8],
    range: (u64, u64),
    map: &mut BlockMap,
) -> Result<(), FsError> {
    let hole = |from: u64, to: u64| BlockRun {
        logical: from,
        len: to - from,
        physical: None,
    };
    let mut at = range.0;
    for bytes in entries.chunks_exact(ENTRY_BYTES) {
        let Ok(entry) = RawExtent::ref_from_bytes(bytes) else {
            continue;
        };
        let logical = u64::from(entry.logical.get());
        let coded = entry.len.get();
        let unwritten = coded > LEN_WRITTEN_MAX;
        let len = u64::from(if unwritten {
            coded - LEN_WRITTEN_MAX
        } else {
            coded
        });
        if len == 0 {
            return Err(corrupt(
                inode,
                "extent of length 0 at file block",
                1,
                logical,
            ));
        }
        if logical < at {
            let problem = "extents overlap: two cover the same block of the file";
            return Err(corrupt(inode, problem, at, logical));
        }
        if logical + len > range.1 {
            return Err(corrupt(
                inode,
                "extent beyond its node's range",
                range.1,
                logical + len,
            ));
        }
        let start = u64::from(entry.start_low.get()) | u64::from(entry.start_high.get()) << 32;
        geometry.check_file_blocks(start, len, inode)?;
        if logical > at {
            map.insert(hole(at, logical), inode)?;
        }
        let physical = (!unwritten).then_some(start);
        map.insert(
            BlockRun {
                logical,
                len,
                physical,
            },
            inode,
        )?;
        at = logical + len;
    }
    if at < range.1 {
        map.insert(hole(at, range.1), inode)?;
    }
    Ok(())
}

/// Verifies the checksum behind the last entry that would fit.
fn check_tail(inode: &Inode, block: u64, node: &[u8]) -> Result<(), FsError> {
    let Some(seed) = inode.checksum_seed else {
        return Ok(());
    };
    let max = RawExtentHeader::ref_from_prefix(node).map_or(0, |(header, _)| header.max.get());
    let covered = size_of::<RawExtentHeader>() + usize::from(max) * ENTRY_BYTES;
    let (Some(body), Some(stored)) = (
        node.get(..covered),
        node.get(covered..).and_then(|tail| tail.first_chunk::<4>()),
    ) else {
        return Err(corrupt(
            inode.number,
            "no room for the extent node's checksum",
            340,
            max.into(),
        ));
    };
    let (computed, stored) = (crc32c(seed, body), u32::from_le_bytes(*stored));
    if computed == stored {
        return Ok(());
    }
    let problem = "checksum mismatch";
    Err(FsError::corrupt(
        "extent node in block",
        block,
        problem,
        computed.into(),
        stored.into(),
    ))
}

fn corrupt(inode: u32, problem: &'static str, expected: u64, seen: u64) -> FsError {
    FsError::corrupt("inode", inode.into(), problem, expected, seen)
}
