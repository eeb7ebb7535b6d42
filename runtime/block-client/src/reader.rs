//! Plain reads and writes at byte offsets, through a buffer of its own: for partition tables and
//! superblocks, not for file data.

use core::time::Duration;

use proto::block::{BlockInfo, BufferAccess};
use sys::{Deadline, Mapping};

use crate::{Buffer, Disk, Request, Session, SessionError};

/// Bytes of the buffer.
const BUFFER_BYTES: usize = 64 * 1024;
/// Time for one request.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A disk that is read and written like a file.
pub struct DiskReader {
    session: Session,
    memory: Mapping,
    buffer: Buffer,
    block_size: u32,
    len_bytes: u64,
    /// Bytes of one request: a multiple of the block size.
    step: u32,
}

impl DiskReader {
    /// A session of its own on the disk.
    ///
    /// # Errors
    /// When the driver or the system refuses.
    pub fn new(disk: &Disk) -> Result<DiskReader, SessionError> {
        let info: &BlockInfo = disk.info();
        let mut session = disk.open_session(1)?;
        let (vmo, memory) = Mapping::create(BUFFER_BYTES)?;
        let buffer = session.register(&vmo, 0, BUFFER_BYTES as u64, BufferAccess::Both)?;
        let step = info.max_transfer.min(BUFFER_BYTES as u32) & !(info.block_size - 1);
        Ok(DiskReader {
            session,
            memory,
            buffer,
            block_size: info.block_size,
            len_bytes: disk.len_bytes(),
            step,
        })
    }

    /// Bytes of the disk.
    pub fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    /// Fills `into` from the byte `offset` on, whatever its alignment.
    ///
    /// # Errors
    /// `Refused(OUT_OF_RANGE)` beyond the end, and what the device reports.
    pub fn read_at(&mut self, offset: u64, into: &mut [u8]) -> Result<(), SessionError> {
        let mut at = offset;
        let mut rest = into;
        while !rest.is_empty() {
            let piece = self.piece(at, rest.len())?;
            self.transfer(Request::read(self.buffer, 0, piece.length, piece.lba))?;
            let (now, later) = rest.split_at_mut(piece.used);
            self.memory.read(piece.skip, now)?;
            at += piece.used as u64;
            rest = later;
        }
        Ok(())
    }

    /// Writes `from` at the byte `offset`. Blocks that are covered in part are read first.
    ///
    /// # Errors
    /// As [`DiskReader::read_at`].
    pub fn write_at(&mut self, offset: u64, from: &[u8]) -> Result<(), SessionError> {
        let mut at = offset;
        let mut rest = from;
        while !rest.is_empty() {
            let piece = self.piece(at, rest.len())?;
            let (now, later) = rest.split_at(piece.used);
            if piece.used != piece.length as usize {
                self.transfer(Request::read(self.buffer, 0, piece.length, piece.lba))?;
            }
            self.memory.write(piece.skip, now)?;
            self.transfer(Request::write(self.buffer, 0, piece.length, piece.lba))?;
            at += piece.used as u64;
            rest = later;
        }
        Ok(())
    }

    /// Makes everything that was written durable.
    ///
    /// # Errors
    /// What the device reports.
    pub fn flush(&mut self) -> Result<(), SessionError> {
        self.transfer(Request::flush())
    }

    fn transfer(&mut self, request: Request) -> Result<(), SessionError> {
        self.session.run(&request, Deadline::after(TIMEOUT))
    }

    fn piece(&self, at: u64, wanted: usize) -> Result<Piece, SessionError> {
        let piece = Piece::of(at, wanted, self.block_size, self.step);
        let end = at.checked_add(piece.used as u64);
        if end.is_none_or(|end| end > self.len_bytes) {
            return Err(SessionError::Refused(crate::Status::OUT_OF_RANGE));
        }
        Ok(piece)
    }
}

impl core::fmt::Debug for DiskReader {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "DiskReader {{ {:?} }}", self.session)
    }
}

/// Whole blocks that cover the start of a range of bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Piece {
    lba: u64,
    /// Bytes of the blocks.
    length: u32,
    /// Bytes before the range.
    skip: usize,
    /// Bytes of the range.
    used: usize,
}

impl Piece {
    /// `block` is a power of two, `step` a multiple of it and not 0.
    fn of(at: u64, wanted: usize, block: u32, step: u32) -> Piece {
        let skip = (at & u64::from(block - 1)) as u32;
        let used = wanted.min((step - skip) as usize) as u32;
        let length = (skip + used).next_multiple_of(block);
        Piece {
            lba: at >> block.trailing_zeros(),
            length,
            skip: skip as usize,
            used: used as usize,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Piece;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pieces_cover_a_range_without_gaps(
            offset in 0u64..1 << 40,
            len in 1usize..300_000,
            block_log in 9u32..13,
        ) {
            let block = 1 << block_log;
            let (mut at, mut left) = (offset, len);
            while left > 0 {
                let p = Piece::of(at, left, block, 65536);
                prop_assert_eq!(p.lba * u64::from(block) + p.skip as u64, at);
                prop_assert!(p.used > 0 && p.skip + p.used <= p.length as usize);
                prop_assert!(p.length <= 65536 && p.length.is_multiple_of(block));
                at += p.used as u64;
                left -= p.used;
            }
        }
    }
}
