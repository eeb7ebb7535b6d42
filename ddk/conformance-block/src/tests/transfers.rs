//! Reads and writes of every length and place, one at a time.

use alloc::vec;
use alloc::vec::Vec;

use crate::client::{Bench, Client, ensure};
use crate::home::Problem;

/// Bytes beside a transfer that must not change.
const GUARD: usize = 4096;
/// What they hold.
const GUARD_BYTE: u8 = 0x5a;

/// Each written block is where it should be, and its neighbours are what they were.
pub(super) fn single_blocks(bench: &mut Bench<'_>) -> Result<(), Problem> {
    let count = bench.info().block_count;
    let mut client = bench.client(4, 8 * bench.block() as usize)?;
    let mut places = vec![0, 1, count / 2, count - 2, count - 1];
    places.extend((0..8).map(|_| bench.rng.u64(2..count - 2)));
    for (n, lba) in places.into_iter().enumerate() {
        let generation = 100 + n as u64 * 2;
        let first = lba.saturating_sub(1);
        let blocks = (count - first).min(3) as u32;
        client.write_stamps(bench, first, blocks, generation)?;
        client.write_stamps(bench, lba, 1, generation + 1)?;
        for at in first..first + u64::from(blocks) {
            let expected = generation + u64::from(at == lba);
            client.read_stamps(bench, at, 1, expected)?;
            bench.expect_medium(at, 1, expected)?;
        }
    }
    Ok(())
}

/// Longest transfer that the tests use: what the driver allows, unless the disk is smaller.
fn longest(bench: &Bench<'_>) -> u32 {
    /// More would only take longer.
    const ENOUGH: u32 = 4 << 20;
    let info = bench.info();
    let disk = info.block_count.min(u64::from(ENOUGH / info.block_size));
    info.max_transfer.min(disk as u32 * info.block_size) / info.block_size
}

/// Writes and reads back a run of blocks at an offset of the buffer; what stands beside it stays.
fn round_trip(
    bench: &mut Bench<'_>,
    client: &mut Client,
    lba: u64,
    blocks: u32,
    offset: u64,
    generation: u64,
) -> Result<(), Problem> {
    let len = (blocks * bench.block()) as usize;
    client.fill(bench, 0, client.buffer_len, GUARD_BYTE)?;
    client.put_stamps(bench, offset, lba, blocks, generation)?;
    client.done(bench, client.write(lba, blocks, offset))?;
    client.check_stamps(bench, offset, lba, blocks, generation)?;
    bench.expect_medium(lba, blocks.into(), generation)?;
    client.fill(bench, offset as usize, len, !GUARD_BYTE)?;
    client.done(bench, client.read(lba, blocks, offset))?;
    client.check_stamps(bench, offset, lba, blocks, generation)?;
    let (before, after) = (offset as usize, offset as usize + len);
    for (from, to) in [
        (before.saturating_sub(GUARD), before),
        (after, (after + GUARD).min(client.buffer_len)),
    ] {
        let guard = client.bytes(bench, from as u64, to - from)?;
        let touched = guard.iter().position(|byte| *byte != GUARD_BYTE);
        ensure!(
            touched.is_none(),
            "{blocks} blocks at offset {offset}: byte {} of the buffer changed",
            from + touched.unwrap_or(0)
        );
    }
    Ok(())
}

/// Lengths from one block to beyond what a page, a list and a table of descriptors take.
pub(super) fn lengths(bench: &mut Bench<'_>) -> Result<(), Problem> {
    let (block, count) = (bench.block(), bench.info().block_count);
    let most = longest(bench);
    let page = (4096 / block).max(1);
    let mut lengths: Vec<u32> = Vec::new();
    for pages in [1, 2, 3, 4, 5, 7, 8, 9, 13, 14, 15, 16, 17, 31, 32, 33, 64] {
        let blocks = pages * page;
        lengths.extend([blocks - 1, blocks, blocks + 1]);
    }
    lengths.retain(|blocks| (1..=most).contains(blocks));
    lengths.sort_unstable();
    lengths.dedup();
    let mut client = bench.client(4, most.min(65 * page) as usize * block as usize + 2 * GUARD)?;
    for (n, blocks) in lengths.into_iter().enumerate() {
        let lba = bench.rng.u64(0..=count - u64::from(blocks));
        round_trip(
            bench,
            &mut client,
            lba,
            blocks,
            GUARD as u64,
            200 + n as u64,
        )?;
    }
    Ok(())
}

/// Transfers that begin anywhere in a page.
pub(super) fn buffer_offsets(bench: &mut Bench<'_>) -> Result<(), Problem> {
    let (block, count) = (bench.block(), bench.info().block_count);
    let most = longest(bench);
    let page = (4096 / block).max(1);
    let mut client = bench.client(4, 12 * 4096.max(block as usize) + 2 * GUARD)?;
    let odd = bench.rng.u64(1..1024) * 4;
    for (n, offset) in [0, 4, 256, 512, 1024, 2048, 3584, 4092, odd]
        .into_iter()
        .enumerate()
    {
        for (m, blocks) in [1, page, page + 1, 2 * page, 4 * page + 1]
            .into_iter()
            .enumerate()
        {
            if blocks > most {
                continue;
            }
            let lba = bench.rng.u64(0..=count - u64::from(blocks));
            let generation = 300 + 10 * n as u64 + m as u64;
            let offset = GUARD as u64 + offset;
            round_trip(bench, &mut client, lba, blocks, offset, generation)?;
        }
    }
    Ok(())
}

/// The longest transfer that the driver promises, however its pages lie.
pub(super) fn largest(bench: &mut Bench<'_>) -> Result<(), Problem> {
    let (block, count) = (bench.block(), bench.info().block_count);
    let most = longest(bench);
    let len = most as usize * block as usize;
    let mut client = bench.client(4, len + 3 * GUARD)?;
    for (n, offset) in [0, 4, 2048, 4092].into_iter().enumerate() {
        let last = count - u64::from(most);
        let lba = if n % 2 == 0 { last } else { 0 };
        let offset = GUARD as u64 + offset;
        round_trip(bench, &mut client, lba, most, offset, 400 + n as u64)?;
    }
    Ok(())
}
