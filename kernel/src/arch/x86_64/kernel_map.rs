//! Mappings of the kernel's own outside image and direct map: stacks, each above
//! unmapped pages, and device registers. They are made at start and never removed.

use super::boot::kernel_root;
use super::layout::{PAGE_SIZE, REGION, index};
use super::lock::SpinLock;
use super::paging::{
    ACCESSED, ADDRESS, DIRTY, GLOBAL, NO_EXECUTE, PRESENT, UNCACHED, WRITE, read, write,
};
use crate::arch::NoMemory;
use crate::memory::frames;

/// Address space for each mapping is rounded up to this, and at least one page in
/// front of it stays unmapped.
const ALIGN: u64 = 1 << 17;

static NEXT: SpinLock<u64> = SpinLock::new(REGION);

fn reserve(len: u64) -> u64 {
    let mut next = NEXT.lock();
    // The mapping ends where the slot ends, so that the gap is below.
    let slot = (len + PAGE_SIZE as u64).next_multiple_of(ALIGN);
    *next += slot;
    *next - len
}

fn map(va: u64, entry: u64) -> Result<(), NoMemory> {
    let mut table = kernel_root();
    for level in [4, 3, 2] {
        let slot = index(va as usize, level);
        let next = read(table, slot);
        table = if next & PRESENT != 0 {
            next & ADDRESS
        } else {
            let new = frames::alloc_zeroed().ok_or(NoMemory)?;
            write(table, slot, new | PRESENT | WRITE | ACCESSED);
            new
        };
    }
    write(
        table,
        index(va as usize, 1),
        entry | PRESENT | WRITE | ACCESSED | DIRTY | GLOBAL | NO_EXECUTE,
    );
    Ok(())
}

/// Allocates a stack of `len` bytes (a multiple of the page size) and returns its
/// top.
pub fn stack(len: usize) -> Result<u64, NoMemory> {
    let base = reserve(len as u64);
    for offset in (0..len).step_by(PAGE_SIZE) {
        map(
            base + offset as u64,
            frames::alloc_zeroed().ok_or(NoMemory)?,
        )?;
    }
    Ok(base + len as u64)
}

/// Maps `len` bytes of device registers at `pa`, uncached, and returns the address
/// of the first.
pub fn registers(pa: u64, len: usize) -> Result<usize, NoMemory> {
    let offset = pa % PAGE_SIZE as u64;
    let pages = (offset as usize + len).div_ceil(PAGE_SIZE);
    let base = reserve((pages * PAGE_SIZE) as u64);
    for page in 0..pages as u64 {
        let step = page * PAGE_SIZE as u64;
        map(base + step, ((pa & ADDRESS) + step) | UNCACHED)?;
    }
    Ok((base + offset) as usize)
}
