//! The simulator's home: drivers over device models that check what they do. What the suite leaves open, the
//! models' limits and features, comes from the seed.

mod nvme;
mod virtio_blk;

pub use nvme::NvmeSim;
pub use virtio_blk::VirtioBlkSim;

use ddk_backend_sim::{DeviceMemory, Payload as Memory, SimPlatform};
use ddk_conformance_block::{Problem, stamp};
use model_media::Media;

use crate::device::{Ended, Payload};

/// Bytes of the disks, but for those of the shape `Odd`.
const DISK_BYTES: u64 = 2 << 20;
/// The block of a damaged disk that can be neither read nor written.
const DAMAGED: u64 = 1234;
/// Blocks of an odd disk.
const ODD_BLOCKS: u64 = 1001;

/// Stamps a medium, and damages it.
fn prepare(media: &mut Media, damaged: Option<u64>) {
    let mut contents = media.contents();
    for (lba, block) in contents.chunks_mut(media.block_bytes()).enumerate() {
        stamp::write(block, lba as u64, 0);
    }
    media.fill(&contents);
    if let Some(bad) = damaged {
        media.fail_reads(bad);
        media.fail_writes(bad);
    }
}

/// What reads return.
fn visible(media: &Media, lba: u64, into: &mut [u8]) -> Result<(), Problem> {
    let bytes = media.read(lba, (into.len() / media.block_bytes()) as u64);
    into.copy_from_slice(&bytes.map_err(|error| Problem::Failed(format!("medium: {error}")))?);
    Ok(())
}

/// What a power cut leaves at the worst.
fn durable(media: &Media, lba: u64, into: &mut [u8]) -> Result<(), Problem> {
    let from = lba as usize * media.block_bytes();
    let bytes = media.durable().get(from..from + into.len());
    into.copy_from_slice(bytes.ok_or_else(|| Problem::failed("outside of the medium"))?);
    Ok(())
}

/// What the driver broke, or left behind.
pub fn finish(platform: &SimPlatform, memory: &DeviceMemory, ended: Ended) -> Result<(), Problem> {
    let violations = platform.violations();
    if !violations.is_empty() {
        let text = violations.join(", ");
        return Err(Problem::Failed(format!("the driver broke rules: {text}")));
    }
    let pages = memory.mapped_pages();
    if ended == Ended::Stopped && pages > 0 {
        return Err(Problem::Failed(format!(
            "{pages} pages are mapped at the end"
        )));
    }
    Ok(())
}

impl Payload for Memory {
    fn read(&self, offset: usize, into: &mut [u8]) {
        into.copy_from_slice(&Memory::read(self, offset, into.len()));
    }

    fn write(&self, offset: usize, bytes: &[u8]) {
        Memory::write(self, offset, bytes);
    }

    fn is_pinned(&self) -> bool {
        Memory::is_pinned(self)
    }
}
