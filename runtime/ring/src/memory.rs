//! The memory that a ring lives in: anything that gives a base address and stays mapped, and a
//! stand-in for the model checker.

#[cfg(not(loom))]
mod real {
    use alloc::alloc::{alloc_zeroed, dealloc, handle_alloc_error};
    use alloc::sync::Arc;
    use core::alloc::Layout as AllocLayout;
    use core::marker::PhantomData;
    use core::ptr::NonNull;
    use core::sync::atomic::{AtomicU32, AtomicU64};

    use crate::layout::{ARMED, CACHE_LINE, ENTRIES, HEAD, TAIL};

    /// Memory that two sides share.
    ///
    /// # Safety
    ///
    /// From `base()` on, `len()` bytes stay readable and writable for as long as the value lives,
    /// also when it is moved; `base()` is aligned to 64 bytes and never changes; nobody holds a
    /// reference other than to atomics into these bytes.
    pub unsafe trait Memory {
        /// First byte.
        fn base(&self) -> NonNull<u8>;
        /// Bytes.
        fn len(&self) -> usize;
        /// Whether there is nothing.
        fn is_empty(&self) -> bool {
            self.len() == 0
        }
    }

    struct Block {
        base: NonNull<u8>,
        layout: AllocLayout,
    }

    // SAFETY: the block is only an owner of memory; access goes through atomics.
    unsafe impl Send for Block {}
    // SAFETY: as above.
    unsafe impl Sync for Block {}

    impl Drop for Block {
        fn drop(&mut self) {
            // SAFETY: `base` was allocated with this layout and is freed once, here.
            unsafe { dealloc(self.base.as_ptr(), self.layout) }
        }
    }

    /// Ring memory on the heap, for two threads of a process and for tests.
    #[derive(Clone)]
    pub struct HeapMemory(Arc<Block>);

    impl HeapMemory {
        /// Zeroed memory of at least `len_bytes`.
        pub fn new(len_bytes: usize) -> HeapMemory {
            let size = len_bytes.max(CACHE_LINE);
            let Ok(layout) = AllocLayout::from_size_align(size, CACHE_LINE) else {
                handle_alloc_error(AllocLayout::new::<u8>())
            };
            // SAFETY: the size is not zero.
            let base = unsafe { alloc_zeroed(layout) };
            let Some(base) = NonNull::new(base) else {
                handle_alloc_error(layout)
            };
            HeapMemory(Arc::new(Block { base, layout }))
        }
    }

    // SAFETY: the block lives as long as any clone, is aligned to a cache line, and hands out no
    // references.
    unsafe impl Memory for HeapMemory {
        fn base(&self) -> NonNull<u8> {
            self.0.base
        }
        fn len(&self) -> usize {
            self.0.layout.size()
        }
    }

    /// A ring's parts, found once so that the hot path is plain pointer arithmetic.
    pub(crate) struct Parts<M> {
        base: NonNull<u8>,
        _memory: M,
        _not_sync: PhantomData<*const ()>,
    }

    // SAFETY: the pointer leads into memory that `_memory` keeps alive on whatever thread it is.
    unsafe impl<M: Send> Send for Parts<M> {}

    impl<M: Memory> Parts<M> {
        /// # Safety
        ///
        /// The ring that starts at `offset` lies within the memory, and `offset` is a multiple of 64.
        pub(crate) unsafe fn new(memory: M, offset: usize) -> Parts<M> {
            // SAFETY: the caller says that the offset lies within the memory.
            let base = unsafe { memory.base().add(offset) };
            Parts {
                base,
                _memory: memory,
                _not_sync: PhantomData,
            }
        }
    }

    impl<M> Parts<M> {
        #[inline]
        fn u32_at(&self, offset: usize) -> &AtomicU32 {
            // SAFETY: `new` was promised that the ring's control lines lie within live memory, and the
            // offsets are multiples of 4; all access to them is atomic.
            unsafe { self.base.add(offset).cast::<AtomicU32>().as_ref() }
        }
        #[inline]
        pub(crate) fn tail(&self) -> &AtomicU32 {
            self.u32_at(TAIL)
        }
        #[inline]
        pub(crate) fn head(&self) -> &AtomicU32 {
            self.u32_at(HEAD)
        }
        #[inline]
        pub(crate) fn armed(&self) -> &AtomicU32 {
            self.u32_at(ARMED)
        }
        /// # Safety
        ///
        /// `index` is below the number of 8-byte words in the ring's entries.
        #[inline]
        pub(crate) unsafe fn word(&self, index: usize) -> &AtomicU64 {
            // SAFETY: by the caller's promise the word lies within the ring; entries start at a
            // multiple of 64, so it is aligned; all access to it is atomic.
            unsafe {
                self.base
                    .add(ENTRIES + index * 8)
                    .cast::<AtomicU64>()
                    .as_ref()
            }
        }
    }
}

#[cfg(loom)]
mod model {
    use std::sync::Arc;

    use loom::sync::atomic::{AtomicU32, AtomicU64};

    struct Cells {
        tail: AtomicU32,
        head: AtomicU32,
        armed: AtomicU32,
        words: Vec<AtomicU64>,
    }

    /// Ring memory of the model checker's own cells.
    #[derive(Clone)]
    pub struct ModelMemory(Arc<Cells>);

    impl ModelMemory {
        /// Memory for `len_bytes`.
        pub fn new(len_bytes: usize) -> ModelMemory {
            ModelMemory(Arc::new(Cells {
                tail: AtomicU32::new(0),
                head: AtomicU32::new(0),
                armed: AtomicU32::new(0),
                words: (0..len_bytes / 8).map(|_| AtomicU64::new(0)).collect(),
            }))
        }
    }

    /// Memory that two sides share; under the model checker only [`ModelMemory`].
    ///
    /// # Safety
    ///
    /// None of its own here.
    pub unsafe trait Memory {
        /// The cells.
        fn cells(&self) -> ModelMemory;
        /// Bytes.
        fn len(&self) -> usize;
    }

    // SAFETY: nothing is promised.
    unsafe impl Memory for ModelMemory {
        fn cells(&self) -> ModelMemory {
            self.clone()
        }
        fn len(&self) -> usize {
            self.0.words.len() * 8
        }
    }

    pub(crate) struct Parts<M> {
        cells: ModelMemory,
        _memory: M,
    }

    impl<M: Memory> Parts<M> {
        /// # Safety
        ///
        /// None of its own here.
        pub(crate) unsafe fn new(memory: M, _offset: usize) -> Parts<M> {
            Parts {
                cells: memory.cells(),
                _memory: memory,
            }
        }
    }

    impl<M> Parts<M> {
        pub(crate) fn tail(&self) -> &AtomicU32 {
            &self.cells.0.tail
        }
        pub(crate) fn head(&self) -> &AtomicU32 {
            &self.cells.0.head
        }
        pub(crate) fn armed(&self) -> &AtomicU32 {
            &self.cells.0.armed
        }
        /// # Safety
        ///
        /// None of its own here.
        pub(crate) unsafe fn word(&self, index: usize) -> &AtomicU64 {
            &self.cells.0.words[index]
        }
    }
}

#[cfg(loom)]
pub(crate) use model::Parts;
#[cfg(loom)]
pub use model::{Memory, ModelMemory};
#[cfg(not(loom))]
pub(crate) use real::Parts;
#[cfg(not(loom))]
pub use real::{HeapMemory, Memory};
