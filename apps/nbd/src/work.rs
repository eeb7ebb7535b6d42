//! A request that is under way: the pieces in which the disk does it, and what became of them.

use proto::block::Operation;

use crate::transmission::{Durability, Refusal, Request};

/// Longest requests that the disk takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Longest {
    /// Bytes of a block: every length is a multiple.
    pub block: u32,
    /// Read or write, in bytes.
    pub transfer: u32,
    /// Discard, in bytes.
    pub discard: u32,
    /// Write-zeroes, in bytes.
    pub write_zeroes: u32,
}

/// A part of a request, as the disk gets it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Piece {
    /// What to do; [`Operation::Flush`] has no range.
    pub operation: Operation,
    /// First byte on the disk.
    pub offset: u64,
    /// First byte in the request's place in the buffer.
    pub at: u32,
    /// Bytes.
    pub length: u32,
    /// Durable when it completes.
    pub durability: Durability,
}

/// A request from its command to its reply.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Work {
    asked: Request,
    operation: Operation,
    durability: Durability,
    /// Where its data is in the connection's buffer.
    place: Option<u32>,
    /// Bytes of the range that were given to the disk.
    given: u32,
    /// Pieces that the disk has.
    outstanding: u32,
    flush: Flush,
    refusal: Option<Refusal>,
}

/// What is to be flushed after the pieces.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Flush {
    /// Nothing, or it is under way.
    Nothing,
    /// The disk, once the pieces are done.
    Pending,
}

impl Work {
    /// A request that was looked at, with the place of its data.
    pub fn new(
        asked: Request,
        operation: Operation,
        durability: Durability,
        place: Option<u32>,
    ) -> Work {
        // The disk has a flag for writes only.
        let flush = match (operation, durability) {
            (Operation::Flush, _) => Flush::Pending,
            (Operation::Write | Operation::Read, _) | (_, Durability::Flushed) => Flush::Nothing,
            (_, Durability::Immediate) => Flush::Pending,
        };
        Work {
            asked,
            operation,
            durability,
            place,
            given: 0,
            outstanding: 0,
            flush,
            refusal: None,
        }
    }

    /// The request.
    pub fn asked(&self) -> &Request {
        &self.asked
    }

    /// What it does.
    pub fn operation(&self) -> Operation {
        self.operation
    }

    /// Where its data is.
    pub fn place(&self) -> Option<u32> {
        self.place
    }

    /// Bytes that the disk has not been given.
    fn left(&self) -> u32 {
        match (self.operation, self.refusal) {
            // After a failure nothing more is asked of the disk.
            (Operation::Flush, _) | (_, Some(_)) => 0,
            _ => self.asked.length.saturating_sub(self.given),
        }
    }

    /// What the disk can be given next. `None`: nothing now.
    pub fn next_piece(&self, longest: &Longest) -> Option<Piece> {
        let left = self.left();
        if left == 0 {
            let flush = self.flush == Flush::Pending && self.outstanding == 0;
            return (flush && self.refusal.is_none()).then_some(Piece {
                operation: Operation::Flush,
                offset: 0,
                at: 0,
                length: 0,
                durability: Durability::Flushed,
            });
        }
        let most = match self.operation {
            Operation::Discard => longest.discard,
            Operation::WriteZeroes => longest.write_zeroes,
            _ => longest.transfer,
        };
        let block = longest.block.max(1);
        let most = (most - most % block).max(block);
        let durability = match self.operation {
            Operation::Write => self.durability,
            _ => Durability::Flushed,
        };
        Some(Piece {
            operation: self.operation,
            offset: self.asked.offset.saturating_add(self.given.into()),
            at: self.given,
            length: left.min(most),
            durability,
        })
    }

    /// The disk was given that piece.
    pub fn gave(&mut self, piece: &Piece) {
        self.outstanding += 1;
        if piece.operation == Operation::Flush {
            self.flush = Flush::Nothing;
        } else {
            self.given = self.given.saturating_add(piece.length);
        }
    }

    /// The disk did a piece, or not.
    pub fn did(&mut self, outcome: Result<(), Refusal>) {
        self.outstanding = self.outstanding.saturating_sub(1);
        if let Err(refusal) = outcome {
            self.refusal.get_or_insert(refusal);
        }
    }

    /// The outcome, once nothing of it is to be done or under way.
    pub fn outcome(&self) -> Option<Result<(), Refusal>> {
        if self.outstanding > 0 {
            return None;
        }
        match self.refusal {
            Some(refusal) => Some(Err(refusal)),
            None if self.left() == 0 && self.flush == Flush::Nothing => Some(Ok(())),
            None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    const LONGEST: Longest = Longest {
        block: 512,
        transfer: 4096,
        discard: 1 << 20,
        write_zeroes: 1000,
    };

    fn work(operation: Operation, durability: Durability, length: u32) -> Work {
        let asked = Request {
            flags: 0,
            command: 0,
            cookie: 9,
            offset: 1024,
            length,
        };
        Work::new(asked, operation, durability, None)
    }

    /// Gives the disk everything that it can be given at a time, and has it done.
    fn rounds(work: &mut Work) -> Vec<Vec<(Operation, u64, u32)>> {
        let mut all = Vec::new();
        while work.outcome().is_none() {
            let mut round = Vec::new();
            while let Some(piece) = work.next_piece(&LONGEST) {
                work.gave(&piece);
                round.push((piece.operation, piece.offset, piece.length));
            }
            assert!(!round.is_empty(), "{work:?} goes on for ever");
            for _ in &round {
                assert_eq!(work.outcome(), None);
                work.did(Ok(()));
            }
            all.push(round);
        }
        all
    }

    #[test]
    fn pieces() {
        use Operation::{Discard, Flush, Write, WriteZeroes};
        let write = rounds(&mut work(Write, Durability::Immediate, 5120));
        assert_eq!(write, [[(Write, 1024, 4096), (Write, 5120, 1024)]]);
        let zeroes = rounds(&mut work(WriteZeroes, Durability::Flushed, 1024));
        assert_eq!(
            zeroes,
            [[(WriteZeroes, 1024, 512), (WriteZeroes, 1536, 512)]]
        );
        // The flush comes when everything else was done.
        let discard = rounds(&mut work(Discard, Durability::Immediate, 512));
        assert_eq!(discard, [[(Discard, 1024, 512)], [(Flush, 0, 0)]]);
        let flush = rounds(&mut work(Flush, Durability::Flushed, 0));
        assert_eq!(flush, [[(Flush, 0, 0)]]);
    }

    #[test]
    fn a_failure_waits_for_the_pieces_under_way() {
        let mut work = work(Operation::Read, Durability::Flushed, 3 * 4096);
        for _ in 0..2 {
            let piece = work.next_piece(&LONGEST).unwrap();
            work.gave(&piece);
        }
        work.did(Err(Refusal::Io));
        assert_eq!(work.next_piece(&LONGEST), None);
        assert_eq!(work.outcome(), None, "the disk may still write there");
        work.did(Ok(()));
        assert_eq!(work.outcome(), Some(Err(Refusal::Io)));
    }

    proptest! {
        #[test]
        fn pieces_cover_the_range(blocks in 1u32..100, durable: bool) {
            let durability = if durable { Durability::Immediate } else { Durability::Flushed };
            for operation in [Operation::Read, Operation::Write, Operation::Discard, Operation::WriteZeroes] {
                let all = rounds(&mut work(operation, durability, blocks * 512));
                let mut next = 1024;
                for (_, offset, length) in all.iter().flatten().filter(|(o, ..)| *o == operation) {
                    prop_assert_eq!(*offset, next);
                    prop_assert!(*length > 0 && length.is_multiple_of(512));
                    next += u64::from(*length);
                }
                prop_assert_eq!(next, 1024 + u64::from(blocks) * 512);
            }
        }
    }
}
