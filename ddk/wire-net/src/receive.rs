//! Frames to this system.

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;

use ddk_class_net::{NetQueue, PushError, Received, Segment, rx_flags};

use crate::chance::{Due, Fate, Faults, Lottery};
use crate::{Payload, packet};

/// Buffers that the device does not get, for second copies of frames.
const SPARES_MAX: usize = 8;
/// Buffers that the device has before one is kept from it.
const ENOUGH: usize = 16;
/// Longest frame that is doubled.
const COPY_MAX: usize = 2048;

/// What is on its way to the class layer.
pub(crate) struct Receive {
    pub(crate) lottery: Lottery,
    /// Buffers that the class layer gave, by token.
    buffers: Vec<Vec<Segment>>,
    spares: Vec<u32>,
    /// Buffers that the device has.
    with_device: usize,
    ready: VecDeque<Received>,
    delayed: VecDeque<(Due, Received)>,
    /// The last part was not the end of its frame.
    goes_on: bool,
    copy: Vec<u8>,
}

impl Receive {
    pub(crate) fn new(lottery: Lottery, depth: u16) -> Receive {
        Receive {
            lottery,
            buffers: vec![Vec::new(); depth.into()],
            spares: Vec::with_capacity(SPARES_MAX),
            with_device: 0,
            ready: VecDeque::new(),
            delayed: VecDeque::new(),
            goes_on: false,
            copy: vec![0; COPY_MAX],
        }
    }

    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    pub(crate) fn has_delayed(&self) -> bool {
        !self.delayed.is_empty()
    }

    pub(crate) fn provide(
        &mut self,
        queue: &mut impl NetQueue,
        token: u32,
        segments: &[Segment],
    ) -> Result<(), PushError> {
        if let Some(known) = self.buffers.get_mut(token as usize) {
            known.clear();
            known.extend_from_slice(segments);
        }
        let wanted = self.lottery.rates().duplicate > 0 && self.spares.len() < SPARES_MAX;
        if wanted && self.with_device >= ENOUGH {
            self.spares.push(token);
            return Ok(());
        }
        queue.provide(token, segments)?;
        self.with_device += 1;
        Ok(())
    }

    /// What the class layer gets next. Frames that are late go before newer ones.
    pub(crate) fn next(&mut self, now_ns: u64) -> Option<Received> {
        if let Some(received) = self.ready.pop_front() {
            return Some(received);
        }
        let over = |(due, _): &(Due, Received)| self.lottery.is_over(*due, now_ns);
        let at = self.delayed.iter().position(over)?;
        self.delayed.remove(at).map(|(_, received)| received)
    }

    /// A frame came from the device. `true`: the device has its buffer again.
    pub(crate) fn came(
        &mut self,
        queue: &mut impl NetQueue,
        received: Received,
        payload: &dyn Payload,
        faults: &Faults,
        now_ns: u64,
    ) -> bool {
        self.with_device = self.with_device.saturating_sub(1);
        let more = received.flags & rx_flags::MORE != 0;
        let in_parts = more || self.goes_on;
        self.goes_on = more;
        if in_parts || received.length == 0 {
            // Those that the device put together, or dropped itself.
            self.ready.push_back(received);
            return false;
        }
        let fate = self.lottery.draw();
        let done = match fate {
            Fate::Passes => {
                self.ready.push_back(received);
                Some(())
            }
            Fate::Lost => self.give_back(queue, received.token),
            Fate::Doubled => self.double(received, payload),
            Fate::Delayed(frames) => {
                let due = self.lottery.due_after(frames, now_ns);
                self.delayed.push_back((due, received));
                Some(())
            }
            Fate::Damaged(choice) => self.damage(received, payload, choice),
        };
        if done.is_none() {
            self.ready.push_back(received);
        }
        faults.count(if done.is_some() { fate } else { Fate::Passes });
        done.is_some() && fate == Fate::Lost
    }

    fn give_back(&mut self, queue: &mut impl NetQueue, token: u32) -> Option<()> {
        let segments = self.buffers.get(token as usize)?;
        queue.provide(token, segments).ok()?;
        self.with_device += 1;
        Some(())
    }

    fn double(&mut self, received: Received, payload: &dyn Payload) -> Option<()> {
        let length = received.length as usize;
        let spare = *self.spares.last()?;
        let (from, to) = (
            self.buffers.get(received.token as usize)?,
            self.buffers.get(spare as usize)?,
        );
        let bytes = self.copy.get_mut(..length)?;
        over(from, length, |address, range| {
            payload.read(address, bytes.get_mut(range)?)
        })?;
        over(to, length, |address, range| {
            payload.write(address, bytes.get(range)?)
        })?;
        self.spares.pop();
        self.ready.push_back(received);
        self.ready.push_back(Received {
            token: spare,
            ..received
        });
        Some(())
    }

    fn damage(&mut self, mut received: Received, payload: &dyn Payload, choice: u64) -> Option<()> {
        if received.flags & rx_flags::CHECKSUM_PARTIAL != 0 {
            // It never was on a wire.
            return None;
        }
        // The first bytes may lie elsewhere; they end before the type.
        let before = usize::from(received.prefix_length);
        let buffer = self.buffers.get(received.token as usize)?;
        let mut head = [0; 14];
        let there = head.get_mut(before..)?;
        over(buffer, there.len(), |address, range| {
            payload.read(address, there.get_mut(range)?)
        })?;
        let length = received.length as usize + before;
        let (at, bit) = packet::bit_to_flip(packet::kind(&head)?, length, choice)?;
        let address = address_of(buffer, at.checked_sub(before)?)?;
        let mut byte = [0];
        payload.read(address, &mut byte)?;
        payload.write(address, &byte.map(|byte| byte ^ bit))?;
        received.flags &= !rx_flags::CHECKSUM_VALID;
        self.ready.push_back(received);
        Some(())
    }

    /// Gives the device what was kept from it, when it has little.
    pub(crate) fn share(&mut self, queue: &mut impl NetQueue) {
        while self.with_device < ENOUGH / 2
            && let Some(token) = self.spares.pop()
        {
            if self.give_back(queue, token).is_none() {
                self.spares.push(token);
                return;
            }
        }
    }
}

/// Device address of the byte at `at`.
fn address_of(segments: &[Segment], mut at: usize) -> Option<u64> {
    for segment in segments {
        let len = segment.len as usize;
        if at < len {
            return Some(segment.address + at as u64);
        }
        at -= len;
    }
    None
}

/// Calls `work` with each run within a page of the first `length` bytes, and where it stands among them; `None` when one fails or there
/// are not as many.
pub(crate) fn over(
    segments: &[Segment],
    length: usize,
    mut work: impl FnMut(u64, core::ops::Range<usize>) -> Option<()>,
) -> Option<()> {
    let mut at = 0;
    for segment in segments {
        let mut address = segment.address;
        let end = segment.address + u64::from(segment.len);
        while address < end && at < length {
            let in_page = ddk::PAGE as u64 - address % ddk::PAGE as u64;
            let run = in_page.min(end - address).min((length - at) as u64) as usize;
            work(address, at..at + run)?;
            at += run;
            address += run as u64;
        }
    }
    (at == length).then_some(())
}
