//! Blocks of shared memory of one size, taken and given back: command tables, indirect descriptor tables.

use alloc::vec::Vec;

use crate::dma::PAGE;
use crate::{DeviceContext, DmaRegion, DriverError};

/// A pool of equal blocks, each contiguous for the device.
#[derive(Debug)]
pub struct DmaPool {
    region: DmaRegion,
    block_bytes: usize,
    free: Vec<u32>,
}

/// A block of a pool. It is given back by value, so not twice.
#[derive(Debug)]
pub struct DmaBlock {
    index: u32,
}

impl DmaPool {
    /// A pool of `count` zeroed blocks of `block_bytes` each, a power of two from 8 to 4096.
    ///
    /// # Errors
    /// When the system refuses the memory or the size is another.
    pub fn new(cx: &DeviceContext, block_bytes: usize, count: u32) -> Result<DmaPool, DriverError> {
        if !block_bytes.is_power_of_two() || !(8..=PAGE).contains(&block_bytes) {
            return Err(DriverError::Protocol {
                what: "bytes of a pool's block",
                expected: PAGE as u64,
                seen: block_bytes as u64,
            });
        }
        let region = cx.dma_region(block_bytes.saturating_mul(count as usize))?;
        Ok(DmaPool {
            region,
            block_bytes,
            free: (0..count).rev().collect(),
        })
    }

    /// A block, with whatever it held last.
    pub fn take(&mut self) -> Option<DmaBlock> {
        self.free.pop().map(|index| DmaBlock { index })
    }

    /// Gives a block back that the device no longer uses.
    pub fn give_back(&mut self, block: DmaBlock) {
        self.free.push(block.index);
    }

    /// Blocks that can be taken.
    pub fn available(&self) -> usize {
        self.free.len()
    }

    /// Where a block starts in the pool's region.
    pub fn offset(&self, block: &DmaBlock) -> usize {
        block.index as usize * self.block_bytes
    }

    /// Device address of a block.
    pub fn device_address(&self, block: &DmaBlock) -> u64 {
        self.region.device_address(self.offset(block))
    }

    /// The memory of all blocks.
    pub fn region(&self) -> &DmaRegion {
        &self.region
    }
}
