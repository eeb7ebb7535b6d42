//! Page frames: the buddy allocator over all RAM, with a cache of single frames for each CPU.

use boot::info::{BootInfo, MemoryKind};
use kernel_core::buddy::{BYTES_PER_FRAME, Buddy, Link};

use crate::arch::{self, MAX_CPUS};
use crate::lock::{Cell, Locked};
use crate::memory::PAGE_SIZE;

/// Frames in a CPU's cache at most.
const CACHE: usize = 64;
/// Frames that only the kernel itself may take: user requests fail before they are touched, so that the
/// kernel's own small allocations do not.
const RESERVE: usize = 256;

struct Cache {
    frames: [u32; CACHE],
    len: usize,
}

static BUDDY: Locked<Option<Buddy<'static>>> = Locked::new(None);
static CACHES: [Locked<Cache>; MAX_CPUS] = [const {
    Locked::new(Cache {
        frames: [0; CACHE],
        len: 0,
    })
}; MAX_CPUS];
static CACHED: Cell<usize> = Cell::new(0);
static TOTAL: Cell<usize> = Cell::new(0);

/// Takes over the memory map. Frame 0 is never handed out.
pub fn init(info: &BootInfo) {
    let end_frame = (info.usable_end() as usize) / PAGE_SIZE;
    let bytes = end_frame * BYTES_PER_FRAME + PAGE_SIZE;
    let need = bytes.div_ceil(PAGE_SIZE) * PAGE_SIZE;
    // Above 1 MiB: below lie the trampoline of the other CPUs and firmware data.
    let usable = |start: u64| start.max(0x10_0000);
    let home = info
        .memory
        .iter()
        .filter(|r| r.kind == MemoryKind::Usable)
        .find(|r| r.end().saturating_sub(usable(r.start)) >= need as u64)
        .map(|r| usable(r.start));
    let Some(home) = home else {
        panic!("no RAM for the page allocator ({need} bytes)")
    };
    let base = arch::phys_to_virt(home);
    // SAFETY: `home .. home + need` is usable RAM that nothing else has been given yet, mapped by the direct map;
    // both types accept the initialised bytes that `Buddy::new` writes, and links come first, page-aligned.
    let (links, state) = unsafe {
        base.write_bytes(0, need);
        (
            core::slice::from_raw_parts_mut(base.cast::<Link>(), end_frame),
            core::slice::from_raw_parts_mut(base.add(end_frame * size_of::<Link>()), end_frame),
        )
    };
    let mut buddy = Buddy::new(links, state);
    for region in info.memory.iter().filter(|r| r.kind == MemoryKind::Usable) {
        let (start, end) = (usable(region.start), region.end());
        if start >= end {
            continue;
        }
        let frame = |address: u64| address as usize / PAGE_SIZE;
        if (start..end).contains(&home) {
            buddy.add_range(frame(start), frame(home));
            buddy.add_range(frame(home) + need / PAGE_SIZE, frame(end));
        } else {
            buddy.add_range(frame(start), frame(end));
        }
    }
    TOTAL.set(buddy.free_pages());
    *BUDDY.borrow_mut() = Some(buddy);
}

/// Frames under the allocator.
pub fn total() -> usize {
    TOTAL.get()
}

/// Frames that are free.
pub fn free_count() -> usize {
    CACHED.get() + BUDDY.borrow().as_ref().map_or(0, |b| b.free_pages())
}

/// Whether a user request for `pages` frames leaves the kernel its reserve.
pub fn user_may_take(pages: usize) -> bool {
    free_count() >= pages.saturating_add(RESERVE)
}

/// A frame with unknown contents.
#[inline]
pub fn alloc() -> Option<u64> {
    let mut cache = CACHES[arch::cpu_id()].borrow_mut();
    if cache.len == 0 {
        let mut buddy = BUDDY.borrow_mut();
        let buddy = buddy.as_mut()?;
        while cache.len < CACHE / 2 {
            let Some(frame) = buddy.allocate(0) else {
                break;
            };
            let at = cache.len;
            cache.frames[at] = frame as u32;
            cache.len += 1;
        }
        CACHED.set(CACHED.get() + cache.len);
        if cache.len == 0 {
            drop(cache);
            return steal();
        }
    }
    cache.len -= 1;
    CACHED.set(CACHED.get() - 1);
    Some(u64::from(cache.frames[cache.len]) * PAGE_SIZE as u64)
}

/// The last frames may be in other CPUs' caches.
#[cold]
fn steal() -> Option<u64> {
    CACHES.iter().find_map(|cache| {
        let mut cache = cache.borrow_mut();
        cache.len = cache.len.checked_sub(1)?;
        CACHED.set(CACHED.get() - 1);
        Some(u64::from(cache.frames[cache.len]) * PAGE_SIZE as u64)
    })
}

static TABLES: Cell<usize> = Cell::new(0);

/// Frames in page tables.
pub fn table_count() -> usize {
    TABLES.get()
}

/// A frame of zeroes for a page table.
pub fn alloc_zeroed() -> Option<u64> {
    let frame = alloc()?;
    zero(frame);
    TABLES.set(TABLES.get() + 1);
    Some(frame)
}

/// Gives a page table's frame back.
pub fn free(frame: u64) {
    TABLES.set(TABLES.get() - 1);
    release(frame);
}

/// Fills a frame with zeroes.
#[inline]
pub fn zero(frame: u64) {
    // SAFETY: the caller owns the frame, which is RAM in the direct map.
    unsafe {
        arch::phys_to_virt(frame)
            .cast::<[u64; PAGE_SIZE / 8]>()
            .write_bytes(0, 1)
    }
}

/// Gives a frame back.
#[inline]
pub fn release(frame: u64) {
    let mut cache = CACHES[arch::cpu_id()].borrow_mut();
    let number = frame as usize / PAGE_SIZE;
    if cache.len == CACHE {
        let mut buddy = BUDDY.borrow_mut();
        let buddy = buddy.as_mut().expect("frames are freed after init");
        for _ in 0..CACHE / 2 {
            cache.len -= 1;
            let old = cache.frames[cache.len] as usize;
            buddy.release(old, 0).expect("a frame is freed once");
        }
        CACHED.set(CACHED.get() - CACHE / 2);
    }
    let at = cache.len;
    cache.frames[at] = number as u32;
    cache.len += 1;
    CACHED.set(CACHED.get() + 1);
}

/// 2^`order` contiguous frames, aligned to their size.
pub fn alloc_block(order: usize) -> Option<u64> {
    let frame = BUDDY.borrow_mut().as_mut()?.allocate(order)?;
    Some((frame * PAGE_SIZE) as u64)
}

/// Gives a block, or an aligned part of one, back.
pub fn free_block(frame: u64, order: usize) {
    let mut buddy = BUDDY.borrow_mut();
    let buddy = buddy.as_mut().expect("frames are freed after init");
    buddy
        .release(frame as usize / PAGE_SIZE, order)
        .expect("a block is freed once");
}
