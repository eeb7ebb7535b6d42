//! Free ranges of an address space, and aligned allocation from them.

use alloc::vec::Vec;

/// Disjoint free ranges, sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges {
    /// First and one past the last; never empty.
    free: Vec<(u64, u64)>,
}

impl Ranges {
    /// Nothing is free.
    pub const fn new() -> Ranges {
        Ranges { free: Vec::new() }
    }

    /// Makes `base .. base + len` free. Overlaps with what is free are merged; a range that would pass the
    /// end of the address space is cut there.
    pub fn add(&mut self, base: u64, len: u64) {
        let mut start = base;
        let mut end = base.saturating_add(len);
        if start >= end {
            return;
        }
        self.free.retain(|&(s, e)| {
            let apart = e < start || s > end;
            if !apart {
                start = start.min(s);
                end = end.max(e);
            }
            apart
        });
        let at = self.free.partition_point(|&(s, _)| s < start);
        self.free.insert(at, (start, end));
    }

    /// Takes `base .. base + len` out of what is free.
    pub fn remove(&mut self, base: u64, len: u64) {
        let end = base.saturating_add(len);
        if base >= end {
            return;
        }
        let mut rest = Vec::with_capacity(self.free.len().saturating_add(1));
        for &(s, e) in &self.free {
            if e <= base || s >= end {
                rest.push((s, e));
                continue;
            }
            if s < base {
                rest.push((s, base));
            }
            if e > end {
                rest.push((end, e));
            }
        }
        self.free = rest;
    }

    /// Takes `len` bytes with the given alignment (a power of two), the lowest that fit. Address 0 is never
    /// given out: a BAR with it counts as unassigned.
    pub fn allocate(&mut self, len: u64, align: u64) -> Option<u64> {
        if len == 0 || !align.is_power_of_two() {
            return None;
        }
        let base = self.free.iter().find_map(|&(s, e)| {
            let first = s.max(1).checked_next_multiple_of(align)?;
            (first.checked_add(len)? <= e).then_some(first)
        })?;
        self.remove(base, len);
        Some(base)
    }

    /// Whether all of `base .. base + len` is free.
    pub fn contains(&self, base: u64, len: u64) -> bool {
        base.checked_add(len)
            .is_some_and(|end| self.free.iter().any(|&(s, e)| s <= base && end <= e))
    }

    /// The free ranges as (first, one past the last).
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.free.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn allocates_the_lowest_aligned_range() {
        let mut ranges = Ranges::new();
        ranges.add(0, 0x1000);
        ranges.add(0x1_0000, 0x1_0000);
        assert_eq!(ranges.allocate(0x100, 0x100), Some(0x100));
        assert_eq!(ranges.allocate(0x8000, 0x8000), Some(0x1_0000));
        assert_eq!(ranges.allocate(0x1_0000, 0x1_0000), None);
        assert_eq!(ranges.allocate(0x1000, 0x1000), Some(0x1_8000));
        assert_eq!(ranges.allocate(1, 3), None);
    }

    #[test]
    fn the_end_of_the_address_space_is_no_trap() {
        let mut ranges = Ranges::new();
        ranges.add(u64::MAX - 0xfff, u64::MAX);
        assert_eq!(ranges.allocate(0x2000, 0x1000), None);
        assert_eq!(ranges.allocate(1, 1 << 63), None);
    }

    proptest! {
        /// Against a bitmap of 256 units.
        #[test]
        fn agrees_with_a_bitmap(steps in prop::collection::vec((0u8..3, 0u64..256, 1u64..64, 0u32..6), 1..60)) {
            let mut ranges = Ranges::new();
            let mut bitmap = [false; 512];
            for (op, base, len, order) in steps {
                match op {
                    0 => { ranges.add(base, len); bitmap[base as usize..(base + len) as usize].fill(true); }
                    1 => { ranges.remove(base, len); bitmap[base as usize..(base + len) as usize].fill(false); }
                    _ => {
                        let align = 1u64 << order;
                        let expected = (1..512u64).find(|b| b % align == 0 && b + len <= 512
                            && bitmap[*b as usize..(b + len) as usize].iter().all(|f| *f));
                        prop_assert_eq!(ranges.allocate(len, align), expected);
                        if let Some(b) = expected { bitmap[b as usize..(b + len) as usize].fill(false); }
                    }
                }
                for b in 0..512u64 {
                    prop_assert_eq!(ranges.contains(b, 1), bitmap[b as usize]);
                }
            }
        }
    }
}
