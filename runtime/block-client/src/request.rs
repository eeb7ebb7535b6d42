//! Requests and their answers.

use proto::block::{Operation, Status, Submission, flags};

use crate::SessionError;

/// A buffer that is registered with a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Buffer(pub(crate) u16);

impl Buffer {
    /// Its slot.
    pub const fn slot(self) -> u16 {
        self.0
    }
}

/// A request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    /// What to do.
    pub operation: Operation,
    /// First logical block of the endpoint.
    pub lba: u64,
    /// Bytes, a multiple of the logical block size; 0 for flush.
    pub length: u32,
    /// Buffer (read and write).
    pub buffer: Buffer,
    /// First byte in the buffer (read and write), a multiple of 4.
    pub offset: u64,
    /// [`flags`].
    pub flags: u8,
}

impl Request {
    /// Reads `length` bytes from block `lba` on into the buffer at `offset`.
    pub const fn read(buffer: Buffer, offset: u64, length: u32, lba: u64) -> Request {
        Request {
            operation: Operation::Read,
            lba,
            length,
            buffer,
            offset,
            flags: 0,
        }
    }

    /// Writes `length` bytes of the buffer from `offset` on to block `lba` on. The buffer stays unchanged
    /// until the completion, so that the request can be repeated.
    pub const fn write(buffer: Buffer, offset: u64, length: u32, lba: u64) -> Request {
        Request {
            operation: Operation::Write,
            lba,
            length,
            buffer,
            offset,
            flags: 0,
        }
    }

    /// Makes everything that completed before durable.
    pub const fn flush() -> Request {
        Request::without_data(Operation::Flush, 0, 0)
    }

    /// Says that `length` bytes from block `lba` on are no longer needed.
    pub const fn discard(lba: u64, length: u32) -> Request {
        Request::without_data(Operation::Discard, lba, length)
    }

    /// Makes `length` bytes from block `lba` on read as zeroes.
    pub const fn write_zeroes(lba: u64, length: u32) -> Request {
        Request::without_data(Operation::WriteZeroes, lba, length)
    }

    const fn without_data(operation: Operation, lba: u64, length: u32) -> Request {
        Request {
            operation,
            lba,
            length,
            buffer: Buffer(0),
            offset: 0,
            flags: 0,
        }
    }

    /// The same, durable when it completes.
    pub const fn durable(mut self) -> Request {
        self.flags |= flags::FUA;
        self
    }

    pub(crate) const fn submission(&self, id: u64) -> Submission {
        Submission {
            id,
            lba: self.lba,
            offset: self.offset,
            length: self.length,
            slot: self.buffer.0,
            operation: self.operation as u8,
            flags: self.flags,
        }
    }
}

/// A request that was answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Done {
    /// What the client gave with the request.
    pub token: u64,
    /// The request.
    pub request: Request,
    /// How it ended.
    pub status: Status,
}

impl Done {
    /// Whether it succeeded.
    ///
    /// # Errors
    /// The status, if it did not.
    pub fn result(&self) -> Result<(), Status> {
        match self.status {
            Status::OK => Ok(()),
            status => Err(status),
        }
    }

    pub(crate) fn outcome(&self) -> Result<(), SessionError> {
        self.result().map_err(SessionError::Refused)
    }
}
