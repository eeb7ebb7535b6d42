//! Virtual memory objects: pages that can be mapped, shared and pinned.

use crate::abi::{Error, Result, Syscall, Topic, VMO_CONTIGUOUS, VmoInfo, VmoOp};
use crate::handle::{AsHandle, handle_type, new_handle, object_info, set_name};
use crate::mmio::CacheMode;
use crate::raw::syscall;
use crate::resource::Resource;

handle_type! {
    /// Pages of memory.
    Vmo
}

impl Vmo {
    /// Zeroed memory of `size_bytes` (rounded up to pages); pages are allocated at first use.
    pub fn create(size_bytes: usize) -> Result<Vmo> {
        // SAFETY: no memory is passed.
        let raw = unsafe { syscall(Syscall::VmoCreate, [size_bytes, 0, 0]) };
        Ok(new_handle(raw.result()?))
    }

    /// Zeroed memory in one physical piece, allocated now. Needs a `DmaDevice` resource.
    pub fn create_contiguous(size_bytes: usize, dma_device: &Resource) -> Result<Vmo> {
        // SAFETY: no memory is passed.
        let raw = unsafe {
            syscall(
                Syscall::VmoCreate,
                [size_bytes, VMO_CONTIGUOUS, dma_device.arg()],
            )
        };
        Ok(new_handle(raw.result()?))
    }

    /// Device memory at a physical address that an `Mmio` resource covers.
    pub fn physical(
        mmio: &Resource,
        base: u64,
        size_bytes: usize,
        cache: CacheMode,
    ) -> Result<Vmo> {
        // SAFETY: no memory is passed.
        let raw = unsafe {
            syscall(
                Syscall::VmoPhysical,
                [mmio.arg(), base as usize, size_bytes, cache as usize],
            )
        };
        Ok(new_handle(raw.result()?))
    }

    /// Copies from the VMO. `OutOfRange` if it ends too early. Needs `READ`.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let (pointer, len) = (buffer.as_mut_ptr() as usize, buffer.len());
        // SAFETY: the kernel writes `len` bytes to a slice that is borrowed exclusively.
        unsafe { self.op_in_pieces(VmoOp::Read, offset, len, pointer) }
    }

    /// Copies into the VMO. Needs `WRITE`.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let (pointer, len) = (bytes.as_ptr() as usize, bytes.len());
        // SAFETY: the kernel reads `len` bytes of a borrowed slice. Memory that safe code borrows is
        // never backed by a VMO whose handle is at large (see `PrivateMemory`).
        unsafe { self.op_in_pieces(VmoOp::Write, offset, len, pointer) }
    }

    /// Allocates the pages of a range now.
    pub fn commit(&self, offset: u64, len: usize) -> Result<()> {
        // SAFETY: no memory is passed.
        unsafe { self.op_in_pieces(VmoOp::Commit, offset, len, 0) }
    }

    /// Gives the pages of a range back; they read as zero from then on. Fails while one is pinned.
    pub fn decommit(&self, offset: u64, len: usize) -> Result<()> {
        // SAFETY: as for `write`: the contents change, but nobody borrows them.
        unsafe { self.op(VmoOp::Decommit, offset, len, 0) }.map(|_| ())
    }

    /// A VMO that is a window on this one (page-aligned, the same pages).
    pub fn slice(&self, offset: u64, len: usize) -> Result<Vmo> {
        // SAFETY: no memory is passed.
        unsafe { self.op(VmoOp::Slice, offset, len, 0) }.map(new_handle)
    }

    /// Sets the size; shrinking fails while a page beyond is pinned or mapped. Needs `MANAGE`.
    pub fn resize(&self, size_bytes: usize) -> Result<()> {
        // SAFETY: no memory is passed.
        unsafe { self.op(VmoOp::Resize, 0, size_bytes, 0) }.map(|_| ())
    }

    /// Size, committed and pinned pages, mappings.
    pub fn vmo_info(&self) -> Result<VmoInfo> {
        object_info(self.as_handle(), Topic::Vmo)
    }

    /// Size in bytes.
    pub fn size(&self) -> Result<u64> {
        Ok(self.vmo_info()?.size)
    }

    /// Names it, for reports; cut at 32 bytes.
    pub fn set_name(&self, name: &str) -> Result<()> {
        set_name(self.raw(), name)
    }

    /// Repeats an operation, of which the kernel does a bounded part at a time.
    ///
    /// # Safety
    ///
    /// As for [`Vmo::op`].
    unsafe fn op_in_pieces(
        &self,
        op: VmoOp,
        offset: u64,
        len: usize,
        pointer: usize,
    ) -> Result<()> {
        let mut done = 0usize;
        loop {
            let at = offset.checked_add(done as u64).ok_or(Error::OutOfRange)?;
            // SAFETY: a part of what the caller promises; for operations without memory the pointer
            // means nothing.
            let n = unsafe { self.op(op, at, len - done, pointer.wrapping_add(done)) }?;
            done += n.min(len - done);
            if done == len {
                return Ok(());
            }
            if n == 0 {
                return Err(Error::OutOfRange);
            }
        }
    }

    /// # Safety
    ///
    /// For `Read` and `Write`, `len` bytes at `pointer` are ours to write or read.
    unsafe fn op(&self, op: VmoOp, offset: u64, len: usize, pointer: usize) -> Result<usize> {
        // SAFETY: the caller's promise.
        unsafe {
            syscall(
                Syscall::VmoOp,
                [self.arg(), op as usize, offset as usize, len, pointer],
            )
        }
        .result()
    }
}
