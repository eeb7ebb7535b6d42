//! Requests that are wrong: each costs itself a status and nothing else.

use alloc::vec::Vec;

use proto::block::{Operation, Status};

use crate::client::{Bench, Client, ensure};
use crate::home::{Access, Problem, Request};

/// Operations that name blocks and that this disk would do.
fn operations(bench: &Bench<'_>) -> Vec<Operation> {
    let info = bench.info();
    let mut all = Vec::from([Operation::Read]);
    if info.access == proto::block::Access::ReadOnly {
        return all;
    }
    all.push(Operation::Write);
    if info.max_discard > 0 {
        all.push(Operation::Discard);
    }
    if info.max_write_zeroes > 0 {
        all.push(Operation::WriteZeroes);
    }
    all
}

/// A client, after the first and the last blocks were stamped where the disk can be written.
fn prepared(bench: &mut Bench<'_>) -> Result<Client, Problem> {
    let mut client = bench.client(8, 16 * 4096)?;
    if operations(bench).contains(&Operation::Write) {
        let last = bench.info().block_count - 4;
        client.write_stamps(bench, 0, 4, 500)?;
        client.write_stamps(bench, last, 4, 500)?;
    }
    Ok(client)
}

/// Neither was touched, and the disk works on.
fn unharmed(bench: &mut Bench<'_>, client: &mut Client) -> Result<(), Problem> {
    let last = bench.info().block_count - 4;
    if operations(bench).contains(&Operation::Write) {
        for lba in [0, last] {
            client.read_stamps(bench, lba, 4, 500)?;
            bench.expect_medium(lba, 4, 500)?;
        }
        return Ok(());
    }
    client.done(bench, client.read(0, 4, 0))?;
    client.done(bench, client.read(last, 4, 0))
}

/// One block past the end, and everything that reaches past it.
pub(super) fn beyond_the_end(bench: &mut Bench<'_>) -> Result<(), Problem> {
    let mut client = prepared(bench)?;
    let count = bench.info().block_count;
    for operation in operations(bench) {
        for (lba, blocks) in [
            (count, 1),
            (count - 1, 2),
            (count - 3, 4),
            (count + 1, 1),
            (count * 2, 1),
            (count | 1 << 32, 1),
        ] {
            let request = client.request(operation, lba, blocks);
            client.expect(bench, request, Status::OUT_OF_RANGE)?;
        }
    }
    // Exactly at the end is inside.
    client.done(bench, client.read(count - 1, 1, 0))?;
    client.done(bench, client.read(count - 4, 4, 0))?;
    unharmed(bench, &mut client)
}

/// Addresses whose sums or products overflow.
pub(super) fn wrap_around(bench: &mut Bench<'_>) -> Result<(), Problem> {
    let mut client = prepared(bench)?;
    let shift = bench.block().trailing_zeros();
    for operation in operations(bench) {
        for lba in [
            u64::MAX,
            u64::MAX - 1,
            u64::MAX >> shift,
            (u64::MAX >> shift) + 1,
            1 << 63,
            1 << (64 - shift),
            u64::MAX / 512,
            u64::MAX / 512 + 1,
        ] {
            let request = client.request(operation, lba, 2);
            client.expect(bench, request, Status::OUT_OF_RANGE)?;
        }
    }
    unharmed(bench, &mut client)
}

/// No length, a part of a block, bits that mean nothing.
pub(super) fn malformed(bench: &mut Bench<'_>) -> Result<(), Problem> {
    let mut client = prepared(bench)?;
    let block = bench.block();
    for operation in operations(bench) {
        let request = client.request(operation, 0, 1);
        for length in [0, 1, block - 1, block + 1, block / 2 + block] {
            let request = Request { length, ..request };
            client.expect(bench, request, Status::INVALID)?;
        }
        let request = Request {
            flags: 0x80,
            ..request
        };
        client.expect(bench, request, Status::INVALID)?;
    }
    for offset in [1, 2, 3, 4095] {
        client.expect(bench, client.read(0, 1, offset), Status::INVALID)?;
    }
    let flush = client.flush();
    for request in [
        Request {
            length: block,
            ..flush
        },
        Request { lba: 1, ..flush },
    ] {
        client.expect(bench, request, Status::INVALID)?;
    }
    unharmed(bench, &mut client)
}

/// Data outside of the buffer, in no buffer, or in one for the other direction.
pub(super) fn bad_buffers(bench: &mut Bench<'_>) -> Result<(), Problem> {
    let mut client = prepared(bench)?;
    let (block, len) = (u64::from(bench.block()), client.buffer_len as u64);
    for offset in [
        len,
        len - block + 4,
        u64::MAX - 3,
        (u64::MAX - block + 1) & !3,
        len + 4096,
        1 << 32,
    ] {
        client.expect(bench, client.read(0, 1, offset), Status::BAD_BUFFER)?;
    }
    client.done(bench, client.read(0, 1, len - block))?;
    let sources = bench
        .disk
        .register(client.session, 4096, Access::DeviceReads)?;
    let targets = bench
        .disk
        .register(client.session, 4096, Access::DeviceWrites)?;
    let read = client.read(0, 1, 0);
    let into_source = Request {
        slot: sources,
        ..read
    };
    client.expect(bench, into_source, Status::BAD_BUFFER)?;
    let into_target = Request {
        slot: targets,
        ..read
    };
    client.done(bench, into_target)?;
    if operations(bench).contains(&Operation::Write) {
        let from_target = Request {
            slot: targets,
            ..client.write(0, 1, 0)
        };
        client.expect(bench, from_target, Status::BAD_BUFFER)?;
    }
    bench.disk.unregister(client.session, sources)?;
    bench.disk.unregister(client.session, targets)?;
    // Whether a client can still name the slot is its home's business; if so the driver refuses.
    match client.submit(bench, into_target) {
        Ok(_) => {
            client.kick(bench)?;
            let status = client.answer(bench)?.status;
            ensure!(
                status == Status::BAD_BUFFER,
                "a read into a buffer that is gone: status {}",
                status.0
            );
        }
        Err(Problem::NotOffered(_)) => {}
        Err(failed) => return Err(failed),
    }
    unharmed(bench, &mut client)
}

/// Longer than the driver promises.
pub(super) fn too_long(bench: &mut Bench<'_>) -> Result<(), Problem> {
    let mut client = prepared(bench)?;
    let info = bench.info();
    let block = info.block_size;
    let too_many = u64::from(info.max_transfer) / u64::from(block) + 1;
    if too_many > info.block_count {
        // The disk is shorter than that, so that it is out of range before it is too long.
        let blocks = info.block_count as u32 + 1;
        client.expect(bench, client.read(0, blocks, 0), Status::OUT_OF_RANGE)?;
        return unharmed(bench, &mut client);
    }
    let request = client.read(0, too_many as u32, 0);
    client.expect(bench, request, Status::TOO_LONG)?;
    if operations(bench).contains(&Operation::Write) {
        let request = client.write(0, too_many as u32, 0);
        client.expect(bench, request, Status::TOO_LONG)?;
    }
    unharmed(bench, &mut client)
}

/// A read-only disk refuses every change.
pub(super) fn read_only(bench: &mut Bench<'_>) -> Result<(), Problem> {
    let mut client = bench.client(8, 16 * 4096)?;
    let stamped = bench.disk.promise().stamped;
    for operation in [Operation::Write, Operation::Discard, Operation::WriteZeroes] {
        let request = client.request(operation, 3, 2);
        client.expect(bench, request, Status::READ_ONLY)?;
    }
    if stamped {
        client.read_stamps(bench, 0, 8, 0)?;
    }
    // Nothing to do, and so nothing to refuse.
    client.done(bench, client.flush())
}
