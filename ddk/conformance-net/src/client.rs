//! What the tests are written with: an interface with its wire, and clients that keep account of their buffers and frames.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

pub(crate) use ddk_conformance_core::{ANSWER_LIMIT_MS, ensure};
use fastrand::Rng;
use proto::net::{MacAddress, NetInfo, Status};

use crate::frame;
use crate::home::{
    Access, Arrived, Cut, Nic, Part, Problem, SessionNumber, Shape, Sum, Wired, Woken,
};

/// Bytes of the memory that a client sends from.
const TX_BYTES: usize = 1 << 20;
/// Fragments that a client may have with the driver.
const TX_DEPTH: u16 = 256;
/// Long enough for a frame or an interrupt that is under way.
const MOMENT_MS: u32 = 20;
/// What a buffer holds until a frame comes.
const FILLER: u8 = 0xee;

/// What a test has in front of it.
pub(crate) struct Bench<'n> {
    pub(crate) nic: &'n mut dyn Nic,
    pub(crate) rng: Rng,
    pub(crate) shape: Shape,
    /// Number of the next frame.
    next_number: u32,
}

impl<'n> Bench<'n> {
    pub(crate) fn new(nic: &'n mut dyn Nic, rng: Rng, shape: Shape) -> Bench<'n> {
        Bench {
            nic,
            rng,
            shape,
            next_number: 1,
        }
    }

    pub(crate) fn info(&mut self) -> Result<NetInfo, Problem> {
        self.nic.info()
    }

    fn number(&mut self) -> u32 {
        let number = self.next_number;
        self.next_number += 1;
        number
    }

    /// A frame from the other end to the interface, or to whom it is said.
    pub(crate) fn inward(&mut self, to: MacAddress, len: usize) -> Vec<u8> {
        let number = self.number();
        frame::numbered(to, frame::PEER, len, number)
    }

    /// A frame from the interface.
    pub(crate) fn outward(&mut self, from: MacAddress, len: usize) -> Vec<u8> {
        let number = self.number();
        frame::numbered(frame::PEER, from, len, number)
    }

    /// A client of the first queue with so many receive buffers, into each of which the longest frame fits.
    pub(crate) fn client(&mut self, buffers: u16) -> Result<Client, Problem> {
        let bytes = self.rx_bytes()?;
        self.client_with(0, buffers, bytes)
    }

    /// Bytes of a receive buffer that takes any frame.
    pub(crate) fn rx_bytes(&mut self) -> Result<u32, Problem> {
        let info = self.info()?;
        Ok(info
            .rx_buffer_min
            .max(info.frame_max)
            .next_multiple_of(2048))
    }

    /// A client of a queue with so many receive buffers of so many bytes, all of them given.
    pub(crate) fn client_with(
        &mut self,
        queue: u16,
        buffers: u16,
        bytes: u32,
    ) -> Result<Client, Problem> {
        let session = self.nic.open_session(queue, buffers + 1, TX_DEPTH)?;
        let stride = bytes.next_multiple_of(16);
        let rx_len = stride as usize * usize::from(buffers.max(1));
        let rx_slot = self.nic.register(session, rx_len, Access::DeviceWrites)?;
        let tx_slot = self.nic.register(session, TX_BYTES, Access::DeviceReads)?;
        self.nic.put(session, rx_slot, 0, &vec![FILLER; rx_len])?;
        let mut client = Client {
            session,
            rx_slot,
            rx_bytes: bytes,
            stride,
            tx_slot,
            tx_next: 0,
            next_token: 0,
            providing: BTreeSet::new(),
            marks: 0,
            sending: BTreeMap::new(),
        };
        for token in 0..buffers {
            client.provide(self, token.into())?;
        }
        client.kick(self)?;
        self.await_link(Wired::Plugged)?;
        Ok(client)
    }

    /// Waits until the driver says that there is a carrier, or none.
    pub(crate) fn await_link(&mut self, link: Wired) -> Result<(), Problem> {
        /// How long a look at nothing takes.
        const LOOK_MS: u32 = 20;
        for _ in 0..ANSWER_LIMIT_MS / LOOK_MS {
            if self.info()?.link.is_up() == (link == Wired::Plugged) {
                return Ok(());
            }
            if self.nic.pause(LOOK_MS)? == Woken::Gone {
                return Err(Problem::failed("the driver gave the device up"));
            }
        }
        Err(Problem::Failed(format!(
            "within {ANSWER_LIMIT_MS} ms the driver does not notice: {link:?}"
        )))
    }

    /// Takes what the interface sent until a moment passes without a frame.
    pub(crate) fn drain_wire(&mut self) -> Result<Vec<Vec<u8>>, Problem> {
        let mut frames = Vec::new();
        while let Some(frame) = self.nic.wire_next(MOMENT_MS)? {
            frames.push(frame);
        }
        Ok(frames)
    }

    /// Puts frames on the wire, one right after the other.
    pub(crate) fn wire_send(&mut self, frames: &[Vec<u8>]) -> Result<(), Problem> {
        self.nic.settle()?;
        frames
            .iter()
            .try_for_each(|frame| self.nic.wire_send(frame))
    }

    /// The next frame on the wire.
    pub(crate) fn on_wire(&mut self) -> Result<Vec<u8>, Problem> {
        let seen = self.nic.wire_next(ANSWER_LIMIT_MS)?;
        seen.ok_or_else(|| Problem::failed("no frame on the wire"))
    }

    /// The next frame on the wire must be this one.
    pub(crate) fn expect_on_wire(&mut self, expected: &[u8]) -> Result<(), Problem> {
        let seen = self.on_wire()?;
        ensure!(
            frame::is_padded(&seen, expected),
            "on the wire: {}; expected {}",
            describe(&seen),
            describe(expected)
        );
        Ok(())
    }

    /// No frame may come on the wire.
    pub(crate) fn expect_silent_wire(&mut self) -> Result<(), Problem> {
        match self.nic.wire_next(MOMENT_MS)? {
            Some(seen) => Err(Problem::Failed(format!(
                "on the wire, sent by nobody: {}",
                describe(&seen)
            ))),
            None => Ok(()),
        }
    }

    /// The interface is of use: frames of several lengths go both ways, and nothing else comes.
    pub(crate) fn goes(&mut self, client: &mut Client) -> Result<(), Problem> {
        let info = self.info()?;
        for len in [60, 61, 127, 590, 1513, info.mtu as usize + 14] {
            let out = self.outward(info.mac, len);
            client.send(self, &out, len)?;
            client.expect_sent(self)?;
            self.expect_on_wire(&out)?;
            let back = self.inward(info.mac, len);
            self.wire_send(core::slice::from_ref(&back))?;
            client.expect_frame(self, &back)?;
        }
        client.expect_nothing(self)?;
        self.expect_silent_wire()
    }
}

/// A frame for people.
pub(crate) fn describe(bytes: &[u8]) -> alloc::string::String {
    let start = bytes.get(..32.min(bytes.len())).unwrap_or_default();
    format!("{} bytes, {start:02x?}", bytes.len())
}

/// What [`Client::next`] brings.
#[derive(Debug)]
pub(crate) enum Next {
    /// A frame with its bytes; its buffers were given to the driver again.
    Frame(Vec<u8>, Arrived),
    /// A buffer that the driver does not want, which is not given again.
    Back(u32, Status),
    /// The driver gave the device up.
    Gone,
    /// Nothing within the limit.
    Limit,
}

impl Next {
    /// Why this is not what should have come.
    pub(crate) fn problem(self) -> Problem {
        Problem::Failed(match self {
            Next::Frame(bytes, _) => format!("received: {}", describe(&bytes)),
            Next::Back(token, status) => {
                format!(
                    "buffer {token} came back, {} (status {})",
                    status.text(),
                    status.0
                )
            }
            Next::Gone => "the driver gave the device up".into(),
            Next::Limit => "no frame comes".into(),
        })
    }
}

/// A session with its buffers, and what the driver has of them.
pub(crate) struct Client {
    pub(crate) session: SessionNumber,
    pub(crate) rx_slot: u16,
    pub(crate) rx_bytes: u32,
    /// From one receive buffer to the next.
    stride: u32,
    pub(crate) tx_slot: u16,
    /// Where the next frame to be sent is put.
    tx_next: usize,
    next_token: u32,
    providing: BTreeSet<u32>,
    marks: u64,
    /// Bytes of the frames that the driver has, by token.
    sending: BTreeMap<u32, usize>,
}

impl Client {
    /// The part of the receive memory that a token stands for.
    pub(crate) fn rx_part(&self, token: u32) -> Part {
        Part {
            slot: self.rx_slot,
            offset: token * self.stride,
            length: self.rx_bytes,
        }
    }

    /// Gives the driver a receive buffer; it sees it with the next kick.
    pub(crate) fn provide(&mut self, bench: &mut Bench<'_>, token: u32) -> Result<(), Problem> {
        let part = self.rx_part(token);
        let given = bench.nic.provide(self.session, &part, token)?;
        ensure!(given, "no room for receive buffer {token}");
        self.providing.insert(token);
        Ok(())
    }

    /// A receive buffer was given under this token by other means.
    pub(crate) fn adopt(&mut self, token: u32) {
        self.providing.insert(token);
    }

    /// Receive buffers that the driver has.
    pub(crate) fn provided(&self) -> usize {
        self.providing.len()
    }

    pub(crate) fn kick(&self, bench: &mut Bench<'_>) -> Result<(), Problem> {
        bench.nic.kick(self.session)
    }

    /// Copies a frame to memory and says where it is, in parts of at most `piece` bytes.
    pub(crate) fn put(
        &mut self,
        bench: &mut Bench<'_>,
        frame: &[u8],
        piece: usize,
    ) -> Result<Vec<Part>, Problem> {
        let room = frame.len().next_multiple_of(16);
        if self.tx_next + room > TX_BYTES {
            self.tx_next = 0;
        }
        let at = self.tx_next;
        self.tx_next += room;
        bench.nic.put(self.session, self.tx_slot, at, frame)?;
        let part = |n: usize, bytes: &[u8]| Part {
            slot: self.tx_slot,
            offset: (at + n * piece) as u32,
            length: bytes.len() as u32,
        };
        let pieces = frame.chunks(piece.max(1)).enumerate();
        Ok(pieces.map(|(n, bytes)| part(n, bytes)).collect())
    }

    /// Queues a frame; `None` when the session is full.
    pub(crate) fn try_transmit(
        &mut self,
        bench: &mut Bench<'_>,
        parts: &[Part],
        sum: Option<Sum>,
        cut: Option<Cut>,
    ) -> Result<Option<u32>, Problem> {
        let token = self.next_token;
        if !bench.nic.transmit(self.session, parts, sum, cut, token)? {
            return Ok(None);
        }
        self.next_token += 1;
        let bytes = parts.iter().map(|part| part.length as usize).sum();
        self.sending.insert(token, bytes);
        Ok(Some(token))
    }

    /// Sends a frame as it is, in parts of at most `piece` bytes.
    pub(crate) fn send(
        &mut self,
        bench: &mut Bench<'_>,
        frame: &[u8],
        piece: usize,
    ) -> Result<u32, Problem> {
        self.send_with(bench, frame, piece, None, None)
    }

    /// Sends a frame that the device is to work on.
    pub(crate) fn send_with(
        &mut self,
        bench: &mut Bench<'_>,
        frame: &[u8],
        piece: usize,
        sum: Option<Sum>,
        cut: Option<Cut>,
    ) -> Result<u32, Problem> {
        let parts = self.put(bench, frame, piece)?;
        let token = self.try_transmit(bench, &parts, sum, cut)?;
        let Some(token) = token else {
            let text = format!("no room for a frame with {} under way", self.sending.len());
            return Err(Problem::Failed(text));
        };
        self.kick(bench)?;
        Ok(token)
    }

    /// Takes what was sent if it is there; each frame is answered for once.
    pub(crate) fn poll_sent(
        &mut self,
        bench: &mut Bench<'_>,
    ) -> Result<Option<(u32, Status)>, Problem> {
        let Some((token, status)) = bench.nic.sent(self.session)? else {
            return Ok(None);
        };
        ensure!(
            self.sending.remove(&token).is_some(),
            "an answer for frame {token}, which was not under way"
        );
        Ok(Some((token, status)))
    }

    /// Waits until every frame was answered for. `None`: the device is gone.
    pub(crate) fn finish(
        &mut self,
        bench: &mut Bench<'_>,
    ) -> Result<Option<Vec<(u32, Status)>>, Problem> {
        let mut all = Vec::new();
        while !self.sending.is_empty() {
            if let Some(done) = self.poll_sent(bench)? {
                all.push(done);
                continue;
            }
            let woken = bench.nic.wait_sent(self.session, ANSWER_LIMIT_MS)?;
            match woken {
                Woken::Answer => {}
                Woken::Gone => {
                    self.sending.clear();
                    return Ok(None);
                }
                Woken::Limit => {
                    let text = format!(
                        "{} frames do not leave within {ANSWER_LIMIT_MS} ms",
                        self.sending.len()
                    );
                    return Err(Problem::Failed(text));
                }
            }
        }
        Ok(Some(all))
    }

    /// Everything that is under way is sent, and well.
    pub(crate) fn expect_sent(&mut self, bench: &mut Bench<'_>) -> Result<(), Problem> {
        let done = self.finish(bench)?;
        let done = done.ok_or_else(|| Problem::failed("the driver gave the device up"))?;
        for (token, status) in done {
            ensure!(
                status == Status::OK,
                "frame {token}: {} (status {})",
                status.text(),
                status.0
            );
        }
        Ok(())
    }

    /// A frame that has to be refused with this status, and does not get on the wire.
    pub(crate) fn expect_refused(
        &mut self,
        bench: &mut Bench<'_>,
        (parts, sum, cut): (&[Part], Option<Sum>, Option<Cut>),
        expected: Status,
    ) -> Result<(), Problem> {
        let Some(token) = self.try_transmit(bench, parts, sum, cut)? else {
            return Err(Problem::failed("no room for a frame"));
        };
        self.kick(bench)?;
        let done = self.finish(bench)?;
        ensure!(
            done.as_deref() == Some(&[(token, expected)]),
            "{parts:?} {sum:?} {cut:?}: {done:?}, expected status {} ({})",
            expected.0,
            expected.text()
        );
        Ok(())
    }

    /// Takes a frame, or a buffer that comes back, if it is there. Buffers of frames are given again if that is said.
    pub(crate) fn poll(&mut self, bench: &mut Bench<'_>) -> Result<Option<Next>, Problem> {
        let Some(arrived) = bench.nic.received(self.session)? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        for piece in &arrived.pieces {
            ensure!(
                self.providing.remove(&piece.token),
                "receive buffer {}, which the driver does not have",
                piece.token
            );
            ensure!(
                piece.length <= self.rx_bytes,
                "{} bytes in a receive buffer of {}",
                piece.length,
                self.rx_bytes
            );
            if arrived.status != Status::OK {
                continue;
            }
            bytes.extend(&piece.prefix);
            let (at, start) = (self.rx_part(piece.token).offset as usize, bytes.len());
            bytes.resize(start + piece.length as usize, 0);
            let into = bytes.get_mut(start..).unwrap_or_default();
            bench.nic.get(self.session, self.rx_slot, at, into)?;
        }
        if arrived.status != Status::OK && arrived.pieces.len() > 1 {
            // The start of a frame whose rest was lost.
            for piece in &arrived.pieces {
                self.provide(bench, piece.token)?;
            }
            self.kick(bench)?;
            return self.poll(bench);
        }
        if arrived.status != Status::OK {
            let token = arrived.pieces.first().map_or(0, |piece| piece.token);
            return Ok(Some(Next::Back(token, arrived.status)));
        }
        for piece in &arrived.pieces {
            // What comes next is not to be mistaken for what was there.
            let part = self.rx_part(piece.token);
            let filler = vec![FILLER; piece.length as usize];
            bench
                .nic
                .put(self.session, self.rx_slot, part.offset as usize, &filler)?;
            self.provide(bench, piece.token)?;
        }
        self.kick(bench)?;
        Ok(Some(Next::Frame(bytes, arrived)))
    }

    /// Waits for what comes next.
    pub(crate) fn next(&mut self, bench: &mut Bench<'_>, limit_ms: u32) -> Result<Next, Problem> {
        loop {
            if let Some(next) = self.poll(bench)? {
                return Ok(next);
            }
            match bench.nic.wait_received(self.session, limit_ms)? {
                Woken::Answer => {}
                Woken::Gone => return Ok(Next::Gone),
                Woken::Limit => return Ok(Next::Limit),
            }
        }
    }

    /// The next frame; nothing else may come.
    pub(crate) fn frame(&mut self, bench: &mut Bench<'_>) -> Result<(Vec<u8>, Arrived), Problem> {
        match self.next(bench, ANSWER_LIMIT_MS)? {
            Next::Frame(bytes, arrived) => Ok((bytes, arrived)),
            other => Err(other.problem()),
        }
    }

    /// The next frame must be this one.
    pub(crate) fn expect_frame(
        &mut self,
        bench: &mut Bench<'_>,
        expected: &[u8],
    ) -> Result<Arrived, Problem> {
        let (seen, arrived) = self.frame(bench)?;
        ensure!(
            frame::is_padded(&seen, expected),
            "received: {}; expected {}",
            describe(&seen),
            describe(expected)
        );
        Ok(arrived)
    }

    /// Nothing may come.
    pub(crate) fn expect_nothing(&mut self, bench: &mut Bench<'_>) -> Result<(), Problem> {
        match self.next(bench, MOMENT_MS)? {
            Next::Limit => Ok(()),
            Next::Frame(seen, _) => Err(Problem::Failed(format!(
                "received: {}; expected nothing",
                describe(&seen)
            ))),
            other => Err(other.problem()),
        }
    }

    /// Takes every frame that is on its way: the last thing on the wire is a mark of this client's own.
    pub(crate) fn frames(&mut self, bench: &mut Bench<'_>) -> Result<Vec<Vec<u8>>, Problem> {
        let mut frames = Vec::new();
        loop {
            match self.next(bench, MOMENT_MS)? {
                Next::Frame(bytes, _) => frames.push(bytes),
                Next::Limit => break,
                other => return Err(other.problem()),
            }
        }
        let mac = bench.info()?.mac;
        let mark = bench.inward(mac, frame::WIRE_MIN);
        bench.wire_send(core::slice::from_ref(&mark))?;
        self.marks += 1;
        loop {
            let (bytes, _) = self.frame(bench)?;
            if bytes == mark {
                return Ok(frames);
            }
            frames.push(bytes);
        }
    }

    /// Frames that were received as marks.
    pub(crate) fn marks(&self) -> u64 {
        self.marks
    }

    /// Ends the session; its memory is the client's again.
    pub(crate) fn close(self, bench: &mut Bench<'_>) -> Result<(), Problem> {
        bench.nic.close_session(self.session)
    }
}
