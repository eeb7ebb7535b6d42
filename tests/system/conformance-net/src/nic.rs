//! An interface of the running system, through the client's half of the network protocol.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use ddk_conformance_net::{
    Access, Arrived, Cut, Cutting, Nic, Part, Piece, Problem, Promise, RxChecksum, SessionNumber,
    Sum, Wired, Woken,
};
use net_client::{
    Answer, Buffer, Checksum, MacAddress, NetCounters, NetError, NetInfo, Offloads, ReceiveMode,
    RxFrame, Segment, Session, SessionError, Space, Status, TxFrame,
};
use rt::{Deadline, Vmo};

use crate::wire::Wire;

/// Bytes of a page: buffers are whole pages.
const PAGE: usize = 4096;
/// How long to wait for the wire before it is looked at again.
const LOOK: Duration = Duration::from_millis(1);

struct OpenSession {
    session: Session,
    depths: (u16, u16),
    /// By slot, as the client numbers them; also those that are not registered any more.
    buffers: Vec<Option<(Buffer, Vmo)>>,
    /// What came while something else was waited for.
    received: VecDeque<Arrived>,
    sent: VecDeque<(u32, Status)>,
}

/// See the module.
pub struct SystemNic<'w> {
    nic: net_client::Nic,
    wire: &'w mut Wire,
    promise: Promise,
    /// What was counted before.
    before: NetCounters,
    sessions: Vec<Option<OpenSession>>,
}

fn failed<E: core::fmt::Display>(what: &'static str) -> impl Fn(E) -> Problem {
    move |error| Problem::Failed(format!("{what}: {error}"))
}

fn control<E: Into<SessionError>>(what: &'static str) -> impl Fn(E) -> Problem {
    move |error| failed::<SessionError>(what)(error.into())
}

fn arrived(frame: &RxFrame) -> Arrived {
    let piece = |part: &net_client::RxPart| Piece {
        token: part.token as u32,
        length: part.space.length,
        prefix: part.prefix().to_vec(),
    };
    Arrived {
        pieces: frame.parts.iter().map(piece).collect(),
        status: frame.status,
        checksum: match frame.checksum {
            net_client::RxChecksum::Unchecked => RxChecksum::Unchecked,
            net_client::RxChecksum::Valid => RxChecksum::Valid,
            net_client::RxChecksum::Partial(sum) => RxChecksum::Partial(Sum {
                start: sum.start,
                offset: sum.offset,
            }),
        },
        joined: frame.segment.map(|segment| (segment.kind, segment.size)),
    }
}

impl OpenSession {
    /// Takes over what the driver has put into the rings.
    fn collect(&mut self) -> Result<(), Problem> {
        let mut frame = RxFrame::default();
        let rings = failed("what the driver says");
        while self.session.receive(&mut frame).map_err(&rings)? {
            self.received.push_back(arrived(&frame));
        }
        while let Some(done) = self.session.sent().map_err(&rings)? {
            self.sent.push_back((done.token as u32, done.status));
        }
        Ok(())
    }

    /// Sleeps until there is something of what is looked for.
    fn wait(&mut self, limit_ms: u32, there: fn(&Self) -> bool) -> Result<Woken, Problem> {
        let deadline = Deadline::after(Duration::from_millis(limit_ms.into()));
        loop {
            self.collect()?;
            if there(self) {
                return Ok(Woken::Answer);
            }
            match self.session.wait(deadline) {
                // It may be early.
                Ok(()) => {}
                Err(SessionError::TimedOut) => return Ok(Woken::Limit),
                Err(SessionError::Closed) => return Ok(Woken::Gone),
                Err(error) => return Err(failed("waiting")(error)),
            }
        }
    }

    fn space(&self, part: &Part) -> Result<Space, Problem> {
        match self.buffers.get(usize::from(part.slot)) {
            Some(Some((buffer, _))) => Ok(Space {
                buffer: *buffer,
                offset: part.offset,
                length: part.length,
            }),
            _ => Err(Problem::not_offered(
                "a client cannot name a buffer that it did not register",
            )),
        }
    }
}

impl<'w> SystemNic<'w> {
    pub fn new(
        nic: net_client::Nic,
        wire: &'w mut Wire,
        mac: MacAddress,
        cutting: Cutting,
    ) -> Result<SystemNic<'w>, Problem> {
        let before = nic.counters().map_err(failed("counters"))?;
        Ok(SystemNic {
            nic,
            wire,
            promise: Promise {
                mac: Some(mac),
                mtu: 1500,
                offloads: None,
                filters: true,
                changes_mac: true,
                tells_link: true,
                counts_missed: false,
                checks_sums: false,
                cutting,
            },
            before,
            sessions: Vec::new(),
        })
    }

    fn session(&mut self, session: SessionNumber) -> Result<&mut OpenSession, Problem> {
        let none = || Problem::Failed(format!("there is no session {session}"));
        let session = self.sessions.get_mut(session);
        session.and_then(Option::as_mut).ok_or_else(none)
    }

    fn memory(&self, session: SessionNumber, slot: u16) -> Result<&Vmo, Problem> {
        let session = self.sessions.get(session).and_then(Option::as_ref);
        match session.and_then(|open| open.buffers.get(usize::from(slot))) {
            Some(Some((_, vmo))) => Ok(vmo),
            _ => Err(Problem::Failed(format!(
                "there is no buffer in slot {slot}"
            ))),
        }
    }
}

impl Nic for SystemNic<'_> {
    fn info(&mut self) -> Result<NetInfo, Problem> {
        let info = self.nic.refresh().map_err(failed("the interface"))?;
        Ok(info.clone())
    }

    fn promise(&self) -> Promise {
        self.promise.clone()
    }

    fn counters(&mut self) -> Result<NetCounters, Problem> {
        let (now, before) = (
            self.nic.counters().map_err(failed("counters"))?,
            self.before,
        );
        let since = u64::wrapping_sub;
        Ok(NetCounters {
            rx_frames: since(now.rx_frames, before.rx_frames),
            rx_bytes: since(now.rx_bytes, before.rx_bytes),
            rx_errors: since(now.rx_errors, before.rx_errors),
            rx_missed: since(now.rx_missed, before.rx_missed),
            tx_frames: since(now.tx_frames, before.tx_frames),
            tx_bytes: since(now.tx_bytes, before.tx_bytes),
            tx_errors: since(now.tx_errors, before.tx_errors),
            tx_lost: since(now.tx_lost, before.tx_lost),
            resets: since(now.resets, before.resets),
            interrupts: since(now.interrupts, before.interrupts),
        })
    }

    fn open_session(&mut self, queue: u16, rx: u16, tx: u16) -> Result<SessionNumber, Problem> {
        let opened = self.nic.open_session(queue, rx, tx);
        let session = opened.map_err(failed("a session"))?;
        let depths = (session.info().rx_depth, session.info().tx_depth);
        self.sessions.push(Some(OpenSession {
            session,
            depths,
            buffers: Vec::new(),
            received: VecDeque::new(),
            sent: VecDeque::new(),
        }));
        Ok(self.sessions.len() - 1)
    }

    fn depths(&self, session: SessionNumber) -> (u16, u16) {
        let session = self.sessions.get(session).and_then(Option::as_ref);
        session.map_or((0, 0), |open| open.depths)
    }

    fn close_session(&mut self, session: SessionNumber) -> Result<(), Problem> {
        // Whoever opens the queue next waits until it is over.
        match self.sessions.get_mut(session).and_then(Option::take) {
            Some(_) => Ok(()),
            None => Err(Problem::Failed(format!("there is no session {session}"))),
        }
    }

    fn register(
        &mut self,
        session: SessionNumber,
        len: usize,
        access: Access,
    ) -> Result<u16, Problem> {
        let len = len.next_multiple_of(PAGE);
        let vmo = Vmo::create(len).map_err(failed("memory for a buffer"))?;
        let open = self.session(session)?;
        let buffer = open
            .session
            .register(&vmo, 0, len as u64, access)
            .map_err(failed("registering a buffer"))?;
        let slot = buffer.slot();
        if open.buffers.len() <= usize::from(slot) {
            open.buffers.resize_with(usize::from(slot) + 1, || None);
        }
        if let Some(entry) = open.buffers.get_mut(usize::from(slot)) {
            *entry = Some((buffer, vmo));
        }
        Ok(slot)
    }

    fn unregister(&mut self, session: SessionNumber, slot: u16) -> Result<(), Problem> {
        let open = self.session(session)?;
        let Some(Some((buffer, _))) = open.buffers.get(usize::from(slot)) else {
            return Err(Problem::Failed(format!(
                "there is no buffer in slot {slot}"
            )));
        };
        let buffer = *buffer;
        open.session
            .unregister(buffer)
            .map_err(failed("removing a buffer"))
    }

    fn put(
        &mut self,
        session: SessionNumber,
        slot: u16,
        offset: usize,
        bytes: &[u8],
    ) -> Result<(), Problem> {
        let vmo = self.memory(session, slot)?;
        vmo.write(offset as u64, bytes)
            .map_err(failed("writing to a buffer"))
    }

    fn get(
        &self,
        session: SessionNumber,
        slot: u16,
        offset: usize,
        into: &mut [u8],
    ) -> Result<(), Problem> {
        let vmo = self.memory(session, slot)?;
        vmo.read(offset as u64, into)
            .map_err(failed("reading a buffer"))
    }

    fn provide(
        &mut self,
        session: SessionNumber,
        part: &Part,
        token: u32,
    ) -> Result<bool, Problem> {
        let open = self.session(session)?;
        let space = open.space(part)?;
        match open.session.provide(space, token.into()) {
            Ok(()) => Ok(true),
            Err(SessionError::Full) => Ok(false),
            Err(error) => Err(failed("a receive buffer")(error)),
        }
    }

    fn transmit(
        &mut self,
        session: SessionNumber,
        parts: &[Part],
        sum: Option<Sum>,
        cut: Option<Cut>,
        token: u32,
    ) -> Result<bool, Problem> {
        let open = self.session(session)?;
        let spaces = parts.iter().map(|part| open.space(part));
        let spaces: Vec<Space> = spaces.collect::<Result<_, _>>()?;
        let frame = TxFrame {
            parts: &spaces,
            checksum: sum.map(|sum| Checksum {
                start: sum.start,
                offset: sum.offset,
            }),
            segment: cut.map(|cut| Segment {
                kind: cut.kind,
                size: cut.size,
                header_length: cut.header_length,
            }),
            answer: Answer::Soon,
        };
        match open.session.transmit(&frame, token.into()) {
            Ok(()) => Ok(true),
            Err(SessionError::Full) => Ok(false),
            Err(error) => Err(failed("a frame")(error)),
        }
    }

    fn kick(&mut self, session: SessionNumber) -> Result<(), Problem> {
        let open = self.session(session)?;
        open.session.kick().map_err(failed("the driver's doorbell"))
    }

    fn received(&mut self, session: SessionNumber) -> Result<Option<Arrived>, Problem> {
        let open = self.session(session)?;
        open.collect()?;
        Ok(open.received.pop_front())
    }

    fn sent(&mut self, session: SessionNumber) -> Result<Option<(u32, Status)>, Problem> {
        let open = self.session(session)?;
        open.collect()?;
        Ok(open.sent.pop_front())
    }

    fn wait_received(&mut self, session: SessionNumber, limit_ms: u32) -> Result<Woken, Problem> {
        let open = self.session(session)?;
        open.wait(limit_ms, |open| !open.received.is_empty())
    }

    fn wait_sent(&mut self, session: SessionNumber, limit_ms: u32) -> Result<Woken, Problem> {
        let open = self.session(session)?;
        open.wait(limit_ms, |open| !open.sent.is_empty())
    }

    fn pause(&mut self, ms: u32) -> Result<Woken, Problem> {
        rt::time::sleep(Duration::from_millis(ms.into()));
        Ok(Woken::Limit)
    }

    fn set_receive_mode(
        &mut self,
        mode: ReceiveMode,
        groups: &[MacAddress],
    ) -> Result<(), Problem> {
        let endpoint = self.nic.endpoint();
        let set = endpoint.set_receive_mode(mode, groups.to_vec());
        set.map_err(control("receive mode"))
    }

    fn set_mac(&mut self, mac: MacAddress) -> Result<bool, Problem> {
        match self.nic.endpoint().set_mac(mac).map_err(SessionError::from) {
            Ok(()) => Ok(true),
            Err(SessionError::Control(NetError::Unsupported)) => Ok(false),
            Err(error) => Err(failed("hardware address")(error)),
        }
    }

    fn set_receive_offloads(&mut self, offloads: Offloads) -> Result<(), Problem> {
        let set = self.nic.endpoint().set_receive_offloads(offloads);
        set.map(drop).map_err(control("receive offloads"))
    }

    fn set_link(&mut self, link: Wired) -> Result<(), Problem> {
        let plugged = self.wire.plug(link == Wired::Plugged);
        plugged.map_err(Problem::Failed)
    }

    fn wire_send(&mut self, frame: &[u8]) -> Result<(), Problem> {
        self.wire.send(frame).map_err(Problem::Failed)
    }

    fn wire_next(&mut self, limit_ms: u32) -> Result<Option<Vec<u8>>, Problem> {
        let deadline = Deadline::after(Duration::from_millis(limit_ms.into()));
        loop {
            let next = self.wire.next().map_err(Problem::Failed)?;
            if next.is_some() || deadline.has_passed() {
                return Ok(next);
            }
            rt::time::sleep(LOOK);
        }
    }

    /// The driver goes on, as it was.
    fn close(self: Box<Self>) -> Result<(), Problem> {
        let mac = self.promise.mac.unwrap_or_default();
        let endpoint = self.nic.endpoint();
        let done: Result<(), String> = (|| {
            let gone = |error: SessionError| format!("the interface as it was: {error}");
            let mode = endpoint.set_receive_mode(ReceiveMode::Filtered, Vec::new());
            mode.map_err(|error| gone(error.into()))?;
            endpoint.set_mac(mac).map_err(|error| gone(error.into()))?;
            let offloads = endpoint.set_receive_offloads(Offloads::RX_CHECKSUM);
            offloads.map(drop).map_err(|error| gone(error.into()))
        })();
        done.map_err(Problem::Failed)
    }
}
