//! What the control thread and the workers say to each other.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering, fence};

use ddk::{EventQueue, PlatformError};
use spin::Mutex;

/// Key of commands in a worker's events. Sessions have keys below.
pub const KEY_COMMAND: u64 = 1 << 32;
/// Key of the queue's interrupt.
pub const KEY_INTERRUPT: u64 = (1 << 32) + 1;

/// The control thread's way to a worker, for commands of type `C`.
pub struct Link<C> {
    commands: Mutex<VecDeque<C>>,
    pending: AtomicBool,
    in_flight: AtomicU32,
    events: Box<dyn EventQueue>,
}

impl<C> Link<C> {
    /// A link to the worker that waits on `events`.
    pub fn new(events: Box<dyn EventQueue>) -> Arc<Link<C>> {
        Arc::new(Link {
            commands: Mutex::new(VecDeque::new()),
            pending: AtomicBool::new(false),
            in_flight: AtomicU32::new(0),
            events,
        })
    }

    /// Sends a command.
    ///
    /// # Errors
    /// When the worker's events are broken.
    pub fn send(&self, command: C) -> Result<(), PlatformError> {
        self.commands.lock().push_back(command);
        // Release: whoever sees the flag finds the command.
        self.pending.store(true, Ordering::Release);
        self.events.post(KEY_COMMAND)
    }

    /// Requests that the device has, about.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// The worker says how many requests the device has.
    #[inline]
    pub fn set_in_flight(&self, count: u32) {
        self.in_flight.store(count, Ordering::Relaxed);
    }

    /// Whether there is a command, for a worker that does not want to wait for its event.
    #[inline]
    pub fn is_pending(&self) -> bool {
        self.pending.load(Ordering::Acquire)
    }

    /// The next command, for the worker.
    pub fn take(&self) -> Option<C> {
        let mut commands = self.commands.lock();
        let command = commands.pop_front();
        if command.is_none() {
            self.pending.store(false, Ordering::Relaxed);
        }
        command
    }

    /// What the worker waits on.
    pub fn events(&self) -> &dyn EventQueue {
        &*self.events
    }
}

/// The workers' way to the control thread, for notices of type `N`.
pub struct Notices<N> {
    notices: Mutex<VecDeque<N>>,
    /// The control thread sleeps without a deadline: tell it when there is something to watch over.
    asleep: AtomicBool,
    post: Box<dyn Fn() + Send + Sync>,
}

impl<N> Notices<N> {
    /// `post` wakes the control thread.
    pub fn new(post: Box<dyn Fn() + Send + Sync>) -> Arc<Notices<N>> {
        Arc::new(Notices {
            notices: Mutex::new(VecDeque::new()),
            asleep: AtomicBool::new(true),
            post,
        })
    }

    /// Sends a notice.
    pub fn send(&self, notice: N) {
        self.notices.lock().push_back(notice);
        (self.post)();
    }

    /// The next notice.
    pub fn take(&self) -> Option<N> {
        self.notices.lock().pop_front()
    }

    /// The worker has requests with the device, which it said to its [`Link`]: wakes the control thread if it sleeps without
    /// a deadline.
    #[inline]
    pub fn watch(&self) {
        // Orders the worker's count of requests before the look at the flag; pairs with the fence in
        // `fall_asleep`, so that not both sides miss each other.
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::AcqRel) {
            (self.post)();
        }
    }

    /// Whether the control thread sleeps without a deadline.
    pub(crate) fn is_asleep(&self) -> bool {
        self.asleep.load(Ordering::Acquire)
    }

    /// The control thread means to sleep without a deadline; `false` when `busy` says that it should not.
    pub(crate) fn fall_asleep(&self, busy: impl Fn() -> bool) -> bool {
        self.asleep.store(true, Ordering::Relaxed);
        // Orders the flag before the last look; pairs with the fence in `watch`.
        fence(Ordering::SeqCst);
        if busy() {
            self.asleep.store(false, Ordering::Relaxed);
            return false;
        }
        true
    }
}
