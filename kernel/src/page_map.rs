//! The pages of a memory object: page index -> physical address, in leaves of 512 entries, so that a sparse
//! object costs memory only where it has pages.

use alloc::{boxed::Box, vec::Vec};

const LEAF: usize = 512;
/// Slots that are looked at together.
const GROUP: usize = 8;

/// Page addresses by index. Address 0 means "no page".
#[derive(Debug, Default)]
pub struct PageMap {
    leaves: Vec<Option<Box<[u64; LEAF]>>>,
    count: usize,
}

impl PageMap {
    /// A map without pages.
    pub const fn new() -> PageMap {
        PageMap {
            leaves: Vec::new(),
            count: 0,
        }
    }

    /// Pages present.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Address of a page.
    #[inline]
    pub fn get(&self, index: usize) -> Option<u64> {
        let leaf = self.leaves.get(index / LEAF)?.as_ref()?;
        let address = leaf[index % LEAF];
        (address != 0).then_some(address)
    }

    /// Makes room for a page, so that `set` of it needs no big allocation; `false` when memory is out.
    pub fn reserve(&mut self, index: usize) -> bool {
        let at = index / LEAF;
        if at < self.leaves.len() {
            return true;
        }
        if self.leaves.try_reserve(at + 1 - self.leaves.len()).is_err() {
            return false;
        }
        self.leaves.resize_with(at + 1, || None);
        true
    }

    /// Sets the address of a page that is absent. `address` is not 0.
    pub fn set(&mut self, index: usize, address: u64) {
        debug_assert!(address != 0);
        let at = index / LEAF;
        if at >= self.leaves.len() {
            self.leaves.resize_with(at + 1, || None);
        }
        let leaf = self.leaves[at].get_or_insert_with(|| Box::new([0; LEAF]));
        debug_assert!(leaf[index % LEAF] == 0);
        leaf[index % LEAF] = address;
        self.count += 1;
    }

    /// Takes a page out.
    pub fn take(&mut self, index: usize) -> Option<u64> {
        let leaf = self.leaves.get_mut(index / LEAF)?.as_mut()?;
        let address = core::mem::replace(&mut leaf[index % LEAF], 0);
        if address == 0 {
            return None;
        }
        self.count -= 1;
        Some(address)
    }

    /// Takes out every page of `start .. end`, calling `f` for each.
    pub fn take_range(&mut self, start: usize, end: usize, mut f: impl FnMut(usize, u64)) {
        let mut index = start;
        while index < end && index / LEAF < self.leaves.len() {
            let at = index / LEAF;
            let stop = ((at + 1) * LEAF).min(end);
            if let Some(leaf) = self.leaves[at].as_mut() {
                let slots = &mut leaf[index % LEAF..][..stop - index];
                // Most slots are empty: they are looked at in groups.
                for (group, slots) in slots.chunks_mut(GROUP).enumerate() {
                    if slots.iter().fold(0, |any, address| any | address) == 0 {
                        continue;
                    }
                    for (slot, place) in slots.iter_mut().enumerate() {
                        let address = core::mem::take(place);
                        if address != 0 {
                            self.count -= 1;
                            f(index + group * GROUP + slot, address);
                        }
                    }
                }
                if index.is_multiple_of(LEAF) && stop == (at + 1) * LEAF {
                    self.leaves[at] = None;
                }
            }
            index = stop;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 256 }))]
        #[test]
        fn behaves_as_a_map(ops in prop::collection::vec((0u8..4, 0usize..3000, 1u64..9, 0usize..1500), 1..if cfg!(miri) { 40 } else { 200 })) {
            let mut map = PageMap::new();
            let mut model = BTreeMap::new();
            for (op, index, address, len) in ops {
                match op {
                    0 | 1 => if map.get(index).is_none() {
                        map.set(index, address);
                        model.insert(index, address);
                    },
                    2 => prop_assert_eq!(map.take(index), model.remove(&index)),
                    _ => {
                        let mut taken = Vec::new();
                        map.take_range(index, index + len, |i, a| taken.push((i, a)));
                        let expected: Vec<_> = model.range(index..index + len).map(|(i, a)| (*i, *a)).collect();
                        expected.iter().for_each(|(i, _)| { model.remove(i); });
                        prop_assert_eq!(taken, expected);
                    }
                }
                prop_assert_eq!(map.count(), model.len());
                prop_assert_eq!(map.get(index), model.get(&index).copied());
            }
        }
    }
}
