//! A block session as the cache's queue.
//!
//! When the driver dies, the session goes on with its successor. When there is none, or no answer for a
//! minute, everything in flight fails and nothing is sent any more: the memory of a request that was never
//! answered may still be written by the device, so it is never used again.

use alloc::{collections::VecDeque, vec::Vec};
use core::{
    cell::{Cell, RefCell},
    task::{Context, Poll, Waker},
    time::Duration,
};

use block_client::{Buffer, Disk, Request, Session, SessionError, Status};
use executor::{Deadline, Executor, Signals, Source};
use volume::{BlockError, BlockQueue, Completion, PAGE_BYTES, QueueFull, ReadRequest};

/// A driver that died is waited for so long.
const RECOVERY: Duration = Duration::from_secs(60);

/// What tells of the session's present driver.
struct Watched {
    completed: Source,
    closed: Source,
}

impl Watched {
    fn new(executor: &Executor, session: &Session) -> Result<Watched, SessionError> {
        Ok(Watched {
            completed: executor.watch(session.completed_event(), Signals::SIGNALED)?,
            closed: executor.watch(session.channel(), Signals::PEER_CLOSED)?,
        })
    }
}

/// Reads of one disk through one session.
pub struct DiskQueue {
    session: RefCell<Session>,
    buffer: Buffer,
    executor: Executor,
    watched: RefCell<Watched>,
    len_bytes: u64,
    block_log: u32,
    max_transfer: u32,
    in_flight: RefCell<Vec<u64>>,
    /// Why the session is of no use any more.
    gone: Cell<Option<BlockError>>,
    failed: RefCell<VecDeque<Completion>>,
    reaper: RefCell<Option<Waker>>,
    answers: Cell<u64>,
}

impl DiskQueue {
    /// Reads of `disk` over `session` into `buffer`, which is registered with it.
    ///
    /// # Errors
    /// When the block size is none that the cache can use, or the system refuses.
    pub fn new(
        executor: &Executor,
        disk: &Disk,
        session: Session,
        buffer: Buffer,
    ) -> Result<Self, SessionError> {
        let block_size = disk.info().block_size;
        let max_transfer = session.max_transfer();
        let page = PAGE_BYTES as u32;
        if !block_size.is_power_of_two() || block_size > page || max_transfer < page {
            return Err(SessionError::Refused(Status::UNSUPPORTED));
        }
        Ok(Self {
            watched: RefCell::new(Watched::new(executor, &session)?),
            executor: executor.clone(),
            len_bytes: disk.len_bytes(),
            block_log: block_size.trailing_zeros(),
            max_transfer,
            in_flight: RefCell::default(),
            gone: Cell::new(None),
            failed: RefCell::default(),
            reaper: RefCell::default(),
            answers: Cell::new(0),
            session: RefCell::new(session),
            buffer,
        })
    }

    /// Number of answers so far, and whether more are due.
    pub fn progress(&self) -> (u64, bool) {
        (self.answers.get(), !self.in_flight.borrow().is_empty())
    }

    /// Gives up on the session: all that is in flight fails with `error`.
    pub fn give_up(&self, error: BlockError) {
        if self.gone.get().is_none() {
            self.gone.set(Some(error));
            rt::error!("disk: {error}");
        }
        let ids = core::mem::take(&mut *self.in_flight.borrow_mut());
        let failures = ids.into_iter().map(|id| Completion {
            id,
            result: Err(error),
        });
        self.failed.borrow_mut().extend(failures);
        if let Some(waker) = self.reaper.borrow_mut().take() {
            waker.wake();
        }
    }

    /// The driver is gone: goes on with its successor, which the session gives what is in flight. Nothing
    /// that this service does could go on meanwhile, so it waits in place.
    fn recover(&self) {
        let mut session = self.session.borrow_mut();
        let recovered = session.recover(Deadline::after(RECOVERY));
        let watched = recovered.and_then(|()| Watched::new(&self.executor, &session));
        drop(session);
        match watched {
            Ok(watched) => *self.watched.borrow_mut() = watched,
            Err(error) => {
                rt::error!("disk: {error}");
                self.give_up(BlockError::Gone);
            }
        }
    }

    fn take(&self, id: u64) -> bool {
        let mut in_flight = self.in_flight.borrow_mut();
        let at = in_flight.iter().position(|other| *other == id);
        at.map(|at| in_flight.swap_remove(at)).is_some()
    }
}

impl BlockQueue for DiskQueue {
    fn size_bytes(&self) -> u64 {
        self.len_bytes
    }

    fn max_transfer_bytes(&self) -> u32 {
        self.max_transfer
    }

    fn push(&self, request: &ReadRequest) -> Result<(), QueueFull> {
        if let Some(error) = self.gone.get() {
            let failure = Completion {
                id: request.id,
                result: Err(error),
            };
            self.failed.borrow_mut().push_back(failure);
            if let Some(waker) = self.reaper.borrow_mut().take() {
                waker.wake();
            }
            return Ok(());
        }
        let lba = request.device_offset >> self.block_log;
        let memory_offset = request.memory_offset as u64;
        let read = Request::read(self.buffer, memory_offset, request.len_bytes, lba);
        match self.session.borrow_mut().submit(&read, request.id) {
            Ok(()) => {
                self.in_flight.borrow_mut().push(request.id);
                return Ok(());
            }
            Err(SessionError::Full) => return Err(QueueFull),
            Err(_) => {}
        }
        self.in_flight.borrow_mut().push(request.id);
        self.give_up(BlockError::Gone);
        Ok(())
    }

    fn kick(&self) {
        let kicked = self.session.borrow_mut().kick();
        if kicked.is_err() {
            self.give_up(BlockError::Gone);
        }
    }

    fn poll_reap(&self, cx: &mut Context<'_>) -> Poll<Completion> {
        loop {
            if let Some(failure) = self.failed.borrow_mut().pop_front() {
                return Poll::Ready(failure);
            }
            if self.gone.get().is_some() {
                *self.reaper.borrow_mut() = Some(cx.waker().clone());
                return Poll::Pending;
            }
            let polled = self.session.borrow_mut().poll();
            match polled {
                Ok(Some(done)) => {
                    self.answers.set(self.answers.get().wrapping_add(1));
                    if !self.take(done.token) {
                        continue;
                    }
                    let result = done.result().map_err(reason);
                    return Poll::Ready(Completion {
                        id: done.token,
                        result,
                    });
                }
                Ok(None) => {}
                Err(_) => {
                    self.give_up(BlockError::Gone);
                    continue;
                }
            }
            // The ring of an event whose completions were taken is used up before the next is asked for.
            if self.watched.borrow().completed.poll_next(cx).is_ready() {
                continue;
            }
            let armed = self.session.borrow_mut().arm();
            match armed {
                Ok(true) => continue,
                Ok(false) => {}
                Err(_) => {
                    self.give_up(BlockError::Gone);
                    continue;
                }
            }
            let closed = self.watched.borrow().closed.poll_next(cx).is_ready();
            if closed {
                self.recover();
                continue;
            }
            *self.reaper.borrow_mut() = Some(cx.waker().clone());
            return Poll::Pending;
        }
    }
}

fn reason(status: Status) -> BlockError {
    match status {
        Status::TIMED_OUT => BlockError::TimedOut,
        Status::GONE => BlockError::Gone,
        Status::OUT_OF_RANGE | Status::INVALID | Status::TOO_LONG | Status::BAD_BUFFER => {
            BlockError::Invalid
        }
        _ => BlockError::Device,
    }
}
