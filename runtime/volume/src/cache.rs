//! The page cache of one volume.
//!
//! It holds runs: stretches of 1 to 256 pages that are contiguous on the device
//! and in memory, so that a sequential reader gets transfers of up to 1 MiB and
//! a scattered one pays 4 KiB. A run is being read, valid, or failed; runs that
//! are being read cannot be evicted, the others go in order of last use.
//!
//! Requests are submitted when they are made, not when a future is polled; a
//! reader that goes away leaves its run to the next one. [`Cache::pump`] must
//! run beside the readers.
//!
//! It keeps no deadline of its own: the queue promises a completion in time.

use alloc::{
    collections::{BTreeMap, VecDeque},
    vec,
    vec::Vec,
};
use core::{
    cell::RefCell,
    future::poll_fn,
    task::{Context, Poll, Waker},
};

use crate::{
    BlockError, BlockQueue, Completion, FsError, Memory, PAGE_BYTES, ReadRequest, Volume,
    buddy::Buddy,
};

const PAGE: u64 = PAGE_BYTES as u64;
/// Pages whose run is remembered, by the low bits of their number; a power of two.
const HINTS: usize = 4096;
/// End of the list of runs in order of use.
const NONE: u32 = u32::MAX;

/// What the cache did since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CacheStatistics {
    /// Pieces that were found valid.
    pub hits: u64,
    /// Requests sent to the device.
    pub requests: u64,
    /// Pages asked of the device.
    pub pages_requested: u64,
    /// Runs dropped to make room.
    pub evictions: u64,
    /// Requests that failed.
    pub failures: u64,
}

/// The page cache over a queue and the memory that the queue reads into.
pub struct Cache<Q, M> {
    queue: Q,
    memory: M,
    size_bytes: u64,
    state: RefCell<State>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Condition {
    /// Not in use.
    Free,
    Reading,
    Valid,
    Failed(BlockError),
}

struct Run {
    condition: Condition,
    /// Counts uses of this slot, so that a waiter knows its run again.
    generation: u32,
    page: u64,
    pages: u32,
    frame: u32,
    older: u32,
    newer: u32,
    waiters: Vec<Waker>,
}

struct State {
    runs: Vec<Run>,
    unused: Vec<u32>,
    by_page: BTreeMap<u64, u32>,
    /// Runs that pages were found in before: guesses, looked at before `by_page` is searched.
    hints: Vec<u32>,
    frames: Buddy,
    oldest: u32,
    newest: u32,
    /// Runs that the queue had no room for.
    unsent: VecDeque<u32>,
    /// Readers that wait for memory.
    starved: Vec<Waker>,
    max_run_pages: u32,
    statistics: CacheStatistics,
}

/// What is known of the first page of a range to fetch.
#[derive(Clone, Copy, PartialEq, Eq)]
enum FirstPage {
    Absent,
    Unknown,
}

/// What stands at a page.
enum Look {
    /// Valid: memory offset of the page, and how many pages follow in the run.
    Valid(usize, u64),
    /// Being read: the run and its generation.
    Reading(u32, u32),
    Failed(BlockError),
    Absent,
}

impl<Q: BlockQueue, M: Memory> Cache<Q, M> {
    /// A cache of as many pages as `memory` has, at least one.
    pub fn new(queue: Q, memory: M) -> Self {
        let frames = u32::try_from(memory.len_bytes() / PAGE_BYTES).unwrap_or(u32::MAX / 2);
        let transfer_pages = queue.max_transfer_bytes() / PAGE_BYTES as u32;
        // A run is at most an eighth of the cache, so that readers side by side
        // do not throw out each other's pages.
        let max_run_pages = transfer_pages.min(Buddy::max_run()).min(frames / 8).max(1);
        Self {
            size_bytes: queue.size_bytes(),
            queue,
            memory,
            state: RefCell::new(State {
                runs: Vec::new(),
                unused: Vec::new(),
                by_page: BTreeMap::new(),
                hints: vec![NONE; HINTS],
                frames: Buddy::new(frames),
                oldest: NONE,
                newest: NONE,
                unsent: VecDeque::new(),
                starved: Vec::new(),
                max_run_pages,
                statistics: CacheStatistics::default(),
            }),
        }
    }

    /// The memory that pieces point into.
    pub fn memory(&self) -> &M {
        &self.memory
    }

    /// The queue.
    pub fn queue(&self) -> &Q {
        &self.queue
    }

    /// What it did so far.
    pub fn statistics(&self) -> CacheStatistics {
        self.state.borrow().statistics
    }

    /// Hands the bytes `offset..offset + len` to `piece`, in order, as soon as
    /// each stretch is there: memory offset, length, position in the range.
    /// `piece` must take the bytes at once; later the memory may hold others.
    ///
    /// # Errors
    /// [`FsError::OutsideVolume`], or [`FsError::Device`] for the first page that
    /// could not be read, alone too.
    pub async fn for_each_piece(
        &self,
        offset: u64,
        len: u64,
        mut piece: impl FnMut(&M, usize, usize, u64),
    ) -> Result<(), FsError> {
        let end = self.check_range(offset, len)?;
        let mut at = offset;
        // Set once a page failed as part of a longer run: it is then read alone,
        // so that one bad sector does not take its neighbours along.
        let mut alone = false;
        while at < end {
            let page = at / PAGE;
            let look = self.state.borrow_mut().look(page);
            match look {
                Look::Valid(memory_offset, pages) => {
                    let within = (at % PAGE) as usize;
                    let available = pages * PAGE - within as u64;
                    let take = available.min(end - at);
                    piece(
                        &self.memory,
                        memory_offset + within,
                        take as usize,
                        at - offset,
                    );
                    at += take;
                    alone = false;
                }
                Look::Reading(run, generation) => self.settled(run, generation).await,
                Look::Failed(error) => {
                    self.state.borrow_mut().discard(page);
                    if alone {
                        return Err(FsError::Device {
                            offset: page * PAGE,
                            error,
                        });
                    }
                    alone = true;
                }
                Look::Absent => {
                    let pages = if alone { 1 } else { end.div_ceil(PAGE) - page };
                    if !self.fetch_pages(page, pages, FirstPage::Absent) {
                        self.memory_freed().await;
                    }
                }
            }
        }
        Ok(())
    }

    /// Starts reading what is not there of `offset..offset + len`, and returns
    /// at once. A range outside the volume is cut to it.
    pub fn prefetch(&self, offset: u64, len: u64) {
        let end = offset.saturating_add(len).min(self.size_bytes);
        if offset < end {
            let page = offset / PAGE;
            self.fetch_pages(page, end.div_ceil(PAGE) - page, FirstPage::Unknown);
        }
    }

    /// Takes completions for ever; one task of the service runs it.
    pub async fn pump(&self) -> core::convert::Infallible {
        loop {
            let completion = poll_fn(|cx| self.queue.poll_reap(cx)).await;
            self.complete(completion);
        }
    }

    /// Takes the completions that are there, for a caller that polls by itself.
    pub fn poll_pump(&self, cx: &mut Context<'_>) {
        while let Poll::Ready(completion) = self.queue.poll_reap(cx) {
            self.complete(completion);
        }
    }

    fn check_range(&self, offset: u64, len: u64) -> Result<u64, FsError> {
        match offset.checked_add(len) {
            Some(end) if end <= self.size_bytes => Ok(end),
            _ => Err(FsError::OutsideVolume {
                offset,
                len_bytes: len,
                volume_bytes: self.size_bytes,
            }),
        }
    }

    /// Makes runs for the absent pages of a range. False if there was no memory
    /// for even the first.
    fn fetch_pages(&self, page: u64, pages: u64, first: FirstPage) -> bool {
        let mut state = self.state.borrow_mut();
        let end = page + pages;
        let mut at = page;
        while at < end {
            if (at > page || first == FirstPage::Unknown)
                && let Some(run) = state.locate(at)
            {
                at = run.page + u64::from(run.pages);
                continue;
            }
            let next = match end - at {
                1 => end,
                _ => state
                    .by_page
                    .range(at..)
                    .next()
                    .map_or(end, |(next, _)| (*next).min(end)),
            };
            let want = (next - at).min(u64::from(state.max_run_pages)) as u32;
            let Some(got) = state.start_run(at, want) else {
                break;
            };
            at += u64::from(got);
        }
        let started = at > page;
        self.send(&mut state);
        started
    }

    /// Sends what the queue has room for.
    fn send(&self, state: &mut State) {
        let mut sent = false;
        while let Some(&index) = state.unsent.front() {
            let Some(run) = state.runs.get(index as usize) else {
                break;
            };
            let device_offset = run.page * PAGE;
            let len = (u64::from(run.pages) * PAGE).min(self.size_bytes - device_offset);
            let request = ReadRequest {
                id: u64::from(run.generation) << 32 | u64::from(index),
                device_offset,
                memory_offset: run.frame as usize * PAGE_BYTES,
                len_bytes: len as u32,
            };
            let pages = run.pages;
            if self.queue.push(&request).is_err() {
                break;
            }
            state.unsent.pop_front();
            state.statistics.requests += 1;
            state.statistics.pages_requested += u64::from(pages);
            sent = true;
        }
        if sent {
            self.queue.kick();
        }
    }

    fn complete(&self, completion: Completion) {
        let mut state = self.state.borrow_mut();
        let (index, generation) = (completion.id as u32, (completion.id >> 32) as u32);
        let Some(run) = state.runs.get_mut(index as usize) else {
            return;
        };
        if run.generation != generation || run.condition != Condition::Reading {
            return; // Not ours: answered twice, or never asked for.
        }
        run.condition = match completion.result {
            Ok(()) => Condition::Valid,
            Err(error) => Condition::Failed(error),
        };
        let waiters = core::mem::take(&mut run.waiters);
        if completion.result.is_err() {
            state.statistics.failures += 1;
        }
        state.append(index);
        let starved = core::mem::take(&mut state.starved);
        self.send(&mut state);
        drop(state);
        waiters.into_iter().chain(starved).for_each(Waker::wake);
    }

    /// Until this run is no longer being read.
    async fn settled(&self, index: u32, generation: u32) {
        poll_fn(|cx| {
            let mut state = self.state.borrow_mut();
            match state.runs.get_mut(index as usize) {
                Some(run)
                    if run.generation == generation && run.condition == Condition::Reading =>
                {
                    remember(&mut run.waiters, cx);
                    Poll::Pending
                }
                _ => Poll::Ready(()),
            }
        })
        .await;
    }

    /// Until some run can be evicted. With nothing in flight memory can always
    /// be had, so a completion will come.
    async fn memory_freed(&self) {
        let mut first = true;
        poll_fn(|cx| {
            if core::mem::take(&mut first) {
                remember(&mut self.state.borrow_mut().starved, cx);
                return Poll::Pending;
            }
            Poll::Ready(())
        })
        .await;
    }
}

fn remember(wakers: &mut Vec<Waker>, cx: &Context<'_>) {
    if !wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
        wakers.push(cx.waker().clone());
    }
}

impl State {
    /// The run that covers a page.
    fn locate(&self, page: u64) -> Option<&Run> {
        let run = self.runs.get(self.locate_index(page)? as usize)?;
        Some(run)
    }

    fn locate_index(&self, page: u64) -> Option<u32> {
        let (first, &index) = self.by_page.range(..=page).next_back()?;
        let run = self.runs.get(index as usize)?;
        (page - first < u64::from(run.pages)).then_some(index)
    }

    /// As [`State::locate_index`], and remembers the answer.
    fn locate_again(&mut self, page: u64) -> Option<u32> {
        let hint = page as usize % HINTS;
        let guess = self.hints.get(hint).copied().unwrap_or(NONE);
        if let Some(run) = self.runs.get(guess as usize)
            && run.condition != Condition::Free
            && page.wrapping_sub(run.page) < u64::from(run.pages)
        {
            return Some(guess);
        }
        let index = self.locate_index(page)?;
        if let Some(hint) = self.hints.get_mut(hint) {
            *hint = index;
        }
        Some(index)
    }

    fn look(&mut self, page: u64) -> Look {
        let Some(index) = self.locate_again(page) else {
            return Look::Absent;
        };
        let Some(run) = self.runs.get(index as usize) else {
            return Look::Absent;
        };
        match run.condition {
            Condition::Valid => {
                let within = page - run.page;
                let offset = (u64::from(run.frame) + within) as usize * PAGE_BYTES;
                let look = Look::Valid(offset, u64::from(run.pages) - within);
                self.statistics.hits += 1;
                if self.newest != index {
                    self.unlink(index);
                    self.append(index);
                }
                look
            }
            Condition::Reading => Look::Reading(index, run.generation),
            Condition::Failed(error) => Look::Failed(error),
            Condition::Free => Look::Absent,
        }
    }

    /// Makes a run of at most `pages`, and queues its request.
    fn start_run(&mut self, page: u64, mut pages: u32) -> Option<u32> {
        let frame = loop {
            if let Some(frame) = self.frames.allocate(pages) {
                break frame;
            }
            // Throwing out four times the space nearly always yields a run; if
            // the rest is too scattered, a shorter one will do.
            let enough = self.frames.free_frames().max(pages.saturating_mul(4));
            let found = loop {
                if !self.evict_oldest() {
                    break self.frames.allocate(pages);
                }
                if let Some(frame) = self.frames.allocate(pages) {
                    break Some(frame);
                }
                if self.frames.free_frames() > enough {
                    break None;
                }
            };
            match found {
                Some(frame) => break frame,
                None if pages > 1 => pages /= 2,
                None => return None,
            }
        };
        let index = match self.unused.pop() {
            Some(index) => index,
            None => {
                self.runs.push(Run {
                    condition: Condition::Free,
                    generation: 0,
                    page: 0,
                    pages: 0,
                    frame: 0,
                    older: NONE,
                    newer: NONE,
                    waiters: Vec::new(),
                });
                self.runs.len() as u32 - 1
            }
        };
        let run = self.runs.get_mut(index as usize)?;
        run.condition = Condition::Reading;
        run.generation = run.generation.wrapping_add(1);
        (run.page, run.pages, run.frame) = (page, pages, frame);
        self.by_page.insert(page, index);
        self.unsent.push_back(index);
        Some(pages)
    }

    /// Drops a failed run, so that its pages can be asked for again.
    fn discard(&mut self, page: u64) {
        if let Some(index) = self.locate_index(page)
            && let Some(run) = self.runs.get(index as usize)
            && matches!(run.condition, Condition::Failed(_))
        {
            self.drop_run(index);
        }
    }

    fn evict_oldest(&mut self) -> bool {
        if self.oldest == NONE {
            return false;
        }
        self.statistics.evictions += 1;
        self.drop_run(self.oldest);
        true
    }

    /// Only runs in the list of use (valid or failed) are dropped.
    fn drop_run(&mut self, index: u32) {
        self.unlink(index);
        if let Some(run) = self.runs.get_mut(index as usize) {
            run.condition = Condition::Free;
            self.by_page.remove(&run.page);
            self.frames.release(run.frame, run.pages);
            self.unused.push(index);
        }
    }

    /// Puts a run at the young end of the list.
    fn append(&mut self, index: u32) {
        let newest = self.newest;
        if let Some(run) = self.runs.get_mut(index as usize) {
            (run.older, run.newer) = (newest, NONE);
        }
        match self.runs.get_mut(newest as usize) {
            Some(run) => run.newer = index,
            None => self.oldest = index,
        }
        self.newest = index;
    }

    fn unlink(&mut self, index: u32) {
        let Some(run) = self.runs.get_mut(index as usize) else {
            return;
        };
        let (older, newer) = (run.older, run.newer);
        (run.older, run.newer) = (NONE, NONE);
        match self.runs.get_mut(older as usize) {
            Some(run) => run.newer = newer,
            None => self.oldest = newer,
        }
        match self.runs.get_mut(newer as usize) {
            Some(run) => run.older = older,
            None => self.newest = older,
        }
    }
}

impl<Q: BlockQueue, M: Memory> Volume for Cache<Q, M> {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    async fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), FsError> {
        self.for_each_piece(offset, into.len() as u64, |memory, from, len, position| {
            let position = position as usize;
            if let Some(part) = into.get_mut(position..position + len) {
                memory.read(from, part);
            }
        })
        .await
    }
}
