//! The calls of a hostile process, from the seeds that the system test uses, put to the portable parts: each
//! must answer as its simple model does, whatever handle, index, size or position a call carries.

use std::alloc::{Layout, alloc, dealloc};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ptr::NonNull;

use bulkhead_abi::{PAGE_SIZE, Syscall};
use random_calls::{Call, Caller};

use crate::buddy::{Buddy, Link, MAX_ORDER};
use crate::handles::Table;
use crate::log_ring::LogRing;
use crate::page_map::PageMap;
use crate::run_queue::{PRIORITIES, RunQueue};
use crate::slab::{CLASSES, PAGE, PageSource, Slab, class_of};

/// The system test's first seeds; under Miri fewer, and fewer calls of each.
const SEEDS: u64 = if cfg!(miri) { 2 } else { 40 };
const CALLS: usize = if cfg!(miri) { 80 } else { 5_000 };
/// Where the caller's memory lies: anywhere that a process may have it.
const AREA: usize = 0x4000_0000;
/// Pages of the memory object that the calls work on.
const PAGES: usize = 5_000;
const FRAMES: usize = 3_000;
const LOG: usize = 1 << 10;

/// Every call of every seed; `answer` returns the handle that it made.
fn each_call(mut answer: impl FnMut(&Call) -> Option<u32>) {
    for seed in 1..=SEEDS {
        let mut caller = Caller::new(seed, Vec::new(), AREA);
        for step in 0..CALLS {
            let call = caller.call(step as u64 * 1_000);
            if let Some(handle) = answer(&call) {
                caller.answered(&call, handle as isize, 0);
            }
        }
    }
}

#[test]
fn handles_lead_to_what_they_were_made_for_or_nowhere() {
    let mut table = Table::new();
    let mut model: HashMap<u32, usize> = HashMap::new();
    let mut made = 0;
    each_call(|call| {
        for arg in call.args {
            assert_eq!(table.get(arg as u32), model.get(&(arg as u32)));
        }
        let first = call.args[0] as u32;
        match call.syscall()? {
            Syscall::HandleClose => {
                assert_eq!(table.remove(first), model.remove(&first));
                None
            }
            Syscall::HandleDuplicate => {
                let value = *table.get(first)?;
                let handle = table.insert(value).ok()?;
                assert!(model.insert(handle, value).is_none());
                Some(handle)
            }
            syscall if syscall.name().ends_with("_create") && model.len() < 300 => {
                made += 1;
                let handle = table.insert(made).ok()?;
                assert!(handle != 0 && model.insert(handle, made).is_none());
                Some(handle)
            }
            _ => None,
        }
    });
    assert_eq!(table.len(), model.len());
    assert!(made > SEEDS as usize, "the calls made few handles");
}

#[test]
fn a_memory_object_has_exactly_the_pages_that_were_committed() {
    let mut map = PageMap::new();
    let mut model: BTreeMap<usize, u64> = BTreeMap::new();
    let mut committed = 0u64;
    each_call(|call| {
        // As the system calls do: a range that leaves the object is refused before the map is asked.
        let [_, _, offset, len, ..] = call.args;
        let range = |offset: usize, len: usize| {
            let end = offset.checked_add(len)?;
            (end <= PAGES * PAGE_SIZE).then_some((offset / PAGE_SIZE, end.div_ceil(PAGE_SIZE)))
        };
        assert_eq!(map.get(offset), model.get(&offset).copied());
        let (start, end) = range(offset, len.min(1 << 20))?;
        if call.number % 3 != 0 {
            for index in start..end.min(start + 16) {
                if map.get(index).is_none() && map.reserve(index) {
                    committed += PAGE_SIZE as u64;
                    map.set(index, committed);
                    model.insert(index, committed);
                }
            }
        } else {
            let mut taken = Vec::new();
            map.take_range(start, end, |index, address| taken.push((index, address)));
            let expected: Vec<_> = model.range(start..end).map(|(i, a)| (*i, *a)).collect();
            model.retain(|index, _| !(start..end).contains(index));
            assert_eq!(taken, expected);
        }
        assert_eq!(map.count(), model.len());
        None
    });
    assert!(committed > 0, "no call committed a page");
}

#[test]
fn frames_are_given_once_and_taken_back_once() {
    let (mut links, mut state) = (vec![Link::EMPTY; FRAMES], vec![0; FRAMES]);
    let mut buddy = Buddy::new(&mut links, &mut state);
    buddy.add_range(0, FRAMES);
    let mut held: BTreeMap<usize, usize> = BTreeMap::new();
    let mut used = 0;
    each_call(|call| {
        let [frame, order, ..] = call.args;
        let (frame, order) = (frame % (FRAMES + 64), order % (MAX_ORDER + 3));
        if call.number % 2 == 0 {
            if let Some(start) = buddy.allocate(order) {
                let end = start + (1 << order);
                let below = held.range(..end).next_back();
                assert!(end <= FRAMES && below.is_none_or(|(s, o)| s + (1 << o) <= start));
                held.insert(start, order);
                used += 1 << order;
            }
        } else if held.get(&frame) == Some(&order) {
            buddy.release(frame, order).unwrap();
            held.remove(&frame);
            used -= 1 << order;
        } else if buddy.is_free(frame.min(FRAMES - 1)) {
            assert!(
                buddy.release(frame, order).is_err(),
                "a free block was taken back"
            );
        } else if let Some((frame, order)) = held.pop_last() {
            buddy.release(frame, order).unwrap();
            used -= 1 << order;
        }
        assert_eq!(buddy.free_pages(), FRAMES - used);
        None
    });
}

#[test]
fn threads_run_by_priority_and_turn() {
    let mut queue = RunQueue::new();
    let mut model: [VecDeque<usize>; PRIORITIES] = Default::default();
    let mut threads = 0;
    each_call(|call| {
        let priority = call.args[1] as u8;
        let class = (priority as usize).min(PRIORITIES - 1);
        match call.number % 5 {
            0 | 1 => {
                threads += 1;
                queue.push(priority, threads);
                model[class].push_back(threads);
            }
            2 => {
                threads += 1;
                queue.push_front(priority, threads);
                model[class].push_front(threads);
            }
            3 => {
                let next = model.iter_mut().rev().find_map(VecDeque::pop_front);
                assert_eq!(queue.pop(), next);
            }
            _ => {
                let victim = call.args[2] % (threads + 1);
                let removed = queue.remove(|thread| *thread == victim);
                let expected = model.iter_mut().find_map(|turn| {
                    let at = turn.iter().position(|thread| *thread == victim)?;
                    turn.remove(at)
                });
                assert_eq!(removed, expected);
            }
        }
        assert_eq!(queue.len(), model.iter().map(VecDeque::len).sum::<usize>());
        // Short enough that removing stays cheap.
        while queue.len() > 200 {
            assert_eq!(
                queue.pop(),
                model.iter_mut().rev().find_map(VecDeque::pop_front)
            );
        }
        None
    });
}

const PAGE_LAYOUT: Layout = match Layout::from_size_align(PAGE, PAGE) {
    Ok(layout) => layout,
    Err(_) => panic!("a page's size is a power of two"),
};

/// Pages of the global allocator. The slab keeps an empty page of a class for the next block: what it has at
/// the end is freed with this.
#[derive(Default)]
struct Pages(Vec<NonNull<u8>>);

// SAFETY: memory of the global allocator with the size and alignment of a page.
unsafe impl PageSource for Pages {
    fn allocate(&mut self) -> Option<NonNull<u8>> {
        // SAFETY: the layout is not empty.
        let page = NonNull::new(unsafe { alloc(PAGE_LAYOUT) })?;
        self.0.push(page);
        Some(page)
    }
    unsafe fn release(&mut self, page: NonNull<u8>) {
        let at = self.0.iter().position(|live| *live == page);
        self.0.swap_remove(at.expect("a page is given back once"));
        // SAFETY: `allocate` made it, and it was live.
        unsafe { dealloc(page.as_ptr(), PAGE_LAYOUT) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        for page in &self.0 {
            // SAFETY: `allocate` made it, and it is live; the slab is not used any more.
            unsafe { dealloc(page.as_ptr(), PAGE_LAYOUT) }
        }
    }
}

#[test]
fn kernel_objects_keep_their_memory() {
    let mut pages = Pages::default();
    let mut slab = Slab::new();
    let mut held: VecDeque<(*mut u8, Layout, u8)> = VecDeque::new();
    each_call(|call| {
        let tag = call.args[0] as u8;
        let layout = Layout::from_size_align(call.args[1] % 4096, 8).unwrap();
        if call.number % 2 == 0
            && let Some(class) = class_of(layout)
        {
            let block = slab.allocate(class, &mut pages);
            assert!(!block.is_null());
            // SAFETY: a fresh block of at least that size.
            unsafe { block.write_bytes(tag, layout.size()) };
            held.push_back((block, layout, tag));
        }
        if (call.number % 2 == 1 || held.len() > 200)
            && let Some((block, layout, tag)) = held.pop_front()
        {
            // SAFETY: the block is live and was written in this length.
            let kept = unsafe { core::slice::from_raw_parts(block, layout.size()) };
            assert_eq!(kept, vec![tag; layout.size()]);
            // SAFETY: the block came from this slab and is not used again.
            unsafe { slab.release(block, &mut pages) };
        }
        None
    });
    for (block, ..) in held {
        // SAFETY: as above.
        unsafe { slab.release(block, &mut pages) };
    }
    assert_eq!(pages.0.len(), slab.pages());
    assert!(slab.pages() <= CLASSES.len(), "empty pages are kept");
}

#[test]
fn the_log_gives_only_what_was_written() {
    let mut ring = LogRing::<LOG>::new();
    let mut all: Vec<u8> = Vec::new();
    each_call(|call| {
        let [position, len, byte, ..] = call.args;
        let line = [vec![byte as u8 | 0x20; len % 100], vec![b'\n']].concat();
        ring.push(&line);
        all.extend(&line);
        let mut out = vec![0; byte % 300];
        let (copied, next) = ring.read(position as u64, &mut out);
        let end = usize::try_from(next).unwrap();
        assert!(copied <= out.len() && end <= all.len());
        assert_eq!(out[..copied], all[end - copied..end]);
        // What is still there is read from where it was asked for.
        let oldest = all.len().saturating_sub(LOG);
        if (oldest..=all.len()).contains(&position) {
            assert_eq!(end - copied, position);
        }
        None
    });
}
