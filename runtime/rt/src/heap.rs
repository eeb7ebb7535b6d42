//! The heap: lists of free small blocks, and talc for the rest, over memory that grows in pieces. Nothing is done before the first allocation,
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

/// Small blocks come in sizes that are multiples of this.
const CLASS_STEP: usize = 16;
/// Number of those sizes: blocks of up to 512 bytes are small.
const CLASSES: usize = 32;
/// Bytes taken from the general allocator at a time for small blocks, at least.
const REFILL_BYTES: usize = 512;

/// A free small block holds the address of the next one of its size.
struct Free {
    next: *mut Free,
}

struct State {
    talc: Talc<Manual, DefaultBinning>,
    /// Free small blocks by size. They stay small blocks: most programs use the same sizes again and
    /// again, and taking one from here costs a tenth of what the general allocator needs.
    small: [*mut Free; CLASSES],
    has_first: bool,
    next_piece: usize,
}

// SAFETY: the allocator owns the memory that it was given; it has no thread affinity.
unsafe impl Send for State {}

struct Heap(Mutex<State>);

#[global_allocator]
static HEAP: Heap = Heap(Mutex::new(State {
    talc: Talc::new(Manual),
    small: [ptr::null_mut(); CLASSES],
    has_first: false,
    next_piece: PIECE_MIN,
}));

/// The class of small blocks that a layout belongs to.
#[inline]
const fn class_of(layout: Layout) -> Option<usize> {
    // A size of 0 does not come here.
    let class = (layout.size() - 1) / CLASS_STEP;
    if class < CLASSES && layout.align() <= CLASS_STEP {
        Some(class)
    } else {
        None
    }
}

impl State {
    /// Gives the general allocator another piece, big enough for `layout`.
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

    /// A block of the general allocator; null if there is no memory.
    fn allocate_general(&mut self, layout: Layout) -> *mut u8 {
        // SAFETY: sizes are not zero: callers of `alloc` promise it, and so is a refill's.
        if let Some(block) = unsafe { self.talc.try_allocate(layout) } {
            return block.as_ptr();
        }
        if self.grow(layout).is_none() {
            return ptr::null_mut();
        }
        // SAFETY: as above.
        unsafe { self.talc.try_allocate(layout) }.map_or(ptr::null_mut(), |b| b.as_ptr())
    }

    /// A block of a class that has no free one: cuts a general block into several.
    #[cold]
    fn refill(&mut self, class: usize) -> *mut u8 {
        let size = (class + 1) * CLASS_STEP;
        let count = (REFILL_BYTES / size).max(2);
        let Ok(layout) = Layout::from_size_align(size * count, CLASS_STEP) else {
            return ptr::null_mut();
        };
        let first = self.allocate_general(layout);
        if !first.is_null() {
            for i in (1..count).rev() {
                // SAFETY: the block has `count` parts of `size` bytes, each aligned for a pointer, and
                // is nobody else's.
                unsafe {
                    let part = first.add(i * size).cast::<Free>();
                    part.write(Free {
                        next: self.small[class],
                    });
                    self.small[class] = part;
                }
            }
        }
        first
    }
}

// SAFETY: gives out disjoint blocks of at least the layout asked for, under a lock: parts of general
// blocks that are cut once and only ever handed on whole, and talc's own.
unsafe impl GlobalAlloc for Heap {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let mut state = self.0.lock();
        let Some(class) = class_of(layout) else {
            return state.allocate_general(layout);
        };
        let block = state.small[class];
        if block.is_null() {
            return state.refill(class);
        }
        // SAFETY: a block in the list is free and holds the next one's address.
        state.small[class] = unsafe { (*block).next };
        block.cast()
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let mut state = self.0.lock();
        let Some(class) = class_of(layout) else {
            // SAFETY: the caller says that the block came from `alloc` with this layout, so it is talc's.
            unsafe { state.talc.deallocate(block, layout) };
            return;
        };
        let free = block.cast::<Free>();
        // SAFETY: the block came from `alloc` with a layout of this class, so it is large enough and
        // aligned; nobody uses it any more.
        unsafe {
            free.write(Free {
                next: state.small[class],
            })
        };
        state.small[class] = free;
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller says that the new size is valid for the alignment.
        let new_layout = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        match (class_of(layout), class_of(new_layout)) {
            (Some(old), Some(new)) if old == new => return block,
            (None, None) => {
                let mut state = self.0.lock();
                // SAFETY: the caller says that the block came from `alloc` with this layout, so it is
                // talc's, and that the new size is not zero.
                if unsafe { state.talc.try_realloc_in_place(block, layout, new_size) } {
                    return block;
                }
            }
            _ => {}
        }
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
