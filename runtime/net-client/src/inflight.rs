//! What is with the driver: receive buffers and frames, each by the id of its ring entry.
//!
//! Ids are good for one incarnation of the driver, whose rings are its own, so an id need not say which.

use alloc::vec;
use alloc::vec::Vec;

/// Entries by id, below a fixed number.
pub(crate) struct InFlight<T> {
    entries: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T: Copy> InFlight<T> {
    pub(crate) fn new(depth: u16) -> InFlight<T> {
        InFlight {
            entries: vec![None; depth.into()],
            free: (0..u32::from(depth)).rev().collect(),
        }
    }

    /// Takes an entry in; its id, or `None` when there is no room.
    #[inline]
    pub(crate) fn add(&mut self, entry: T) -> Option<u32> {
        let id = self.free.pop()?;
        if let Some(place) = self.entries.get_mut(id as usize) {
            *place = Some(entry);
        }
        Some(id)
    }

    /// Takes an entry out; `None`: the driver does not have it.
    #[inline]
    pub(crate) fn remove(&mut self, id: u32) -> Option<T> {
        let entry = self.entries.get_mut(id as usize)?.take()?;
        self.free.push(id);
        Some(entry)
    }

    /// Takes everything out.
    pub(crate) fn drain(&mut self) -> Vec<T> {
        let ids = 0..self.entries.len() as u32;
        ids.filter_map(|id| self.remove(id)).collect()
    }

    /// Entries.
    pub(crate) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::InFlight;

    #[test]
    fn an_id_is_answered_once() {
        let mut table = InFlight::new(2);
        let (a, b) = (table.add('a').unwrap(), table.add('b').unwrap());
        assert_eq!(table.add('c'), None);
        assert_eq!((table.remove(b), table.remove(b)), (Some('b'), None));
        assert_eq!((table.remove(7), table.len()), (None, 1));
        assert_eq!((table.drain(), table.len()), (vec!['a'], 0));
        assert_ne!(a, b);
    }
}
