//! Frames of the cache's memory, handed out in contiguous runs.
//!
//! A buddy allocator whose runs need not be powers of two: what a run does not
//! need of its block goes back at once. Long runs make long transfers.

use alloc::{collections::BTreeSet, vec::Vec};

/// Largest block: 2^8 pages, 1 MiB.
const MAX_ORDER: u32 = 8;

/// The free frames.
#[derive(Debug)]
pub struct Buddy {
    /// First frames of the free blocks of each order.
    free: Vec<BTreeSet<u32>>,
    free_frames: u32,
}

impl Buddy {
    /// All of `frames` free.
    pub fn new(frames: u32) -> Self {
        let mut buddy = Self {
            free: (0..=MAX_ORDER).map(|_| BTreeSet::new()).collect(),
            free_frames: 0,
        };
        buddy.release(0, frames);
        buddy
    }

    /// Longest run that can ever be had.
    pub const fn max_run() -> u32 {
        1 << MAX_ORDER
    }

    /// Number of free frames.
    pub fn free_frames(&self) -> u32 {
        self.free_frames
    }

    /// A run of exactly `frames` (1..=[`Buddy::max_run`]), or `None`.
    pub fn allocate(&mut self, frames: u32) -> Option<u32> {
        if frames == 0 || frames > Self::max_run() {
            return None;
        }
        let wanted = frames.next_power_of_two().trailing_zeros();
        let first = (wanted..=MAX_ORDER).find_map(|order| {
            let first = self.free.get_mut(order as usize)?.pop_first()?;
            Some((first, order))
        });
        let (first, order) = first?;
        let block = 1u32 << order;
        self.free_frames -= block;
        self.release(first + frames, block - frames);
        Some(first)
    }

    /// Takes back `frames` frames from `first` on, merging buddies.
    pub fn release(&mut self, first: u32, frames: u32) {
        let (mut at, end) = (first, first + frames);
        while at < end {
            let aligned = if at == 0 {
                MAX_ORDER
            } else {
                at.trailing_zeros().min(MAX_ORDER)
            };
            let order = aligned.min((end - at).ilog2());
            self.release_block(at, order);
            at += 1 << order;
        }
        self.free_frames += frames;
    }

    fn release_block(&mut self, mut first: u32, mut order: u32) {
        while order < MAX_ORDER {
            let buddy = first ^ (1 << order);
            if !self.free[order as usize].remove(&buddy) {
                break;
            }
            first = first.min(buddy);
            order += 1;
        }
        self.free[order as usize].insert(first);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_fresh_allocator_gives_the_longest_runs() {
        let mut buddy = Buddy::new(512 + 3);
        assert_eq!(buddy.allocate(256), Some(0));
        assert_eq!(buddy.allocate(256), Some(256));
        assert_eq!(buddy.allocate(256), None);
        assert_eq!(
            buddy.allocate(3),
            None,
            "the three last frames are a pair and a single"
        );
        assert_eq!(buddy.allocate(2), Some(512));
        assert_eq!(buddy.free_frames(), 1);
    }

    proptest! {
        #[test]
        fn runs_never_overlap_and_everything_comes_back(
            frames in 1u32..2000,
            steps in proptest::collection::vec((any::<bool>(), 1u32..=256), 1..200),
        ) {
            let mut buddy = Buddy::new(frames);
            let mut held: Vec<(u32, u32)> = Vec::new();
            let mut taken = vec![false; frames as usize];
            for (take, amount) in steps {
                if take {
                    if let Some(first) = buddy.allocate(amount) {
                        for frame in first..first + amount {
                            prop_assert!(!std::mem::replace(&mut taken[frame as usize], true));
                        }
                        held.push((first, amount));
                    }
                } else if !held.is_empty() {
                    let (first, count) = held.swap_remove(amount as usize % held.len());
                    taken[first as usize..(first + count) as usize].fill(false);
                    buddy.release(first, count);
                }
                let used = taken.iter().filter(|t| **t).count() as u32;
                prop_assert_eq!(buddy.free_frames(), frames - used);
            }
            for (first, count) in held {
                buddy.release(first, count);
            }
            let fresh = Buddy::new(frames);
            prop_assert_eq!(buddy.free, fresh.free);
        }
    }
}
