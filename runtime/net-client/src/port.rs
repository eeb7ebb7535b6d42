//! A session with buffers of its own: whole frames are copied in and out.

use alloc::vec::Vec;

use proto::net::{BufferAccess, Status};
use sys::{Deadline, Mapping};

use crate::frame::{Answer, Checksum, RxChecksum, RxFrame, Segment, Space, TxFrame};
use crate::session::Buffer;
use crate::{Nic, Session, SessionError};

/// Bytes of a buffer, and how far apart they are: half a page, so that none straddles two.
const BUFFER_BYTES: u32 = 2048;
/// Most buffers that a frame to be sent takes.
const PARTS_MAX: usize = 34;

/// What the device is to do with a frame to be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Offload {
    /// Compute this checksum.
    pub checksum: Option<Checksum>,
    /// Cut it; needs `checksum`.
    pub segment: Option<Segment>,
}

/// A frame that the driver has.
#[derive(Default)]
struct Sending {
    /// Its buffers.
    numbers: Vec<u32>,
    /// Bytes of the last one.
    last_bytes: u32,
    offload: Offload,
    /// It was lost with a driver before.
    lost_before: bool,
}

/// A port for whole frames. A frame that was lost with its driver is given to the successor, once: it may have been sent
/// before, which a network may do to any frame, and one that ends its driver does not end all of them.
pub struct FramePort {
    session: Session,
    memory: Mapping,
    buffer: Buffer,
    /// Bytes of a receive buffer.
    rx_bytes: u32,
    /// Buffers to send from, by number.
    tx_free: Vec<u32>,
    /// Where they start.
    tx_base: u32,
    /// Frames that the driver has, by the number of their first buffer.
    tx_frames: Vec<Sending>,
    /// Frames that were refused or lost.
    tx_failed: u64,
    frame: RxFrame,
    fragments_max: usize,
}

impl FramePort {
    /// A session of its own on a queue of the interface, with this many buffers each way.
    ///
    /// # Errors
    /// When the driver or the system refuses.
    pub fn new(nic: &Nic, queue: u16, buffers: u16) -> Result<FramePort, SessionError> {
        let mut session = nic.open_session(queue, buffers, buffers)?;
        let info = nic.info();
        let rx_bytes = info.rx_buffer_min.max(BUFFER_BYTES);
        let rx_bytes = rx_bytes.next_multiple_of(BUFFER_BYTES);
        let rx_count = u32::from(session.info().rx_depth);
        let tx_count = u32::from(session.info().tx_depth);
        let tx_base = rx_count
            .checked_mul(rx_bytes)
            .ok_or(SessionError::Corrupt)?;
        let len = tx_base as usize + (tx_count * BUFFER_BYTES) as usize;
        let (vmo, memory) = Mapping::create(len)?;
        let whole = len.next_multiple_of(4096) as u64;
        let buffer = session.register(&vmo, 0, whole, BufferAccess::Both)?;
        for number in 0..rx_count {
            let space = Space {
                buffer,
                offset: number * rx_bytes,
                length: rx_bytes,
            };
            session.provide(space, number.into())?;
        }
        session.kick()?;
        Ok(FramePort {
            session,
            memory,
            buffer,
            rx_bytes,
            tx_free: (0..tx_count).rev().collect(),
            tx_base,
            tx_frames: (0..tx_count).map(|_| Sending::default()).collect(),
            tx_failed: 0,
            frame: RxFrame::default(),
            fragments_max: usize::from(info.fragments_max).min(PARTS_MAX),
        })
    }

    /// The session, for its event, its channel and the modes.
    pub fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    /// The next frame that is there, in place of what `into` holds, and what the device says of its checksums.
    /// Its buffers go back to the driver with the next [`FramePort::flush`] or [`FramePort::wait`].
    ///
    /// # Errors
    /// As [`Session::receive`].
    pub fn receive(&mut self, into: &mut Vec<u8>) -> Result<Option<RxChecksum>, SessionError> {
        into.clear();
        self.receive_to_end(into)
    }

    /// As [`FramePort::receive`], but the frame goes to the end of `into`.
    ///
    /// # Errors
    /// As [`Session::receive`].
    pub fn receive_to_end(
        &mut self,
        into: &mut Vec<u8>,
    ) -> Result<Option<RxChecksum>, SessionError> {
        let start = into.len();
        while self.session.receive(&mut self.frame)? {
            into.truncate(start);
            for part in &self.frame.parts {
                into.extend_from_slice(part.prefix());
                let (at, len) = (part.space.offset as usize, part.space.length as usize);
                self.memory.read_to_vec(at, len, into)?;
                let number = part.token as u32;
                let space = Space {
                    buffer: self.buffer,
                    offset: number.wrapping_mul(self.rx_bytes),
                    length: self.rx_bytes,
                };
                self.session.provide(space, part.token)?;
            }
            if self.frame.status == Status::OK {
                return Ok(Some(self.frame.checksum));
            }
        }
        into.truncate(start);
        Ok(None)
    }

    /// Copies a frame into buffers and queues it. `false`: there are no buffers free, wait first. The driver sees it with
    /// [`FramePort::flush`] or [`FramePort::wait`].
    ///
    /// # Errors
    /// As [`Session::transmit`]; a frame of more buffers than the device takes is `InvalidArgument`.
    pub fn send(&mut self, frame: &[u8], offload: Offload) -> Result<bool, SessionError> {
        let count = frame.len().div_ceil(BUFFER_BYTES as usize);
        if count == 0 || count > self.fragments_max {
            return Err(SessionError::System(sys::Error::InvalidArgument));
        }
        if self.tx_free.len() < count || self.session.room() < count {
            self.reclaim()?;
        }
        if self.tx_free.len() < count || self.session.room() < count {
            return Ok(false);
        }
        let numbers = self.tx_free.split_off(self.tx_free.len() - count);
        let mut last_bytes = 0;
        for (number, piece) in numbers.iter().zip(frame.chunks(BUFFER_BYTES as usize)) {
            let offset = self.tx_base + number * BUFFER_BYTES;
            self.memory.write(offset as usize, piece)?;
            last_bytes = piece.len() as u32;
        }
        self.transmit(Sending {
            numbers,
            last_bytes,
            offload,
            lost_before: false,
        })?;
        Ok(true)
    }

    /// Queues a frame whose bytes are in its buffers.
    fn transmit(&mut self, mut sending: Sending) -> Result<(), SessionError> {
        let mut parts = [Space {
            buffer: self.buffer,
            offset: 0,
            length: 0,
        }; PARTS_MAX];
        let count = sending.numbers.len();
        for (n, (part, number)) in parts.iter_mut().zip(&sending.numbers).enumerate() {
            part.offset = self.tx_base + number * BUFFER_BYTES;
            part.length = if n + 1 == count {
                sending.last_bytes
            } else {
                BUFFER_BYTES
            };
        }
        let first = sending.numbers.first().copied().unwrap_or(0);
        let frame = TxFrame {
            parts: parts.get(..count).unwrap_or_default(),
            checksum: sending.offload.checksum,
            segment: sending.offload.segment,
            answer: if self.has_spare_buffers() {
                Answer::Lazy
            } else {
                Answer::Soon
            },
        };
        if let Err(error) = self.session.transmit(&frame, first.into()) {
            self.tx_free.append(&mut sending.numbers);
            return Err(error);
        }
        if let Some(kept) = self.tx_frames.get_mut(first as usize) {
            *kept = sending;
        }
        Ok(())
    }

    /// Whether so many buffers are free that those under way need not come back soon.
    fn has_spare_buffers(&self) -> bool {
        self.tx_free.len() * 2 >= self.tx_frames.len()
    }

    /// Asks for the session's event to be rung with the next frame received, and, when buffers are scarce, with the next one sent. `true`:
    /// there is something already, look again.
    ///
    /// # Errors
    /// As [`Session::receive`].
    pub fn arm(&mut self) -> Result<bool, SessionError> {
        self.reclaim()?;
        if self.has_spare_buffers() {
            self.session.arm_received()
        } else {
            self.session.arm()
        }
    }

    /// Takes back the buffers of what was sent.
    ///
    /// # Errors
    /// As [`Session::sent`].
    pub fn reclaim(&mut self) -> Result<(), SessionError> {
        while let Some(done) = self.session.sent()? {
            let Some(sent) = self.tx_frames.get_mut(done.token as usize) else {
                continue;
            };
            let mut sent = core::mem::take(sent);
            if done.status == Status::LOST && !sent.lost_before {
                sent.lost_before = true;
                match self.transmit(sent) {
                    // Newer ones took the room.
                    Err(SessionError::Full) => self.tx_failed += 1,
                    outcome => outcome?,
                }
                continue;
            }
            if done.status != Status::OK {
                self.tx_failed += 1;
            }
            self.tx_free.append(&mut sent.numbers);
        }
        Ok(())
    }

    /// Frames that were refused, or lost with a driver.
    pub fn failed(&self) -> u64 {
        self.tx_failed
    }

    /// Shows the driver what was queued and given back.
    ///
    /// # Errors
    /// As [`Session::kick`].
    pub fn flush(&mut self) -> Result<(), SessionError> {
        self.session.kick()
    }

    /// Shows the driver what there is, and sleeps until there is something to receive or buffers that were scarce come back. May return
    /// early.
    ///
    /// # Errors
    /// As [`Session::wait`].
    pub fn wait(&mut self, deadline: Deadline) -> Result<(), SessionError> {
        // A driver that is gone has no doorbell; the wait finds its successor.
        let _ = self.session.kick();
        if self.arm()? {
            return Ok(());
        }
        self.session.sleep(deadline)
    }
}

impl core::fmt::Debug for FramePort {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "FramePort {{ {:?} }}", self.session)
    }
}
