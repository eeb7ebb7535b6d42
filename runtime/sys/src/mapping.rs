//! Mapped memory. [`Mapping`] is memory that others may change at any time: it is copied, or
//! accessed through atomics, and never borrowed. [`PrivateMemory`] is nobody else's: slices.

use alloc::sync::Arc;
use core::ops::Deref;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64};

use crate::abi::{
    Error, MAP_EXEC, MAP_FIXED, MAP_POPULATE, MAP_READ, MAP_WRITE, PAGE_SIZE, RawHandle, Result,
    Syscall,
};
use crate::raw::syscall;
use crate::vmo::Vmo;

/// What a mapping allows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MapAccess {
    /// Reading.
    Read,
    /// Reading and writing.
    ReadWrite,
    /// Reading and writing, every page mapped now: no fault at the first use.
    ReadWritePopulated,
}

impl MapAccess {
    const fn flags(self) -> usize {
        match self {
            MapAccess::Read => MAP_READ,
            MapAccess::ReadWrite => MAP_READ | MAP_WRITE,
            MapAccess::ReadWritePopulated => MAP_READ | MAP_WRITE | MAP_POPULATE,
        }
    }
}

/// `len` rounded up to pages.
pub(crate) fn round_to_pages(len: usize) -> Result<usize> {
    len.checked_next_multiple_of(PAGE_SIZE)
        .ok_or(Error::OutOfRange)
}

/// Maps into the own address space where the kernel chooses.
pub(crate) fn map_own(vmo: &Vmo, offset: u64, len: usize, flags: usize) -> Result<NonNull<u8>> {
    // SAFETY: without MAP_FIXED the kernel chooses addresses that nothing uses.
    let address = unsafe {
        syscall(
            Syscall::VmMap,
            [
                RawHandle::SELF_PROCESS.0 as usize,
                vmo.arg(),
                offset as usize,
                len,
                flags,
                0,
            ],
        )
    }
    .result()?;
    NonNull::new(address as *mut u8).ok_or(Error::Internal)
}

/// # Safety
///
/// Nothing refers to the range any more.
pub(crate) unsafe fn unmap_own(base: NonNull<u8>, len: usize) {
    // SAFETY: the caller's promise.
    let _ = unsafe {
        syscall(
            Syscall::VmUnmap,
            [
                RawHandle::SELF_PROCESS.0 as usize,
                base.as_ptr() as usize,
                len,
            ],
        )
    };
}

/// What a segment of a program may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SegmentAccess {
    /// Reading.
    Read,
    /// Reading and writing.
    ReadWrite,
    /// Reading and executing.
    ReadExecute,
}

/// Maps a VMO into another process, at exactly `address` if one is given. For loaders of programs;
/// the own process is refused.
pub(crate) fn map_into(
    process: RawHandle,
    vmo: &Vmo,
    offset: u64,
    len: usize,
    access: SegmentAccess,
    address: Option<usize>,
) -> Result<usize> {
    if process == RawHandle::SELF_PROCESS {
        return Err(Error::InvalidArgument);
    }
    let access = match access {
        SegmentAccess::Read => MAP_READ,
        SegmentAccess::ReadWrite => MAP_READ | MAP_WRITE,
        SegmentAccess::ReadExecute => MAP_READ | MAP_EXEC,
    };
    let fixed = if address.is_some() { MAP_FIXED } else { 0 };
    let flags = access | fixed;
    // SAFETY: with MAP_FIXED the range must be free, so even a handle to the own process overlays
    // nothing that is in use.
    unsafe {
        syscall(
            Syscall::VmMap,
            [
                process.0 as usize,
                vmo.arg(),
                offset as usize,
                len,
                flags,
                address.unwrap_or(0),
            ],
        )
    }
    .result()
}

/// A part of a VMO in the own address space; unmapped on drop. Its bytes may be changed by others
/// at any time, so no reference to them exists.
#[derive(Debug)]
pub struct Mapping {
    base: NonNull<u8>,
    len: usize,
    mapped_len: usize,
    writable: bool,
}

// SAFETY: the mapping belongs to the process, not to a thread; access is by volatile copies and
// atomics.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `len` bytes from the page-aligned `offset` on. The handle needs `MAP` and what `access`
    /// asks for.
    pub fn map(vmo: &Vmo, offset: u64, len: usize, access: MapAccess) -> Result<Mapping> {
        if len == 0 {
            return Err(Error::InvalidArgument);
        }
        let mapped_len = round_to_pages(len)?;
        let base = map_own(vmo, offset, mapped_len, access.flags())?;
        Ok(Mapping {
            base,
            len,
            mapped_len,
            writable: access != MapAccess::Read,
        })
    }

    /// Makes a VMO of `len` bytes and maps it for reading and writing.
    pub fn create(len: usize) -> Result<(Vmo, Mapping)> {
        let vmo = Vmo::create(round_to_pages(len)?)?;
        let mapping = Mapping::map(&vmo, 0, len, MapAccess::ReadWrite)?;
        Ok((vmo, mapping))
    }

    /// Bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never: a mapping has at least one byte.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether it may be written.
    pub fn is_writable(&self) -> bool {
        self.writable
    }

    /// The address of `len` bytes at `offset`, if they lie within.
    #[inline]
    fn range(&self, offset: usize, len: usize) -> Result<*mut u8> {
        match offset.checked_add(len) {
            // SAFETY: the offset lies within the mapping.
            Some(end) if end <= self.len => Ok(unsafe { self.base.as_ptr().add(offset) }),
            _ => Err(Error::OutOfRange),
        }
    }

    #[inline]
    fn writable_range(&self, offset: usize, len: usize) -> Result<*mut u8> {
        if !self.writable {
            return Err(Error::AccessDenied);
        }
        self.range(offset, len)
    }

    /// Copies bytes out. `OutOfRange` beyond the end.
    #[inline]
    pub fn read(&self, offset: usize, buffer: &mut [u8]) -> Result<()> {
        let source = self.range(offset, buffer.len())?;
        // SAFETY: the source lies within the mapping, the target is borrowed exclusively, and private
        // memory is never part of a `Mapping`.
        unsafe { copy_bytes(buffer.as_mut_ptr(), source, buffer.len()) };
        Ok(())
    }

    /// Copies bytes out to the end of a vector.
    pub fn read_to_vec(
        &self,
        offset: usize,
        len: usize,
        vector: &mut alloc::vec::Vec<u8>,
    ) -> Result<()> {
        let source = self.range(offset, len)?;
        vector.reserve(len);
        // SAFETY: as in `read`; `len` bytes of spare capacity were reserved and are initialised by the
        // copy before the length includes them.
        unsafe {
            copy_bytes(vector.as_mut_ptr().add(vector.len()), source, len);
            vector.set_len(vector.len() + len);
        }
        Ok(())
    }

    /// Copies bytes in. `OutOfRange` beyond the end, `AccessDenied` if it is read-only.
    #[inline]
    pub fn write(&self, offset: usize, bytes: &[u8]) -> Result<()> {
        let target = self.writable_range(offset, bytes.len())?;
        // SAFETY: the target lies within the mapping and is never part of borrowed memory.
        unsafe { copy_bytes(target, bytes.as_ptr(), bytes.len()) };
        Ok(())
    }

    /// Sets bytes.
    pub fn fill(&self, offset: usize, len: usize, byte: u8) -> Result<()> {
        let target = self.writable_range(offset, len)?;
        // SAFETY: the target lies within the mapping and is never part of borrowed memory.
        unsafe { fill_bytes(target, byte, len) };
        Ok(())
    }

    /// Copies `len` bytes from another mapping (or the same one, if the ranges do not overlap:
    /// `InvalidArgument` else).
    pub fn copy_from(
        &self,
        offset: usize,
        source: &Mapping,
        source_offset: usize,
        len: usize,
    ) -> Result<()> {
        let from = source.range(source_offset, len)?;
        let to = self.writable_range(offset, len)?;
        if (from as usize).abs_diff(to as usize) < len {
            return Err(Error::InvalidArgument);
        }
        // SAFETY: both lie within live mappings and do not overlap.
        unsafe { copy_bytes(to, from, len) };
        Ok(())
    }

    /// # Safety
    ///
    /// None needed beyond `T` being one of the standard atomics: it may be shared with anybody.
    #[inline]
    fn atomic<T>(&self, offset: usize) -> Result<&T> {
        let place = self.writable_range(offset, size_of::<T>())?;
        if !(place as usize).is_multiple_of(align_of::<T>()) {
            return Err(Error::InvalidArgument);
        }
        // SAFETY: aligned, within the mapping for as long as `self` is borrowed, valid for any bits
        // (called for atomic integers only), and all other access is atomic or by opaque copies.
        Ok(unsafe { &*place.cast::<T>() })
    }

    /// The byte at `offset` as an atomic.
    pub fn atomic_u8(&self, offset: usize) -> Result<&AtomicU8> {
        self.atomic(offset)
    }
    /// The 16-bit word at `offset` as an atomic; `InvalidArgument` if it is not aligned.
    pub fn atomic_u16(&self, offset: usize) -> Result<&AtomicU16> {
        self.atomic(offset)
    }
    /// The 32-bit word at `offset` as an atomic; `InvalidArgument` if it is not aligned.
    pub fn atomic_u32(&self, offset: usize) -> Result<&AtomicU32> {
        self.atomic(offset)
    }
    /// The 64-bit word at `offset` as an atomic; `InvalidArgument` if it is not aligned.
    pub fn atomic_u64(&self, offset: usize) -> Result<&AtomicU64> {
        self.atomic(offset)
    }

    /// First address, for [`MmioRegion`](crate::MmioRegion) and rings.
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: references to its atomics borrow the mapping, so there is none left.
        unsafe { unmap_own(self.base, self.mapped_len) }
    }
}

/// A mapping with several owners, such as the two ends of a session: memory for rings.
#[derive(Clone, Debug)]
pub struct SharedMapping(Arc<Mapping>);

impl SharedMapping {
    /// Shares a mapping.
    pub fn new(mapping: Mapping) -> SharedMapping {
        SharedMapping(Arc::new(mapping))
    }
}

impl Deref for SharedMapping {
    type Target = Mapping;
    fn deref(&self) -> &Mapping {
        &self.0
    }
}

// SAFETY: the mapping is page-aligned, stays mapped as long as any clone lives, and hands out atomics
// only. A read-only mapping gives no memory at all, so that no ring fits.
unsafe impl ring::Memory for SharedMapping {
    fn base(&self) -> NonNull<u8> {
        self.0.base
    }
    fn len(&self) -> usize {
        if self.0.writable { self.0.len } else { 0 }
    }
}

/// Zeroed memory that nobody else has: its VMO has no other handle. Pages are allocated at first
/// use; for big buffers that need no heap.
#[derive(Debug)]
pub struct PrivateMemory {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: owned memory without thread affinity.
unsafe impl Send for PrivateMemory {}
// SAFETY: shared access is read access.
unsafe impl Sync for PrivateMemory {}

impl PrivateMemory {
    /// At least `len` bytes.
    pub fn new(len: usize) -> Result<PrivateMemory> {
        if len == 0 {
            return Err(Error::InvalidArgument);
        }
        let len = round_to_pages(len)?;
        let vmo = Vmo::create(len)?;
        let base = map_own(&vmo, 0, len, MAP_READ | MAP_WRITE)?;
        // The handle is dropped here: the mapping is the only way to the pages.
        Ok(PrivateMemory { base, len })
    }

    /// The bytes.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: zero-initialised, mapped as long as `self` lives, reachable only through it.
        unsafe { core::slice::from_raw_parts(self.base.as_ptr(), self.len) }
    }

    /// The bytes.
    #[inline]
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as above, borrowed exclusively.
        unsafe { core::slice::from_raw_parts_mut(self.base.as_ptr(), self.len) }
    }

    /// Gives up ownership: the memory stays mapped for good.
    pub fn leak(self) -> &'static mut [u8] {
        let (base, len) = (self.base, self.len);
        core::mem::forget(self);
        // SAFETY: as above, and it is never unmapped.
        unsafe { core::slice::from_raw_parts_mut(base.as_ptr(), len) }
    }
}

impl Drop for PrivateMemory {
    fn drop(&mut self) {
        // SAFETY: slices borrow the memory, so there is none left.
        unsafe { unmap_own(self.base, self.len) }
    }
}

/// Copies bytes of which one side may change meanwhile. The copy is opaque to the compiler, so that
/// such a change gives mixed bytes and not undefined behaviour.
///
/// # Safety
///
/// `len` bytes at `from` are readable and at `to` writable; they do not overlap.
#[inline]
#[cfg(target_os = "none")]
unsafe fn copy_bytes(to: *mut u8, from: *const u8, len: usize) {
    // SAFETY: the caller's promise; the direction flag is clear by the calling convention.
    unsafe {
        core::arch::asm!(
            "rep movsq",
            "mov rcx, rdx",
            "rep movsb",
            inout("rcx") len / 8 => _, in("rdx") len % 8, inout("rdi") to => _, inout("rsi") from => _,
            options(nostack, preserves_flags)
        );
    }
}

/// # Safety
///
/// `len` bytes at `to` are writable.
#[inline]
#[cfg(target_os = "none")]
unsafe fn fill_bytes(to: *mut u8, byte: u8, len: usize) {
    let word = u64::from(byte).wrapping_mul(0x0101_0101_0101_0101);
    // SAFETY: the caller's promise; the direction flag is clear by the calling convention.
    unsafe {
        core::arch::asm!(
            "rep stosq",
            "mov rcx, rdx",
            "rep stosb",
            inout("rcx") len / 8 => _, in("rdx") len % 8, inout("rdi") to => _, in("rax") word,
            options(nostack, preserves_flags)
        );
    }
}

/// # Safety
///
/// As for the real one.
#[cfg(not(target_os = "none"))]
unsafe fn copy_bytes(to: *mut u8, from: *const u8, len: usize) {
    for i in 0..len {
        // SAFETY: within the ranges that the caller promises.
        unsafe { to.add(i).write_volatile(from.add(i).read_volatile()) }
    }
}

/// # Safety
///
/// As for the real one.
#[cfg(not(target_os = "none"))]
unsafe fn fill_bytes(to: *mut u8, byte: u8, len: usize) {
    for i in 0..len {
        // SAFETY: within the range that the caller promises.
        unsafe { to.add(i).write_volatile(byte) }
    }
}
