//! The kernel's heap: the slab allocator for small objects, blocks of frames for big ones.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{NonNull, null_mut};

use kernel_core::slab::{PageSource, Slab, class_of};

use crate::arch;
use crate::lock::{Cell, Locked};
use crate::memory::{frames, pages};

struct Heap;

#[global_allocator]
static HEAP: Heap = Heap;

static SLAB: Locked<Slab> = Locked::new(Slab::new());
static BLOCK_PAGES: Cell<usize> = Cell::new(0);

/// Pages that the heap holds.
pub fn page_count() -> usize {
    SLAB.borrow().pages() + BLOCK_PAGES.get()
}

struct FrameSource;

// SAFETY: frames are page-sized, page-aligned, and belong to whoever allocated them.
unsafe impl PageSource for FrameSource {
    fn allocate(&mut self) -> Option<NonNull<u8>> {
        NonNull::new(arch::phys_to_virt(frames::alloc()?))
    }
    unsafe fn release(&mut self, page: NonNull<u8>) {
        frames::release(virt_to_phys(page.as_ptr()));
    }
}

fn virt_to_phys(pointer: *mut u8) -> u64 {
    (pointer as usize - arch::phys_to_virt(0) as usize) as u64
}

fn order(layout: Layout) -> usize {
    pages(layout.size().max(layout.align()))
        .next_power_of_two()
        .trailing_zeros() as usize
}

// SAFETY: small layouts get blocks of the slab, whose classes are at least as big and aligned as asked; others get
// whole blocks of frames, aligned to their size. The kernel lock serialises all calls.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if let Some(class) = class_of(layout) {
            return SLAB.borrow_mut().allocate(class, &mut FrameSource);
        }
        let order = order(layout);
        if order == 0 {
            let Some(frame) = frames::alloc() else {
                return null_mut();
            };
            BLOCK_PAGES.set(BLOCK_PAGES.get() + 1);
            return arch::phys_to_virt(frame);
        }
        match frames::alloc_block(order) {
            Some(frame) => {
                BLOCK_PAGES.set(BLOCK_PAGES.get() + (1 << order));
                arch::phys_to_virt(frame)
            }
            None => null_mut(),
        }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if class_of(layout).is_some() {
            // SAFETY: a pointer with this layout came from the slab.
            return unsafe { SLAB.borrow_mut().release(pointer, &mut FrameSource) };
        }
        let order = order(layout);
        BLOCK_PAGES.set(BLOCK_PAGES.get() - (1 << order));
        if order == 0 {
            frames::release(virt_to_phys(pointer));
        } else {
            frames::free_block(virt_to_phys(pointer), order);
        }
    }
}
