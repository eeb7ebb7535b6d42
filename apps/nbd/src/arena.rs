//! Places in a connection's buffer, for the data of requests that are under way together.

use alloc::vec::Vec;

/// Places are multiples of this, so that no two requests share a page.
const GRAIN: u32 = 4096;

/// Which parts of a buffer are taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Arena {
    length: u32,
    /// Start and length of what is taken, ordered.
    taken: Vec<(u32, u32)>,
}

impl Arena {
    /// A buffer of so many bytes, rounded down to whole pages, with nothing taken.
    pub fn new(length: u32) -> Arena {
        Arena {
            length: length - length % GRAIN,
            taken: Vec::new(),
        }
    }

    /// Takes the first place with room for `length` bytes; `None` if there is none now.
    pub fn take(&mut self, length: u32) -> Option<u32> {
        let length = length.max(1).checked_next_multiple_of(GRAIN)?;
        let mut start = 0;
        let mut index = 0;
        for &(from, size) in &self.taken {
            if from - start >= length {
                break;
            }
            start = from + size;
            index += 1;
        }
        if self.length - start < length {
            return None;
        }
        self.taken.insert(index, (start, length));
        Some(start)
    }

    /// Gives a place back.
    pub fn give_back(&mut self, start: u32) {
        self.taken.retain(|(from, _)| *from != start);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn places() {
        let mut arena = Arena::new(4 * GRAIN + 5);
        assert_eq!(arena.take(4 * GRAIN + 1), None);
        assert_eq!(arena.take(1), Some(0));
        assert_eq!(arena.take(2 * GRAIN), Some(GRAIN));
        assert_eq!(arena.take(GRAIN), Some(3 * GRAIN));
        assert_eq!(arena.take(0), None);
        arena.give_back(GRAIN);
        assert_eq!(arena.take(2 * GRAIN + 1), None);
        assert_eq!(arena.take(GRAIN), Some(GRAIN));
        assert_eq!(arena.take(u32::MAX), None);
    }

    proptest! {
        #[test]
        fn places_are_inside_and_apart(steps in proptest::collection::vec((any::<bool>(), 0u32..200_000), 0..200)) {
            let length = 64 * GRAIN;
            let mut arena = Arena::new(length);
            let mut held: Vec<(u32, u32)> = Vec::new();
            for (take, number) in steps {
                if take {
                    if let Some(start) = arena.take(number) {
                        let end = start + number;
                        prop_assert!(end <= length);
                        for (from, size) in &held {
                            prop_assert!(end <= *from || from + size.max(&1) <= start);
                        }
                        held.push((start, number));
                    }
                } else if !held.is_empty() {
                    let (start, _) = held.swap_remove(number as usize % held.len());
                    arena.give_back(start);
                }
            }
            for (start, _) in held {
                arena.give_back(start);
            }
            prop_assert_eq!(arena.take(length), Some(0));
        }
    }
}
