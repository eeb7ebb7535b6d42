//! Received frames: buffers from the client to the device, and back with what arrived.

use ddk::DriverError;
use proto::net::{self, RxBuffer, Status};
use ring::Memory;

use super::{TURN, Worker};
use crate::check;
use crate::device::{NetQueue, PushError, Received};

/// With so many bytes of receive buffers the device has enough for now: twice the longest frame that it may put together.
pub(super) const PROVIDED_ENOUGH: u64 = 128 * 1024;

impl<Q: NetQueue, M: Memory> Worker<Q, M> {
    #[inline]
    pub(super) fn reap_received(&mut self) -> Result<(), DriverError> {
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
    pub(super) fn answer_rx(&mut self, entry: net::Received) {
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
    pub(super) fn drain_free(&mut self, pushed: &mut bool) -> bool {
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
            if self.link.is_pending() {
                // The client may have got the answer to a registration that is still on its way here.
                session.waiting_rx = Some(buffer);
                self.commands();
                continue;
            }
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
    pub(super) fn refuse_rx(&mut self, id: u32, status: Status) {
        self.answer_rx(net::Received {
            id,
            status: status.0,
            ..net::Received::default()
        });
    }

    /// A receive buffer that the device had before its reset.
    pub(super) fn provide_again(&mut self, queue: &mut Q, buffer: RxBuffer) {
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
