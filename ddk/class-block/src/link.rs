//! What the control thread and the workers say to each other.

use alloc::boxed::Box;
use alloc::sync::Arc;

use ddk::{DriverError, PinnedBuffer};
use ddk_class_core::{Removed, SessionId};
use proto::block::Status;

use crate::device::DiskInfo;
use crate::session::Session;

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
    /// Take nothing more from the sessions; hand over the queue with [`Notice::Paused`] once the device has finished what
    /// it has, until [`Command::Resume`].
    Hold,
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
    /// Answer to [`Command::Pause`] and [`Command::Hold`], or after [`Notice::Broken`]: the worker pushes nothing more.
    Paused(usize, Option<Q>),
    /// A client broke the protocol; its session is closed.
    SessionBroken(SessionId),
    /// Answer to [`Command::Beat`].
    Alive(u32),
}

/// The control thread's way to a worker.
pub type WorkerLink<Q, M> = ddk_class_core::Link<Command<Q, M>>;

/// The workers' way to the control thread.
pub type Notices<Q> = ddk_class_core::Notices<Notice<Q>>;
