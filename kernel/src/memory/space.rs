//! Address spaces: what is mapped where, and the page table that follows it.

use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};

use bulkhead_abi::{
    Error, MAP_EXEC, MAP_FIXED, MAP_POPULATE, MAP_READ, MAP_WRITE, MappingInfo, PAGE_SIZE, Result,
    SYSTEM_INFO_ADDR, USER_MAX, USER_MIN,
};

use crate::arch::{self, Access, CacheMode, MapFlags, PageTable};
use crate::lock::{Cell, Locked};
use crate::memory::aligned;
use crate::memory::vmo::Vmo;
use crate::sched;

/// Pages that a fault maps beyond the one that was touched, if they are present.
const FAULT_AROUND: usize = 16;
/// Up to so many pages are unmapped one by one, which frees no page table.
const FEW_PAGES: usize = 64;
/// Translations that the kernel keeps for itself.
const CACHE: usize = 16;
/// Where the kernel starts to place mappings.
const PLACE_FROM: usize = SYSTEM_INFO_ADDR + 2 * PAGE_SIZE;
/// What one last-level page table maps.
const TABLE_SPAN: usize = 512 * PAGE_SIZE;
/// Gaps that one call looks at: the kernel's lock is held meanwhile.
const GAPS_LOOKED_AT: usize = 32;
/// Most mappings of an address space.
const MAPPINGS_MAX: usize = 16 * 1024;

struct Mapping {
    len: usize,
    vmo: Arc<Vmo>,
    offset: usize,
    flags: usize,
    /// What `protect` may set: what the handle allowed.
    allowed: usize,
}

struct State {
    table: PageTable,
    mappings: BTreeMap<usize, Mapping>,
    next: usize,
    /// Where the search for a gap goes on.
    search: usize,
    resident: usize,
}

/// An address space.
pub struct Space {
    state: Locked<State>,
    /// CPUs that have its page table loaded.
    cpus: Cell<u64>,
    /// Its process has ended.
    dead: Cell<bool>,
    /// The kernel's own translations for this space: (page address | 1 if writable, physical page), by page number. They
    /// save a page walk each time the kernel reads or writes the same buffers.
    cache: [Cell<(usize, u64)>; CACHE],
    this: Weak<Space>,
}

impl Space {
    /// An address space that holds only the system-information page.
    pub fn new(info_page: u64) -> Result<Arc<Space>> {
        let mut table = PageTable::new().ok_or(Error::NoMemory)?;
        let flags = MapFlags {
            write: false,
            exec: false,
            cache: CacheMode::WriteBack,
        };
        table
            .map(SYSTEM_INFO_ADDR, info_page, flags)
            .map_err(|_| Error::NoMemory)?;
        let state = State {
            table,
            mappings: BTreeMap::new(),
            next: PLACE_FROM,
            search: PLACE_FROM,
            resident: 0,
        };
        Ok(Arc::new_cyclic(|this| Space {
            state: Locked::new(state),
            cpus: Cell::new(0),
            dead: Cell::new(false),
            cache: [const { Cell::new((0, 0)) }; CACHE],
            this: this.clone(),
        }))
    }

    /// Loads it on this CPU.
    #[inline]
    pub fn activate(&self) {
        self.cpus.set(self.cpus.get() | 1 << arch::cpu_id());
        self.state.borrow().table.activate();
    }

    /// This CPU has loaded another one.
    #[inline]
    pub fn left(&self) {
        self.cpus.set(self.cpus.get() & !(1 << arch::cpu_id()));
    }

    /// CPUs that have it loaded.
    pub fn cpus(&self) -> u64 {
        self.cpus.get()
    }

    /// Its process has ended: an idle CPU gives it up.
    pub fn set_dead(&self) {
        self.dead.set(true);
    }

    /// Whether its process has ended.
    pub fn is_dead(&self) -> bool {
        self.dead.get()
    }

    /// Pages mapped.
    pub fn resident(&self) -> usize {
        self.state.borrow().resident
    }

    /// Maps `offset .. offset + len` of an object. `allowed` are the `MAP_*` flags that the handle allows.
    pub fn map(
        &self,
        vmo: &Arc<Vmo>,
        offset: usize,
        len: usize,
        flags: usize,
        allowed: usize,
        address: usize,
    ) -> Result<usize> {
        check_flags(flags, allowed)?;
        if flags & !(MAP_READ | MAP_WRITE | MAP_EXEC | MAP_FIXED | MAP_POPULATE) != 0 {
            return Err(Error::InvalidArgument);
        }
        if len == 0 || !aligned(offset) || !aligned(address) {
            return Err(Error::InvalidArgument);
        }
        let len = len
            .checked_next_multiple_of(PAGE_SIZE)
            .ok_or(Error::OutOfRange)?;
        let end = offset.checked_add(len).ok_or(Error::OutOfRange)?;
        if end > vmo.size().next_multiple_of(PAGE_SIZE) {
            return Err(Error::OutOfRange);
        }
        let mut state = self.state.borrow_mut();
        if state.mappings.len() >= MAPPINGS_MAX {
            return Err(Error::LimitReached);
        }
        let va = if flags & MAP_FIXED != 0 {
            let end = address.checked_add(len).ok_or(Error::OutOfRange)?;
            if address < USER_MIN || end > USER_MAX {
                return Err(Error::OutOfRange);
            }
            if state.overlaps(address, end) {
                return Err(Error::AlreadyExists);
            }
            address
        } else {
            state.place(len)?
        };
        let mapping = Mapping {
            len,
            vmo: vmo.clone(),
            offset,
            flags: flags & (MAP_READ | MAP_WRITE | MAP_EXEC),
            allowed,
        };
        state.mappings.insert(va, mapping);
        drop(state);
        if let Some(this) = self.this.upgrade() {
            vmo.add_mapping(&this, va);
        }
        if flags & MAP_POPULATE != 0
            && let Err(error) = self.populate(va, len)
        {
            self.unmap(va, len)?;
            return Err(error);
        }
        Ok(va)
    }

    fn populate(&self, va: usize, len: usize) -> Result<()> {
        let mut state = self.state.borrow_mut();
        let State {
            table,
            mappings,
            resident,
            ..
        } = &mut *state;
        let Some(m) = mappings.get(&va) else {
            return Ok(());
        };
        let flags = map_flags(m);
        for at in (0..len).step_by(PAGE_SIZE) {
            let page = m.vmo.page(m.offset + at)?;
            table
                .map(va + at, page, flags)
                .map_err(|_| Error::NoMemory)?;
            *resident += 1;
        }
        Ok(())
    }

    /// Unmaps whole pages of the range; mappings that it cuts keep the rest.
    pub fn unmap(&self, va: usize, len: usize) -> Result<()> {
        let end = checked_range(va, len)?;
        while let Some((start, m)) = self.take_overlapping(va, end) {
            self.drop_table_pages(start.max(va), end.min(start + m.len));
            m.vmo.remove_mapping(self, start);
            self.put_back(&m, start, start, va);
            self.put_back(&m, start, end, start + m.len);
        }
        Ok(())
    }

    fn take_overlapping(&self, va: usize, end: usize) -> Option<(usize, Mapping)> {
        let mut state = self.state.borrow_mut();
        let (&start, m) = state.mappings.range(..end).next_back()?;
        if start + m.len <= va {
            return None;
        }
        state.mappings.remove(&start).map(|m| (start, m))
    }

    /// Keeps `from .. to` of a mapping that started at `start`.
    fn put_back(&self, m: &Mapping, start: usize, from: usize, to: usize) {
        if from >= to {
            return;
        }
        let part = Mapping {
            len: to - from,
            vmo: m.vmo.clone(),
            offset: m.offset + (from - start),
            flags: m.flags,
            allowed: m.allowed,
        };
        self.state.borrow_mut().mappings.insert(from, part);
        if let Some(this) = self.this.upgrade() {
            m.vmo.add_mapping(&this, from);
        }
    }

    /// Changes what may be done with the pages of whole mappings, or of parts of them.
    pub fn protect(&self, va: usize, len: usize, flags: usize) -> Result<()> {
        let end = checked_range(va, len)?;
        if flags & !(MAP_READ | MAP_WRITE | MAP_EXEC) != 0 {
            return Err(Error::InvalidArgument);
        }
        let mut at = va;
        {
            // Nothing changes unless the whole range is mapped and may be protected so.
            let state = self.state.borrow();
            while at < end {
                let (start, m) = state.find(at).ok_or(Error::NotFound)?;
                check_flags(flags, m.allowed)?;
                at = start + m.len;
            }
        }
        while let Some((start, m)) = self.take_protected(va, end, flags) {
            let (from, to) = (start.max(va), end.min(start + m.len));
            m.vmo.remove_mapping(self, start);
            self.put_back(&m, start, start, from);
            self.put_back(&m, start, to, start + m.len);
            let changed = Mapping { flags, ..m };
            self.put_back(&changed, start, from, to);
            // The pages come back by faults, with the new rights.
            self.drop_table_pages(from, to);
        }
        Ok(())
    }

    fn take_protected(&self, va: usize, end: usize, flags: usize) -> Option<(usize, Mapping)> {
        let mut state = self.state.borrow_mut();
        let differs = |(start, m): &(&usize, &Mapping)| **start + m.len > va && m.flags != flags;
        let start = state
            .mappings
            .range(..end)
            .rev()
            .take_while(|(s, m)| **s + m.len > va)
            .find(differs)
            .map(|f| *f.0)?;
        state.mappings.remove(&start).map(|m| (start, m))
    }

    /// Takes pages out of the page table and every TLB.
    fn drop_table_pages(&self, va: usize, end: usize) {
        let mut state = self.state.borrow_mut();
        let mut dropped = 0;
        if (end - va) / PAGE_SIZE <= FEW_PAGES {
            for at in (va..end).step_by(PAGE_SIZE) {
                dropped += usize::from(state.table.unmap(at).is_some());
            }
            state.resident -= dropped;
            if dropped == 0 {
                return;
            }
        } else {
            // Few pages of a long range may ever have been touched.
            let dropped = state.table.count_pages(va, end - va);
            state.table.unmap_range(va, end - va);
            state.resident -= dropped;
        }
        drop(state);
        self.invalidate(va, (end - va) / PAGE_SIZE);
    }

    fn invalidate(&self, va: usize, pages: usize) {
        self.forget_translations();
        let cpus = self.cpus.get();
        let own = 1 << arch::cpu_id();
        if cpus & own != 0 {
            if pages <= 16 {
                (0..pages).for_each(|n| arch::flush_page(va + n * PAGE_SIZE));
            } else {
                arch::flush_all();
            }
        }
        let mut others = cpus & !own;
        if pages <= FEW_PAGES {
            // No table was freed: CPUs that idle need not be woken for it.
            others = sched::flush_when_busy(others);
        }
        if others != 0 {
            arch::shootdown(others, va, pages);
        }
    }

    /// Takes out the pages of a mapping at `va` that show the bytes `start .. end` of the object that holds them.
    pub fn drop_pages(&self, va: usize, start: usize, end: usize) {
        let range = {
            let state = self.state.borrow();
            let Some(m) = state.mappings.get(&va) else {
                return;
            };
            let first = m.vmo.root_offset(m.offset);
            let (from, to) = (start.max(first), end.min(first + m.len));
            if from >= to {
                return;
            }
            (va + from - first, va + to - first)
        };
        self.drop_table_pages(range.0, range.1);
    }

    /// Whether the mapping at `va` shows bytes of its object beyond `size`.
    pub fn maps_beyond(&self, va: usize, size: usize) -> bool {
        let state = self.state.borrow();
        state
            .mappings
            .get(&va)
            .is_some_and(|m| m.vmo.root_offset(m.offset) + m.len > size)
    }

    /// Serves a page fault. An error means that the access is not allowed, or that memory is out.
    pub fn fault(&self, address: usize, access: Access) -> Result<()> {
        let mut state = self.state.borrow_mut();
        let State {
            table,
            mappings,
            resident,
            ..
        } = &mut *state;
        let (&start, m) = mappings
            .range(..=address)
            .next_back()
            .ok_or(Error::BadAddress)?;
        if address >= start + m.len {
            return Err(Error::BadAddress);
        }
        let flags = map_flags(m);
        if (access.write && !flags.write) || (access.exec && !flags.exec) {
            return Err(Error::AccessDenied);
        }
        let va = address & !(PAGE_SIZE - 1);
        if table.query(va).is_some() {
            // Another CPU was faster, or this CPU's TLB is behind.
            arch::flush_page(va);
            return Ok(());
        }
        let page = m.vmo.page(m.offset + (va - start))?;
        table.map(va, page, flags).map_err(|_| Error::NoMemory)?;
        *resident += 1;
        let end = (start + m.len).min(va + FAULT_AROUND * PAGE_SIZE);
        let mut next = va + PAGE_SIZE;
        while next < end {
            let Some(page) = m.vmo.present_page(m.offset + (next - start)) else {
                break;
            };
            if table.query(next).is_some() || table.map(next, page, flags).is_err() {
                break;
            }
            *resident += 1;
            next += PAGE_SIZE;
        }
        Ok(())
    }

    /// Physical address behind a user address, for the kernel's own access on the user's behalf.
    #[inline]
    pub fn translate(&self, va: usize, write: bool) -> Result<u64> {
        let page = va & !(PAGE_SIZE - 1);
        let (tag, physical) = self.cache[(va / PAGE_SIZE) % CACHE].get();
        if tag & !1 == page && (tag & 1 != 0 || !write) {
            return Ok(physical | (va & (PAGE_SIZE - 1)) as u64);
        }
        self.translate_walk(va, write)
    }

    #[cold]
    fn translate_walk(&self, va: usize, write: bool) -> Result<u64> {
        if let Some((page, flags)) = self.state.borrow().table.query(va)
            && (flags.write || !write)
            && flags.cache == CacheMode::WriteBack
        {
            let physical = page & !(PAGE_SIZE as u64 - 1);
            let tag = va & !(PAGE_SIZE - 1) | usize::from(flags.write);
            self.cache[(va / PAGE_SIZE) % CACHE].set((tag, physical));
            return Ok(physical | (va & (PAGE_SIZE - 1)) as u64);
        }
        self.translate_absent(va, write)
    }

    /// Page-table entries were taken out.
    fn forget_translations(&self) {
        self.cache.iter().for_each(|entry| entry.set((0, 0)));
    }

    #[cold]
    fn translate_absent(&self, va: usize, write: bool) -> Result<u64> {
        let access = Access {
            write,
            exec: false,
            present: false,
        };
        self.fault(va, access).map_err(|_| Error::BadAddress)?;
        let state = self.state.borrow();
        let (page, flags) = state.table.query(va).ok_or(Error::BadAddress)?;
        if flags.cache != CacheMode::WriteBack || (write && !flags.write) {
            return Err(Error::BadAddress);
        }
        Ok(page & !(PAGE_SIZE as u64 - 1) | (va & (PAGE_SIZE - 1)) as u64)
    }

    /// Unmaps everything: its process has ended.
    pub fn clear(&self) {
        let mappings = core::mem::take(&mut self.state.borrow_mut().mappings);
        for (&va, m) in &mappings {
            m.vmo.remove_mapping(self, va);
        }
        let mut state = self.state.borrow_mut();
        state.resident = 0;
        state.table.unmap_range(USER_MIN, USER_MAX - USER_MIN);
        drop(state);
        self.invalidate(USER_MIN, (USER_MAX - USER_MIN) / PAGE_SIZE);
        drop(mappings);
    }

    /// Calls `f` for each mapping.
    pub fn for_each_mapping(&self, mut f: impl FnMut(MappingInfo)) {
        for (&va, m) in &self.state.borrow().mappings {
            f(MappingInfo {
                address: va as u64,
                len: m.len as u64,
                offset: m.offset as u64,
                vmo_koid: m.vmo.base.koid(),
                flags: m.flags as u64,
            });
        }
    }
}

impl State {
    fn overlaps(&self, start: usize, end: usize) -> bool {
        self.mappings
            .range(..end)
            .next_back()
            .is_some_and(|(s, m)| s + m.len > start)
            || (start..end).contains(&SYSTEM_INFO_ADDR)
    }

    fn find(&self, va: usize) -> Option<(usize, &Mapping)> {
        let (&start, m) = self.mappings.range(..=va).next_back()?;
        (va < start + m.len).then_some((start, m))
    }

    /// A place with an unmapped page on both sides: behind the one before while that needs no new page table, else
    /// in a gap, else behind everything, else, when the end is reached, in the first gap that is big enough.
    fn place(&mut self, len: usize) -> Result<usize> {
        let wanted = len.checked_add(2 * PAGE_SIZE).ok_or(Error::OutOfRange)?;
        if wanted > USER_MAX - PLACE_FROM {
            return Err(Error::OutOfRange);
        }
        let next = self.next;
        let same_table = next / TABLE_SPAN == (next + wanted - 1) / TABLE_SPAN;
        let free = |s: &Self, at| at + wanted <= USER_MAX && !s.overlaps(at, at + wanted);
        if same_table && free(self, next) {
            return Ok(self.placed(next, len));
        }
        if let Some(gap) = self.gap(wanted).filter(|at| free(self, *at)) {
            return Ok(self.placed(gap, len));
        }
        let last = self.mappings.last_key_value();
        let end = last.map_or(PLACE_FROM, |(s, m)| (s + m.len).max(PLACE_FROM));
        if free(self, end) {
            return Ok(self.placed(end, len));
        }
        let mut at = PLACE_FROM;
        while at + wanted <= USER_MAX {
            match self.mappings.range(..at + wanted).next_back() {
                Some((s, m)) if s + m.len > at => at = s + m.len,
                _ => return Ok(self.placed(at, len)),
            }
        }
        Err(Error::NoMemory)
    }

    fn placed(&mut self, at: usize, len: usize) -> usize {
        self.next = at + len + PAGE_SIZE;
        at + PAGE_SIZE
    }

    /// A gap of `wanted` bytes between mappings, so that what is unmapped is used again and page tables do not
    /// pile up. Looks at a few gaps only, and goes on from there with the next call.
    fn gap(&mut self, wanted: usize) -> Option<usize> {
        let mut at = self.search;
        for _ in 0..GAPS_LOOKED_AT {
            let below = self.mappings.range(..at + wanted).next_back();
            match below.map(|(s, m)| s + m.len) {
                Some(end) if end > at => at = end,
                _ if self.mappings.range(at..).next().is_some() => {
                    self.search = at;
                    return Some(at);
                }
                // Behind everything: from the start again with the next call.
                _ => {
                    self.search = PLACE_FROM;
                    return None;
                }
            }
            if at + wanted > USER_MAX {
                at = PLACE_FROM;
            }
        }
        self.search = at;
        None
    }
}

fn checked_range(va: usize, len: usize) -> Result<usize> {
    if !aligned(va) || len == 0 || !aligned(len) {
        return Err(Error::InvalidArgument);
    }
    let end = va.checked_add(len).ok_or(Error::OutOfRange)?;
    if va < USER_MIN || end > USER_MAX {
        return Err(Error::OutOfRange);
    }
    Ok(end)
}

fn check_flags(flags: usize, allowed: usize) -> Result<()> {
    let access = flags & (MAP_READ | MAP_WRITE | MAP_EXEC);
    if access == 0 || access & (MAP_WRITE | MAP_EXEC) == MAP_WRITE | MAP_EXEC {
        return Err(Error::InvalidArgument);
    }
    // Write and execute imply read on every page table that we know.
    if (access | MAP_READ) & !allowed != 0 {
        Err(Error::AccessDenied)
    } else {
        Ok(())
    }
}

fn map_flags(m: &Mapping) -> MapFlags {
    MapFlags {
        write: m.flags & MAP_WRITE != 0,
        exec: m.flags & MAP_EXEC != 0,
        cache: m.vmo.cache(),
    }
}
