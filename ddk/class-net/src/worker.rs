//! The data path: one queue pair of the device and the session that it serves.
//!
//! This loop runs for every frame. It allocates nothing, logs nothing, divides by nothing, and makes a
//! system call only to sleep or to wake a client that sleeps.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use ddk::{Deadline, DeviceContext, DriverError, Event, PlatformError};
use ddk_class_core::{KEY_COMMAND, KEY_INTERRUPT, SessionId};
use proto::net::{self, RxBuffer, Sent, Status, Transmit, tx_flags};
use ring::Memory;

use crate::FRAGMENTS_MAX;
use crate::check::{self, Segments};
use crate::counters::QueueCounters;
use crate::device::{Frame, NetQueue, NicInfo, PushError, QueueLimits, Received, Wish};
use crate::link::{Command, Notice, Notices, WorkerLink};
use crate::session::Session;

/// Ticks that a frame may stay with a device whose link is up: between 5 and 6 seconds.
pub const SEND_LIMIT_TICKS: u8 = 6;

/// Key of the session's doorbell.
const KEY_SESSION: u64 = 0;

/// How often a queue without an interrupt is looked at while it has nothing, in nanoseconds.
const IDLE_POLL_NS: u64 = 500_000_000;

/// With so many bytes of receive buffers the device has enough for now: twice the longest frame that it may put together.
const PROVIDED_ENOUGH: u64 = 128 * 1024;

/// Frames and buffers taken from the client before the device has its turn.
const TURN: u32 = 256;

/// A frame that the device has.
#[derive(Clone, Copy)]
struct Sending {
    id: u32,
    length: u32,
    fragments: u16,
    /// Ticks since it was queued.
    age: u8,
    /// Buffers of the fragments.
    slots: [u16; FRAGMENTS_MAX],
    /// Nobody waits for it.
    is_lazy: bool,
}

/// The fragments of the frame that is next.
#[derive(Default)]
struct Assembly {
    fragments: Vec<Transmit>,
    /// With those that are beyond the limit and not kept.
    count: usize,
    /// The last fragment is there: the queue had no room.
    is_complete: bool,
}

impl Assembly {
    /// Whether nobody waits for the frame.
    fn is_lazy(&self) -> bool {
        let first = self.fragments.first();
        first.is_some_and(|f| f.flags & tx_flags::LAZY != 0)
    }

    fn clear(&mut self) {
        self.fragments.clear();
        self.count = 0;
        self.is_complete = false;
    }
}

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
            assembly: Assembly {
                fragments: Vec::with_capacity(FRAGMENTS_MAX),
                ..Assembly::default()
            },
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
    fn reap_received(&mut self) -> Result<(), DriverError> {
        while self.rx_free.len() < self.providing.len() {
            let Some(queue) = &mut self.queue else { break };
            let Some(received) = queue.received()? else {
                break;
            };
            if self.armed.take().is_some() {
                queue.disarm();
            }
            self.received(&received)?;
        }
        Ok(())
    }

    #[inline]
    fn received(&mut self, received: &Received) -> Result<(), DriverError> {
        let token = received.token;
        let odd = |what, seen: u32| DriverError::Protocol {
            what,
            expected: 0,
            seen: seen.into(),
        };
        let entry = self
            .providing
            .get_mut(token as usize)
            .and_then(Option::take);
        let Some(buffer) = entry else {
            return Err(odd("receive buffer that the device has", token));
        };
        self.rx_free.push(token);
        self.provided_bytes -= u64::from(buffer.length);
        let Some(session) = &mut self.session else {
            return Ok(());
        };
        session.buffers.release(buffer.slot);
        if received.length > buffer.length {
            return Err(odd("bytes in a receive buffer", received.length));
        }
        let is_first = !core::mem::replace(
            &mut self.in_frame,
            received.flags & net::rx_flags::MORE != 0,
        );
        if is_first && !self.in_frame && received.length == 0 && received.prefix_length == 0 {
            // What the device found damaged: no frame, and no end of one.
            self.refuse_rx(buffer.id, Status::LOST);
            return Ok(());
        }
        if !self.in_frame {
            self.counters.rx_frames.add(1);
        }
        let bytes = u64::from(received.length) + u64::from(received.prefix_length);
        self.counters.rx_bytes.add(bytes);
        self.answer_rx(net::Received {
            id: buffer.id,
            length: received.length,
            flags: received.flags,
            checksum_start: received.checksum.start,
            checksum_offset: received.checksum.offset,
            segment_size: received.segment_size,
            segmentation: received.segmentation.0,
            prefix_length: received.prefix_length,
            status: Status::OK.0,
            prefix: received.prefix,
        });
        Ok(())
    }

    #[inline]
    fn reap_sent(&mut self) -> Result<(), DriverError> {
        while self.tx_free.len() < self.sending.len() {
            let Some(queue) = &mut self.queue else { break };
            let Some(token) = queue.sent()? else { break };
            if self.armed.take().is_some() {
                queue.disarm();
            }
            let entry = self.sending.get_mut(token as usize).and_then(Option::take);
            let Some(frame) = entry else {
                return Err(DriverError::Protocol {
                    what: "frame that the device has",
                    expected: 0,
                    seen: token.into(),
                });
            };
            self.tx_free.push(token);
            self.awaited -= usize::from(!frame.is_lazy);
            self.counters.tx_frames.add(1);
            self.counters.tx_bytes.add(frame.length.into());
            self.finish(&frame, Status::OK);
        }
        Ok(())
    }

    /// A frame that the device does not have any more.
    #[inline]
    fn finish(&mut self, frame: &Sending, status: Status) {
        let Some(session) = &mut self.session else {
            return;
        };
        for slot in frame.slots.iter().take(frame.fragments.into()) {
            session.buffers.release(*slot);
        }
        self.answer_tx(frame.id, frame.fragments, status);
    }

    #[inline]
    fn answer_rx(&mut self, entry: net::Received) {
        let Some(session) = self.session.as_mut().filter(|s| !s.closed) else {
            return;
        };
        session.provided = session.provided.saturating_sub(1);
        if session.received.push(&entry).is_err() {
            // It has more outstanding than it was allowed, or its ring is corrupt.
            self.break_session();
        }
    }

    #[inline]
    fn answer_tx(&mut self, id: u32, fragments: u16, status: Status) {
        let Some(session) = self.session.as_mut().filter(|s| !s.closed) else {
            return;
        };
        session.fragments = session.fragments.saturating_sub(fragments);
        let entry = Sent {
            id,
            status: status.0,
            fragments,
        };
        if session.sent.push(&entry).is_err() {
            self.break_session();
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
        if self.link.is_pending() {
            // The client may have got the answer to a registration that is still on its way here.
            self.commands();
        }
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

    #[inline]
    fn drain_free(&mut self, pushed: &mut bool) -> bool {
        for _ in 0..TURN {
            let Some(session) = self.session.as_mut().filter(|s| !s.closed) else {
                return false;
            };
            let (Some(queue), Some(&token)) = (&mut self.queue, self.rx_free.last()) else {
                return false;
            };
            let buffer = match session.waiting_rx.take() {
                Some(buffer) => buffer,
                None => match session.free.pop() {
                    Ok(Some(buffer)) if session.provided < session.rx_depth => {
                        session.provided += 1;
                        buffer
                    }
                    Ok(None) => return false,
                    // Or more than was agreed, which its answers would have no room for.
                    _ => {
                        self.break_session();
                        return false;
                    }
                },
            };
            let (info, limits) = (&self.info, &self.limits);
            let checked =
                check::rx_buffer(&session.buffers, info, limits, &buffer, &mut self.segments);
            let provided = match checked {
                Ok(()) => queue.provide(token, self.segments.get()),
                Err(status) => Err(PushError::Rejected(status)),
            };
            match provided {
                Ok(()) => {
                    session.buffers.hold(buffer.slot);
                    self.rx_free.pop();
                    self.provided_bytes += u64::from(buffer.length);
                    if let Some(entry) = self.providing.get_mut(token as usize) {
                        *entry = Some(buffer);
                    }
                    *pushed = true;
                }
                Err(PushError::Full) => {
                    session.waiting_rx = Some(buffer);
                    return false;
                }
                Err(PushError::Rejected(status)) => self.refuse_rx(buffer.id, status),
            }
        }
        true
    }

    /// Gives a buffer back that the device never saw, or has no more.
    fn refuse_rx(&mut self, id: u32, status: Status) {
        self.answer_rx(net::Received {
            id,
            status: status.0,
            ..net::Received::default()
        });
    }

    #[inline]
    fn drain_transmit(&mut self, pushed: &mut bool) -> bool {
        for _ in 0..TURN {
            if !self.assembly.is_complete {
                match self.assemble() {
                    Ok(true) => {}
                    Ok(false) => return false,
                    Err(Broken) => {
                        self.break_session();
                        return false;
                    }
                }
            }
            let id = self.assembly.fragments.first().map_or(0, |f| f.id);
            let count = self.assembly.count as u16;
            match self.start() {
                Ok(()) => *pushed = true,
                // The next frame that was sent makes room.
                Err(PushError::Full) => return false,
                Err(PushError::Rejected(status)) => {
                    self.counters.tx_errors.add(1);
                    self.answer_tx(id, count, status);
                }
            }
            self.assembly.clear();
        }
        true
    }

    /// Takes fragments until a frame is complete; `false`: the ring is empty before.
    #[inline]
    fn assemble(&mut self) -> Result<bool, Broken> {
        let Some(session) = self.session.as_mut().filter(|s| !s.closed) else {
            return Ok(false);
        };
        loop {
            let Some(fragment) = session.transmit.pop().map_err(|_| Broken)? else {
                return Ok(false);
            };
            if session.fragments >= session.tx_depth {
                return Err(Broken);
            }
            session.fragments += 1;
            self.assembly.count += 1;
            if self.assembly.fragments.len() < FRAGMENTS_MAX {
                self.assembly.fragments.push(fragment);
            }
            if fragment.flags & tx_flags::MORE == 0 {
                self.assembly.is_complete = true;
                return Ok(true);
            }
        }
    }

    /// Checks the frame and gives it to the device.
    #[inline]
    fn start(&mut self) -> Result<(), PushError> {
        let Some(session) = self.session.as_mut() else {
            return Err(PushError::Rejected(Status::GONE));
        };
        let (Some(queue), Some(&token)) = (&mut self.queue, self.tx_free.last()) else {
            return Err(PushError::Full);
        };
        let (fragments, count) = (&*self.assembly.fragments, self.assembly.count);
        let (info, limits) = (&self.info, &self.limits);
        let fragments = (fragments, count);
        let checked = check::frame(
            &session.buffers,
            info,
            limits,
            fragments,
            &mut self.segments,
        );
        let checked = checked.map_err(PushError::Rejected)?;
        queue.transmit(&Frame {
            token,
            segments: self.segments.get(),
            length: checked.length,
            checksum: checked.checksum,
            segmentation: checked.segmentation,
        })?;
        let mut sending = Sending {
            id: 0,
            length: checked.length,
            fragments: count as u16,
            age: 0,
            slots: [0; FRAGMENTS_MAX],
            is_lazy: self.assembly.is_lazy(),
        };
        let slots = sending.slots.iter_mut();
        for (slot, fragment) in slots.zip(&self.assembly.fragments) {
            *slot = fragment.slot;
            session.buffers.hold(fragment.slot);
        }
        sending.id = self.assembly.fragments.first().map_or(0, |f| f.id);
        self.awaited += usize::from(!sending.is_lazy);
        self.tx_free.pop();
        if let Some(entry) = self.sending.get_mut(token as usize) {
            *entry = Some(sending);
        }
        Ok(())
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

    /// Counts the age of what the device has to send.
    fn tick(&mut self) {
        let mut stuck = false;
        for frame in self.sending.iter_mut().flatten() {
            frame.age = frame.age.saturating_add(1);
            stuck |= frame.age >= SEND_LIMIT_TICKS;
        }
        if stuck && !self.paused {
            self.notices.send(Notice::Stuck(self.index));
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

    /// A receive buffer that the device had before its reset.
    fn provide_again(&mut self, queue: &mut Q, buffer: RxBuffer) {
        let (Some(session), Some(&token)) = (&mut self.session, self.rx_free.last()) else {
            return;
        };
        let (info, limits) = (&self.info, &self.limits);
        let checked = check::rx_buffer(&session.buffers, info, limits, &buffer, &mut self.segments);
        let provided = checked
            .map_err(PushError::Rejected)
            .and_then(|()| queue.provide(token, self.segments.get()));
        match provided {
            Ok(()) => {
                session.buffers.hold(buffer.slot);
                self.rx_free.pop();
                self.provided_bytes += u64::from(buffer.length);
                if let Some(entry) = self.providing.get_mut(token as usize) {
                    *entry = Some(buffer);
                }
            }
            Err(PushError::Full) => self.refuse_rx(buffer.id, Status::LOST),
            Err(PushError::Rejected(status)) => self.refuse_rx(buffer.id, status),
        }
    }
}

/// The client broke the protocol.
struct Broken;
