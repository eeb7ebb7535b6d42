//! Buffers for one message each, so that sending and receiving needs no allocation and no big stack
//! frame. They stand in zeroed static memory, of which only pages that are touched exist.

use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicBool, Ordering};

use alloc::vec::Vec;

use crate::abi::MESSAGE_BYTES_MAX;

/// Buffers kept; who needs one more gets it from the heap. As many as threads are in calls at a time, but for servers of crowds.
const SLOTS: usize = 16;

#[repr(C, align(64))]
struct Slot {
    bytes: UnsafeCell<[u8; MESSAGE_BYTES_MAX]>,
    taken: AtomicBool,
}

// SAFETY: the bytes are only reached through a `Scratch`, and `taken` lets one exist at a time.
unsafe impl Sync for Slot {}

static POOL: [Slot; SLOTS] = [const {
    Slot {
        bytes: UnsafeCell::new([0; MESSAGE_BYTES_MAX]),
        taken: AtomicBool::new(false),
    }
}; SLOTS];

enum Place {
    Pool(&'static Slot),
    Heap(Vec<u8>),
}

/// A buffer that holds the longest message. Its contents are whatever the last user left.
pub struct Scratch(Place);

impl Scratch {
    /// Takes a buffer.
    #[inline]
    pub fn take() -> Scratch {
        for slot in &POOL {
            if !slot.taken.swap(true, Ordering::Acquire) {
                return Scratch(Place::Pool(slot));
            }
        }
        Scratch(Place::Heap(alloc::vec![0; MESSAGE_BYTES_MAX]))
    }
}

impl Deref for Scratch {
    type Target = [u8];
    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.0 {
            // SAFETY: this `Scratch` is the only one of the slot (`taken`), and is borrowed.
            Place::Pool(slot) => unsafe { &*slot.bytes.get() },
            Place::Heap(bytes) => bytes,
        }
    }
}

impl DerefMut for Scratch {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        match &mut self.0 {
            // SAFETY: as above, borrowed exclusively.
            Place::Pool(slot) => unsafe { &mut *slot.bytes.get() },
            Place::Heap(bytes) => bytes,
        }
    }
}

impl Drop for Scratch {
    #[inline]
    fn drop(&mut self) {
        if let Place::Pool(slot) = &self.0 {
            slot.taken.store(false, Ordering::Release);
        }
    }
}
