//! What the control thread and the workers say to each other.

use alloc::boxed::Box;
use alloc::sync::Arc;

use ddk::{DriverError, PinnedBuffer};
use ddk_class_core::{Removed, SessionId};

use crate::device::NicInfo;
use crate::session::Session;

/// To a worker.
pub enum Command<Q, M> {
    /// Serve a session; the worker has none.
    Open(Box<Session<M>>),
    /// The client of a session is gone.
    Close(SessionId),
    /// Register a buffer.
    AddBuffer(SessionId, u16, PinnedBuffer),
    /// Forget a buffer as soon as the device has nothing of it.
    RemoveBuffer(SessionId, u16, Removed),
    /// The interface changed.
    Info(Arc<NicInfo>),
    /// A tick of the watchdog has passed.
    Tick,
    /// Answer with [`Notice::Alive`] of this number.
    Beat(u32),
    /// Hand over the queue with [`Notice::Paused`] and give it nothing until [`Command::Resume`].
    Pause,
    /// The device was reset: go on with the queue.
    Resume(Q),
}

/// From a worker to the control thread.
#[derive(Debug)]
pub enum Notice<Q> {
    /// Frames do not leave.
    Stuck(usize),
    /// The device broke the rules.
    Broken(usize, DriverError),
    /// Buffers have to be got back from the device: reset it.
    WantsReset(usize),
    /// The queue's interrupt told of other news.
    Changed,
    /// Answer to [`Command::Pause`], or after [`Notice::Broken`]: the worker gives the queue nothing more.
    Paused(usize, Option<Q>),
    /// A client broke the protocol; its session is closed.
    SessionBroken(SessionId),
    /// A session is gone with all its buffers: the queue is free for another one.
    SessionEnded(usize, SessionId),
    /// Answer to [`Command::Beat`].
    Alive(u32),
}

/// The control thread's way to a worker.
pub type WorkerLink<Q, M> = ddk_class_core::Link<Command<Q, M>>;

/// The workers' way to the control thread.
pub type Notices<Q> = ddk_class_core::Notices<Notice<Q>>;
