//! The data path: one queue pair of the device and the session that it serves.
//!
//! This loop runs for every frame. It allocates nothing, logs nothing, divides by nothing, and makes a
//! system call only to sleep or to wake a client that sleeps.

mod receive;
mod transmit;

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use ddk::{Deadline, DeviceContext, DriverError, Event, PlatformError};
use ddk_class_core::{KEY_COMMAND, KEY_INTERRUPT, SessionId};
use proto::net::{RxBuffer, Status};
use ring::Memory;

use self::receive::PROVIDED_ENOUGH;
pub use self::transmit::SEND_LIMIT_TICKS;
use self::transmit::{Assembly, Sending};
use crate::check::Segments;
use crate::counters::QueueCounters;
use crate::device::{NetQueue, NicInfo, QueueLimits, Wish};
use crate::link::{Command, Notice, Notices, WorkerLink};
use crate::session::Session;

/// Key of the session's doorbell.
const KEY_SESSION: u64 = 0;

/// How often a queue without an interrupt is looked at while it has nothing, in nanoseconds.
const IDLE_POLL_NS: u64 = 500_000_000;

/// Frames and buffers taken from the client before the device has its turn.
const TURN: u32 = 256;

/// One queue pair of the device with its session. Runs on a thread of its own.
pub struct Worker<Q, M> {
    cx: DeviceContext,
    index: usize,
    queue: Option<Q>,
    limits: QueueLimits,
    /// The queue was handed over for a reset.
    paused: bool,
    info: Arc<NicInfo>,
    link: Arc<WorkerLink<Q, M>>,
    notices: Arc<Notices<Q>>,
    counters: Arc<QueueCounters>,
    session: Option<Box<Session<M>>>,
    /// Receive buffers that the device has, by token.
    providing: Vec<Option<RxBuffer>>,
    rx_free: Vec<u32>,
    /// Bytes of these buffers.
    provided_bytes: u64,
    /// Frames that the device has, by token.
    sending: Vec<Option<Sending>>,
    tx_free: Vec<u32>,
    assembly: Assembly,
    segments: Segments,
    /// What the device's interrupt was armed for, until something is taken from the device.
    armed: Option<Wish>,
    /// Frames that the device has and for which somebody waits.
    awaited: usize,
    /// The frame that is being received goes on in the next buffer.
    in_frame: bool,
    /// When a queue without an interrupt was looked at last.
    looked_ns: u64,
}

fn tokens(depth: u16) -> Vec<u32> {
    (0..u32::from(depth)).rev().collect()
}

impl<Q: NetQueue, M: Memory> Worker<Q, M> {
    /// A worker for a queue pair. Its events are those of `link`.
    ///
    /// # Errors
    /// When the queue's interrupt cannot be bound.
    pub fn new(
        cx: &DeviceContext,
        index: usize,
        mut queue: Q,
        info: Arc<NicInfo>,
        link: Arc<WorkerLink<Q, M>>,
        notices: Arc<Notices<Q>>,
        counters: Arc<QueueCounters>,
    ) -> Result<Worker<Q, M>, PlatformError> {
        queue.bind(link.events(), KEY_INTERRUPT)?;
        let limits = queue.limits();
        Ok(Worker {
            cx: cx.clone(),
            index,
            queue: Some(queue),
            limits,
            paused: false,
            info,
            link,
            notices,
            counters,
            session: None,
            providing: (0..limits.rx_depth).map(|_| None).collect(),
            rx_free: tokens(limits.rx_depth),
            provided_bytes: 0,
            sending: (0..limits.tx_depth).map(|_| None).collect(),
            tx_free: tokens(limits.tx_depth),
            assembly: Assembly::new(),
            segments: Segments::new(),
            armed: None,
            awaited: 0,
            in_frame: false,
            looked_ns: 0,
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
        let more = self.drain();
        self.publish();
        if more || self.arm() {
            return Ok(());
        }
        let poll = self.next_poll();
        let mut events = [Event::default(); 4];
        let count = self.link.events().wait(&mut events, poll.min(deadline))?;
        if poll != Deadline::NEVER {
            let now_ns = self.cx.now_ns();
            if poll.is_over(now_ns) {
                self.looked_ns = now_ns;
                self.interrupted();
            }
        }
        for event in events.iter().take(count) {
            match event.key {
                KEY_INTERRUPT => self.interrupted(),
                KEY_COMMAND => self.commands(),
                // The client's doorbell: the next turn looks.
                _ => {}
            }
        }
        Ok(())
    }

    /// When a queue without an interrupt is to be looked at; [`Worker::turn`] waits no longer than that. Without buffers and frames
    /// it is for the link, which tells nobody either.
    pub fn next_poll(&self) -> Deadline {
        let Some(poll_ns) = self.queue.as_ref().and_then(NetQueue::poll_ns) else {
            return Deadline::NEVER;
        };
        let period_ns = match self.in_flight() {
            (0, 0) => poll_ns.max(IDLE_POLL_NS),
            _ => poll_ns,
        };
        Deadline::at_ns(self.looked_ns.saturating_add(period_ns))
    }

    /// Receive buffers and frames that the device has.
    pub fn in_flight(&self) -> (usize, usize) {
        (
            self.providing.len() - self.rx_free.len(),
            self.sending.len() - self.tx_free.len(),
        )
    }

    /// Whether there is a session, if one that is ending.
    pub fn has_session(&self) -> bool {
        self.session.is_some()
    }

    // From the device.

    #[inline]
    fn interrupted(&mut self) {
        self.counters.interrupts.add(1);
        if self.queue.as_mut().is_some_and(NetQueue::interrupted) {
            self.notices.send(Notice::Changed);
        }
    }

    #[inline]
    fn reap(&mut self) {
        let error = match self.reap_received() {
            Ok(()) => self.reap_sent().err(),
            Err(error) => Some(error),
        };
        if let Some(error) = error {
            // What the device has stays in flight until it was reset.
            self.paused = true;
            self.notices.send(Notice::Broken(self.index, error));
            self.notices
                .send(Notice::Paused(self.index, self.queue.take()));
        }
    }

    #[inline]
    fn publish(&mut self) {
        if let Some(session) = self.session.as_mut().filter(|s| !s.closed) {
            let received = session.received.publish();
            if session.sent.publish() | received {
                session.to_client.ring();
            }
        }
    }

    // From the client.

    /// Gives the device what the client gave. `true`: the client may have more.
    #[inline]
    fn drain(&mut self) -> bool {
        if self.paused {
            return false;
        }
        let (mut pushed, mut more) = (false, false);
        more |= self.drain_free(&mut pushed);
        more |= self.drain_transmit(&mut pushed);
        if pushed {
            if let Some(queue) = &mut self.queue {
                queue.kick();
            }
            let sending = self.in_flight().1;
            if sending > 0 && self.info.link.is_up() {
                self.link.set_in_flight(sending as u32);
                self.notices.watch();
            }
        }
        more
    }

    // Before sleeping.

    /// Asks everybody to wake us. `true`: there is more to do first.
    #[inline]
    fn arm(&mut self) -> bool {
        let mut more = false;
        if !self.paused
            && let Some(session) = self.session.as_mut().filter(|s| !s.closed)
        {
            // Where the device has no room, what comes back from it wakes us. While it has enough, further buffers wait for what wakes us
            // anyway.
            let mut armed = Ok(false);
            let wants_more = self.provided_bytes < PROVIDED_ENOUGH && !self.rx_free.is_empty();
            if session.waiting_rx.is_none() && wants_more {
                armed = session.free.arm();
            }
            if !self.assembly.is_complete {
                armed = armed.and_then(|more| Ok(session.transmit.arm()? | more));
            }
            match armed {
                Ok(some) => more = some,
                Err(_) => self.break_session(),
            }
        }
        let (providing, sending) = self.in_flight();
        let wish = match self.awaited {
            0 => Wish::Received,
            _ => Wish::Any,
        };
        if self.armed < Some(wish)
            && providing + sending > 0
            && let Some(queue) = &mut self.queue
        {
            if queue.arm(wish) {
                more = true;
            } else {
                self.armed = Some(wish);
            }
        }
        if sending == 0 {
            self.link.set_in_flight(0);
        }
        more
    }

    // From the control thread.

    #[cold]
    fn commands(&mut self) {
        while let Some(command) = self.link.take() {
            match command {
                Command::Open(session) => self.open(session),
                Command::Close(id) => {
                    if self.session.as_ref().is_some_and(|s| s.id == id) {
                        self.close();
                    }
                }
                Command::AddBuffer(id, slot, buffer) => {
                    // Without a session the buffer is dropped here, which unpins it.
                    if let Some(session) = self.session(id) {
                        session.buffers.add(slot, buffer);
                    }
                }
                Command::RemoveBuffer(id, slot, done) => match self.session(id) {
                    Some(session) => {
                        session.buffers.remove(slot, done);
                        self.want_back(slot);
                    }
                    None => done(false),
                },
                Command::Info(info) => self.info = info,
                Command::Tick => self.tick(),
                Command::Beat(beat) => self.notices.send(Notice::Alive(beat)),
                Command::Pause => {
                    // What was sent and not asked for yet was not lost.
                    if !self.paused {
                        self.reap();
                    }
                    if !self.paused {
                        self.paused = true;
                        self.notices
                            .send(Notice::Paused(self.index, self.queue.take()));
                    }
                }
                Command::Resume(queue) => self.resume(queue),
            }
        }
    }

    fn session(&mut self, id: SessionId) -> Option<&mut Session<M>> {
        let session = self.session.as_mut().filter(|s| s.id == id && !s.closed);
        session.map(|s| &mut **s)
    }

    fn open(&mut self, session: Box<Session<M>>) {
        let watched = session.to_driver.watch(self.link.events(), KEY_SESSION);
        if watched.is_err() {
            self.notices.send(Notice::SessionBroken(session.id));
            self.notices
                .send(Notice::SessionEnded(self.index, session.id));
            return;
        }
        self.assembly.clear();
        self.session = Some(session);
    }

    /// A buffer is to be removed: what the device has of it for receiving comes back with a reset only.
    fn want_back(&mut self, slot: u16) {
        let held = |buffer: &RxBuffer| buffer.slot == slot;
        if !self.paused && self.providing.iter().flatten().any(held) {
            self.notices.send(Notice::WantsReset(self.index));
        }
    }

    /// The client broke the protocol.
    #[cold]
    fn break_session(&mut self) {
        if let Some(session) = self.session.as_ref().filter(|s| !s.closed) {
            self.notices.send(Notice::SessionBroken(session.id));
            self.close();
        }
    }

    /// Ends the session; its buffers live until the device has finished with them.
    fn close(&mut self) {
        let Some(session) = &mut self.session else {
            return;
        };
        if session.closed {
            return;
        }
        session.to_driver.unwatch(self.link.events(), KEY_SESSION);
        session.closed = true;
        self.assembly.clear();
        if self.in_flight() == (0, 0) {
            self.end();
        } else if !self.paused {
            self.notices.send(Notice::WantsReset(self.index));
        }
    }

    /// The device has nothing of a session that is closed.
    fn end(&mut self) {
        if let Some(session) = self.session.take() {
            let id = session.id;
            // Its buffers are unpinned before anybody hears of it.
            drop(session);
            self.notices.send(Notice::SessionEnded(self.index, id));
        }
    }

    /// Goes on after a reset. The device has none of the buffers and frames any more.
    fn resume(&mut self, mut queue: Q) {
        for token in 0..self.sending.len() {
            let Some(frame) = self.sending.get_mut(token).and_then(Option::take) else {
                continue;
            };
            self.tx_free.push(token as u32);
            self.counters.tx_lost.add(1);
            self.finish(&frame, Status::LOST);
        }
        self.limits = queue.limits();
        let mut kept = Vec::new();
        for buffer in self.providing.iter_mut().filter_map(Option::take) {
            if let Some(session) = &mut self.session {
                session.buffers.release(buffer.slot);
            }
            kept.push(buffer);
        }
        if core::mem::take(&mut self.in_frame)
            && let Some(buffer) = kept.pop()
        {
            // The rest of the frame never comes: what the client has of it is not to be taken for the start of the next one.
            self.refuse_rx(buffer.id, Status::LOST);
        }
        let (rx, tx) = (self.limits.rx_depth, self.limits.tx_depth);
        self.providing = (0..rx).map(|_| None).collect();
        self.rx_free = tokens(rx);
        self.provided_bytes = 0;
        self.sending = (0..tx).map(|_| None).collect();
        self.tx_free = tokens(tx);
        self.awaited = 0;
        if self.session.as_ref().is_some_and(|s| s.closed) {
            self.end();
        }
        for buffer in kept {
            self.provide_again(&mut queue, buffer);
        }
        queue.kick();
        self.paused = false;
        self.armed = None;
        if let Err(error) = queue.bind(self.link.events(), KEY_INTERRUPT) {
            let error = DriverError::platform("interrupt of the queue", error);
            self.notices.send(Notice::Broken(self.index, error));
        }
        self.queue = Some(queue);
    }
}
