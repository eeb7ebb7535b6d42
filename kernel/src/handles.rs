//! A process's handle table.
//!
//! A handle is a slot's index (24 bits) and its generation (8 bits, never 0), so that a handle that was closed
//! is refused until its generation comes round again. Freed slots are reused in the order in which they were
//! freed, which makes that as late as possible.

use alloc::vec::Vec;

const GENERATION_BITS: u32 = 8;
const INDEX_LIMIT: usize = 1 << 24;
const NONE: u32 = u32::MAX;

#[derive(Debug)]
struct Slot<T> {
    value: Option<T>,
    generation: u8,
    next_free: u32,
}

/// Handles to values.
#[derive(Debug)]
pub struct Table<T> {
    slots: Vec<Slot<T>>,
    first_free: u32,
    last_free: u32,
    used: usize,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Table::new()
    }
}

impl<T> Table<T> {
    /// An empty table.
    pub const fn new() -> Table<T> {
        Table {
            slots: Vec::new(),
            first_free: NONE,
            last_free: NONE,
            used: 0,
        }
    }

    /// Number of handles.
    pub fn len(&self) -> usize {
        self.used
    }

    /// Whether there is no handle.
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    fn find(&self, handle: u32) -> Option<usize> {
        let index = (handle >> GENERATION_BITS) as usize;
        let slot = self.slots.get(index)?;
        (slot.generation == handle as u8 && slot.value.is_some()).then_some(index)
    }

    /// Adds a value; gives it back when all 2^24 slots are taken or memory is out.
    pub fn insert(&mut self, value: T) -> Result<u32, T> {
        let index = if self.first_free != NONE {
            let index = self.first_free;
            let slot = &mut self.slots[index as usize];
            self.first_free = slot.next_free;
            if self.first_free == NONE {
                self.last_free = NONE;
            }
            slot.value = Some(value);
            index
        } else {
            if self.slots.len() >= INDEX_LIMIT || self.slots.try_reserve(1).is_err() {
                return Err(value);
            }
            self.slots.push(Slot {
                value: Some(value),
                generation: 1,
                next_free: NONE,
            });
            (self.slots.len() - 1) as u32
        };
        self.used += 1;
        Ok(index << GENERATION_BITS | u32::from(self.slots[index as usize].generation))
    }

    /// The value of a handle.
    #[inline]
    pub fn get(&self, handle: u32) -> Option<&T> {
        let slot = self.slots.get((handle >> GENERATION_BITS) as usize)?;
        if slot.generation == handle as u8 {
            slot.value.as_ref()
        } else {
            None
        }
    }

    /// Removes a handle and returns its value.
    pub fn remove(&mut self, handle: u32) -> Option<T> {
        let index = self.find(handle)?;
        let slot = &mut self.slots[index];
        let value = slot.value.take();
        slot.generation = if slot.generation == u8::MAX {
            1
        } else {
            slot.generation + 1
        };
        slot.next_free = NONE;
        if self.last_free == NONE {
            self.first_free = index as u32;
        } else {
            self.slots[self.last_free as usize].next_free = index as u32;
        }
        self.last_free = index as u32;
        self.used -= 1;
        value
    }

    /// Takes out every value, in the order of the slots.
    pub fn drain(&mut self) -> impl Iterator<Item = T> + use<T> {
        self.first_free = NONE;
        self.last_free = NONE;
        self.used = 0;
        core::mem::take(&mut self.slots)
            .into_iter()
            .filter_map(|slot| slot.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    #[test]
    fn zero_and_closed_handles_are_refused() {
        let mut t = Table::new();
        assert!(t.get(0).is_none());
        let h = t.insert('a').unwrap();
        assert_ne!(h, 0);
        assert_eq!(t.remove(h), Some('a'));
        assert_eq!(t.remove(h), None);
        let again = t.insert('b').unwrap();
        assert_ne!(h, again);
        assert_eq!(t.get(h), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 256 }))]
        #[test]
        fn behaves_as_a_map(ops in prop::collection::vec((0u8..4, any::<u32>()), 1..if cfg!(miri) { 60 } else { 400 })) {
            let mut table = Table::new();
            let mut model: HashMap<u32, u32> = HashMap::new();
            let mut seen = Vec::new();
            for (op, n) in ops {
                match op {
                    0 | 1 => {
                        let h = table.insert(n).unwrap();
                        prop_assert!(model.insert(h, n).is_none());
                        seen.push(h);
                    }
                    2 if !seen.is_empty() => {
                        let h = seen[n as usize % seen.len()];
                        prop_assert_eq!(table.remove(h), model.remove(&h));
                    }
                    _ => {
                        prop_assert_eq!(table.get(n), model.get(&n));
                        if let Some(&h) = seen.get(n as usize % seen.len().max(1)) {
                            prop_assert_eq!(table.get(h), model.get(&h));
                        }
                    }
                }
                prop_assert_eq!(table.len(), model.len());
            }
            prop_assert_eq!(table.drain().count(), model.len());
            prop_assert!(table.is_empty());
        }
    }
}
