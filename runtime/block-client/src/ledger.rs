//! What is in flight: the state from which requests are repeated when a driver is replaced.

use alloc::vec;
use alloc::vec::Vec;

use proto::block::Operation;

use crate::Request;

/// Whether answers to older incarnations and older uses of an entry are refused. Off as a negative control only.
const EPOCHS_COUNT: bool = cfg!(not(feature = "control-no-epoch"));

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
    /// Place in the order of submission, over all incarnations.
    pub sequence: u64,
    /// How often it was given to a device that did not answer it.
    pub attempts: u8,
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
    sequence: u64,
    answered: u64,
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
            sequence: 0,
            answered: 0,
        }
    }

    /// Takes a request in; returns its id.
    ///
    /// # Errors
    /// [`LedgerError::Full`].
    #[inline]
    pub fn add(&mut self, request: Request, token: u64) -> Result<u64, LedgerError> {
        self.sequence = self.sequence.wrapping_add(1);
        self.put(Entry {
            request,
            token,
            epoch: self.epoch,
            sequence: self.sequence,
            attempts: 0,
        })
    }

    /// Takes a request in again that was taken out without having been done: it keeps its place in the
    /// order.
    ///
    /// # Errors
    /// [`LedgerError::Full`].
    pub fn put_again(&mut self, entry: Entry) -> Result<u64, LedgerError> {
        self.put(Entry {
            epoch: self.epoch,
            attempts: entry.attempts.saturating_add(1),
            ..entry
        })
    }

    #[inline]
    fn put(&mut self, entry: Entry) -> Result<u64, LedgerError> {
        let index = self.free.pop().ok_or(LedgerError::Full)?;
        let Some(slot) = self.slots.get_mut(usize::from(index)) else {
            return Err(LedgerError::Full);
        };
        slot.generation = slot.generation.wrapping_add(1);
        slot.entry = Some(entry);
        Ok(u64::from(index) | u64::from(slot.generation) << 16 | u64::from(self.epoch) << 48)
    }

    /// Another incarnation of the driver serves from now on: gives every request in flight a new id, which
    /// no answer of an older incarnation matches, and lists them in the order of their submission.
    pub fn renew(&mut self, epoch: u32) -> Vec<(u64, Request)> {
        self.epoch = epoch;
        let mut entries: Vec<(u64, u64, Request)> = Vec::with_capacity(self.len());
        for (index, slot) in self.slots.iter_mut().enumerate() {
            if let Some(entry) = &mut slot.entry {
                slot.generation = slot.generation.wrapping_add(1);
                entry.epoch = epoch;
                let id = index as u64 | u64::from(slot.generation) << 16 | u64::from(epoch) << 48;
                entries.push((entry.sequence, id, entry.request));
            }
        }
        entries.sort_unstable_by_key(|(sequence, ..)| *sequence);
        entries
            .into_iter()
            .map(|(_, id, request)| (id, request))
            .collect()
    }

    /// Takes a request out that was answered.
    ///
    /// # Errors
    /// [`LedgerError::UnknownId`]: it was answered already, or never asked.
    #[inline]
    pub fn remove(&mut self, id: u64) -> Result<Entry, LedgerError> {
        let index = id as u16;
        if id >> 48 != u64::from(self.epoch & 0xffff) && EPOCHS_COUNT {
            return Err(LedgerError::UnknownId(id));
        }
        match self.slots.get_mut(usize::from(index)) {
            Some(slot) if slot.generation == (id >> 16) as u32 || !EPOCHS_COUNT => {
                match slot.entry.take() {
                    Some(entry) => {
                        self.free.push(index);
                        self.answered = self.answered.wrapping_add(1);
                        Ok(entry)
                    }
                    None => Err(LedgerError::UnknownId(id)),
                }
            }
            _ => Err(LedgerError::UnknownId(id)),
        }
    }

    /// How many requests were taken out.
    pub(crate) fn answered(&self) -> u64 {
        self.answered
    }

    /// The newest request's place in the order of submission.
    pub(crate) fn newest(&self) -> u64 {
        self.sequence
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
        fn renewed_requests_are_all_there_in_their_order(
            depth in 1u16..32,
            steps in prop::collection::vec((any::<bool>(), any::<usize>()), 0..200),
        ) {
            let mut ledger = Ledger::new(depth, 7);
            let mut model: Vec<(u64, u64)> = Vec::new();
            let mut token = 0;
            for (add, choice) in steps {
                if add && model.len() < depth.into() {
                    token += 1;
                    model.push((ledger.add(Request::flush(), token).unwrap(), token));
                } else if !model.is_empty() {
                    let (id, token) = model.remove(choice % model.len());
                    prop_assert_eq!(ledger.remove(id).unwrap().token, token);
                }
            }
            let renewed = ledger.renew(8);
            prop_assert_eq!(renewed.len(), model.len());
            for (old, _) in &model {
                prop_assert!(ledger.remove(*old).is_err(), "an answer of the old incarnation");
            }
            for ((id, _), (_, token)) in renewed.iter().zip(&model) {
                prop_assert_eq!(ledger.remove(*id).unwrap().token, *token);
            }
            prop_assert!(ledger.is_empty());
        }

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
