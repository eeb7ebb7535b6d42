//! Frames to be sent: from the client to the device, and their answers.

use alloc::vec::Vec;

use ddk::DriverError;
use proto::net::{Sent, Status, Transmit, tx_flags};
use ring::Memory;

use super::{TURN, Worker};
use crate::FRAGMENTS_MAX;
use crate::check;
use crate::device::{Frame, NetQueue, PushError};
use crate::link::Notice;

/// Ticks that a frame may stay with a device whose link is up: between 5 and 6 seconds.
pub const SEND_LIMIT_TICKS: u8 = 6;

/// A frame that the device has.
#[derive(Clone, Copy)]
pub(super) struct Sending {
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
pub(super) struct Assembly {
    fragments: Vec<Transmit>,
    /// With those that are beyond the limit and not kept.
    count: usize,
    /// The last fragment is there: the queue had no room.
    pub(super) is_complete: bool,
}

impl Assembly {
    pub(super) fn new() -> Assembly {
        Assembly {
            fragments: Vec::with_capacity(FRAGMENTS_MAX),
            count: 0,
            is_complete: false,
        }
    }

    /// Whether nobody waits for the frame.
    fn is_lazy(&self) -> bool {
        let first = self.fragments.first();
        first.is_some_and(|f| f.flags & tx_flags::LAZY != 0)
    }

    pub(super) fn clear(&mut self) {
        self.fragments.clear();
        self.count = 0;
        self.is_complete = false;
    }
}

/// The client broke the protocol.
struct Broken;

impl<Q: NetQueue, M: Memory> Worker<Q, M> {
    #[inline]
    pub(super) fn reap_sent(&mut self) -> Result<(), DriverError> {
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
    pub(super) fn finish(&mut self, frame: &Sending, status: Status) {
        let Some(session) = &mut self.session else {
            return;
        };
        for slot in frame.slots.iter().take(frame.fragments.into()) {
            session.buffers.release(*slot);
        }
        self.answer_tx(frame.id, frame.fragments, status);
    }

    #[inline]
    pub(super) fn answer_tx(&mut self, id: u32, fragments: u16, status: Status) {
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
    pub(super) fn drain_transmit(&mut self, pushed: &mut bool) -> bool {
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
            if self.link.is_pending() {
                // As with receive buffers.
                self.commands();
                if !self.assembly.is_complete {
                    continue;
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

    /// Counts the age of what the device has to send.
    pub(super) fn tick(&mut self) {
        let mut stuck = false;
        for frame in self.sending.iter_mut().flatten() {
            frame.age = frame.age.saturating_add(1);
            stuck |= frame.age >= SEND_LIMIT_TICKS;
        }
        if stuck && !self.paused {
            self.notices.send(Notice::Stuck(self.index));
        }
    }
}
