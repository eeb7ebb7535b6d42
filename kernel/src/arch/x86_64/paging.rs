//! The page tables of processes (SDM volume 3A, chapter 4: 4-level paging).
//!
//! Only 4 KiB pages; the kernel's half is shared by all tables and never changes
//! at the top level. Accessed and dirty bits are set from the start, so that the
//! processor does not write to the tables.

use alloc::vec::Vec;
use core::arch::asm;
use core::cell::Cell;
use core::sync::atomic::{AtomicU64, Ordering};

use super::boot::kernel_root;
use super::cpu;
use super::features::cpu_features;
use super::layout::{
    DIRECT_MAP, IMAGE, PAGE_SIZE, REGION, USER_MAX, entry_span, index, phys_to_virt,
};
use crate::arch::{CacheMode, MapFlags, NoMemory};
use crate::memory::frames;

pub const PRESENT: u64 = 1 << 0;
pub const WRITE: u64 = 1 << 1;
pub const USER: u64 = 1 << 2;
const WRITE_THROUGH: u64 = 1 << 3;
const CACHE_DISABLE: u64 = 1 << 4;
pub const ACCESSED: u64 = 1 << 5;
pub const DIRTY: u64 = 1 << 6;
/// In an entry that maps 2 MiB or 1 GiB.
pub const LARGE: u64 = 1 << 7;
/// In an entry that maps 4 KiB, the same bit belongs to the memory type.
const PAT: u64 = 1 << 7;
pub const GLOBAL: u64 = 1 << 8;
pub const NO_EXECUTE: u64 = 1 << 63;
pub const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// Entry 3 of the PAT, see [`cpu::set_control_registers`].
pub const UNCACHED: u64 = WRITE_THROUGH | CACHE_DISABLE;
const CACHE_BITS: u64 = UNCACHED | PAT;
const TABLE: u64 = PRESENT | WRITE | USER | ACCESSED;

const KEEP_TRANSLATIONS: u64 = 1 << 63;
/// What a last-level table maps, in bytes.
const LEAF_SPAN: usize = entry_span(2);
/// The root's entries that the kernel uses; filled before the first process.
const KERNEL_SLOTS: [usize; 3] = [
    index(DIRECT_MAP as usize, 4),
    index(REGION as usize, 4),
    index(IMAGE as usize, 4),
];

/// Address spaces whose translations a processor keeps, if it has PCIDs. They are
/// numbered from 1; 0 are the kernel's own tables.
const CONTEXTS: usize = 7;

/// What a processor has loaded.
pub struct Loaded {
    /// The table's number, or 0 for the kernel's own tables.
    id: Cell<u64>,
    next: Cell<usize>,
    contexts: [(Cell<u64>, Cell<u64>); CONTEXTS],
}

impl Loaded {
    /// The kernel's own tables.
    pub const fn new() -> Loaded {
        Loaded {
            id: Cell::new(0),
            next: Cell::new(0),
            contexts: [const { (Cell::new(0), Cell::new(0)) }; CONTEXTS],
        }
    }

    /// The low bits of CR3 for a table: its context, and whether what the processor
    /// knows of it is still true.
    fn context(&self, id: u64, generation: u64) -> u64 {
        let known = self
            .contexts
            .iter()
            .position(|context| context.0.get() == id);
        let slot = known.unwrap_or_else(|| {
            let victim = self.next.get();
            self.next.set((victim + 1) % CONTEXTS);
            victim
        });
        let context = &self.contexts[slot];
        let fresh = known.is_some() && context.1.get() == generation;
        context.0.set(id);
        context.1.set(generation);
        (slot as u64 + 1) | if fresh { KEEP_TRANSLATIONS } else { 0 }
    }
}

/// A last-level table and where it stands.
#[derive(Clone, Copy, Debug)]
struct Leaf {
    /// The first address that it maps.
    base: usize,
    table: u64,
    /// The table whose entry for `base` points to it.
    parent: u64,
}

/// The lower half of an address space. Dropping it frees its tables, not the pages;
/// no processor may have it loaded then.
///
/// The tables are also kept in lists, so that unmapping and freeing look at what is
/// there and not at half a thousand empty entries a table.
#[derive(Debug)]
pub struct PageTable {
    root: u64,
    /// A number that no other table has or had; not 0.
    id: u64,
    /// Counts the changes that make cached translations wrong.
    generation: u64,
    /// The last-level tables, by address.
    leaves: Vec<Leaf>,
    /// The tables between them and the root.
    inner: Vec<u64>,
    /// Tables that were taken out of the tree, linked through their first entry.
    /// They are freed at the next change, when translations through them are gone.
    retired: u64,
}

impl PageTable {
    /// An empty lower half; `None` if no frame is left.
    pub fn new() -> Option<PageTable> {
        static NEXT_ID: AtomicU64 = AtomicU64::new(1);
        let root = frames::alloc_zeroed()?;
        for slot in KERNEL_SLOTS {
            write(root, slot, read(kernel_root(), slot));
        }
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let (leaves, inner) = (Vec::new(), Vec::new());
        Some(PageTable {
            root,
            id,
            generation: 0,
            leaves,
            inner,
            retired: 0,
        })
    }

    /// Maps the page at `va` (a multiple of the page size below [`USER_MAX`], not
    /// mapped) to the frame `pa`.
    ///
    /// # Errors
    /// [`NoMemory`], and nothing is mapped.
    pub fn map(&mut self, va: usize, pa: u64, flags: MapFlags) -> Result<(), NoMemory> {
        assert!(
            va < USER_MAX && va.is_multiple_of(PAGE_SIZE),
            "not a user page: {va:#x}"
        );
        let (table, slot) = match self.leaf_slot(va) {
            Some(found) => found,
            None => (self.make_leaf(va)?, index(va, 1)),
        };
        debug_assert!(read(table, slot) & PRESENT == 0, "mapped twice: {va:#x}");
        write(table, slot, (pa & ADDRESS) | leaf(flags));
        Ok(())
    }

    /// Makes the tables on the way to `va` and returns the last.
    #[cold]
    fn make_leaf(&mut self, va: usize) -> Result<u64, NoMemory> {
        // Room in the lists first, so that no table is ever in the tree only.
        self.inner.try_reserve(2).map_err(|_| NoMemory)?;
        self.leaves.try_reserve(1).map_err(|_| NoMemory)?;
        let mut parent = self.root;
        for level in [4, 3] {
            let entry = read(parent, index(va, level));
            parent = if entry & PRESENT != 0 {
                entry & ADDRESS
            } else {
                let new = frames::alloc_zeroed().ok_or(NoMemory)?;
                self.inner.push(new);
                write(parent, index(va, level), new | TABLE);
                new
            };
        }
        let table = frames::alloc_zeroed().ok_or(NoMemory)?;
        write(parent, index(va, 2), table | TABLE);
        let base = va & !(LEAF_SPAN - 1);
        let at = self.leaves.partition_point(|leaf| leaf.base < base);
        self.leaves.insert(
            at,
            Leaf {
                base,
                table,
                parent,
            },
        );
        Ok(table)
    }

    /// Removes the page at `va` and returns its frame. The caller invalidates the
    /// translation ([`super::flush_page`], [`super::shootdown`]).
    pub fn unmap(&mut self, va: usize) -> Option<u64> {
        let (table, slot) = self.leaf_slot(va)?;
        let entry = read(table, slot);
        if entry & PRESENT == 0 {
            return None;
        }
        write(table, slot, 0);
        self.generation += 1;
        Some(entry & ADDRESS)
    }

    /// Removes all pages in `len` bytes from `va`, a multiple of the page size. The caller invalidates
    /// the translations before it changes this table again.
    pub fn unmap_range(&mut self, va: usize, len: usize) {
        self.free_retired();
        let start = va.min(USER_MAX);
        let end = va.saturating_add(len).min(USER_MAX);
        let first = self
            .leaves
            .partition_point(|leaf| leaf.base + LEAF_SPAN <= start);
        // The tables of which nothing is left; they are neighbours.
        let mut gone = first..first;
        for (n, leaf) in self.leaves.iter().enumerate().skip(first) {
            if leaf.base >= end {
                break;
            }
            let (from, to) = (leaf.base.max(start), (leaf.base + LEAF_SPAN).min(end));
            if to - from == LEAF_SPAN {
                // The link has the present bit clear, so that a late walk takes it
                // for an absent page.
                write(leaf.parent, index(leaf.base, 2), 0);
                write(leaf.table, 0, self.retired);
                self.retired = leaf.table;
                gone = if gone.is_empty() { n } else { gone.start }..n + 1;
            } else {
                for page in (from..to).step_by(PAGE_SIZE) {
                    write(leaf.table, index(page, 1), 0);
                }
            }
        }
        self.leaves.drain(gone);
        self.generation += 1;
    }

    /// Pages of a range that are mapped.
    pub fn count_pages(&self, va: usize, len: usize) -> usize {
        let start = va.min(USER_MAX);
        let end = va.saturating_add(len).min(USER_MAX);
        let leaves = self.leaves.iter().filter(|leaf| leaf.base < end);
        leaves
            .map(|leaf| {
                let (from, to) = (leaf.base.max(start), (leaf.base + LEAF_SPAN).min(end));
                (from..to)
                    .step_by(PAGE_SIZE)
                    .filter(|page| read(leaf.table, index(*page, 1)) & PRESENT != 0)
                    .count()
            })
            .sum()
    }

    /// The frame and rights of the page that contains `va`.
    #[inline]
    pub fn query(&self, va: usize) -> Option<(u64, MapFlags)> {
        let (table, slot) = self.leaf_slot(va)?;
        let entry = read(table, slot);
        if entry & PRESENT == 0 {
            return None;
        }
        let cache = match entry & CACHE_BITS {
            0 => CacheMode::WriteBack,
            PAT => CacheMode::WriteCombining,
            _ => CacheMode::Uncached,
        };
        let flags = MapFlags {
            write: entry & WRITE != 0,
            exec: entry & NO_EXECUTE == 0,
            cache,
        };
        Some((entry & ADDRESS, flags))
    }

    /// Makes this processor use the table.
    #[inline]
    pub fn activate(&self) {
        let loaded = &cpu::this().address_space;
        if loaded.id.get() == self.id {
            return;
        }
        loaded.id.set(self.id);
        let context = if cpu_features().pcid {
            loaded.context(self.id, self.generation)
        } else {
            0
        };
        // SAFETY: the upper half is the kernel's, as in every table.
        unsafe { load_cr3(self.root | context) };
    }

    /// The last table on the way to `va` and the entry's index there.
    #[inline]
    fn leaf_slot(&self, va: usize) -> Option<(u64, usize)> {
        if va >= USER_MAX {
            return None;
        }
        let mut table = self.root;
        for level in [4, 3, 2] {
            let entry = read(table, index(va, level));
            if entry & PRESENT == 0 {
                return None;
            }
            table = entry & ADDRESS;
        }
        Some((table, index(va, 1)))
    }

    fn free_retired(&mut self) {
        while self.retired != 0 {
            let table = self.retired;
            self.retired = read(table, 0);
            frames::free(table);
        }
    }
}

impl Drop for PageTable {
    fn drop(&mut self) {
        self.free_retired();
        self.leaves.iter().for_each(|leaf| frames::free(leaf.table));
        self.inner.iter().for_each(|&table| frames::free(table));
        frames::free(self.root);
    }
}

/// Makes this processor use the kernel's own tables, which map no user page.
pub fn activate_kernel() {
    let loaded = &cpu::this().address_space;
    if loaded.id.replace(0) != 0 {
        // SAFETY: the kernel's tables.
        unsafe { load_cr3(kernel_root()) };
    }
}

/// The bits of a user page's entry.
#[inline]
fn leaf(flags: MapFlags) -> u64 {
    let cache = match flags.cache {
        CacheMode::WriteBack => 0,
        CacheMode::Uncached => UNCACHED,
        CacheMode::WriteCombining => PAT,
    };
    let write = if flags.write { WRITE } else { 0 };
    let no_execute = if flags.exec { 0 } else { NO_EXECUTE };
    PRESENT | USER | ACCESSED | DIRTY | cache | write | no_execute
}

/// Entry `slot` (below 512) of the table in the frame `table`.
#[inline]
pub fn read(table: u64, slot: usize) -> u64 {
    // SAFETY: `table` is the frame of a page table and the direct map covers it;
    // volatile, because the processor reads the same memory.
    unsafe {
        phys_to_virt(table)
            .cast::<u64>()
            .add(slot & 511)
            .read_volatile()
    }
}

/// Changes an entry.
#[inline]
pub fn write(table: u64, slot: usize, entry: u64) {
    // SAFETY: as for `read`; one 64-bit store, so that a walk sees the old entry or
    // the new one.
    unsafe {
        phys_to_virt(table)
            .cast::<u64>()
            .add(slot & 511)
            .write_volatile(entry)
    };
}

/// # Safety
/// `value` names a table whose upper half is the kernel's.
#[inline]
pub unsafe fn load_cr3(value: u64) {
    // SAFETY: the code, the stack and all data of the kernel stay mapped.
    unsafe { asm!("mov cr3, {}", in(reg) value, options(nostack, preserves_flags)) };
}
