//! Between tasks of one executor: a notification and a queue. Not for threads.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::future::poll_fn;
use core::task::{Context, Poll, Waker};

/// Wakes the tasks that wait for something to change.
#[derive(Default)]
pub struct Notify {
    /// Counts notifications, so that one between look and wait is not lost.
    epoch: Cell<u64>,
    waiting: RefCell<Vec<Waker>>,
}

impl Notify {
    /// Nobody waits.
    pub const fn new() -> Notify {
        Notify {
            epoch: Cell::new(0),
            waiting: RefCell::new(Vec::new()),
        }
    }

    /// Wakes every task that waits now.
    pub fn notify(&self) {
        self.epoch.set(self.epoch.get().wrapping_add(1));
        // Taken out first: a woken task may wait again.
        let waiting = core::mem::take(&mut *self.waiting.borrow_mut());
        waiting.into_iter().for_each(Waker::wake);
    }

    fn register(&self, context: &Context<'_>) {
        let mut waiting = self.waiting.borrow_mut();
        if !waiting.iter().any(|waker| waker.will_wake(context.waker())) {
            waiting.push(context.waker().clone());
        }
    }

    /// Waits for the next notification from now on.
    pub async fn wait(&self) {
        let start = self.epoch.get();
        poll_fn(|context| {
            if self.epoch.get() != start {
                return Poll::Ready(());
            }
            self.register(context);
            Poll::Pending
        })
        .await
    }

    /// Waits until `condition` gives a value; it is asked at once and after every notification.
    pub async fn wait_until<T>(&self, mut condition: impl FnMut() -> Option<T>) -> T {
        poll_fn(|context| match condition() {
            Some(value) => Poll::Ready(value),
            None => {
                self.register(context);
                Poll::Pending
            }
        })
        .await
    }
}

/// A queue without bound between tasks.
pub struct Queue<T> {
    items: RefCell<VecDeque<T>>,
    notify: Notify,
}

impl<T> Queue<T> {
    /// An empty queue.
    pub const fn new() -> Queue<T> {
        Queue {
            items: RefCell::new(VecDeque::new()),
            notify: Notify::new(),
        }
    }

    /// Appends an item.
    pub fn push(&self, item: T) {
        self.items.borrow_mut().push_back(item);
        self.notify.notify();
    }

    /// Takes the first item, waiting for one.
    pub async fn pop(&self) -> T {
        self.notify.wait_until(|| self.try_pop()).await
    }

    /// Takes the first item if there is one.
    pub fn try_pop(&self) -> Option<T> {
        self.items.borrow_mut().pop_front()
    }

    /// Number of items.
    pub fn len(&self) -> usize {
        self.items.borrow().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.items.borrow().is_empty()
    }
}

impl<T> Default for Queue<T> {
    fn default() -> Queue<T> {
        Queue::new()
    }
}
