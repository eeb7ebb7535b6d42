//! The simulator's home: drivers over device models that check what they do. What the suite leaves open, the
//! models' limits and features, comes from the seed.

mod virtio_blk;

pub use virtio_blk::VirtioBlkSim;

use ddk_backend_sim::Payload as Memory;

use crate::device::Payload;

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
