//! Mapped memory as the cache's memory, and as the target of a read.

use ipc::sys::Mapping;
use volume::{Memory, reader::Sink};

/// A mapping that a device or a host fills.
pub struct MappedMemory(pub Mapping);

impl Memory for MappedMemory {
    fn len_bytes(&self) -> usize {
        self.0.len()
    }
    fn read(&self, offset: usize, into: &mut [u8]) {
        // The cache asks for nothing outside.
        let _ = self.0.read(offset, into);
    }
}

/// A read into a mapping: one copy, from mapping to mapping.
pub struct BufferSink<'a> {
    target: &'a Mapping,
    at: usize,
    failed: bool,
}

impl<'a> BufferSink<'a> {
    /// The read's first byte goes to byte `at` of `target`.
    pub fn new(target: &'a Mapping, at: usize) -> Self {
        Self {
            target,
            at,
            failed: false,
        }
    }

    /// Whether something did not fit; the caller checks lengths before.
    pub fn failed(&self) -> bool {
        self.failed
    }

    fn place(&self, position: u64) -> usize {
        usize::try_from(position).map_or(usize::MAX, |position| self.at.saturating_add(position))
    }
}

impl Sink<MappedMemory> for BufferSink<'_> {
    fn cached(&mut self, position: u64, memory: &MappedMemory, offset: usize, len: usize) {
        let at = self.place(position);
        self.failed |= self.target.copy_from(at, &memory.0, offset, len).is_err();
    }
    fn zeroes(&mut self, position: u64, len: u64) {
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        self.failed |= self.target.fill(self.place(position), len, 0).is_err();
    }
    fn bytes(&mut self, position: u64, bytes: &[u8]) {
        self.failed |= self.target.write(self.place(position), bytes).is_err();
    }
}
