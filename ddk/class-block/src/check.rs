//! Checking what a client asked for. The submission is the worker's own copy.

use proto::block::{Operation, Status, Submission, flags};

use crate::device::{DiskInfo, Request};
use crate::session::Session;

/// What is left to do with a request that is right.
pub(crate) enum Checked<'a> {
    /// The device does it.
    Device {
        /// What it does.
        request: Request<'a>,
        /// Whether a flush has to follow before the client hears of it.
        then_flush: bool,
    },
    /// There is nothing to do.
    Done,
}

/// Checks a submission against the session's extent and buffers and its disk's limits. `token` becomes the
/// request's.
#[inline]
pub(crate) fn check<'a, M>(
    session: &'a Session<M>,
    disks: &[DiskInfo],
    submission: &Submission,
    token: u32,
) -> Result<Checked<'a>, Status> {
    let &Submission {
        lba,
        offset,
        length,
        slot,
        operation,
        flags,
        ..
    } = submission;
    let operation = Operation::from_number(operation).ok_or(Status::INVALID)?;
    if flags & !flags::ALL != 0 {
        return Err(Status::INVALID);
    }
    // A driver has few disks, most often one.
    let unit = session.extent.unit;
    let disk = disks.iter().find(|disk| disk.unit == unit);
    let disk = disk.ok_or(Status::GONE)?;
    if operation.modifies() && (disk.read_only || !session.extent.writable) {
        return Err(Status::READ_ONLY);
    }
    if operation == Operation::Flush {
        if length != 0 || lba != 0 {
            return Err(Status::INVALID);
        }
        if !disk.volatile_cache {
            return Ok(Checked::Done);
        }
        return Ok(Checked::Device {
            request: Request::flush(unit, token),
            then_flush: false,
        });
    }
    let blocks = u64::from(length >> disk.block_shift);
    if length == 0 || blocks << disk.block_shift != u64::from(length) {
        return Err(Status::INVALID);
    }
    let extent = &session.extent;
    if lba > extent.count || blocks > extent.count - lba {
        return Err(Status::OUT_OF_RANGE);
    }
    // The extent was inside of the disk when it was made; the disk may have shrunk since.
    let first = extent
        .first_lba
        .checked_add(lba)
        .ok_or(Status::OUT_OF_RANGE)?;
    if first > disk.block_count || blocks > disk.block_count - first {
        return Err(Status::OUT_OF_RANGE);
    }
    let limit = match operation {
        Operation::Discard => disk.max_discard,
        Operation::WriteZeroes => disk.max_write_zeroes,
        _ => disk.max_transfer,
    };
    if length > limit {
        return Err(if limit == 0 {
            Status::UNSUPPORTED
        } else {
            Status::TOO_LONG
        });
    }
    let data = if matches!(operation, Operation::Read | Operation::Write) {
        let buffer = session.buffers.get(slot).ok_or(Status::BAD_BUFFER)?;
        let allowed = match operation {
            Operation::Read => buffer.device_writes(),
            _ => buffer.device_reads(),
        };
        let inside = offset <= buffer.len() && u64::from(length) <= buffer.len() - offset;
        if !allowed || !inside {
            return Err(Status::BAD_BUFFER);
        }
        if offset & 3 != 0 {
            return Err(Status::INVALID);
        }
        Some(buffer)
    } else {
        None
    };
    let durable = flags & flags::FUA != 0 && operation == Operation::Write && disk.volatile_cache;
    let request = Request {
        token,
        unit,
        operation,
        durable: durable && disk.durable_writes,
        may_unmap: flags & flags::MAY_UNMAP != 0,
        lba: first,
        // A length in bytes has 32 bits.
        blocks: blocks as u32,
        length,
        data,
        offset,
    };
    Ok(Checked::Device {
        request,
        then_flush: durable && !disk.durable_writes,
    })
}
