//! Block pointers ("Direct/Indirect Block Addressing"): twelve direct ones,
//! then one, two and three levels of indirection. A block of pointers goes into
//! the file's block map whole, as runs.

use core::cell::RefCell;

use volume::{FsError, Volume};

use crate::{
    blockmap::{BlockMap, BlockRun},
    inode::Inode,
    superblock::Geometry,
};

const DIRECT: u64 = 12;

/// Makes the run that covers `logical` known in `map`.
pub async fn resolve(
    volume: &impl Volume,
    geometry: &Geometry,
    inode: &Inode,
    map: &RefCell<BlockMap>,
    logical: u64,
) -> Result<(), FsError> {
    if logical < DIRECT {
        let direct = inode.block.get(..48).unwrap_or_default();
        return insert_pointers(geometry, inode, map, 0, direct, logical);
    }
    let per_block = u64::from(geometry.block_bytes / 4);
    // Find the tree that covers it: its first block, and blocks under its root.
    let mut first = DIRECT;
    let mut span = per_block;
    let mut level = 1u32;
    while logical - first >= span {
        first += span;
        span *= per_block;
        level += 1;
        if level > 3 {
            let (number, problem) = (inode.number.into(), "size beyond what block pointers reach");
            return Err(FsError::corrupt("inode", number, problem, first, logical));
        }
    }
    let mut pointer = pointer_at(&inode.block, u64::from(11 + level));
    let mut block = alloc::vec![0; geometry.block_bytes as usize];
    loop {
        if pointer == 0 {
            let mut map = map.borrow_mut();
            let hole = BlockRun {
                logical: first,
                len: span,
                physical: None,
            };
            return if map.get(logical).is_some() {
                Ok(())
            } else {
                map.insert(hole, inode.number)
            };
        }
        geometry.check_file_blocks(pointer, 1, inode.number)?;
        volume
            .read_at(geometry.offset_of(pointer), &mut block)
            .await?;
        level -= 1;
        if level == 0 {
            return insert_pointers(geometry, inode, map, first, &block, logical);
        }
        span /= per_block;
        let index = (logical - first) / span;
        pointer = pointer_at(&block, index);
        first += index * span;
    }
}

fn pointer_at(block: &[u8], index: u64) -> u64 {
    let bytes = block
        .get(index as usize * 4..)
        .and_then(|rest| rest.first_chunk::<4>());
    bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes).into())
}

/// Enters the blocks that `pointers` name, from file block `first` on.
fn insert_pointers(
    geometry: &Geometry,
    inode: &Inode,
    map: &RefCell<BlockMap>,
    first: u64,
    pointers: &[u8],
    logical: u64,
) -> Result<(), FsError> {
    let mut map = map.borrow_mut();
    // Another reader may have been here while this one waited.
    if map.get(logical).is_some() {
        return Ok(());
    }
    let mut insert = |run: BlockRun| {
        if let Some(start) = run.physical {
            geometry.check_file_blocks(start, run.len, inode.number)?;
        }
        map.insert(run, inode.number)
    };
    let mut open: Option<BlockRun> = None;
    for (logical, bytes) in (first..).zip(pointers.as_chunks::<4>().0) {
        let pointer = u64::from(u32::from_le_bytes(*bytes));
        let physical = (pointer != 0).then_some(pointer);
        match &mut open {
            Some(run) if physical == run.physical.map(|start| start + run.len) => run.len += 1,
            _ => {
                if let Some(run) = open.replace(BlockRun {
                    logical,
                    len: 1,
                    physical,
                }) {
                    insert(run)?;
                }
            }
        }
    }
    open.map_or(Ok(()), insert)
}
