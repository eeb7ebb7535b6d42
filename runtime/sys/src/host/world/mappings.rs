//! Memory objects and mappings.

use std::sync::Arc;

use super::World;
use crate::abi::{MAP_EXEC, MAP_FIXED, MAP_WRITE, RawHandle, Rights, VmoOp};
use crate::host::memory::Memory;
use crate::host::objects::Body;
use crate::host::{Error, Result};

/// Bytes that one memory operation works on, as little as is useful in tests.
const OP_BYTES_MAX: usize = 64 * 1024;

impl World {
    pub(super) fn memory(&mut self, koid: u64) -> Result<Arc<Memory>> {
        match &self.object(koid)?.body {
            Body::Vmo(memory) => Ok(memory.clone()),
            _ => Err(Error::WrongType),
        }
    }

    pub(in crate::host) fn create_vmo(&mut self, size: usize, flags: usize) -> Result<u32> {
        if flags != 0 {
            return Err(Error::NotSupported);
        }
        Ok(self.create(Body::Vmo(Arc::new(Memory::new(size)?))))
    }

    /// # Safety
    ///
    /// `len` bytes at `pointer` are the caller's, for operations that copy.
    pub(in crate::host) unsafe fn vmo_op(
        &mut self,
        handle: u32,
        op: usize,
        offset: usize,
        len: usize,
        pointer: usize,
    ) -> Result<usize> {
        let op = VmoOp::from_number(op).ok_or(Error::InvalidArgument)?;
        let rights = match op {
            VmoOp::Read => Rights::READ,
            VmoOp::Write | VmoOp::Commit | VmoOp::Decommit => Rights::WRITE,
            VmoOp::Slice => Rights::DUPLICATE,
            VmoOp::Resize => return Err(Error::NotSupported),
        };
        let entry = self.entry(handle, rights)?;
        let memory = self.memory(entry.koid)?;
        let len = match op {
            VmoOp::Read | VmoOp::Write | VmoOp::Commit => len.min(OP_BYTES_MAX),
            _ => len,
        };
        let place = memory.at(offset, len)?;
        // SAFETY: `place` has `len` bytes; the rest is the caller's promise. Racing copies of shared
        // memory are as volatile as a kernel's.
        unsafe {
            match op {
                VmoOp::Read => core::ptr::copy(place, pointer as *mut u8, len),
                VmoOp::Write => core::ptr::copy(pointer as *const u8, place, len),
                VmoOp::Decommit => place.write_bytes(0, len),
                VmoOp::Slice => {
                    let slice = Memory::slice(&memory, offset, len)?;
                    let handle = self.create(Body::Vmo(Arc::new(slice)));
                    let index = self.index(handle)?;
                    if let Some(new) = &mut self.table[index].1 {
                        new.rights = entry.rights;
                    }
                    return Ok(handle as usize);
                }
                _ => {}
            }
        }
        Ok(len)
    }

    pub(in crate::host) fn map(
        &mut self,
        process: u32,
        vmo: u32,
        offset: usize,
        len: usize,
        flags: usize,
    ) -> Result<usize> {
        if process != RawHandle::SELF_PROCESS.0 || flags & (MAP_FIXED | MAP_EXEC) != 0 {
            return Err(Error::NotSupported);
        }
        let write = if flags & MAP_WRITE != 0 {
            Rights::WRITE
        } else {
            Rights::NONE
        };
        let entry = self.entry(vmo, Rights::MAP | Rights::READ | write)?;
        if !offset.is_multiple_of(crate::abi::PAGE_SIZE) {
            return Err(Error::InvalidArgument);
        }
        let memory = self.memory(entry.koid)?;
        let address = memory.at(offset, len)? as usize;
        self.mappings.entry(address).or_default().push(memory);
        Ok(address)
    }

    pub(in crate::host) fn unmap(&mut self, process: u32, address: usize) -> Result<()> {
        if process != RawHandle::SELF_PROCESS.0 {
            return Err(Error::NotSupported);
        }
        if let Some(owners) = self.mappings.get_mut(&address) {
            owners.pop();
            if owners.is_empty() {
                self.mappings.remove(&address);
            }
        }
        Ok(())
    }
}
