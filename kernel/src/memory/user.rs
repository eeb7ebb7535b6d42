//! Access to user memory: translated through the page table in software and done through the direct map, so that the kernel
//! never uses a user address itself.

use bulkhead_abi::{Error, PAGE_SIZE, Result, USER_MAX};

use crate::arch;
use crate::memory::space::Space;

/// Calls `f` with a kernel pointer for each piece of the range within a page, with its position and length.
#[inline]
pub fn for_each_piece(
    space: &Space,
    address: usize,
    len: usize,
    write: bool,
    mut f: impl FnMut(*mut u8, usize, usize) -> Result<()>,
) -> Result<()> {
    let end = address.checked_add(len).ok_or(Error::BadAddress)?;
    if end > USER_MAX {
        return Err(Error::BadAddress);
    }
    let mut done = 0;
    while done < len {
        let at = address + done;
        let n = (PAGE_SIZE - (at & (PAGE_SIZE - 1))).min(len - done);
        let physical = space.translate(at, write)?;
        f(arch::phys_to_virt(physical), done, n)?;
        done += n;
    }
    Ok(())
}

/// Copies from user memory.
#[inline]
pub fn read(space: &Space, address: usize, out: &mut [u8]) -> Result<()> {
    for_each_piece(space, address, out.len(), false, |p, at, n| {
        // SAFETY: `p` leads to `n` bytes of a present user page in the direct map; `out` is kernel memory or another page (or the same one: the copy allows overlap). User
        // threads may write the page meanwhile: the copy is then any mixture, and is used as untrusted bytes only.
        unsafe { p.copy_to(out[at..at + n].as_mut_ptr(), n) };
        Ok(())
    })
}

/// Copies to user memory.
#[inline]
pub fn write(space: &Space, address: usize, bytes: &[u8]) -> Result<()> {
    for_each_piece(space, address, bytes.len(), true, |p, at, n| {
        // SAFETY: `p` leads to `n` bytes of a present, writable user page in the direct map; `bytes` is kernel
        // memory or a page, which may overlap.
        unsafe { p.copy_from(bytes[at..at + n].as_ptr(), n) };
        Ok(())
    })
}

/// Whether `len` bytes from `address` lie in one page. Then that page decides whether they may be used: what lies beyond the
/// user's addresses is never translated.
#[inline(always)]
fn in_one_page(address: usize, len: usize) -> bool {
    len <= PAGE_SIZE - (address & (PAGE_SIZE - 1))
}

/// Copies from one process's memory to another's.
#[inline(always)]
pub fn copy(from: (&Space, usize), to: (&Space, usize), len: usize) -> Result<()> {
    if len == 0 {
        Ok(())
    } else if in_one_page(from.1, len) && in_one_page(to.1, len) {
        copy_piece(from, to, len)
    } else {
        copy_pieces(from, to, len)
    }
}

/// Within a page on either side.
#[inline(always)]
fn copy_piece(from: (&Space, usize), to: (&Space, usize), len: usize) -> Result<()> {
    let source = from.0.translate(from.1, false)?;
    let target = to.0.translate(to.1, true)?;
    // SAFETY: both lead to `len` bytes of present user pages in the direct map, the target's writable. User threads may
    // write them meanwhile: the copy is then any mixture.
    unsafe {
        arch::copy_bytes(arch::phys_to_virt(source), arch::phys_to_virt(target), len);
    }
    Ok(())
}

#[cold]
fn copy_pieces(from: (&Space, usize), to: (&Space, usize), len: usize) -> Result<()> {
    for start in [from.1, to.1] {
        if start.checked_add(len).is_none_or(|end| end > USER_MAX) {
            return Err(Error::BadAddress);
        }
    }
    let mut done = 0;
    while done < len {
        let (source, target) = (from.1 + done, to.1 + done);
        let rest = |at: usize| PAGE_SIZE - (at & (PAGE_SIZE - 1));
        let n = rest(source).min(rest(target)).min(len - done);
        copy_piece((from.0, source), (to.0, target), n)?;
        done += n;
    }
    Ok(())
}

/// Types without padding for which every bit pattern is valid.
///
/// # Safety
///
/// The implementing type is just that.
pub unsafe trait Plain: Copy + Default {}

macro_rules! plain {
    ($($t:ty),*) => { $(
        // SAFETY: integers, or a `repr(C)` record of integers whose fields leave no gap.
        unsafe impl Plain for $t {}
    )* };
}
plain!(
    u32,
    u64,
    bulkhead_abi::Packet,
    bulkhead_abi::CallArgs,
    bulkhead_abi::ThreadArgs,
    bulkhead_abi::HandleInfo,
    bulkhead_abi::ProcessInfo,
    bulkhead_abi::CrashReport,
    bulkhead_abi::ThreadInfo,
    bulkhead_abi::VmoInfo,
    bulkhead_abi::InterruptInfo,
    bulkhead_abi::DmaInfo,
    bulkhead_abi::ResourceInfo,
    bulkhead_abi::KernelStats,
    bulkhead_abi::CpuInfo,
    bulkhead_abi::MappingInfo,
    bulkhead_abi::SystemInfo,
    bulkhead_abi::InitMessage,
    bulkhead_abi::AcpiTable,
    QuotaRecord
);

/// [`bulkhead_abi::Quota`] as integers.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub struct QuotaRecord {
    pages: u64,
    handles: u32,
    threads: u32,
    processes: u32,
    max_priority: u32,
}

impl From<QuotaRecord> for bulkhead_abi::Quota {
    fn from(q: QuotaRecord) -> Self {
        bulkhead_abi::Quota {
            pages: q.pages,
            handles: q.handles,
            threads: q.threads,
            processes: q.processes,
            max_priority: q.max_priority.min(u32::from(bulkhead_abi::PRIORITY_MAX)),
        }
    }
}

/// The bytes of a record.
pub fn bytes_of<T: Plain>(value: &T) -> &[u8] {
    // SAFETY: `T` is plain: every byte is initialised.
    unsafe { core::slice::from_raw_parts((value as *const T).cast(), size_of::<T>()) }
}

/// Reads a record from user memory.
#[inline]
pub fn read_record<T: Plain>(space: &Space, address: usize) -> Result<T> {
    if in_one_page(address, size_of::<T>()) {
        let record = arch::phys_to_virt(space.translate(address, false)?);
        // SAFETY: leads to the record's bytes in a present user page, and any bytes make a `T`. User threads may write them
        // meanwhile: the copy is then any mixture.
        return Ok(unsafe { record.cast::<T>().read_unaligned() });
    }
    let mut value = T::default();
    // SAFETY: `T` is plain: any bytes make a valid value.
    let bytes = unsafe { core::slice::from_raw_parts_mut((&raw mut value).cast(), size_of::<T>()) };
    read(space, address, bytes)?;
    Ok(value)
}

/// Writes a record to user memory.
#[inline]
pub fn write_record<T: Plain>(space: &Space, address: usize, value: &T) -> Result<()> {
    if in_one_page(address, size_of::<T>()) {
        let record = arch::phys_to_virt(space.translate(address, true)?);
        // SAFETY: leads to room for the record in a present, writable user page; `T` is plain, so that no byte of it is
        // uninitialised.
        unsafe { record.cast::<T>().write_unaligned(*value) };
        return Ok(());
    }
    write(space, address, bytes_of(value))
}
