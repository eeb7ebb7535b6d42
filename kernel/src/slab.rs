//! Allocator for small objects: pages cut into blocks of one size class, a header at the start of each page.
//!
//! Pages come from a [`PageSource`] and go back to it when their last block is freed (one page per class is
//! kept). It does no locking.

use core::alloc::Layout;
use core::ptr::{NonNull, null_mut};

/// Bytes in a page; pages are aligned to their size.
pub const PAGE: usize = 4096;
const HEADER: usize = 64;

/// Block sizes in bytes. Every block is aligned to 16 bytes, those of a power of two of at most 64 to their size.
pub const CLASSES: [usize; 13] = [16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1008, 2016];

/// The index in [`CLASSES`] that serves a layout; `None` where it wants whole pages.
#[inline]
pub fn class_of(layout: Layout) -> Option<usize> {
    if layout.align() > 16 {
        // Only 64-byte blocks in a page with a 64-byte header are aligned to more than 16.
        return (layout.align() <= 64 && layout.size() <= 64).then_some(3);
    }
    let size = layout.size();
    if size <= 64 {
        return Some(size.saturating_sub(1) / 16);
    }
    CLASSES[4..].iter().position(|&c| size <= c).map(|i| i + 4)
}

/// Where pages come from.
///
/// # Safety
///
/// `allocate` returns memory of [`PAGE`] bytes, aligned to its size, that nobody else uses until `release`.
pub unsafe trait PageSource {
    /// A page, or `None`.
    fn allocate(&mut self) -> Option<NonNull<u8>>;
    /// Takes a page back.
    ///
    /// # Safety
    ///
    /// The page came from `allocate` and is no longer used.
    unsafe fn release(&mut self, page: NonNull<u8>);
}

#[repr(C)]
struct PageHeader {
    next: *mut PageHeader,
    prev: *mut PageHeader,
    free: *mut FreeBlock,
    used: u16,
    class: u16,
    /// Blocks from here on were never handed out and are on no list.
    fresh: u16,
}

struct FreeBlock {
    next: *mut FreeBlock,
}

/// The allocator.
#[derive(Debug)]
pub struct Slab {
    /// Pages of each class that have a free block.
    partial: [*mut PageHeader; CLASSES.len()],
    pages: usize,
}

// SAFETY: the pointers lead to pages that only this allocator uses; who owns it may use it from any CPU.
unsafe impl Send for Slab {}

impl Default for Slab {
    fn default() -> Self {
        Slab::new()
    }
}

impl Slab {
    /// An allocator without pages.
    pub const fn new() -> Slab {
        Slab {
            partial: [null_mut(); CLASSES.len()],
            pages: 0,
        }
    }

    /// Pages held.
    pub fn pages(&self) -> usize {
        self.pages
    }

    const fn blocks(class: usize) -> u16 {
        ((PAGE - HEADER) / CLASSES[class]) as u16
    }

    /// A block of the class, or null when the source has no page.
    #[inline]
    pub fn allocate(&mut self, class: usize, source: &mut impl PageSource) -> *mut u8 {
        let mut page = self.partial[class];
        if page.is_null() {
            let Some(memory) = source.allocate() else {
                return null_mut();
            };
            page = memory.as_ptr().cast();
            // SAFETY: a fresh page of ours, aligned, big enough for the header.
            unsafe {
                page.write(PageHeader {
                    next: null_mut(),
                    prev: null_mut(),
                    free: null_mut(),
                    used: 0,
                    class: class as u16,
                    fresh: 0,
                });
            }
            self.partial[class] = page;
            self.pages += 1;
        }
        // SAFETY: pages on the partial list are ours, initialised, and have a free or fresh block; free blocks
        // hold a valid link.
        unsafe {
            let header = &mut *page;
            let block = if !header.free.is_null() {
                let block = header.free;
                header.free = (*block).next;
                block.cast::<u8>()
            } else {
                let block = page
                    .cast::<u8>()
                    .add(HEADER + header.fresh as usize * CLASSES[class]);
                header.fresh += 1;
                block
            };
            header.used += 1;
            if header.free.is_null() && header.fresh == Self::blocks(class) {
                let next = header.next;
                self.partial[class] = next;
                header.next = null_mut();
                if !next.is_null() {
                    (*next).prev = null_mut();
                }
            }
            block
        }
    }

    /// Takes a block back.
    ///
    /// # Safety
    ///
    /// `block` came from `allocate` of this allocator and is no longer used.
    #[inline]
    pub unsafe fn release(&mut self, block: *mut u8, source: &mut impl PageSource) {
        let page = block.map_addr(|a| a & !(PAGE - 1)).cast::<PageHeader>();
        // SAFETY: by the caller's word the block lies in one of our pages, whose header is initialised, and is
        // big enough for a link.
        unsafe {
            let header = &mut *page;
            let class = header.class as usize;
            let was_full = header.free.is_null() && header.fresh == Self::blocks(class);
            let link = block.cast::<FreeBlock>();
            link.write(FreeBlock { next: header.free });
            header.free = link;
            header.used -= 1;
            if was_full {
                let first = self.partial[class];
                header.next = first;
                header.prev = null_mut();
                if !first.is_null() {
                    (*first).prev = page;
                }
                self.partial[class] = page;
            } else if header.used == 0 && !(self.partial[class] == page && header.next.is_null()) {
                let (next, prev) = (header.next, header.prev);
                if prev.is_null() {
                    self.partial[class] = next;
                } else {
                    (*prev).next = next;
                }
                if !next.is_null() {
                    (*next).prev = prev;
                }
                self.pages -= 1;
                source.release(NonNull::new_unchecked(page.cast()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    struct Host {
        live: usize,
    }

    // SAFETY: memory of the global allocator with the layout of a page.
    unsafe impl PageSource for Host {
        fn allocate(&mut self) -> Option<NonNull<u8>> {
            self.live += 1;
            // SAFETY: the layout is not empty.
            NonNull::new(unsafe { std::alloc::alloc(Layout::from_size_align(PAGE, PAGE).unwrap()) })
        }
        unsafe fn release(&mut self, page: NonNull<u8>) {
            self.live -= 1;
            // SAFETY: the caller gives back what `allocate` returned.
            unsafe {
                std::alloc::dealloc(page.as_ptr(), Layout::from_size_align(PAGE, PAGE).unwrap())
            }
        }
    }

    #[test]
    fn classes_fit_their_layouts() {
        for size in (0..=2016).step_by(if cfg!(miri) { 63 } else { 1 }) {
            for align in [1, 2, 4, 8, 16] {
                let class = class_of(Layout::from_size_align(size, align).unwrap()).unwrap();
                assert!(CLASSES[class] >= size && CLASSES[class].is_multiple_of(16));
                assert!(class == 0 || CLASSES[class - 1] < size.max(1));
            }
        }
        assert_eq!(class_of(Layout::from_size_align(2017, 8).unwrap()), None);
        assert_eq!(class_of(Layout::from_size_align(60, 64).unwrap()), Some(3));
        assert_eq!(class_of(Layout::from_size_align(8, 128).unwrap()), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 64 }))]
        #[test]
        fn blocks_keep_their_contents(ops in prop::collection::vec((any::<bool>(), 1usize..2016, any::<usize>()), 1..if cfg!(miri) { 40 } else { 300 })) {
            let mut host = Host { live: 0 };
            let mut slab = Slab::new();
            let mut held: Vec<(*mut u8, usize, u8)> = Vec::new();
            for (n, (free, size, pick)) in ops.into_iter().enumerate() {
                if free && !held.is_empty() {
                    let (block, size, tag) = held.swap_remove(pick % held.len());
                    // SAFETY: the block is live and has `size` bytes.
                    let kept = unsafe { core::slice::from_raw_parts(block, size) };
                    prop_assert_eq!(kept, vec![tag; size]);
                    // SAFETY: the block came from this slab and is not used again.
                    unsafe { slab.release(block, &mut host) };
                } else {
                    let class = class_of(Layout::from_size_align(size, 8).unwrap()).unwrap();
                    let block = slab.allocate(class, &mut host);
                    prop_assert!(!block.is_null() && (block as usize).is_multiple_of(16));
                    // SAFETY: a fresh block of at least `size` bytes.
                    unsafe { block.write_bytes(n as u8, size) };
                    held.push((block, size, n as u8));
                }
                prop_assert_eq!(slab.pages(), host.live);
            }
            for (block, _, _) in held {
                // SAFETY: live until here.
                unsafe { slab.release(block, &mut host) };
            }
            prop_assert!(host.live <= CLASSES.len());
            for page in slab.partial {
                if let Some(page) = NonNull::new(page) {
                    // SAFETY: kept pages are empty now.
                    unsafe { host.release(page.cast()) };
                }
            }
        }
    }
}
