//! Memory of a VMO: pages on the heap, mapped where they are.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::sync::Arc;

use crate::abi::{Error, PAGE_SIZE, Result};

pub(super) struct Memory {
    base: *mut u8,
    len: usize,
    layout: Option<Layout>,
    /// Of a slice: what it is a window on.
    _parent: Option<Arc<Memory>>,
}

// SAFETY: an owner of memory that is only accessed by copies and through mappings, which have rules of
// their own.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    pub(super) fn new(len: usize) -> Result<Memory> {
        let len = len
            .checked_next_multiple_of(PAGE_SIZE)
            .ok_or(Error::OutOfRange)?;
        if len == 0 {
            return Err(Error::InvalidArgument);
        }
        let layout = Layout::from_size_align(len, PAGE_SIZE).map_err(|_| Error::OutOfRange)?;
        // SAFETY: the size is not zero.
        let base = unsafe { alloc_zeroed(layout) };
        if base.is_null() {
            return Err(Error::NoMemory);
        }
        Ok(Memory {
            base,
            len,
            layout: Some(layout),
            _parent: None,
        })
    }

    pub(super) fn slice(parent: &Arc<Memory>, offset: usize, len: usize) -> Result<Memory> {
        if !offset.is_multiple_of(PAGE_SIZE) || !len.is_multiple_of(PAGE_SIZE) || len == 0 {
            return Err(Error::InvalidArgument);
        }
        let base = parent.at(offset, len)?;
        Ok(Memory {
            base,
            len,
            layout: None,
            _parent: Some(parent.clone()),
        })
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The address of a range.
    pub(super) fn at(&self, offset: usize, len: usize) -> Result<*mut u8> {
        match offset.checked_add(len) {
            // SAFETY: the offset lies within the block.
            Some(end) if end <= self.len => Ok(unsafe { self.base.add(offset) }),
            _ => Err(Error::OutOfRange),
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Some(layout) = self.layout {
            // SAFETY: allocated with this layout, freed once; slices and mappings hold an `Arc`.
            unsafe { dealloc(self.base, layout) }
        }
    }
}
