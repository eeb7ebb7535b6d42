//! A CPU's queue of threads that are ready: fixed priorities, first come first served inside one.

use alloc::collections::VecDeque;

/// Number of priorities; 31 is the highest.
pub const PRIORITIES: usize = 32;

/// Ready threads by priority.
#[derive(Debug)]
pub struct RunQueue<T> {
    queues: [VecDeque<T>; PRIORITIES],
    present: u32,
    len: usize,
}

impl<T> Default for RunQueue<T> {
    fn default() -> Self {
        RunQueue::new()
    }
}

impl<T> RunQueue<T> {
    /// An empty queue.
    pub const fn new() -> RunQueue<T> {
        RunQueue {
            queues: [const { VecDeque::new() }; PRIORITIES],
            present: 0,
            len: 0,
        }
    }

    /// Threads in the queue.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no thread is ready.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Priority of the next thread.
    #[inline]
    pub fn highest(&self) -> Option<u8> {
        (self.present != 0).then(|| 31 - self.present.leading_zeros() as u8)
    }

    /// Adds a thread behind the others of its priority (0 to 31; higher counts as 31).
    #[inline]
    pub fn push(&mut self, priority: u8, thread: T) {
        let p = (priority as usize).min(PRIORITIES - 1);
        self.queues[p].push_back(thread);
        self.present |= 1 << p;
        self.len += 1;
    }

    /// Adds a thread before the others of its priority: it was preempted and keeps its turn.
    pub fn push_front(&mut self, priority: u8, thread: T) {
        let p = (priority as usize).min(PRIORITIES - 1);
        self.queues[p].push_front(thread);
        self.present |= 1 << p;
        self.len += 1;
    }

    /// Takes the next thread.
    #[inline]
    pub fn pop(&mut self) -> Option<T> {
        let p = self.highest()? as usize;
        let thread = self.queues[p].pop_front();
        if self.queues[p].is_empty() {
            self.present &= !(1 << p);
        }
        self.len -= 1;
        thread
    }

    /// Takes the most urgent thread that `may_take` allows; the one that waited longest of its priority.
    pub fn steal(&mut self, mut may_take: impl FnMut(&T) -> bool) -> Option<T> {
        let mut left = self.present;
        while left != 0 {
            let p = 31 - left.leading_zeros() as usize;
            left &= !(1 << p);
            if let Some(at) = self.queues[p].iter().position(&mut may_take) {
                let thread = self.queues[p].remove(at);
                if self.queues[p].is_empty() {
                    self.present &= !(1 << p);
                }
                self.len -= 1;
                return thread;
            }
        }
        None
    }

    /// Takes out the one thread for which `is_it` holds.
    pub fn remove(&mut self, is_it: impl FnMut(&T) -> bool) -> Option<T> {
        self.steal(is_it)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn higher_priority_first_then_first_come() {
        let mut q = RunQueue::new();
        for (p, t) in [(3, 'a'), (7, 'b'), (3, 'c'), (7, 'd'), (0, 'e')] {
            q.push(p, t);
        }
        q.push_front(3, 'f');
        let order: String = std::iter::from_fn(|| q.pop()).collect();
        assert_eq!(order, "bdface");
        assert_eq!(q.highest(), None);
    }

    #[test]
    fn a_thief_takes_the_most_urgent_that_it_may() {
        let mut q = RunQueue::new();
        q.push(9, 1);
        q.push(5, 2);
        q.push(5, 4);
        assert_eq!(q.steal(|t| t % 2 == 0), Some(2));
        assert_eq!(q.steal(|t| *t > 100), None);
        assert_eq!(q.len(), 2);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 256 }))]
        #[test]
        fn agrees_with_a_stable_sort(ops in prop::collection::vec((0u8..32, 0u8..4), 1..if cfg!(miri) { 40 } else { 200 })) {
            let mut q = RunQueue::new();
            let mut model: Vec<(u8, usize)> = Vec::new();
            for (n, (priority, op)) in ops.into_iter().enumerate() {
                if op == 3 {
                    let best = model.iter().map(|m| m.0).max();
                    let expected = best.and_then(|b| model.iter().position(|m| m.0 == b)).map(|i| model.remove(i).1);
                    prop_assert_eq!(q.pop(), expected);
                } else {
                    q.push(priority, n);
                    model.push((priority, n));
                }
                prop_assert_eq!(q.len(), model.len());
                prop_assert_eq!(q.highest(), model.iter().map(|m| m.0).max());
            }
        }
    }
}
