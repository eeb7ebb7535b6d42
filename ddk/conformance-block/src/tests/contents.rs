//! Contents that somebody else wrote, and that somebody else will read.

use alloc::vec::Vec;

use crate::client::Bench;
use crate::home::Problem;

/// Generation of the stamps that the last test leaves in [`last_blocks`].
pub const LAST_GENERATION: u64 = 0x1a57;

/// First block and number of the runs that the suite leaves stamped with [`LAST_GENERATION`] on each writable
/// disk of so many blocks, for whoever looks at the disk afterwards.
pub fn last_blocks(block_count: u64) -> Vec<(u64, u32)> {
    let run = (block_count / 8).clamp(1, 64);
    Vec::from([
        (0, run as u32),
        (block_count / 2, run as u32),
        (block_count - run, run as u32),
    ])
}

/// What was on the disk before the driver came is read as it is.
pub(super) fn first(bench: &mut Bench<'_>) -> Result<(), Problem> {
    let promise = bench.disk.promise();
    if !promise.stamped {
        return Err(Problem::not_offered("nobody wrote to the disk before"));
    }
    let count = promise.block_count;
    let mut client = bench.client(8, 64 * promise.block_size as usize)?;
    let damaged = promise.damaged;
    let whole = |lba: u64, blocks: u32| {
        !damaged.is_some_and(|bad| (lba..lba + u64::from(blocks)).contains(&bad))
    };
    client.read_stamps(bench, 0, 1, 0)?;
    client.read_stamps(bench, count - 1, 1, 0)?;
    for _ in 0..16 {
        let blocks = bench.rng.u32(1..=64.min(count as u32));
        let lba = bench.rng.u64(0..=count - u64::from(blocks));
        if whole(lba, blocks) {
            client.read_stamps(bench, lba, blocks, 0)?;
        }
    }
    Ok(())
}

/// Leaves stamps that others can check, durably.
pub(super) fn last(bench: &mut Bench<'_>) -> Result<(), Problem> {
    let mut client = bench.client(8, 64 * bench.block() as usize)?;
    let runs = last_blocks(bench.info().block_count);
    for &(lba, blocks) in &runs {
        client.write_stamps(bench, lba, blocks, LAST_GENERATION)?;
    }
    client.done(bench, client.flush())?;
    for (lba, blocks) in runs {
        client.read_stamps(bench, lba, blocks, LAST_GENERATION)?;
        bench.expect_medium(lba, blocks.into(), LAST_GENERATION)?;
    }
    Ok(())
}
