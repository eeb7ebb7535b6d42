//! Memory objects: a sequence of pages, allocated when first used, contiguous, or device memory; or a window
//! on another object.

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;

use bulkhead_abi::{Error, NAME_MAX, PAGE_SIZE, Result};
use kernel_core::page_map::PageMap;

use crate::arch::{self, CacheMode};
use crate::lock::{Cell, Locked};
use crate::memory::account::Account;
use crate::memory::space::Space;
use crate::memory::{aligned, frames, pages};
use crate::object::Base;

/// Largest size of a memory object, in bytes.
pub const SIZE_MAX: usize = 1 << 36;

/// A memory object.
pub struct Vmo {
    pub base: Base,
    kind: Kind,
    account: Option<Arc<Account>>,
    state: Locked<State>,
    name: Cell<[u8; NAME_MAX]>,
}

enum Kind {
    Anonymous,
    /// Allocated in blocks of frames.
    Contiguous,
    /// Memory that is not the allocator's: device registers, or RAM that the boot entry set aside.
    Physical {
        base: u64,
        cache: CacheMode,
    },
    Slice {
        parent: Arc<Vmo>,
        offset: usize,
    },
}

struct State {
    size: usize,
    pages: PageMap,
    /// Where it is mapped: for revocation and for giving pages back.
    mappings: Vec<(Weak<Space>, usize)>,
    /// Pinned ranges of page indices, a pin each.
    pins: Vec<(usize, usize)>,
    revoked: bool,
}

impl State {
    fn new(size: usize) -> Locked<State> {
        Locked::new(State {
            size,
            pages: PageMap::new(),
            mappings: Vec::new(),
            pins: Vec::new(),
            revoked: false,
        })
    }

    fn pinned(&self, start: usize, end: usize) -> bool {
        self.pins.iter().any(|&(s, e)| s < end && start < e)
    }
}

impl Vmo {
    fn with(kind: Kind, account: Option<Arc<Account>>, size: usize) -> Arc<Vmo> {
        let base = Base::new(bulkhead_abi::ObjectKind::Vmo);
        let name = Cell::new([0; NAME_MAX]);
        Arc::new(Vmo {
            base,
            kind,
            account,
            state: State::new(size),
            name,
        })
    }

    /// Pages that are allocated when first used; `size` is rounded up to pages.
    pub fn anonymous(size: usize, account: Option<Arc<Account>>) -> Result<Arc<Vmo>> {
        if size == 0 || size > SIZE_MAX {
            return Err(Error::OutOfRange);
        }
        Ok(Vmo::with(Kind::Anonymous, account, pages(size) * PAGE_SIZE))
    }

    /// Contiguous pages, zeroed; `size` is rounded up to pages, at most the allocator's largest block.
    pub fn contiguous(size: usize, account: Option<Arc<Account>>) -> Result<Arc<Vmo>> {
        let count = pages(size);
        if count == 0 {
            return Err(Error::OutOfRange);
        }
        let order = count.next_power_of_two().trailing_zeros() as usize;
        if order > kernel_core::buddy::MAX_ORDER {
            return Err(Error::OutOfRange);
        }
        if !frames::user_may_take(1 << order) {
            return Err(Error::NoMemory);
        }
        if let Some(account) = &account {
            account.charge_pages(count as u64)?;
        }
        let Some(first) = frames::alloc_block(order) else {
            if let Some(account) = &account {
                account.release_pages(count as u64);
            }
            return Err(Error::NoMemory);
        };
        let vmo = Vmo::with(Kind::Contiguous, account, count * PAGE_SIZE);
        let mut state = vmo.state.borrow_mut();
        for index in 0..1 << order {
            let frame = first + (index * PAGE_SIZE) as u64;
            if index < count {
                frames::zero(frame);
                state.pages.set(index, frame);
            } else {
                frames::free_block(frame, 0);
            }
        }
        drop(state);
        Ok(vmo)
    }

    /// A range of physical memory that is not the allocator's.
    pub fn physical(base: u64, size: usize, cache: CacheMode) -> Arc<Vmo> {
        Vmo::with(Kind::Physical { base, cache }, None, size)
    }

    /// A window on `parent`: same pages, fixed size.
    pub fn slice(parent: &Arc<Vmo>, offset: usize, len: usize) -> Result<Arc<Vmo>> {
        let end = offset.checked_add(len).ok_or(Error::OutOfRange)?;
        if len == 0 || !aligned(offset) || end > parent.size().next_multiple_of(PAGE_SIZE) {
            return Err(Error::OutOfRange);
        }
        let (root, base) = parent.root(offset);
        let root = root.cloned().unwrap_or_else(|| parent.clone());
        Ok(Vmo::with(
            Kind::Slice {
                parent: root,
                offset: base,
            },
            None,
            pages(len) * PAGE_SIZE,
        ))
    }

    /// The object that holds the pages (`None`: this one), and where `offset` lies in it.
    fn root(&self, offset: usize) -> (Option<&Arc<Vmo>>, usize) {
        match &self.kind {
            Kind::Slice {
                parent,
                offset: base,
            } => (Some(parent), base + offset),
            _ => (None, offset),
        }
    }

    /// Size in bytes.
    pub fn size(&self) -> usize {
        self.state.borrow().size
    }

    /// Name, zero-filled.
    pub fn name(&self) -> [u8; NAME_MAX] {
        self.name.get()
    }

    /// Sets the name.
    pub fn set_name(&self, name: [u8; NAME_MAX]) {
        self.name.set(name);
    }

    /// How its pages are cached.
    pub fn cache(&self) -> CacheMode {
        match &self.kind {
            Kind::Physical { cache, .. } => *cache,
            Kind::Slice { parent, .. } => parent.cache(),
            _ => CacheMode::WriteBack,
        }
    }

    /// Whether it is memory that the kernel may read and write through the direct map.
    fn is_ram(&self) -> bool {
        self.cache() == CacheMode::WriteBack
    }

    /// For `VmoInfo`: committed pages, pinned pages, mappings, flags.
    pub fn counts(&self) -> (u64, u64, u32, u32) {
        let state = self.state.borrow();
        let pinned = state.pins.iter().map(|(s, e)| (e - s) as u64).sum();
        let (committed, flags) = match self.kind {
            Kind::Anonymous => (state.pages.count(), 0),
            Kind::Contiguous => (state.pages.count(), 1),
            Kind::Physical { .. } => (pages(state.size), 2),
            Kind::Slice { .. } => (0, 4),
        };
        (committed as u64, pinned, state.mappings.len() as u32, flags)
    }

    /// Address of the page at a byte offset; allocated if it is absent.
    #[inline]
    pub fn page(&self, offset: usize) -> Result<u64> {
        match &self.kind {
            Kind::Slice {
                parent,
                offset: base,
            } => parent.page(base + offset),
            Kind::Physical { base, .. } => {
                let state = self.state.borrow();
                if state.revoked {
                    return Err(Error::Cancelled);
                }
                if offset >= state.size {
                    return Err(Error::OutOfRange);
                }
                Ok(base + (offset & !(PAGE_SIZE - 1)) as u64)
            }
            Kind::Anonymous | Kind::Contiguous => {
                let mut state = self.state.borrow_mut();
                if offset >= state.size {
                    return Err(Error::OutOfRange);
                }
                let index = offset / PAGE_SIZE;
                if let Some(frame) = state.pages.get(index) {
                    return Ok(frame);
                }
                if !frames::user_may_take(1) || !state.pages.reserve(index) {
                    return Err(Error::NoMemory);
                }
                if let Some(account) = &self.account {
                    account.charge_pages(1)?;
                }
                let Some(frame) = frames::alloc() else {
                    if let Some(account) = &self.account {
                        account.release_pages(1);
                    }
                    return Err(Error::NoMemory);
                };
                frames::zero(frame);
                state.pages.set(index, frame);
                Ok(frame)
            }
        }
    }

    /// Address of the page at a byte offset, if it is there already.
    #[inline]
    pub fn present_page(&self, offset: usize) -> Option<u64> {
        match &self.kind {
            Kind::Slice {
                parent,
                offset: base,
            } => parent.present_page(base + offset),
            Kind::Physical { .. } => self.page(offset).ok(),
            Kind::Anonymous | Kind::Contiguous => self.state.borrow().pages.get(offset / PAGE_SIZE),
        }
    }

    fn check(&self, offset: usize, len: usize) -> Result<usize> {
        let end = offset.checked_add(len).ok_or(Error::OutOfRange)?;
        if end > self.size() {
            Err(Error::OutOfRange)
        } else {
            Ok(end)
        }
    }

    /// Calls `f` with the address of each piece of `offset .. offset + len` within a page, and its position in
    /// the range. Only RAM can be copied.
    pub fn for_each_piece(
        &self,
        offset: usize,
        len: usize,
        mut f: impl FnMut(*mut u8, usize, usize) -> Result<()>,
    ) -> Result<()> {
        self.check(offset, len)?;
        if !self.is_ram() {
            return Err(Error::NotSupported);
        }
        let mut done = 0;
        while done < len {
            let at = offset + done;
            let within = at & (PAGE_SIZE - 1);
            let n = (PAGE_SIZE - within).min(len - done);
            let page = arch::phys_to_virt(self.page(at)?);
            f(page.wrapping_add(within), done, n)?;
            done += n;
        }
        Ok(())
    }

    /// Copies bytes of the kernel into it.
    pub fn write(&self, offset: usize, bytes: &[u8]) -> Result<()> {
        self.for_each_piece(offset, bytes.len(), |p, at, n| {
            // SAFETY: `p` leads to `n` bytes of a page of this object in the direct map; kernel bytes never lie in
            // pages of an object.
            unsafe { p.copy_from_nonoverlapping(bytes[at..at + n].as_ptr(), n) };
            Ok(())
        })
    }

    /// Allocates every page of the range.
    pub fn commit(&self, offset: usize, len: usize) -> Result<()> {
        let end = self.check(offset, len)?;
        let mut at = offset & !(PAGE_SIZE - 1);
        while at < end {
            self.page(at)?;
            at += PAGE_SIZE;
        }
        Ok(())
    }

    /// Gives the whole pages of the range back.
    pub fn decommit(&self, offset: usize, len: usize) -> Result<()> {
        let end = self.check(offset, len)?;
        match self.kind {
            Kind::Anonymous => self.release_pages(pages(offset), end / PAGE_SIZE),
            _ => Err(Error::NotSupported),
        }
    }

    /// Changes the size (rounded up to pages).
    pub fn resize(&self, size: usize) -> Result<()> {
        if size == 0 || size > SIZE_MAX {
            return Err(Error::OutOfRange);
        }
        if !matches!(self.kind, Kind::Anonymous) {
            return Err(Error::NotSupported);
        }
        let old = self.size();
        let size = pages(size) * PAGE_SIZE;
        if size < old {
            let beyond = |(space, va): &(Weak<Space>, usize)| {
                space.upgrade().is_some_and(|s| s.maps_beyond(*va, size))
            };
            if self.state.borrow().mappings.iter().any(beyond) {
                return Err(Error::BadState);
            }
            self.release_pages(size / PAGE_SIZE, old / PAGE_SIZE)?;
        }
        self.state.borrow_mut().size = size;
        Ok(())
    }

    fn release_pages(&self, start: usize, end: usize) -> Result<()> {
        if start >= end {
            return Ok(());
        }
        if self.state.borrow().pinned(start, end) {
            return Err(Error::BadState);
        }
        self.unmap_everywhere(start * PAGE_SIZE, end * PAGE_SIZE);
        let mut released = 0;
        self.state
            .borrow_mut()
            .pages
            .take_range(start, end, |_, frame| {
                frames::release(frame);
                released += 1;
            });
        if let Some(account) = &self.account {
            account.release_pages(released);
        }
        Ok(())
    }

    /// Takes the pages of a byte range out of every page table, and out of every TLB.
    fn unmap_everywhere(&self, start: usize, end: usize) {
        let mappings = self.state.borrow().mappings.clone();
        for (space, va) in mappings {
            if let Some(space) = space.upgrade() {
                space.drop_pages(va, start, end);
            }
        }
    }

    /// Ends a `Physical` object: what was mapped of it faults from now on.
    pub fn revoke(&self) {
        self.state.borrow_mut().revoked = true;
        self.unmap_everywhere(0, usize::MAX);
    }

    /// Remembers a mapping, for revocation and decommit. Offsets are those of the object that holds the pages.
    pub fn add_mapping(&self, space: &Arc<Space>, va: usize) {
        let owner = self.root(0).0.map_or(self, |root| root);
        owner
            .state
            .borrow_mut()
            .mappings
            .push((Arc::downgrade(space), va));
    }

    /// Forgets a mapping.
    pub fn remove_mapping(&self, space: &Space, va: usize) {
        let owner = self.root(0).0.map_or(self, |root| root);
        let mut state = owner.state.borrow_mut();
        let found = |m: &(Weak<Space>, usize)| m.1 == va && core::ptr::eq(m.0.as_ptr(), space);
        if let Some(at) = state.mappings.iter().rposition(found) {
            state.mappings.swap_remove(at);
        }
    }

    /// Where `offset` of this object lies in the object that holds the pages.
    pub fn root_offset(&self, offset: usize) -> usize {
        self.root(offset).1
    }

    /// Pins a range of pages: they stay where they are. Calls `f` with the address of each.
    pub fn pin(
        &self,
        offset: usize,
        len: usize,
        mut f: impl FnMut(usize, u64) -> Result<()>,
    ) -> Result<()> {
        let end = self.check(offset, len)?;
        if len == 0 || !aligned(offset) {
            return Err(Error::InvalidArgument);
        }
        if !self.is_ram() {
            return Err(Error::NotSupported);
        }
        for (n, at) in (offset..end).step_by(PAGE_SIZE).enumerate() {
            f(n, self.page(at)?)?;
        }
        let (root, base) = self.root(offset);
        let owner = root.map_or(self, |r| r);
        owner
            .state
            .borrow_mut()
            .pins
            .push((base / PAGE_SIZE, pages(base + len)));
        Ok(())
    }

    /// Ends a pin of the same range.
    pub fn unpin(&self, offset: usize, len: usize) {
        let (root, base) = self.root(offset);
        let range = (base / PAGE_SIZE, pages(base + len));
        let mut state = root.map_or(self, |r| r).state.borrow_mut();
        if let Some(at) = state.pins.iter().position(|p| *p == range) {
            state.pins.swap_remove(at);
        }
    }
}

impl Drop for Vmo {
    fn drop(&mut self) {
        let mut released = 0;
        let contiguous = matches!(self.kind, Kind::Contiguous);
        let mut state = self.state.borrow_mut();
        state.pages.take_range(0, usize::MAX, |_, frame| {
            // Contiguous pages return to the allocator at once, so that blocks can join again.
            if contiguous {
                frames::free_block(frame, 0)
            } else {
                frames::release(frame)
            }
            released += 1;
        });
        if let Some(account) = &self.account {
            account.release_pages(released);
        }
    }
}
