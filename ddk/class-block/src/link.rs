//! What the control thread and the workers say to each other.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering, fence};

use ddk::{DriverError, EventQueue, PinnedBuffer, PlatformError};
use proto::block::Status;
use spin::Mutex;

use crate::device::DiskInfo;
use crate::session::{Removed, Session, SessionId};

/// Key of commands in a worker's events.
pub(crate) const KEY_COMMAND: u64 = 1 << 32;
/// Key of the queue's interrupt.
pub(crate) const KEY_INTERRUPT: u64 = (1 << 32) + 1;

/// To a worker.
pub enum Command<Q, M> {
    /// Serve a session.
    Open(Box<Session<M>>),
    /// The client of a session is gone.
    Close(SessionId),
    /// Register a buffer.
    AddBuffer(SessionId, u16, PinnedBuffer),
    /// Forget a buffer as soon as no request uses it.
    RemoveBuffer(SessionId, u16, Removed),
    /// The disks changed.
    Disks(Arc<[DiskInfo]>),
    /// A tick of the watchdog has passed.
    Tick,
    /// Answer with [`Notice::Alive`] of this number.
    Beat(u32),
    /// Hand over the queue with [`Notice::Paused`] and push nothing until [`Command::Resume`].
    Pause,
    /// The device was reset: end what was in flight with this status, and go on with the queue.
    Resume(Q, Status),
}

/// From a worker to the control thread.
#[derive(Debug)]
pub enum Notice<Q> {
    /// A request, by its queue and token, got no answer in time.
    TimedOut(usize, u32),
    /// A request got no answer although it was aborted.
    Stuck(usize),
    /// The device broke the rules.
    Broken(usize, DriverError),
    /// Answer to [`Command::Pause`], or after [`Notice::Broken`]: the worker pushes nothing more.
    Paused(usize, Option<Q>),
    /// A client broke the protocol; its session is closed.
    SessionBroken(SessionId),
    /// Answer to [`Command::Beat`].
    Alive(u32),
}

/// The control thread's way to a worker.
pub struct WorkerLink<Q, M> {
    commands: Mutex<VecDeque<Command<Q, M>>>,
    pub(crate) pending: AtomicBool,
    /// Requests that the device has.
    pub(crate) in_flight: AtomicU32,
    events: Box<dyn EventQueue>,
}

impl<Q, M> WorkerLink<Q, M> {
    /// A link to the worker that waits on `events`.
    pub fn new(events: Box<dyn EventQueue>) -> Arc<WorkerLink<Q, M>> {
        Arc::new(WorkerLink {
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
    pub fn send(&self, command: Command<Q, M>) -> Result<(), PlatformError> {
        self.commands.lock().push_back(command);
        // Release: whoever sees the flag finds the command.
        self.pending.store(true, Ordering::Release);
        self.events.post(KEY_COMMAND)
    }

    /// Requests that the device has, about.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(crate) fn take(&self) -> Option<Command<Q, M>> {
        let mut commands = self.commands.lock();
        let command = commands.pop_front();
        if command.is_none() {
            self.pending.store(false, Ordering::Relaxed);
        }
        command
    }

    pub(crate) fn events(&self) -> &dyn EventQueue {
        &*self.events
    }
}

/// The workers' way to the control thread.
pub struct Notices<Q> {
    notices: Mutex<VecDeque<Notice<Q>>>,
    /// The control thread sleeps without a deadline: tell it when there is something to watch over.
    pub(crate) asleep: AtomicBool,
    post: Box<dyn Fn() + Send + Sync>,
}

impl<Q> Notices<Q> {
    /// `post` wakes the control thread.
    pub fn new(post: Box<dyn Fn() + Send + Sync>) -> Arc<Notices<Q>> {
        Arc::new(Notices {
            notices: Mutex::new(VecDeque::new()),
            asleep: AtomicBool::new(true),
            post,
        })
    }

    /// Sends a notice.
    pub fn send(&self, notice: Notice<Q>) {
        self.notices.lock().push_back(notice);
        (self.post)();
    }

    /// The next notice.
    pub fn take(&self) -> Option<Notice<Q>> {
        self.notices.lock().pop_front()
    }

    /// Wakes the control thread if it sleeps without a deadline.
    #[inline]
    pub(crate) fn watch(&self) {
        // Orders the worker's count of requests before the look at the flag; pairs with the fence in
        // `Supervisor::tick`, so that not both sides miss each other.
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::AcqRel) {
            (self.post)();
        }
    }
}
