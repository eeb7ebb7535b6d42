//! Frames from this system.

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;

use ddk::{DeviceContext, DmaRegion, DriverError};
use ddk_class_net::{Checksum, Frame, NetQueue, PushError, Segment, SegmentRequest, Status};

use crate::chance::{Due, Fate, Faults, Lottery};
use crate::receive::over;
use crate::{Payload, packet};

/// Longest frame on the wire that is copied.
const COPY_BYTES: usize = 2048;
/// Most frames of the wire's own that the device has at a time.
const COPIES_MAX: u16 = 128;
/// Longest frame that is cut.
const LONG_MAX: usize = 65_536 + 14;

/// A frame of the wire's own: a copy of a client's, or a piece.
#[derive(Clone, Copy, Default)]
struct Copy {
    /// Token of the client's frame.
    of: u32,
    length: u32,
    checksum: Option<Checksum>,
}

/// What is on its way to the device.
pub(crate) struct Transmit {
    pub(crate) lottery: Lottery,
    /// Frames of clients that there can be at a time. Tokens from here on are those of copies.
    depth: u16,
    memory: DmaRegion,
    copies: Vec<Copy>,
    free: Vec<u16>,
    /// Of each frame of a client: how many frames with its bytes are not sent yet.
    outstanding: Vec<u16>,
    done: VecDeque<u32>,
    waiting: VecDeque<(Due, u16)>,
    /// Bytes of a frame that is looked at.
    bytes: Vec<u8>,
}

impl Transmit {
    pub(crate) fn new(
        cx: &DeviceContext,
        lottery: Lottery,
        device_depth: u16,
    ) -> Result<Transmit, DriverError> {
        let copies = COPIES_MAX.min(device_depth / 2);
        let depth = device_depth - copies;
        Ok(Transmit {
            lottery,
            depth,
            memory: cx.dma_region(usize::from(copies) * COPY_BYTES)?,
            copies: vec![Copy::default(); copies.into()],
            free: (0..copies).rev().collect(),
            outstanding: vec![0; depth.into()],
            done: VecDeque::new(),
            waiting: VecDeque::new(),
            bytes: Vec::new(),
        })
    }

    pub(crate) fn depth(&self) -> u16 {
        self.depth
    }

    /// Memory that the device may read until it is reset.
    pub(crate) fn into_memory(self) -> DmaRegion {
        self.memory
    }

    pub(crate) fn has_done(&self) -> bool {
        !self.done.is_empty()
    }

    pub(crate) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(crate) fn next_done(&mut self) -> Option<u32> {
        self.done.pop_front()
    }

    /// One more frame with the bytes of this one.
    fn begin(&mut self, token: u32) {
        if let Some(count) = self.outstanding.get_mut(token as usize) {
            *count += 1;
        }
    }

    /// One less; with the last one it is done.
    fn end(&mut self, token: u32) {
        if let Some(count) = self.outstanding.get_mut(token as usize) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.done.push_back(token);
            }
        }
    }

    /// Takes in what the device has finished with. `true`: there was something.
    pub(crate) fn reap(&mut self, queue: &mut impl NetQueue) -> Result<bool, DriverError> {
        let mut some = false;
        while let Some(token) = queue.sent()? {
            some = true;
            match token.checked_sub(self.depth.into()) {
                None => self.end(token),
                Some(index) => self.drop_copy(index as u16),
            }
        }
        Ok(some)
    }

    fn drop_copy(&mut self, index: u16) {
        if let Some(copy) = self.copies.get(usize::from(index)) {
            let token = copy.of;
            self.free.push(index);
            self.end(token);
        }
    }

    /// A copy of the first bytes of `self.bytes`.
    fn copy(&mut self, of: u32, length: usize, checksum: Option<Checksum>) -> Option<u16> {
        let bytes = self.bytes.get(..length.min(COPY_BYTES))?;
        let index = self.free.pop()?;
        let place = self.copies.get_mut(usize::from(index))?;
        *place = Copy {
            of,
            length: bytes.len() as u32,
            checksum,
        };
        self.memory
            .write_bytes(usize::from(index) * COPY_BYTES, bytes);
        self.begin(of);
        Some(index)
    }

    /// Gives a copy to the device.
    fn push(&mut self, queue: &mut impl NetQueue, index: u16) -> Result<(), PushError> {
        let Some(copy) = self.copies.get(usize::from(index)) else {
            return Ok(());
        };
        let address = self.memory.device_address(usize::from(index) * COPY_BYTES);
        let segment = Segment {
            address,
            len: copy.length,
        };
        queue.transmit(&Frame {
            token: u32::from(self.depth) + u32::from(index),
            segments: &[segment],
            length: copy.length,
            checksum: copy.checksum,
            segmentation: None,
        })
    }

    /// Gives a copy to the device, now or when there is room.
    fn push_or_wait(&mut self, queue: &mut impl NetQueue, index: u16) {
        match self.push(queue, index) {
            Ok(()) => {}
            Err(PushError::Full) => self.waiting.push_back((Due::NOW, index)),
            Err(PushError::Rejected(_)) => self.drop_copy(index),
        }
    }

    /// Frames that have waited long enough go on. `true`: the device is to be kicked.
    pub(crate) fn release(&mut self, queue: &mut impl NetQueue, now_ns: u64) -> bool {
        let mut some = false;
        let mut at = 0;
        while let Some((due, index)) = self.waiting.get(at).copied() {
            if !self.lottery.is_over(due, now_ns) {
                at += 1;
                continue;
            }
            match self.push(queue, index) {
                Err(PushError::Full) => break,
                Ok(()) => some = true,
                Err(PushError::Rejected(_)) => self.drop_copy(index),
            }
            self.waiting.remove(at);
        }
        some
    }

    /// Reads a client's frame.
    fn read(&mut self, frame: &Frame<'_>, payload: &dyn Payload) -> Option<()> {
        let length = frame.length as usize;
        if length > LONG_MAX {
            return None;
        }
        self.bytes.resize(length, 0);
        let bytes = self.bytes.as_mut_slice();
        over(frame.segments, length, |address, range| {
            payload.read(address, bytes.get_mut(range)?)
        })
    }

    pub(crate) fn transmit(
        &mut self,
        queue: &mut impl NetQueue,
        frame: &Frame<'_>,
        payload: &dyn Payload,
        faults: &Faults,
        now_ns: u64,
    ) -> Result<(), PushError> {
        if frame.token >= self.depth.into() {
            return Err(PushError::Rejected(Status::INVALID));
        }
        if let Some(request) = &frame.segmentation
            && let Some(cut) = self.cut(queue, frame, request, (payload, faults), now_ns)
        {
            return cut;
        }
        let mut fate = self.lottery.draw();
        let copied = match fate {
            Fate::Passes | Fate::Lost => None,
            // What cannot be copied passes.
            _ => self.copy_for(frame, fate, payload),
        };
        if copied.is_none() && fate != Fate::Lost {
            fate = Fate::Passes;
        }
        let plain = matches!(fate, Fate::Passes | Fate::Doubled);
        if plain && let Err(error) = queue.transmit(frame) {
            if error == PushError::Full {
                self.lottery.keep(fate);
            }
            if let Some(index) = copied {
                // Its frame is none of ours.
                self.free.push(index);
                self.forget(frame.token);
            }
            return Err(error);
        }
        faults.count(fate);
        if plain {
            self.begin(frame.token);
        }
        match (fate, copied) {
            (Fate::Lost, _) => self.done.push_back(frame.token),
            (Fate::Delayed(frames), Some(index)) => {
                let due = self.lottery.due_after(frames, now_ns);
                self.waiting.push_back((due, index));
            }
            (_, Some(index)) => self.push_or_wait(queue, index),
            (_, None) => {}
        }
        Ok(())
    }

    /// The frame was not taken.
    fn forget(&mut self, token: u32) {
        if let Some(count) = self.outstanding.get_mut(token as usize) {
            *count = 0;
        }
    }

    fn copy_for(&mut self, frame: &Frame<'_>, fate: Fate, payload: &dyn Payload) -> Option<u16> {
        let length = frame.length as usize;
        if length > COPY_BYTES {
            return None;
        }
        self.read(frame, payload)?;
        let mut checksum = frame.checksum;
        if let Fate::Damaged(choice) = fate {
            if let Some(left) = checksum.take() {
                packet::complete(&mut self.bytes, left)?;
            }
            packet::damage(&mut self.bytes, choice)?;
        }
        self.copy(frame.token, length, checksum)
    }

    /// Cuts a frame, and each piece has its own fate; `None` when it cannot be cut here.
    fn cut(
        &mut self,
        queue: &mut impl NetQueue,
        frame: &Frame<'_>,
        request: &SegmentRequest,
        (payload, faults): (&dyn Payload, &Faults),
        now_ns: u64,
    ) -> Option<Result<(), PushError>> {
        let pieces = packet::pieces(frame.length as usize, request)?;
        let transport = usize::from(frame.checksum?.start);
        // Each may be doubled.
        let copies = pieces * 2;
        let longest = usize::from(request.header_length) + usize::from(request.size);
        if copies > self.copies.len() || longest > COPY_BYTES {
            return None;
        }
        if copies > self.free.len() {
            return Some(Err(PushError::Full));
        }
        self.read(frame, payload)?;
        let long = core::mem::take(&mut self.bytes);
        // Not done before the last piece was looked at.
        self.begin(frame.token);
        for index in 0..pieces {
            self.bytes.resize(COPY_BYTES, 0);
            let made = packet::piece(&long, request, transport, index, &mut self.bytes);
            let Some(length) = made else { continue };
            self.bytes.truncate(length);
            self.pass_piece(queue, frame.token, faults, now_ns);
        }
        self.bytes = long;
        self.end(frame.token);
        Some(Ok(()))
    }

    /// A piece, which is `self.bytes`.
    fn pass_piece(&mut self, queue: &mut impl NetQueue, of: u32, faults: &Faults, now_ns: u64) {
        let fate = self.lottery.draw();
        faults.count(fate);
        let copies = match fate {
            Fate::Lost => 0,
            Fate::Doubled => 2,
            Fate::Damaged(choice) => {
                // Pieces are IP packets, so there is a bit.
                let _ = packet::damage(&mut self.bytes, choice);
                1
            }
            Fate::Passes | Fate::Delayed(_) => 1,
        };
        for _ in 0..copies {
            let Some(index) = self.copy(of, self.bytes.len(), None) else {
                return;
            };
            match fate {
                Fate::Delayed(frames) => {
                    let due = self.lottery.due_after(frames, now_ns);
                    self.waiting.push_back((due, index));
                }
                _ => self.push_or_wait(queue, index),
            }
        }
    }
}
