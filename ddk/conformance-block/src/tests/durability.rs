//! What a power cut leaves.

use proto::block::{Status, flags};

use crate::client::{Bench, ensure};
use crate::home::{Problem, Request};

/// Everything that completed before a flush is durable when the flush completes.
pub(super) fn flush(bench: &mut Bench<'_>) -> Result<(), Problem> {
    let mut client = bench.client(32, 32 * 4096)?;
    let count = bench.info().block_count;
    for generation in 800..804 {
        let lba = bench.rng.u64(0..=count - 64);
        client.write_stamps(bench, lba, 24, generation)?;
        client.write_stamps(bench, lba + 40, 24, generation)?;
        client.done(bench, client.flush())?;
        bench.expect_durable(lba, 24, generation)?;
        bench.expect_durable(lba + 40, 24, generation)?;
    }
    Ok(())
}

/// The same with other requests under way: a flush covers what was answered before it was asked for.
pub(super) fn flush_order(bench: &mut Bench<'_>) -> Result<(), Problem> {
    const SLOTS: u64 = 16;
    let block = u64::from(bench.block());
    let mut client = bench.client(2 * SLOTS as u16, (2 * SLOTS * block) as usize)?;
    for round in 0..8 {
        let generation = 820 + round;
        for slot in 0..SLOTS {
            client.put_stamps(bench, slot * block, slot, 1, generation)?;
            client.submit(bench, client.write(slot, 1, slot * block))?;
        }
        client.kick(bench)?;
        client.drain(bench)?;
        // Reads and writes elsewhere beside the flush.
        for slot in SLOTS..2 * SLOTS - 1 {
            let request = if slot % 2 == 0 {
                client.put_stamps(bench, slot * block, slot, 1, generation)?;
                client.write(slot, 1, slot * block)
            } else {
                client.read(slot, 1, slot * block)
            };
            client.submit(bench, request)?;
        }
        let flush = client.submit(bench, client.flush())?;
        client.kick(bench)?;
        loop {
            let done = client.answer(bench)?;
            ensure!(
                done.status == Status::OK,
                "{:?}: status {}",
                done.request,
                done.status.0
            );
            if done.token == flush {
                bench.expect_durable(0, SLOTS, generation)?;
                break;
            }
        }
        client.drain(bench)?;
    }
    Ok(())
}

/// A write with FUA is durable when it completes, also when every slot of the queue is taken.
pub(super) fn force_unit_access(bench: &mut Bench<'_>) -> Result<(), Problem> {
    let depth = bench.info().max_depth;
    let block = u64::from(bench.block());
    let mut client = bench.client(depth, usize::from(depth) * block as usize)?;
    for generation in 840..844 {
        for slot in 0..u64::from(depth) {
            let durable = bench.rng.bool() || depth == 1;
            let lba = slot * 2;
            if lba >= bench.info().block_count {
                break;
            }
            client.put_stamps(bench, slot * block, lba, 1, generation)?;
            let request = Request {
                flags: if durable { flags::FUA } else { 0 },
                ..client.write(lba, 1, slot * block)
            };
            client.submit(bench, request)?;
        }
        client.kick(bench)?;
        while client.outstanding() > 0 {
            let done = client.answer(bench)?;
            ensure!(
                done.status == Status::OK,
                "{:?}: status {}",
                done.request,
                done.status.0
            );
            if done.request.flags & flags::FUA != 0 {
                bench.expect_durable(done.request.lba, 1, generation)?;
            }
        }
    }
    // And alone.
    let request = Request {
        flags: flags::FUA,
        ..client.write(1, 1, 0)
    };
    client.put_stamps(bench, 0, 1, 1, 850)?;
    client.done(bench, request)?;
    bench.expect_durable(1, 1, 850)
}

/// Without a volatile cache every write is durable when it completes, and flush has nothing to do.
pub(super) fn write_through(bench: &mut Bench<'_>) -> Result<(), Problem> {
    if bench.disk.promise().volatile_cache != Some(false) {
        return Err(Problem::not_offered(
            "the device does not tell that it has no cache",
        ));
    }
    ensure!(
        !bench.info().volatile_cache,
        "the driver speaks of a volatile cache"
    );
    let mut client = bench.client(8, 8 * 4096)?;
    client.done(bench, client.flush())?;
    for n in 0..4 {
        client.write_stamps(bench, n * 7, 5, 860 + n)?;
        bench.expect_durable(n * 7, 5, 860 + n)?;
    }
    client.done(bench, client.flush())
}
