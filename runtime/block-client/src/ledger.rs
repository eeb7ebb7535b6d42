//! What is in flight: the state from which requests are repeated when a driver is replaced.

use alloc::vec;
use alloc::vec::Vec;

use proto::block::Operation;

use crate::Request;

/// Whether a request may be repeated without anybody noticing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Repeat {
    /// Yes: the same again has the same effect, as the client keeps the buffer unchanged.
    Idempotent,
    /// No: its outcome is unknown if no answer came.
    Unknown,
}

/// A request in flight.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The request.
    pub request: Request,
    /// The client's token.
    pub token: u64,
    /// Incarnation of the driver that it was given to.
    pub epoch: u32,
}

impl Entry {
    /// Whether it may be repeated. All block operations of today may; a new one has to say so here.
    pub const fn repeat(&self) -> Repeat {
        match self.request.operation {
            Operation::Read
            | Operation::Write
            | Operation::Flush
            | Operation::Discard
            | Operation::WriteZeroes => Repeat::Idempotent,
        }
    }
}

/// Why the ledger refuses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LedgerError {
    /// No free entry.
    Full,
    /// No request in flight has this id.
    UnknownId(u64),
}

#[derive(Clone, Copy)]
struct Slot {
    /// Counts uses of the slot, so that an answer to an older one does not match.
    generation: u32,
    entry: Option<Entry>,
}

/// The requests in flight of a session.
///
/// An id is the slot in bits 0 to 15, its generation in bits 16 to 47, the low bits of the driver's epoch
/// above.
pub struct Ledger {
    slots: Vec<Slot>,
    free: Vec<u16>,
    epoch: u32,
}

impl Ledger {
    /// An empty ledger with room for `depth` requests to the driver's incarnation `epoch`.
    pub fn new(depth: u16, epoch: u32) -> Ledger {
        Ledger {
            slots: vec![
                Slot {
                    generation: 0,
                    entry: None
                };
                depth.into()
            ],
            free: (0..depth).rev().collect(),
            epoch,
        }
    }

    /// Takes a request in; returns its id.
    ///
    /// # Errors
    /// [`LedgerError::Full`].
    #[inline]
    pub fn add(&mut self, request: Request, token: u64) -> Result<u64, LedgerError> {
        let index = self.free.pop().ok_or(LedgerError::Full)?;
        let Some(slot) = self.slots.get_mut(usize::from(index)) else {
            return Err(LedgerError::Full);
        };
        slot.generation = slot.generation.wrapping_add(1);
        slot.entry = Some(Entry {
            request,
            token,
            epoch: self.epoch,
        });
        Ok(u64::from(index) | u64::from(slot.generation) << 16 | u64::from(self.epoch) << 48)
    }

    /// Takes a request out that was answered.
    ///
    /// # Errors
    /// [`LedgerError::UnknownId`]: it was answered already, or never asked.
    #[inline]
    pub fn remove(&mut self, id: u64) -> Result<Entry, LedgerError> {
        let index = id as u16;
        if id >> 48 != u64::from(self.epoch & 0xffff) {
            return Err(LedgerError::UnknownId(id));
        }
        match self.slots.get_mut(usize::from(index)) {
            Some(slot) if slot.generation == (id >> 16) as u32 => match slot.entry.take() {
                Some(entry) => {
                    self.free.push(index);
                    Ok(entry)
                }
                None => Err(LedgerError::UnknownId(id)),
            },
            _ => Err(LedgerError::UnknownId(id)),
        }
    }

    /// Requests in flight.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether nothing is in flight.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every request in flight.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.slots.iter().filter_map(|slot| slot.entry.as_ref())
    }

    /// Takes everything out.
    pub fn drain(&mut self) -> Vec<Entry> {
        let entries: Vec<Entry> = self
            .slots
            .iter_mut()
            .filter_map(|s| s.entry.take())
            .collect();
        self.free = (0..self.slots.len() as u16).rev().collect();
        entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn stale_answers_do_not_match() {
        let mut ledger = Ledger::new(2, 0x1_0003);
        let first = ledger.add(Request::flush(), 1).unwrap();
        assert_eq!(first >> 48, 3);
        assert_eq!(ledger.remove(first).unwrap().token, 1);
        assert_eq!(ledger.remove(first), Err(LedgerError::UnknownId(first)));
        let again = ledger.add(Request::flush(), 2).unwrap();
        assert_ne!(first, again);
        assert_eq!(ledger.remove(first), Err(LedgerError::UnknownId(first)));
        assert!(
            Ledger::new(2, 4).remove(again).is_err(),
            "another incarnation"
        );
        assert_eq!(ledger.remove(again).unwrap().token, 2);
    }

    proptest! {
        #[test]
        fn hostile_ids_take_nothing_out(
            depth in 1u16..16,
            ids in prop::collection::vec(any::<u64>(), 0..50),
        ) {
            let mut ledger = Ledger::new(depth, 1);
            let real: Vec<u64> = (0..depth)
                .map(|n| ledger.add(Request::flush(), n.into()).unwrap())
                .collect();
            prop_assert_eq!(ledger.add(Request::flush(), 0), Err(LedgerError::Full));
            for id in ids {
                prop_assume!(!real.contains(&id));
                prop_assert!(ledger.remove(id).is_err());
            }
            for (n, id) in real.iter().enumerate() {
                prop_assert_eq!(ledger.remove(*id).unwrap().token, n as u64);
            }
            prop_assert!(ledger.is_empty());
        }
    }
}
