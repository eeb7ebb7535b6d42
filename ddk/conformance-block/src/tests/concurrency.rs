//! Many requests at once.

use alloc::collections::BTreeSet;
use alloc::vec;
use alloc::vec::Vec;

use proto::block::{Operation, Status, flags};

use crate::client::{Bench, Client, Done, ensure};
use crate::home::{Problem, Request, Shape};
use crate::stamp;

/// Blocks per request in these tests: 2 KiB, or one block.
fn run_blocks(bench: &Bench<'_>) -> u32 {
    (2048 / bench.block()).max(1)
}

fn expect_ok(done: &Done) -> Result<(), Problem> {
    ensure!(
        done.status == Status::OK,
        "{:?}: {} (status {})",
        done.request,
        done.status.text(),
        done.status.0
    );
    Ok(())
}

/// Gives every slot of the buffer a run of blocks of its own.
fn places(bench: &mut Bench<'_>, slots: u32) -> Vec<u64> {
    let damaged = bench.disk.promise().damaged;
    let each = u64::from(run_blocks(bench));
    let runs = bench.info().block_count / each;
    let mut taken = BTreeSet::new();
    while taken.len() < slots as usize && (taken.len() as u64) < runs - 1 {
        let lba = bench.rng.u64(0..runs) * each;
        if !damaged.is_some_and(|bad| (lba..lba + each).contains(&bad)) {
            taken.insert(lba);
        }
    }
    let mut places: Vec<u64> = taken.into_iter().collect();
    bench.rng.shuffle(&mut places);
    places
}

/// As many requests as the driver takes, again and again, each answered once and with its own data.
pub(super) fn full_depth(bench: &mut Bench<'_>) -> Result<(), Problem> {
    let most = bench.info().max_depth;
    let writable = !bench.disk.promise().read_only && bench.shape != Shape::Damaged;
    let blocks = run_blocks(bench);
    let run = (blocks * bench.block()) as usize;
    let mut client = bench.client(most, run * usize::from(most))?;
    let depth = u32::from(bench.disk.depth(client.session));
    ensure!(depth >= u32::from(most), "depth {depth} of {most}");
    let places = places(bench, u32::from(most));
    let stamped = bench.disk.promise().stamped;
    for generation in 600..603 {
        if writable {
            for (slot, &lba) in places.iter().enumerate() {
                let offset = (slot * run) as u64;
                client.put_stamps(bench, offset, lba, blocks, generation)?;
                client.submit(bench, client.write(lba, blocks, offset))?;
            }
            client.kick(bench)?;
            client.drain(bench)?.iter().try_for_each(expect_ok)?;
        }
        client.fill(bench, 0, client.buffer_len, 0xee)?;
        for (slot, &lba) in places.iter().enumerate() {
            client.submit(bench, client.read(lba, blocks, (slot * run) as u64))?;
        }
        client.kick(bench)?;
        for done in client.drain(bench)? {
            expect_ok(&done)?;
            let expected = if writable { generation } else { 0 };
            if writable || stamped {
                client.check_stamps(
                    bench,
                    done.request.offset,
                    done.request.lba,
                    blocks,
                    expected,
                )?;
            }
        }
    }
    Ok(())
}

/// More than fits: the client is told, and what was taken is served.
pub(super) fn beyond_depth(bench: &mut Bench<'_>) -> Result<(), Problem> {
    let most = bench.info().max_depth;
    let mut client = bench.client(most, 4096.max(bench.block() as usize))?;
    let depth = usize::from(bench.disk.depth(client.session));
    client.write_stamps(bench, 0, 1, 610)?;
    for _ in 0..3 {
        let mut taken = 0;
        while client.try_submit(bench, client.read(0, 1, 0))?.is_some() {
            taken += 1;
            ensure!(
                taken <= depth,
                "{taken} requests were taken at a depth of {depth}"
            );
        }
        ensure!(
            taken == depth,
            "{taken} requests were taken at a depth of {depth}"
        );
        client.kick(bench)?;
        let done = client.drain(bench)?;
        ensure!(done.len() == depth, "{} answers to {depth}", done.len());
        done.iter().try_for_each(expect_ok)?;
        client.check_stamps(bench, 0, 0, 1, 610)?;
    }
    Ok(())
}

/// What is known of the disk while random requests run: a generation for each block.
struct Shadow {
    /// Generation, or `None` for zeroes.
    blocks: Vec<Option<u64>>,
    /// Blocks that a request in flight changes or reads.
    busy: BTreeSet<u64>,
}

/// A random mixture at random depth against a plain table of what each block should hold.
pub(super) fn random_traffic(bench: &mut Bench<'_>) -> Result<(), Problem> {
    /// Blocks that take part.
    const AREA: u64 = 512;
    const REQUESTS: u32 = 600;
    let info = bench.info();
    let area = AREA.min(info.block_count);
    let base = bench.rng.u64(0..=info.block_count - area);
    let block = bench.block();
    let run = (most_blocks(bench) * block) as usize;
    let depth = info.max_depth.min(64);
    let mut client = bench.client(depth, run * usize::from(depth))?;
    let mut lba = base;
    while lba < base + area {
        let now = (base + area - lba).min(32) as u32;
        client.write_stamps(bench, lba, now, 1)?;
        lba += u64::from(now);
    }
    let mut shadow = Shadow {
        blocks: vec![Some(1); area as usize],
        busy: BTreeSet::new(),
    };
    let mut free: Vec<u64> = (0..u64::from(depth)).collect();
    let mut started = 0;
    let mut generation = 1;
    while started < REQUESTS || client.outstanding() > 0 {
        // A burst of random size, then a random number of answers.
        let burst = bench.rng.u32(0..=u32::from(depth) / 2);
        for _ in 0..burst {
            if started >= REQUESTS || free.is_empty() {
                break;
            }
            started += 1;
            generation += 1;
            start_one(
                bench,
                &mut client,
                &mut shadow,
                (base, area),
                &mut free,
                generation,
            )?;
        }
        client.kick(bench)?;
        let wanted = bench.rng.usize(0..=client.outstanding());
        for _ in 0..wanted.max(usize::from(started == REQUESTS && client.outstanding() > 0)) {
            let done = client.answer(bench)?;
            expect_ok(&done)?;
            finish_one(bench, &client, &mut shadow, base, &done)?;
            free.push(done.request.offset / run as u64);
        }
    }
    client.expect_silence(bench)?;
    // Everything once more, from the driver and behind its back.
    for (n, generation) in shadow.blocks.iter().enumerate() {
        let lba = base + n as u64;
        client.done(bench, client.read(lba, 1, 0))?;
        let bytes = client.bytes(bench, 0, block as usize)?;
        check_block(&bytes, lba, *generation)?;
        if let Some(generation) = generation {
            bench.expect_medium(lba, 1, *generation)?;
        }
    }
    Ok(())
}

/// Longest request of the mixture in blocks.
fn most_blocks(bench: &Bench<'_>) -> u32 {
    12.min(bench.info().max_transfer / bench.block())
}

fn start_one(
    bench: &mut Bench<'_>,
    client: &mut Client,
    shadow: &mut Shadow,
    (base, area): (u64, u64),
    free: &mut Vec<u64>,
    generation: u64,
) -> Result<(), Problem> {
    let most = most_blocks(bench);
    let blocks = bench.rng.u32(1..=most.min(area as u32));
    let at = bench.rng.u64(0..=area - u64::from(blocks));
    let range = at..at + u64::from(blocks);
    let kind = bench.rng.u32(0..20);
    if kind != 0 && range.clone().any(|n| shadow.busy.contains(&n)) {
        // Overlapping requests have no defined order.
        return Ok(());
    }
    let Some(slot) = free.pop() else {
        return Ok(());
    };
    let lba = base + at;
    let offset = slot * u64::from(most * bench.block());
    let request = match kind {
        0 => Request {
            offset,
            ..client.flush()
        },
        1..=8 => client.read(lba, blocks, offset),
        9 if bench.info().max_write_zeroes >= blocks * bench.block() => Request {
            offset,
            ..client.request(Operation::WriteZeroes, lba, blocks)
        },
        other => {
            client.put_stamps(bench, offset, lba, blocks, generation)?;
            let flags = if other == 10 { flags::FUA } else { 0 };
            Request {
                flags,
                ..client.write(lba, blocks, offset)
            }
        }
    };
    match request.operation {
        Operation::Flush => {}
        Operation::Read => shadow.busy.extend(range),
        Operation::Write => {
            for n in range {
                shadow.busy.insert(n);
                shadow.blocks[n as usize] = Some(generation);
            }
        }
        _ => {
            for n in range {
                shadow.busy.insert(n);
                shadow.blocks[n as usize] = None;
            }
        }
    }
    client.submit(bench, request)?;
    Ok(())
}

fn finish_one(
    bench: &Bench<'_>,
    client: &Client,
    shadow: &mut Shadow,
    base: u64,
    done: &Done,
) -> Result<(), Problem> {
    let request = &done.request;
    if request.operation == Operation::Flush {
        return Ok(());
    }
    let first = request.lba - base;
    let size = bench.block() as usize;
    let bytes = client.bytes(bench, request.offset, request.length as usize)?;
    for (n, block) in (first..).zip(bytes.chunks_exact(size)) {
        shadow.busy.remove(&n);
        if request.operation == Operation::Read {
            check_block(block, base + n, shadow.blocks[n as usize])?;
        }
    }
    Ok(())
}

fn check_block(block: &[u8], lba: u64, generation: Option<u64>) -> Result<(), Problem> {
    match generation {
        Some(generation) => stamp::check(block, lba, generation).map_err(Problem::Failed),
        None => {
            ensure!(
                block.iter().all(|byte| *byte == 0),
                "block {lba} is not zero: {}",
                stamp::describe(block)
            );
            Ok(())
        }
    }
}

/// Several sessions at once, spread over the queues: each gets its own answers and its own data.
pub(super) fn sessions(bench: &mut Bench<'_>) -> Result<(), Problem> {
    const SESSIONS: u64 = 4;
    const EACH: u32 = 16;
    let blocks = run_blocks(bench);
    let run = (blocks * bench.block()) as usize;
    let area = bench.info().block_count / SESSIONS / u64::from(blocks) * u64::from(blocks);
    let mut clients = Vec::new();
    for _ in 0..SESSIONS {
        clients.push(bench.client(EACH as u16, run * EACH as usize)?);
    }
    let runs = (area / u64::from(blocks)).min(u64::from(EACH));
    for generation in 620..624 {
        for operation in [Operation::Write, Operation::Read] {
            for (n, client) in clients.iter_mut().enumerate() {
                for slot in 0..runs {
                    let lba = n as u64 * area + slot * u64::from(blocks);
                    let offset = slot * run as u64;
                    let own = generation + 100 * n as u64;
                    if operation == Operation::Write {
                        client.put_stamps(bench, offset, lba, blocks, own)?;
                    } else {
                        client.fill(bench, offset as usize, run, 0xee)?;
                    }
                    let request = client.request(operation, lba, blocks);
                    client.submit(bench, Request { offset, ..request })?;
                }
                client.kick(bench)?;
            }
            for (n, client) in clients.iter_mut().enumerate() {
                for done in client.drain(bench)? {
                    expect_ok(&done)?;
                    let own = generation + 100 * n as u64;
                    client.check_stamps(
                        bench,
                        done.request.offset,
                        done.request.lba,
                        blocks,
                        own,
                    )?;
                }
            }
        }
    }
    Ok(())
}

/// One request after the other with sleep between them: each wakes a driver and a client that sleep.
pub(super) fn idle_between(bench: &mut Bench<'_>) -> Result<(), Problem> {
    /// More than the entries of any ring, so that indices wrap.
    const REQUESTS: u64 = 300;
    let mut client = bench.client(2, 8192)?;
    let most = bench.info().block_count;
    for n in 0..REQUESTS {
        let lba = bench.rng.u64(0..most);
        if n % 3 == 0 {
            client.write_stamps(bench, lba, 1, 700 + n)?;
            client.read_stamps(bench, lba, 1, 700 + n)?;
        } else {
            client.done(bench, client.read(lba, 1, 0))?;
        }
    }
    Ok(())
}
