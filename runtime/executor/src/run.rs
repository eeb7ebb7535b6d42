//! The executor itself: which tasks are ready, and where to wait when none is.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::sync::Arc;
use alloc::task::Wake;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::future::{Future, poll_fn};
use core::pin::{Pin, pin};
use core::sync::atomic::{AtomicBool, Ordering, fence};
use core::task::{Context, Poll, Waker};

use sys::abi::Packet;
use sys::{Deadline, Error, Mutex, Port, Result, time::now_ns};

use crate::source::Sources;
use crate::timer::Timers;

/// Packets taken from the port at a time.
const PACKETS: usize = 32;
/// Rounds of ready tasks after which the port is looked at although there are more.
const ROUNDS_UNTIL_POLL: u32 = 16;
/// Key of packets that only end a wait. Sources have other keys.
pub(crate) const WAKE_KEY: u64 = u64::MAX;
/// Number of the future that `block_on` runs.
const MAIN: usize = usize::MAX;

/// What wakers need, from whatever thread.
struct Ready {
    queue: Mutex<VecDeque<(usize, u32)>>,
    /// Whether the executor's thread waits or is about to.
    waiting: AtomicBool,
    port: Port,
}

/// A task as its wakers see it.
struct Header {
    slot: usize,
    generation: u32,
    queued: AtomicBool,
    ready: Arc<Ready>,
}

impl Wake for Header {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }
    fn wake_by_ref(self: &Arc<Self>) {
        if self.queued.swap(true, Ordering::AcqRel) {
            return;
        }
        self.ready
            .queue
            .lock()
            .push_back((self.slot, self.generation));
        // Orders the push before the look at `waiting`; pairs with the fence in `block_on`.
        fence(Ordering::SeqCst);
        if self.ready.waiting.load(Ordering::Relaxed)
            && self.ready.waiting.swap(false, Ordering::Relaxed)
        {
            // A full port has packets that end the wait as well.
            let _ = self.ready.port.queue(WAKE_KEY, 0);
        }
    }
}

type Body = Pin<Box<dyn Future<Output = ()>>>;

struct Slot {
    generation: u32,
    /// `None` while it is being polled, and when the slot is free.
    body: Option<Body>,
    header: Option<Arc<Header>>,
    waker: Option<Waker>,
}

pub(crate) struct Inner {
    ready: Arc<Ready>,
    slots: RefCell<Vec<Slot>>,
    free: RefCell<Vec<usize>>,
    pub(crate) sources: RefCell<Sources>,
    pub(crate) timers: RefCell<Timers>,
    running: Cell<bool>,
}

/// Runs tasks on the thread that calls [`Executor::block_on`]. Clones are the same executor.
#[derive(Clone)]
pub struct Executor(pub(crate) Rc<Inner>);

impl Executor {
    /// An executor with a port of its own.
    pub fn new() -> Result<Executor> {
        let ready = Arc::new(Ready {
            queue: Mutex::new(VecDeque::new()),
            waiting: AtomicBool::new(false),
            port: Port::create()?,
        });
        Ok(Executor(Rc::new(Inner {
            ready,
            slots: RefCell::default(),
            free: RefCell::default(),
            sources: RefCell::default(),
            timers: RefCell::default(),
            running: Cell::new(false),
        })))
    }

    /// The port, to bind further sources by hand; keys from 2^63 on are free for that and lead to
    /// nothing but a wake-up.
    pub fn port(&self) -> &Port {
        &self.0.ready.port
    }

    /// Starts a task. It runs when `block_on` comes to it, and is cancelled when the [`Task`] is
    /// dropped.
    pub fn spawn<T: 'static>(&self, future: impl Future<Output = T> + 'static) -> Task<T> {
        let state = Rc::new(TaskState {
            value: Cell::new(None),
            joiner: Cell::new(None),
        });
        let result = state.clone();
        let body: Body = Box::pin(async move {
            let value = future.await;
            result.value.set(Some(value));
            if let Some(joiner) = result.joiner.take() {
                joiner.wake();
            }
        });
        let mut slots = self.0.slots.borrow_mut();
        let slot = self.0.free.borrow_mut().pop().unwrap_or_else(|| {
            slots.push(Slot {
                generation: 0,
                body: None,
                header: None,
                waker: None,
            });
            slots.len() - 1
        });
        let mut generation = 0;
        if let Some(entry) = slots.get_mut(slot) {
            entry.generation = entry.generation.wrapping_add(1);
            generation = entry.generation;
            let header = Arc::new(Header {
                slot,
                generation,
                queued: AtomicBool::new(false),
                ready: self.0.ready.clone(),
            });
            let waker = Waker::from(header.clone());
            entry.body = Some(body);
            entry.header = Some(header);
            waker.wake_by_ref();
            entry.waker = Some(waker);
        }
        Task {
            executor: self.clone(),
            slot,
            generation,
            state,
            detached: false,
        }
    }

    /// Runs tasks until `future` has its value.
    ///
    /// # Panics
    ///
    /// If called by a task of this executor.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        assert!(!self.0.running.replace(true), "block_on inside of block_on");
        let inner = &*self.0;
        let mut future = pin!(future);
        let header = Arc::new(Header {
            slot: MAIN,
            generation: 0,
            queued: AtomicBool::new(true),
            ready: inner.ready.clone(),
        });
        let waker = Waker::from(header.clone());
        let mut context = Context::from_waker(&waker);
        let mut main_ready = true;
        let mut round = 0;
        let mut batch = VecDeque::new();
        let mut packets = [Packet::default(); PACKETS];
        let value = 'run: loop {
            if main_ready {
                main_ready = false;
                header.queued.store(false, Ordering::Release);
                if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
                    break 'run value;
                }
            }
            core::mem::swap(&mut batch, &mut *inner.ready.queue.lock());
            while let Some((slot, generation)) = batch.pop_front() {
                if slot == MAIN {
                    main_ready = true;
                } else {
                    self.poll_task(slot, generation);
                }
            }
            if main_ready {
                inner.timers.borrow_mut().fire(now_ns);
                continue;
            }
            let mut deadline = Deadline::NOW;
            if inner.ready.queue.lock().is_empty() {
                inner.ready.waiting.store(true, Ordering::Relaxed);
                // Orders `waiting` before the look at the queue; pairs with the fence in `wake`.
                fence(Ordering::SeqCst);
                if inner.ready.queue.lock().is_empty() {
                    deadline = inner.timers.borrow().next();
                }
            } else {
                round += 1;
                if round % ROUNDS_UNTIL_POLL != 0 {
                    inner.timers.borrow_mut().fire(now_ns);
                    continue;
                }
            }
            let result = inner.ready.port.wait(&mut packets, deadline);
            inner.ready.waiting.store(false, Ordering::Relaxed);
            if let Ok(count) = result {
                let mut sources = inner.sources.borrow_mut();
                packets
                    .iter()
                    .take(count)
                    .for_each(|packet| sources.deliver(packet));
            }
            inner.timers.borrow_mut().fire(now_ns);
        };
        inner.running.set(false);
        value
    }

    fn poll_task(&self, slot: usize, generation: u32) {
        let (mut body, waker) = {
            let mut slots = self.0.slots.borrow_mut();
            let Some(entry) = slots.get_mut(slot).filter(|s| s.generation == generation) else {
                return;
            };
            let (Some(body), Some(header), Some(waker)) =
                (entry.body.take(), &entry.header, entry.waker.take())
            else {
                return;
            };
            header.queued.store(false, Ordering::Release);
            (body, waker)
        };
        let done = body
            .as_mut()
            .poll(&mut Context::from_waker(&waker))
            .is_ready();
        let mut slots = self.0.slots.borrow_mut();
        let Some(entry) = slots.get_mut(slot) else {
            return;
        };
        if done || entry.generation != generation {
            if entry.generation == generation {
                self.release(slot, entry);
            }
            // Dropping a future may drop tasks and sources: not while the slots are borrowed.
            drop(slots);
            drop(body);
        } else {
            entry.body = Some(body);
            entry.waker = Some(waker);
        }
    }

    /// Frees a task's slot; gives the future to drop when nothing is borrowed.
    fn release(&self, slot: usize, entry: &mut Slot) -> Option<Body> {
        entry.generation = entry.generation.wrapping_add(1);
        entry.header = None;
        entry.waker = None;
        self.0.free.borrow_mut().push(slot);
        entry.body.take()
    }

    /// Tasks that have not ended.
    pub fn tasks(&self) -> usize {
        self.0
            .slots
            .borrow()
            .len()
            .saturating_sub(self.0.free.borrow().len())
    }

    /// Lets other tasks run once.
    pub async fn yield_now(&self) {
        let mut yielded = false;
        poll_fn(|context| {
            if core::mem::replace(&mut yielded, true) {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await
    }

    /// The future's value, or `TimedOut` when the deadline passes first (the future is dropped then).
    pub async fn with_deadline<F: Future>(
        &self,
        deadline: Deadline,
        future: F,
    ) -> Result<F::Output> {
        let mut future = pin!(future);
        let mut sleep = pin!(self.sleep_until(deadline));
        poll_fn(|context| {
            if let Poll::Ready(value) = future.as_mut().poll(context) {
                return Poll::Ready(Ok(value));
            }
            sleep.as_mut().poll(context).map(|()| Err(Error::TimedOut))
        })
        .await
    }
}

struct TaskState<T> {
    value: Cell<Option<T>>,
    joiner: Cell<Option<Waker>>,
}

/// A started task. Await it for its value; drop it to cancel it; [`Task::detach`] to let it run.
#[must_use = "a task that is dropped is cancelled"]
pub struct Task<T> {
    executor: Executor,
    slot: usize,
    generation: u32,
    state: Rc<TaskState<T>>,
    detached: bool,
}

impl<T> Task<T> {
    /// Lets it run to its end by itself.
    pub fn detach(mut self) {
        self.detached = true;
    }

    /// Whether it has ended (and its value has not been taken).
    pub fn is_finished(&self) -> bool {
        let value = self.state.value.take();
        let finished = value.is_some();
        self.state.value.set(value);
        finished
    }
}

impl<T> Future for Task<T> {
    type Output = T;
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        match self.state.value.take() {
            Some(value) => Poll::Ready(value),
            None => {
                self.state.joiner.set(Some(context.waker().clone()));
                Poll::Pending
            }
        }
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        if self.detached {
            return;
        }
        let body = {
            let mut slots = self.executor.0.slots.borrow_mut();
            match slots
                .get_mut(self.slot)
                .filter(|s| s.generation == self.generation)
            {
                Some(entry) => self.executor.release(self.slot, entry),
                None => None,
            }
        };
        drop(body);
    }
}
