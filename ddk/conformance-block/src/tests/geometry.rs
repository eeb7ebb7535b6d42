//! What the driver says of the disk.

use crate::client::{Bench, ensure};
use crate::home::{Problem, Shape};
use proto::block::Access;

/// The driver's word against that of whoever made the disk, and against itself.
pub(super) fn geometry(bench: &mut Bench<'_>) -> Result<(), Problem> {
    let (info, promise) = (bench.info(), bench.disk.promise());
    ensure!(
        info.block_size == promise.block_size,
        "block size {}, the disk has {}",
        info.block_size,
        promise.block_size
    );
    ensure!(
        info.block_count == promise.block_count,
        "{} blocks, the disk has {}",
        info.block_count,
        promise.block_count
    );
    let read_only = info.access == Access::ReadOnly;
    ensure!(
        read_only == promise.read_only,
        "read-only: {read_only}, the disk: {}",
        promise.read_only
    );
    if let Some(cache) = promise.volatile_cache {
        ensure!(
            info.volatile_cache == cache,
            "volatile cache: {}, the disk: {cache}",
            info.volatile_cache
        );
    }
    if let Some(serial) = &promise.serial {
        ensure!(
            info.serial.starts_with(serial.as_str()),
            "serial number {:?}, the disk's begins with {serial:?}",
            info.serial
        );
    }
    let block = info.block_size;
    ensure!(
        block.is_power_of_two() && (512..=65536).contains(&block),
        "block size {block}"
    );
    ensure!(
        info.physical_block_size >= block && info.physical_block_size.is_power_of_two(),
        "physical block size {}",
        info.physical_block_size
    );
    for (limit, name) in [
        (info.max_transfer, "transfer"),
        (info.max_discard, "discard"),
        (info.max_write_zeroes, "write-zeroes"),
    ] {
        ensure!(
            limit.is_multiple_of(block),
            "longest {name} of {limit} bytes is no multiple of a block"
        );
    }
    ensure!(
        info.max_transfer >= block,
        "longest transfer is less than a block"
    );
    ensure!(info.max_depth > 0 && info.queues > 0, "no queue");
    ensure!(info.first_lba == 0, "a disk begins at {}", info.first_lba);
    // The shape's own promise, without which other tests would show less than they say.
    let fits = match bench.shape {
        Shape::Plain | Shape::ReadOnly | Shape::Damaged => block == 512 && info.block_count >= 2048,
        Shape::LargeBlocks => block == 4096 && info.block_count >= 256,
        Shape::Odd => block == 512 && info.block_count < 2048 && info.block_count % 2 == 1,
    };
    ensure!(
        fits,
        "{} blocks of {block} bytes are not of the shape {}",
        info.block_count,
        bench.shape
    );
    Ok(())
}
