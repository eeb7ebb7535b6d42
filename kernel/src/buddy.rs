//! Buddy allocator for page frames.
//!
//! Works on frame numbers relative to a base and keeps all its state beside the memory that it hands out, so
//! that it needs no unsafe code and can be tested anywhere. A free block is named by its first frame; free
//! blocks of an order form a doubly linked list through `links`.

/// Largest block: 2^MAX_ORDER pages (4 MiB with 4 KiB pages).
pub const MAX_ORDER: usize = 10;

const NONE: u32 = u32::MAX;
/// `state` of a frame that is not the first of a free block.
const NOT_FREE: u8 = 0xff;

/// Links of a free block.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    next: u32,
    prev: u32,
}

impl Link {
    /// A link that belongs to no list.
    pub const EMPTY: Link = Link {
        next: NONE,
        prev: NONE,
    };
}

/// Bytes of bookkeeping that [`Buddy::new`] needs for each frame.
pub const BYTES_PER_FRAME: usize = size_of::<Link>() + 1;

/// The allocator over `state.len()` frames.
#[derive(Debug)]
pub struct Buddy<'m> {
    links: &'m mut [Link],
    state: &'m mut [u8],
    heads: [u32; MAX_ORDER + 1],
    free: usize,
}

/// A block was freed that is not allocated, or lies outside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadFree;

impl<'m> Buddy<'m> {
    /// An allocator in which nothing is free yet. The slices must be of the same length, below
    /// `u32::MAX`.
    pub fn new(links: &'m mut [Link], state: &'m mut [u8]) -> Buddy<'m> {
        assert!(links.len() == state.len() && links.len() < NONE as usize);
        links.fill(Link::EMPTY);
        state.fill(NOT_FREE);
        Buddy {
            links,
            state,
            heads: [NONE; MAX_ORDER + 1],
            free: 0,
        }
    }

    /// Pages that are free.
    pub fn free_pages(&self) -> usize {
        self.free
    }

    /// Adds the frames `start .. end` as free memory (once, at boot).
    pub fn add_range(&mut self, start: usize, end: usize) {
        let end = end.min(self.state.len());
        let mut at = start;
        while at < end {
            let mut order = (at.trailing_zeros() as usize).min(MAX_ORDER);
            while at + (1 << order) > end {
                order -= 1;
            }
            self.insert(at as u32, order);
            self.free += 1 << order;
            at += 1 << order;
        }
    }

    /// Allocates 2^`order` frames, aligned to their size.
    pub fn allocate(&mut self, order: usize) -> Option<usize> {
        let mut from = order;
        while from <= MAX_ORDER && self.heads[from] == NONE {
            from += 1;
        }
        if from > MAX_ORDER {
            return None;
        }
        let block = self.heads[from];
        self.remove(block, from);
        while from > order {
            from -= 1;
            self.insert(block + (1 << from), from);
        }
        self.free -= 1 << order;
        Some(block as usize)
    }

    /// Gives a block back. Parts of a block may be given back separately.
    pub fn release(&mut self, frame: usize, order: usize) -> Result<(), BadFree> {
        let len = self.state.len();
        if order > MAX_ORDER || frame & ((1 << order) - 1) != 0 || frame + (1 << order) > len {
            return Err(BadFree);
        }
        if self.is_free(frame) {
            return Err(BadFree);
        }
        self.free += 1 << order;
        let mut block = frame as u32;
        let mut order = order;
        while order < MAX_ORDER {
            let buddy = block ^ (1 << order);
            if self.state.get(buddy as usize) != Some(&(order as u8)) {
                break;
            }
            self.remove(buddy, order);
            block &= !(1 << order);
            order += 1;
        }
        self.insert(block, order);
        Ok(())
    }

    /// Whether the frame lies in a free block.
    pub fn is_free(&self, frame: usize) -> bool {
        (0..=MAX_ORDER).any(|order| {
            let first = frame & !((1 << order) - 1);
            let found = self.state.get(first).copied();
            found.is_some_and(|s| s != NOT_FREE && s as usize >= order)
        })
    }

    fn insert(&mut self, block: u32, order: usize) {
        let head = self.heads[order];
        self.links[block as usize] = Link {
            next: head,
            prev: NONE,
        };
        if head != NONE {
            self.links[head as usize].prev = block;
        }
        self.heads[order] = block;
        self.state[block as usize] = order as u8;
    }

    fn remove(&mut self, block: u32, order: usize) {
        let Link { next, prev } = self.links[block as usize];
        if prev == NONE {
            self.heads[order] = next;
        } else {
            self.links[prev as usize].next = next;
        }
        if next != NONE {
            self.links[next as usize].prev = prev;
        }
        self.links[block as usize] = Link::EMPTY;
        self.state[block as usize] = NOT_FREE;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn with_buddy<R>(frames: usize, f: impl FnOnce(&mut Buddy) -> R) -> R {
        let mut links = vec![Link::EMPTY; frames];
        let mut state = vec![0; frames];
        f(&mut Buddy::new(&mut links, &mut state))
    }

    #[test]
    fn whole_memory_comes_back_as_the_biggest_blocks() {
        // At least one block of the largest order.
        let frames = if cfg!(miri) { 2048 } else { 5000 };
        with_buddy(frames, |b| {
            b.add_range(3, frames);
            assert_eq!(b.free_pages(), frames - 3);
            let all: Vec<_> = std::iter::from_fn(|| b.allocate(0)).collect();
            assert_eq!(all.len(), frames - 3);
            assert_eq!(b.free_pages(), 0);
            for frame in all {
                b.release(frame, 0).unwrap();
            }
            assert_eq!(b.allocate(MAX_ORDER).map(|f| f % (1 << MAX_ORDER)), Some(0));
        });
    }

    #[test]
    fn double_free_and_foreign_frames_are_refused() {
        with_buddy(64, |b| {
            b.add_range(0, 64);
            let f = b.allocate(2).unwrap();
            assert_eq!(b.release(f + 1, 2), Err(BadFree));
            assert_eq!(b.release(64, 0), Err(BadFree));
            b.release(f, 2).unwrap();
            assert_eq!(b.release(f, 2), Err(BadFree));
            assert_eq!(b.release(f + 1, 0), Err(BadFree));
        });
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 128 }))]
        #[test]
        fn blocks_never_overlap(ops in prop::collection::vec((0usize..6, any::<u16>()), 1..if cfg!(miri) { 40 } else { 300 })) {
            with_buddy(700, |b| {
                b.add_range(5, 700);
                let mut held: BTreeMap<usize, usize> = BTreeMap::new();
                for (order, pick) in ops {
                    if order == 5 && !held.is_empty() {
                        let key = *held.keys().nth(pick as usize % held.len()).unwrap();
                        let order = held.remove(&key).unwrap();
                        b.release(key, order).unwrap();
                    } else if let Some(f) = b.allocate(order.min(4)) {
                        let order = order.min(4);
                        assert!(f >= 5 && f + (1 << order) <= 700 && f % (1 << order) == 0);
                        for (&start, &o) in &held {
                            assert!(f + (1 << order) <= start || start + (1 << o) <= f);
                        }
                        held.insert(f, order);
                    }
                    let used: usize = held.values().map(|o| 1 << o).sum();
                    assert_eq!(b.free_pages(), 695 - used);
                }
            });
        }
    }
}
