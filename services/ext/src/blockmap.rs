//! What is known of where a file's blocks lie: filled leaf by leaf as the file
//! is read, kept while it is open, and checked for overlaps as it grows.

use alloc::collections::BTreeMap;
use core::cell::Cell;

use volume::FsError;

/// A stretch of blocks of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockRun {
    /// First block, from the start of the file.
    pub logical: u64,
    /// Number of blocks, not 0.
    pub len: u64,
    /// First block on the volume; none for a hole.
    pub physical: Option<u64>,
}

/// The runs of one file that are known so far.
#[derive(Debug, Default)]
pub struct BlockMap {
    by_logical: BTreeMap<u64, BlockRun>,
    /// Start and length of the blocks in use, to notice a second claim.
    by_physical: BTreeMap<u64, u64>,
    /// The run that was found last. Runs are never changed, so it stays true.
    recent: Cell<Option<BlockRun>>,
}

impl BlockMap {
    /// The run that covers a block.
    pub fn get(&self, logical: u64) -> Option<BlockRun> {
        let covers = |run: &BlockRun| logical.wrapping_sub(run.logical) < run.len;
        if let Some(run) = self.recent.get().filter(covers) {
            return Some(run);
        }
        let (_, run) = self.by_logical.range(..=logical).next_back()?;
        if !covers(run) {
            return None;
        }
        self.recent.set(Some(*run));
        Some(*run)
    }

    /// Adds a run of inode `inode`.
    ///
    /// # Errors
    /// Corruption, when it covers blocks of the file or of the volume that
    /// another run of the file has.
    pub fn insert(&mut self, run: BlockRun, inode: u32) -> Result<(), FsError> {
        let end = run.logical.saturating_add(run.len);
        if let Some((_, other)) = self.by_logical.range(..end).next_back()
            && other.logical + other.len > run.logical
        {
            let problem = "extents overlap: two cover the same block of the file";
            return Err(corrupt(
                inode,
                problem,
                other.logical + other.len,
                run.logical,
            ));
        }
        if let Some(start) = run.physical {
            let end = start.saturating_add(run.len);
            if let Some((other, len)) = self.by_physical.range(..end).next_back()
                && other + len > start
            {
                let problem = "extents overlap: two claim the same block of the volume";
                return Err(corrupt(inode, problem, other + len, start));
            }
            self.by_physical.insert(start, run.len);
        }
        self.by_logical.insert(run.logical, run);
        Ok(())
    }
}

fn corrupt(inode: u32, problem: &'static str, expected: u64, seen: u64) -> FsError {
    FsError::corrupt("inode", inode.into(), problem, expected, seen)
}
