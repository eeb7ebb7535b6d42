//! Futexes: threads that wait for a word of memory to change, found by the word's physical address, so that
//! they work between processes.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;

use crate::lock::Locked;
use crate::object::thread::Thread;
use crate::sched;

static WAITERS: Locked<BTreeMap<u64, VecDeque<Arc<Thread>>>> = Locked::new(BTreeMap::new());

/// Adds a thread that waits on a word.
pub fn add(word: u64, thread: Arc<Thread>) {
    WAITERS
        .borrow_mut()
        .entry(word)
        .or_default()
        .push_back(thread);
}

/// Removes a thread that no longer waits.
pub fn remove(word: u64, thread: &Thread) {
    let mut waiters = WAITERS.borrow_mut();
    if let Some(queue) = waiters.get_mut(&word) {
        queue.retain(|t| !core::ptr::eq(&**t, thread));
        if queue.is_empty() {
            waiters.remove(&word);
        }
    }
}

/// Wakes up to `count` threads, first come first served; returns how many.
pub fn wake(word: u64, count: usize) -> usize {
    let mut woken = 0;
    while woken < count {
        let thread = {
            let mut waiters = WAITERS.borrow_mut();
            let Some(queue) = waiters.get_mut(&word) else {
                break;
            };
            let thread = queue.pop_front();
            if queue.is_empty() {
                waiters.remove(&word);
            }
            thread
        };
        let Some(thread) = thread else { break };
        thread.complete(Ok(0));
        sched::wake(thread);
        woken += 1;
    }
    woken
}
