//! The data path: one queue of the device and the sessions that it serves.
//!
//! This loop runs for every request. It allocates nothing, logs nothing, divides by nothing, and makes a
//! system call only to sleep or to wake a client that sleeps.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use ddk::{Deadline, DriverError, Event, PlatformError};
use ddk_class_core::{KEY_COMMAND, KEY_INTERRUPT};
use proto::block::{Completion, Status, Submission};
use ring::Memory;

use crate::check::{Checked, check};
use crate::device::{BlockQueue, DiskInfo, PushError, Request};
use crate::link::{Command, Notice, Notices, WorkerLink};
use crate::session::Session;

/// Ticks that a request may stay with the device: between 30 and 31 seconds.
pub const REQUEST_LIMIT_TICKS: u8 = 31;

/// Ticks that an aborted request may still stay with the device.
pub const ABORT_LIMIT_TICKS: u8 = 5;

/// Requests taken from one session before the next one has its turn.
const TURN: u32 = 64;

/// A request that the device has.
#[derive(Clone, Copy)]
struct InFlight {
    /// Index of its session.
    session: u16,
    slot: u16,
    length: u32,
    id: u64,
    /// Ticks since it was pushed.
    age: u8,
    uses_buffer: bool,
    /// A write that is to be durable: its flush comes after it.
    then_flush: bool,
}

/// One queue of the device with its sessions. Runs on a thread of its own.
pub struct Worker<Q, M> {
    index: usize,
    queue: Option<Q>,
    /// The queue was handed over for a reset or a suspension.
    paused: bool,
    /// Nothing is taken from sessions: the device is to be suspended.
    holding: bool,
    disks: Arc<[DiskInfo]>,
    link: Arc<WorkerLink<Q, M>>,
    notices: Arc<Notices<Q>>,
    sessions: Vec<Option<Box<Session<M>>>>,
    /// Sessions that may have something in their ring.
    active: Vec<u16>,
    /// Sessions with completions that are not published.
    dirty: Vec<u16>,
    /// Requests by token.
    in_flight: Vec<Option<InFlight>>,
    free: Vec<u32>,
    /// Tokens of durable writes whose flush found no room.
    flushes: Vec<u32>,
    /// Something was taken from the device since its interrupt was armed.
    disarmed: bool,
}

impl<Q: BlockQueue, M: Memory> Worker<Q, M> {
    /// A worker for a queue. Its events are those of `link`.
    ///
    /// # Errors
    /// When the queue's interrupt cannot be bound.
    pub fn new(
        index: usize,
        mut queue: Q,
        disks: Arc<[DiskInfo]>,
        link: Arc<WorkerLink<Q, M>>,
        notices: Arc<Notices<Q>>,
    ) -> Result<Worker<Q, M>, PlatformError> {
        queue.bind(link.events(), KEY_INTERRUPT)?;
        let depth = u32::from(queue.depth());
        Ok(Worker {
            index,
            queue: Some(queue),
            paused: false,
            holding: false,
            disks,
            link,
            notices,
            sessions: Vec::new(),
            active: Vec::new(),
            dirty: Vec::new(),
            in_flight: (0..depth).map(|_| None).collect(),
            free: (0..depth).rev().collect(),
            flushes: Vec::new(),
            disarmed: true,
        })
    }

    /// Serves until the process ends.
    ///
    /// # Errors
    /// When the events are broken.
    pub fn run(&mut self) -> Result<(), PlatformError> {
        loop {
            self.turn(Deadline::NEVER)?;
        }
    }

    /// Does what there is to do; then, unless there is more, waits for events until the deadline.
    ///
    /// # Errors
    /// As [`Worker::run`].
    pub fn turn(&mut self, deadline: Deadline) -> Result<(), PlatformError> {
        self.reap();
        self.drain();
        if self.holding {
            self.let_go();
        }
        if self.arm() {
            return Ok(());
        }
        let mut events = [Event::default(); 4];
        let count = self.link.events().wait(&mut events, deadline)?;
        for event in events.iter().take(count) {
            match event.key {
                KEY_INTERRUPT => {}
                KEY_COMMAND => self.commands(),
                session => self.activate(session as u16),
            }
        }
        Ok(())
    }

    /// Looks at every session with the next turn, doorbell or not.
    pub fn wake_all(&mut self) {
        for index in 0..self.sessions.len() {
            self.activate(index as u16);
        }
    }

    /// Requests that the device has.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len() - self.free.len()
    }

    /// Sessions that are served or not quite gone.
    pub fn sessions(&self) -> usize {
        self.sessions.iter().flatten().count()
    }

    // From the device.

    #[inline]
    fn reap(&mut self) {
        if self.free.len() == self.in_flight.len() {
            return;
        }
        let mut any = false;
        let error = loop {
            let Some(queue) = &mut self.queue else { return };
            match queue.reap() {
                Ok(Some(done)) => {
                    if !any {
                        any = true;
                        queue.disarm();
                    }
                    if let Err(error) = self.complete(done.token, done.status) {
                        break Some(error);
                    }
                }
                Ok(None) => break None,
                Err(error) => break Some(error),
            }
        };
        if any {
            self.disarmed = true;
            self.publish();
        }
        if let Some(error) = error {
            // What the device has stays in flight until it was reset.
            self.paused = true;
            self.notices.send(Notice::Broken(self.index, error));
            self.notices
                .send(Notice::Paused(self.index, self.queue.take()));
        }
    }

    /// Ends a request that the device has finished with.
    #[inline]
    fn complete(&mut self, token: u32, status: Status) -> Result<(), DriverError> {
        let what = "completion of a request in flight";
        let odd = DriverError::Protocol {
            what,
            expected: 0,
            seen: token.into(),
        };
        let entry = self.in_flight.get_mut(token as usize).ok_or(odd)?;
        let Some(request) = entry else {
            return Err(odd);
        };
        let status = if request.age >= REQUEST_LIMIT_TICKS && status != Status::OK {
            // It was aborted, if only just.
            Status::TIMED_OUT
        } else {
            status
        };
        if request.then_flush && status == Status::OK {
            request.then_flush = false;
            self.flush_after(token);
            return Ok(());
        }
        let request = *request;
        *entry = None;
        self.free.push(token);
        self.answer(request, status);
        Ok(())
    }

    /// The second half of a durable write: its data is in the device, now the cache is emptied.
    fn flush_after(&mut self, token: u32) {
        let entry = self.in_flight.get(token as usize).copied().flatten();
        let session = entry.and_then(|entry| self.sessions.get(usize::from(entry.session)));
        let Some(Some(session)) = session else { return };
        let request = Request::flush(session.extent.unit, token);
        match self.queue.as_mut().map(|queue| queue.push(&request)) {
            Some(Ok(())) => {
                if let Some(queue) = &mut self.queue {
                    queue.kick();
                }
            }
            Some(Err(PushError::Full)) | None => self.flushes.push(token),
            Some(Err(PushError::Rejected(status))) => {
                let _ = self.complete(token, status);
            }
        }
    }

    /// Puts a request's answer into its session's ring.
    #[inline]
    fn answer(&mut self, request: InFlight, status: Status) {
        let index = request.session;
        let Some(Some(session)) = self.sessions.get_mut(usize::from(index)) else {
            return;
        };
        session.in_flight -= 1;
        if request.uses_buffer {
            session.buffers.release(request.slot);
        }
        if session.waiting.is_some() && !session.active {
            session.active = true;
            self.active.push(index);
        }
        if session.closed {
            if session.in_flight == 0 {
                self.remove(index);
            }
            return;
        }
        let length = if status == Status::OK {
            request.length
        } else {
            0
        };
        self.post(
            index,
            Completion {
                id: request.id,
                status: status.0,
                length,
            },
        );
    }

    #[inline]
    fn post(&mut self, index: u16, completion: Completion) {
        let Some(Some(session)) = self.sessions.get_mut(usize::from(index)) else {
            return;
        };
        if session.completions.push(&completion).is_err() {
            // It has more outstanding than it was allowed, or its ring is corrupt.
            self.break_session(index);
            return;
        }
        if !session.dirty {
            session.dirty = true;
            self.dirty.push(index);
        }
    }

    #[inline]
    fn publish(&mut self) {
        while let Some(index) = self.dirty.pop() {
            let Some(Some(session)) = self.sessions.get_mut(usize::from(index)) else {
                continue;
            };
            session.dirty = false;
            if session.completions.publish() {
                session.completed.ring();
            }
        }
    }

    // From the clients.

    #[inline]
    fn drain(&mut self) {
        if self.paused {
            return;
        }
        if !self.flushes.is_empty() {
            for token in core::mem::take(&mut self.flushes) {
                self.flush_after(token);
            }
        }
        if self.holding {
            return self.publish();
        }
        let mut pushed = false;
        let mut at = 0;
        while let Some(&index) = self.active.get(at) {
            match self.drain_session(index, &mut pushed) {
                Drained::Empty | Drained::More => at += 1,
                Drained::Blocked => {
                    // It waits for room; `answer` puts it back.
                    self.active.swap_remove(at);
                    if let Some(Some(session)) = self.sessions.get_mut(usize::from(index)) {
                        session.active = false;
                    }
                }
                // It may be off the list already.
                Drained::Gone => self.active.retain(|i| *i != index),
            }
        }
        if pushed {
            self.link.set_in_flight(self.in_flight() as u32);
            if let Some(queue) = &mut self.queue {
                queue.kick();
            }
            self.notices.watch();
        }
        self.publish();
    }

    #[inline]
    fn drain_session(&mut self, index: u16, pushed: &mut bool) -> Drained {
        for _ in 0..TURN {
            let Some(Some(session)) = self.sessions.get_mut(usize::from(index)) else {
                return Drained::Gone;
            };
            if session.closed {
                session.active = false;
                return Drained::Gone;
            }
            let submission = match session.waiting.take() {
                Some(submission) => submission,
                None => match session.submissions.pop() {
                    Ok(Some(submission)) => submission,
                    Ok(None) => return Drained::Empty,
                    Err(_) => {
                        self.break_session(index);
                        return Drained::Gone;
                    }
                },
            };
            if session.in_flight >= session.depth {
                // More outstanding than was agreed, which its completions would have no room for.
                self.break_session(index);
                return Drained::Gone;
            }
            match self.start(index, &submission) {
                Ok(Started::Pushed) => *pushed = true,
                Ok(Started::Done) => self.refuse(index, &submission, Status::OK),
                Err(PushError::Rejected(status)) => self.refuse(index, &submission, status),
                Err(PushError::Full) => {
                    if let Some(Some(session)) = self.sessions.get_mut(usize::from(index)) {
                        session.waiting = Some(submission);
                        // With nothing of its own in flight it is another session's completion that makes
                        // room, so it stays on the list.
                        if session.in_flight > 0 {
                            return Drained::Blocked;
                        }
                    }
                    return Drained::More;
                }
            }
        }
        Drained::More
    }

    /// Checks a request and pushes it.
    #[inline]
    fn start(&mut self, index: u16, submission: &Submission) -> Result<Started, PushError> {
        if self.link.is_pending() {
            // The client may have got the answer to a registration that is still on its way here.
            self.commands();
        }
        let Some(Some(session)) = self.sessions.get_mut(usize::from(index)) else {
            return Err(PushError::Rejected(Status::GONE));
        };
        let (Some(queue), Some(&token)) = (&mut self.queue, self.free.last()) else {
            return Err(PushError::Full);
        };
        let checked = check(session, &self.disks, submission, token);
        let (request, then_flush) = match checked.map_err(PushError::Rejected)? {
            Checked::Device {
                request,
                then_flush,
            } => (request, then_flush),
            Checked::Done => return Ok(Started::Done),
        };
        queue.push(&request)?;
        let uses_buffer = request.data.is_some();
        if uses_buffer {
            session.buffers.hold(submission.slot);
        }
        session.in_flight += 1;
        self.free.pop();
        if let Some(entry) = self.in_flight.get_mut(token as usize) {
            *entry = Some(InFlight {
                session: index,
                slot: submission.slot,
                length: submission.length,
                id: submission.id,
                age: 0,
                uses_buffer,
                then_flush,
            });
        }
        Ok(Started::Pushed)
    }

    /// Answers a request that the device never saw.
    fn refuse(&mut self, index: u16, submission: &Submission, status: Status) {
        let length = if status == Status::OK {
            submission.length
        } else {
            0
        };
        self.post(
            index,
            Completion {
                id: submission.id,
                status: status.0,
                length,
            },
        );
    }

    // Before sleeping.

    /// Asks everybody to wake us. `true`: there is more to do first.
    #[inline]
    fn arm(&mut self) -> bool {
        let mut more = false;
        if !self.paused && !self.holding {
            let mut at = 0;
            while let Some(&index) = self.active.get(at) {
                let session = self
                    .sessions
                    .get_mut(usize::from(index))
                    .and_then(Option::as_mut);
                let Some(session) = session.filter(|s| !s.closed) else {
                    self.active.swap_remove(at);
                    continue;
                };
                if session.waiting.is_some() {
                    // The device has no room: its next completion wakes us.
                    at += 1;
                    continue;
                }
                match session.submissions.arm() {
                    Ok(false) => {
                        session.active = false;
                        self.active.swap_remove(at);
                    }
                    Ok(true) => {
                        more = true;
                        at += 1;
                    }
                    Err(_) => self.break_session(index),
                }
            }
        }
        if self.disarmed
            && self.free.len() < self.in_flight.len()
            && let Some(queue) = &mut self.queue
        {
            if queue.arm() {
                more = true;
            } else {
                self.disarmed = false;
            }
        }
        if self.free.len() == self.in_flight.len() {
            self.link.set_in_flight(0);
        }
        more
    }

    fn activate(&mut self, index: u16) {
        if let Some(Some(session)) = self.sessions.get_mut(usize::from(index))
            && !session.active
        {
            session.active = true;
            self.active.push(index);
        }
    }

    // From the control thread.

    #[cold]
    fn commands(&mut self) {
        while let Some(command) = self.link.take() {
            match command {
                Command::Open(session) => self.open(session),
                Command::Close(id) => {
                    if let Some(index) = self.find(id) {
                        self.close(index);
                    }
                }
                Command::AddBuffer(id, slot, buffer) => {
                    // Without a session the buffer is dropped here, which unpins it.
                    if let Some(session) = self.session(id) {
                        session.buffers.add(slot, buffer);
                    }
                }
                Command::RemoveBuffer(id, slot, done) => match self.session(id) {
                    Some(session) => session.buffers.remove(slot, done),
                    None => done(false),
                },
                Command::Disks(disks) => self.disks = disks,
                Command::Tick => self.tick(),
                Command::Beat(beat) => self.notices.send(Notice::Alive(beat)),
                Command::Pause => {
                    if !self.paused {
                        self.paused = true;
                        self.notices
                            .send(Notice::Paused(self.index, self.queue.take()));
                    }
                }
                Command::Hold => self.holding = true,
                Command::Resume(queue, status) => self.resume(queue, status),
            }
        }
    }

    /// Hands the queue over for a suspension once the device has nothing.
    #[cold]
    fn let_go(&mut self) {
        if !self.paused && self.in_flight() == 0 {
            self.paused = true;
            self.notices
                .send(Notice::Paused(self.index, self.queue.take()));
        }
    }

    fn open(&mut self, mut session: Box<Session<M>>) {
        let index = match self.sessions.iter().position(Option::is_none) {
            Some(index) => index,
            None => {
                self.sessions.push(None);
                self.sessions.len() - 1
            }
        };
        let watched = session.submitted.watch(self.link.events(), index as u64);
        if watched.is_err() {
            self.notices.send(Notice::SessionBroken(session.id));
            return;
        }
        // What was submitted before the watch rings no doorbell unless the ring is armed: look once.
        session.active = true;
        self.active.push(index as u16);
        if let Some(entry) = self.sessions.get_mut(index) {
            *entry = Some(session);
        }
    }

    fn find(&self, id: u32) -> Option<u16> {
        let found = self
            .sessions
            .iter()
            .position(|s| s.as_ref().is_some_and(|s| s.id == id));
        found.map(|index| index as u16)
    }

    fn session(&mut self, id: u32) -> Option<&mut Session<M>> {
        self.sessions
            .iter_mut()
            .flatten()
            .find(|s| s.id == id && !s.closed)
            .map(|s| &mut **s)
    }

    /// A client broke the protocol.
    #[cold]
    fn break_session(&mut self, index: u16) {
        let Some(Some(session)) = self.sessions.get(usize::from(index)) else {
            return;
        };
        if !session.closed {
            self.notices.send(Notice::SessionBroken(session.id));
            self.close(index);
        }
    }

    /// Ends a session; its buffers live until the device has finished with them.
    fn close(&mut self, index: u16) {
        let Some(Some(session)) = self.sessions.get_mut(usize::from(index)) else {
            return;
        };
        if !session.closed {
            session
                .submitted
                .unwatch(self.link.events(), u64::from(index));
        }
        session.closed = true;
        session.waiting = None;
        if session.in_flight == 0 {
            self.remove(index);
        }
    }

    fn remove(&mut self, index: u16) {
        self.active.retain(|i| *i != index);
        self.dirty.retain(|i| *i != index);
        if let Some(entry) = self.sessions.get_mut(usize::from(index)) {
            *entry = None;
        }
    }

    /// Counts the age of what the device has.
    fn tick(&mut self) {
        let (index, paused) = (self.index, self.paused);
        let mut stuck = false;
        for (token, request) in self.in_flight.iter_mut().enumerate() {
            let Some(request) = request else { continue };
            request.age = request.age.saturating_add(1);
            stuck |= request.age == REQUEST_LIMIT_TICKS + ABORT_LIMIT_TICKS;
            if request.age == REQUEST_LIMIT_TICKS && !paused {
                self.notices.send(Notice::TimedOut(index, token as u32));
            }
        }
        if stuck && !paused {
            self.notices.send(Notice::Stuck(index));
        }
    }

    /// Goes on after a reset. The device has none of the requests any more.
    fn resume(&mut self, mut queue: Q, status: Status) {
        self.flushes.clear();
        for token in 0..self.in_flight.len() {
            let Some(request) = self.in_flight.get_mut(token).and_then(Option::take) else {
                continue;
            };
            self.free.push(token as u32);
            self.answer(request, status);
        }
        self.publish();
        self.paused = false;
        self.holding = false;
        self.disarmed = true;
        let depth = usize::from(queue.depth());
        if depth != self.in_flight.len() {
            self.in_flight = (0..depth).map(|_| None).collect();
            self.free = (0..depth as u32).rev().collect();
        }
        if let Err(error) = queue.bind(self.link.events(), KEY_INTERRUPT) {
            let error = DriverError::platform("interrupt of the queue", error);
            self.notices.send(Notice::Broken(self.index, error));
        }
        self.queue = Some(queue);
        self.wake_all();
    }
}

enum Drained {
    /// The ring is empty.
    Empty,
    /// Its turn is over.
    More,
    /// It waits for a completion of its own.
    Blocked,
    /// The session is closed.
    Gone,
}

enum Started {
    Pushed,
    Done,
}
