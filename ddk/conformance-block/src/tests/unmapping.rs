//! Discard and write-zeroes.

use proto::block::{Operation, Status, flags};

use crate::client::{Bench, Client, ensure};
use crate::home::{Problem, Request};

/// Blocks that surround the range on both sides.
const MARGIN: u64 = 8;

/// The blocks hold zeroes, by the driver's word and by the medium's.
fn expect_zeroes(
    bench: &mut Bench<'_>,
    client: &mut Client,
    lba: u64,
    blocks: u64,
) -> Result<(), Problem> {
    let size = bench.block() as usize;
    for lba in lba..lba + blocks {
        client.fill(bench, 0, size, 0xee)?;
        client.done(bench, client.read(lba, 1, 0))?;
        let mut views = alloc::vec![client.bytes(bench, 0, size)?];
        let mut medium = alloc::vec![0; size];
        match bench.disk.medium(lba, &mut medium) {
            Ok(()) => views.push(medium),
            Err(Problem::NotOffered(_)) => {}
            Err(failed) => return Err(failed),
        }
        for bytes in views {
            ensure!(
                bytes.iter().all(|byte| *byte == 0),
                "block {lba} is not zero: {}",
                crate::stamp::describe(&bytes)
            );
        }
    }
    Ok(())
}

/// Runs the operation on ranges in the middle of stamped blocks; `inside` says what they hold then.
fn ranges(
    bench: &mut Bench<'_>,
    client: &mut Client,
    operation: Operation,
    flags: u8,
    zeroes: bool,
) -> Result<(), Problem> {
    let count = bench.info().block_count;
    for (n, blocks) in [1, 2, 7, 8, 9, 16, 33].into_iter().enumerate() {
        let generation = 900 + n as u64;
        let first = bench.rng.u64(0..=count - blocks - 2 * MARGIN);
        let lba = first + MARGIN;
        let all = (blocks + 2 * MARGIN) as u32;
        client.write_stamps(bench, first, all, generation)?;
        let request = client.request(operation, lba, blocks as u32);
        client.done(bench, Request { flags, ..request })?;
        if zeroes {
            expect_zeroes(bench, client, lba, blocks)?;
        } else {
            // Whatever they hold, it is the same twice.
            for lba in lba..lba + blocks {
                client.done(bench, client.read(lba, 1, 0))?;
                let once = client.bytes(bench, 0, bench.block() as usize)?;
                client.done(bench, client.read(lba, 1, 0))?;
                ensure!(
                    client.bytes(bench, 0, bench.block() as usize)? == once,
                    "block {lba} reads one way and another"
                );
            }
        }
        for (lba, blocks) in [(first, MARGIN), (lba + blocks, MARGIN)] {
            client.read_stamps(bench, lba, blocks as u32, generation)?;
            bench.expect_medium(lba, blocks, generation)?;
        }
        client.write_stamps(bench, lba, blocks as u32, generation + 50)?;
        client.read_stamps(bench, lba, blocks as u32, generation + 50)?;
        bench.expect_medium(lba, blocks, generation + 50)?;
    }
    Ok(())
}

/// Discarded blocks lose their contents as the device promises, their neighbours do not.
pub(super) fn discard(bench: &mut Bench<'_>) -> Result<(), Problem> {
    if bench.info().max_discard == 0 {
        return Err(Problem::not_offered("the device has no discard"));
    }
    let zeroes = bench.disk.promise().discard_zeroes;
    let mut client = bench.client(8, 64 * bench.block() as usize)?;
    ranges(bench, &mut client, Operation::Discard, 0, zeroes)
}

/// Zeroed blocks read as zeroes, their neighbours as before; also with leave to unmap.
pub(super) fn write_zeroes(bench: &mut Bench<'_>) -> Result<(), Problem> {
    if bench.info().max_write_zeroes == 0 {
        return Err(Problem::not_offered("the device has no write-zeroes"));
    }
    let mut client = bench.client(8, 64 * bench.block() as usize)?;
    ranges(bench, &mut client, Operation::WriteZeroes, 0, true)?;
    let flags = flags::MAY_UNMAP;
    ranges(bench, &mut client, Operation::WriteZeroes, flags, true)
}

/// The longest range that the driver promises works, one block more is refused.
pub(super) fn limits(bench: &mut Bench<'_>) -> Result<(), Problem> {
    let info = bench.info();
    let mut client = bench.client(8, 64 * bench.block() as usize)?;
    let block = info.block_size;
    for (operation, limit) in [
        (Operation::Discard, info.max_discard),
        (Operation::WriteZeroes, info.max_write_zeroes),
    ] {
        if limit == 0 {
            let request = client.request(operation, 0, 1);
            client.expect(bench, request, Status::UNSUPPORTED)?;
            continue;
        }
        let most = u64::from(limit / block);
        let inside = most.min(info.block_count);
        let request = client.request(operation, info.block_count - inside, inside as u32);
        client.done(bench, request)?;
        if most < info.block_count {
            let request = client.request(operation, 0, most as u32 + 1);
            client.expect(bench, request, Status::TOO_LONG)?;
        }
    }
    client.write_stamps(bench, 0, 8, 990)?;
    client.read_stamps(bench, 0, 8, 990)
}
