//! The heap: talc over memory that grows in pieces. Nothing is done before the first allocation,
//! and the first piece is zeroed static memory, so a small program makes no system call for it.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::ptr;

use sys::{Mutex, PrivateMemory};
use talc::base::Talc;
use talc::base::binning::DefaultBinning;
use talc::source::Manual;

/// The first piece. Only pages that are touched take memory.
const FIRST_BYTES: usize = 128 * 1024;
/// The smallest further piece; each is twice the one before, up to the largest.
const PIECE_MIN: usize = 512 * 1024;
const PIECE_MAX: usize = 16 * 1024 * 1024;
/// Room in a piece for the allocator's own words.
const PIECE_OVERHEAD: usize = 4096;

#[repr(align(64))]
struct First(UnsafeCell<[u8; FIRST_BYTES]>);

// SAFETY: only handed to the allocator, once, under its lock.
unsafe impl Sync for First {}

static FIRST: First = First(UnsafeCell::new([0; FIRST_BYTES]));

struct State {
    talc: Talc<Manual, DefaultBinning>,
    has_first: bool,
    next_piece: usize,
}

// SAFETY: the allocator owns the memory that it was given; it has no thread affinity.
unsafe impl Send for State {}

struct Heap(Mutex<State>);

#[global_allocator]
static HEAP: Heap = Heap(Mutex::new(State {
    talc: Talc::new(Manual),
    has_first: false,
    next_piece: PIECE_MIN,
}));

impl State {
    /// Gives the allocator another piece, big enough for `layout`.
    #[cold]
    fn grow(&mut self, layout: Layout) -> Option<()> {
        if !self.has_first {
            self.has_first = true;
            // SAFETY: the static memory is used for nothing else, and is claimed once.
            unsafe { self.talc.claim(FIRST.0.get().cast(), FIRST_BYTES) }?;
            if layout.size() + layout.align() + PIECE_OVERHEAD <= FIRST_BYTES {
                return Some(());
            }
        }
        let needed = layout
            .size()
            .checked_add(layout.align())?
            .checked_add(PIECE_OVERHEAD)?;
        let memory = PrivateMemory::new(needed.max(self.next_piece)).ok()?.leak();
        self.next_piece = (self.next_piece * 2).min(PIECE_MAX);
        // SAFETY: fresh memory that nobody else has, mapped for good.
        unsafe { self.talc.claim(memory.as_mut_ptr(), memory.len()) }?;
        Some(())
    }
}

// SAFETY: talc gives out disjoint blocks of the layout asked for, under a lock.
unsafe impl GlobalAlloc for Heap {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let mut state = self.0.lock();
        // SAFETY: the caller says that the size is not zero.
        if let Some(block) = unsafe { state.talc.try_allocate(layout) } {
            return block.as_ptr();
        }
        if state.grow(layout).is_none() {
            return ptr::null_mut();
        }
        // SAFETY: as above.
        unsafe { state.talc.try_allocate(layout) }.map_or(ptr::null_mut(), |b| b.as_ptr())
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller says that the block came from `alloc` with this layout.
        unsafe { self.0.lock().talc.deallocate(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        {
            let mut state = self.0.lock();
            // SAFETY: the caller says that the block came from `alloc` with this layout and that the
            // new size is not zero.
            if unsafe { state.talc.try_realloc_in_place(block, layout, new_size) } {
                return block;
            }
        }
        // SAFETY: the caller says that the new size is valid for the alignment.
        let new_layout = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        // SAFETY: the new size is not zero.
        let new = unsafe { self.alloc(new_layout) };
        if !new.is_null() {
            // SAFETY: both blocks have at least this many bytes and are disjoint; the old one is given
            // back once, here.
            unsafe {
                ptr::copy_nonoverlapping(block, new, layout.size().min(new_size));
                self.dealloc(block, layout);
            }
        }
        new
    }
}
