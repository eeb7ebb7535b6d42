//! A network interface at a home on the host: the driver under the class layer, all of it in one thread.
//!
//! As with disks (`host_disk`), a worker runs only when its thread on the microkernel would, and a client looks for
//! frames only when its doorbell rang, so that a lost wake-up shows.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use ddk::{
    Deadline, DeviceAccess, DeviceContext, DriverError, EventQueue, PAGE, PlatformError,
    StopReason, block_on,
};
use ddk_class_net::{
    Command, Doorbell, NetDevice, RingOffsets, Session, Supervisor, Verdict, Worker, rx_flags,
};
use ddk_conformance_net::{
    Access, Arrived, Cut, Fault, MacAddress, NetCounters, NetInfo, Nic, Offloads, Part, Piece,
    Problem, Promise, ReceiveMode, RxChecksum, Segmentation, SessionNumber, Status, Sum, Wired,
    Woken,
};
use proto::net::{
    BUFFERS_MAX, DEPTH_MAX, PREFIX_MAX, Received, RxBuffer, Sent, Transmit, tx_flags,
};
use ring::{Consumer, HeapMemory, Producer};

use super::device::Device;
use crate::device::{Ended, Payload};
use crate::doorbell::{ToClient, ToDriver};
use crate::gateway::{Gateway, Queue, Watched};

/// How long the adapter sleeps at most before it looks at everything again, in milliseconds.
const STEP_MS: u32 = 1;
/// How long a worker may wait for its queue's next look, in milliseconds, before the others have their turn.
const POLL_MS: u32 = 2;
/// What driver and device get to come to rest, in milliseconds.
const SETTLE_MS: u32 = 3;
/// Longest that the end of a buffer's use or of a session may take, in milliseconds.
const REMOVAL_LIMIT_MS: u32 = 60_000;
/// Longest that a model that keeps the rules lets a client wait, in milliseconds of its own time. The class
/// layer's watchdog looks once a second: what comes only then came without its interrupt.
const LATE_MS: u32 = 500;
/// Key of the device's announcements of changes.
const KEY_CHANGES: u64 = 1;

/// The client's half of a session.
struct ClientSession {
    id: u32,
    queue: usize,
    depths: (u16, u16),
    provided: u16,
    fragments: u16,
    free: Producer<RxBuffer, HeapMemory>,
    received: Consumer<Received, HeapMemory>,
    transmit: Producer<Transmit, HeapMemory>,
    sent: Consumer<Sent, HeapMemory>,
    to_driver: ToDriver,
    to_client: ToClient,
    buffers: Vec<Option<Box<dyn Payload>>>,
    /// The parts of a frame whose last one has not come.
    partial: Vec<Received>,
    ended: bool,
}

struct Thread<Q, M> {
    worker: Worker<Q, M>,
    queue: Arc<Watched>,
    asleep: bool,
}

/// See the module.
pub struct HostNic<D: NetDevice, B> {
    device: B,
    gateway: Arc<Gateway>,
    cx: DeviceContext,
    supervisor: Supervisor<D, HeapMemory>,
    threads: Vec<Thread<D::Queue, HeapMemory>>,
    changes: Queue,
    sessions: Vec<ClientSession>,
    /// Nothing was done to the device so far.
    sound: bool,
    gone: bool,
    broken: Option<String>,
}

fn system(what: &str) -> impl Fn(PlatformError) -> Problem + '_ {
    move |error| Problem::Failed(format!("{what}: {error}"))
}

fn driver(what: &str) -> impl Fn(DriverError) -> Problem + '_ {
    move |error| Problem::Failed(format!("{what}: {error}"))
}

fn ring(error: impl std::fmt::Display) -> Problem {
    Problem::Failed(format!("rings: {error}"))
}

impl<D: NetDevice + 'static, B: Device> HostNic<D, B> {
    /// Starts the driver on a device.
    ///
    /// # Errors
    /// When it does not start.
    pub fn new(device: B) -> Result<HostNic<D, B>, Problem> {
        let platform = device
            .platform()
            .ok_or_else(|| Problem::failed("the device has no platform any more"))?;
        let gateway = Gateway::new(platform);
        let cx = DeviceContext::new(gateway.clone()).map_err(system("the driver's context"))?;
        let started = block_on(&cx, D::start(cx.clone())).map_err(system("start of the driver"))?;
        let started = started.map_err(driver("start"))?;
        gateway.take_queues();
        let (mut supervisor, workers) = Supervisor::new(cx.clone(), started, Box::new(|| {}))
            .map_err(driver("start of the class layer"))?;
        let threads = workers
            .into_iter()
            .zip(gateway.take_queues())
            .map(|(worker, queue)| Thread {
                worker,
                queue,
                asleep: false,
            })
            .collect();
        let changes = gateway.queue().map_err(system("queue"))?;
        supervisor
            .bind_changes(&changes, KEY_CHANGES)
            .map_err(system("interrupt of changes"))?;
        Ok(HostNic {
            device,
            gateway,
            cx,
            supervisor,
            threads,
            changes,
            sessions: Vec::new(),
            sound: true,
            gone: false,
            broken: None,
        })
    }

    fn session(&mut self, session: SessionNumber) -> Result<&mut ClientSession, Problem> {
        let none = || Problem::Failed(format!("there is no session {session}"));
        self.sessions.get_mut(session).ok_or_else(none)
    }

    fn buffer(&self, session: SessionNumber, slot: u16) -> Result<&dyn Payload, Problem> {
        let buffer = self
            .sessions
            .get(session)
            .and_then(|s| s.buffers.get(usize::from(slot)))
            .and_then(Option::as_deref);
        buffer.ok_or_else(|| Problem::Failed(format!("there is no buffer in slot {slot}")))
    }

    /// Runs whoever is awake; when nobody is, sleeps until the deadline at most.
    fn step(&mut self, until: Deadline) -> Result<(), Problem> {
        if let Some(broken) = &self.broken {
            return Err(Problem::Failed(broken.clone()));
        }
        self.device.carry()?;
        let mut moved = false;
        for thread in &mut self.threads {
            let looks = thread.worker.next_poll() != Deadline::NEVER;
            let woken = thread.queue.look(Deadline::NOW).map_err(system("events"))?;
            if thread.asleep && !woken && !looks {
                continue;
            }
            // One that has to look by itself sleeps until it does.
            let deadline = if thread.asleep && !woken {
                self.cx.deadline_in_ms(POLL_MS)
            } else {
                Deadline::NOW
            };
            moved = true;
            thread
                .worker
                .turn(deadline)
                .map_err(system("events of a worker"))?;
            thread.asleep = thread.queue.has_slept();
            if deadline != Deadline::NOW {
                thread
                    .worker
                    .turn(Deadline::NOW)
                    .map_err(system("events of a worker"))?;
                thread.asleep = thread.queue.has_slept();
            }
        }
        let changes = self.changes.0.look(Deadline::NOW);
        if changes.map_err(system("events"))? {
            let mut events = [ddk::Event::default(); 4];
            let _ = self.changes.wait(&mut events, Deadline::NOW);
            moved = true;
            if self.supervisor.changed().is_err() {
                self.gone = true;
            }
        }
        for verdict in self.supervisor.attend() {
            moved = true;
            match verdict {
                Verdict::GiveUp(_) => self.gone = true,
                Verdict::Alive(_) | Verdict::Changed => {}
                Verdict::SessionEnded(id) => {
                    if let Some(session) = self.sessions.iter_mut().find(|s| s.id == id) {
                        session.ended = true;
                    }
                }
                Verdict::CloseSession(id) => {
                    let log = self.gateway.last_log(2);
                    self.broken = Some(format!("the driver closed session {id}: {log}"));
                }
            }
        }
        self.supervisor.tick();
        if moved {
            return Ok(());
        }
        let step = self.cx.deadline_in_ms(STEP_MS);
        let longest = self.threads.first().map(|thread| &thread.queue);
        let queue = longest.unwrap_or(&self.changes.0);
        queue.look(step.min(until)).map_err(system("events"))?;
        Ok(())
    }

    fn limit(&self, limit_ms: u32) -> Deadline {
        self.cx.deadline_in_ms(limit_ms)
    }

    /// Steps until something is so, or the limit passed.
    fn step_until(
        &mut self,
        limit_ms: u32,
        mut done: impl FnMut(&mut Self) -> Result<bool, Problem>,
    ) -> Result<bool, Problem> {
        let until = self.limit(limit_ms);
        loop {
            if done(self)? {
                return Ok(true);
            }
            if self.gone || until.is_over(self.cx.now_ns()) {
                return Ok(false);
            }
            self.step(until)?;
        }
    }

    /// Sleeps until a ring of the session has something for the client.
    fn wait(
        &mut self,
        session: SessionNumber,
        limit_ms: u32,
        arm: fn(&mut ClientSession) -> Result<bool, Problem>,
    ) -> Result<Woken, Problem> {
        let late = self.limit(LATE_MS);
        let until = self.limit(limit_ms);
        loop {
            let client = self.session(session)?;
            client.to_client.clear();
            if arm(client)? {
                let watched = self.sound && self.device.has_virtual_time();
                if watched && late.is_over(self.cx.now_ns()) {
                    let text = format!("took more than {LATE_MS} ms: a lost interrupt");
                    return Err(Problem::Failed(text));
                }
                return Ok(Woken::Answer);
            }
            let bell = client.to_client.clone();
            while !bell.is_rung() {
                if self.gone {
                    return Ok(Woken::Gone);
                }
                if until.is_over(self.cx.now_ns()) {
                    return Ok(Woken::Limit);
                }
                self.step(until)?;
            }
        }
    }
}

/// What the parts of a frame say of it.
fn arrived(parts: &[Received]) -> Arrived {
    let first = parts.first().copied().unwrap_or_default();
    let piece = |part: &Received| Piece {
        token: part.id,
        length: part.length,
        prefix: part.prefix[..usize::from(part.prefix_length).min(PREFIX_MAX)].to_vec(),
    };
    Arrived {
        pieces: parts.iter().map(piece).collect(),
        // A later part has one where the rest of the frame was lost.
        status: Status(parts.iter().map(|part| part.status).max().unwrap_or(0)),
        checksum: match first.flags {
            flags if flags & rx_flags::CHECKSUM_PARTIAL != 0 => RxChecksum::Partial(Sum {
                start: first.checksum_start,
                offset: first.checksum_offset,
            }),
            flags if flags & rx_flags::CHECKSUM_VALID != 0 => RxChecksum::Valid,
            _ => RxChecksum::Unchecked,
        },
        joined: (first.segmentation != 0)
            .then_some((Segmentation(first.segmentation), first.segment_size)),
    }
}

impl<D: NetDevice + 'static, B: Device> Nic for HostNic<D, B> {
    fn info(&mut self) -> Result<NetInfo, Problem> {
        Ok(self.supervisor.net_info(D::MANIFEST.name()))
    }

    fn promise(&self) -> Promise {
        self.device.promise()
    }

    fn counters(&mut self) -> Result<NetCounters, Problem> {
        Ok(self.supervisor.counters())
    }

    fn open_session(&mut self, queue: u16, rx: u16, tx: u16) -> Result<SessionNumber, Problem> {
        let depth = |depth: u16| depth.clamp(1, DEPTH_MAX).next_power_of_two();
        let depths = (depth(rx), depth(tx));
        let at = RingOffsets::of(depths.0, depths.1).map_err(ring)?;
        let memory = HeapMemory::new(at.len);
        let queue = usize::from(queue);
        let thread = self
            .threads
            .get(queue)
            .ok_or_else(|| Problem::Failed(format!("there is no queue {queue}")))?;
        let to_driver = ToDriver::new(&thread.queue);
        let to_client = ToClient::default();
        let number = self.sessions.len();
        let id = number as u32;
        let session = Session::new(
            id,
            depths,
            memory.clone(),
            Box::new(to_driver.clone()),
            Box::new(to_client.clone()),
        );
        self.supervisor
            .open(queue, Box::new(session.map_err(ring)?))
            .map_err(driver("opening a session"))?;
        let (rx, tx) = (u32::from(depths.0), u32::from(depths.1));
        self.sessions.push(ClientSession {
            id,
            queue,
            depths,
            provided: 0,
            fragments: 0,
            free: Producer::new(memory.clone(), 0, rx).map_err(ring)?,
            received: Consumer::new(memory.clone(), at.received, rx).map_err(ring)?,
            transmit: Producer::new(memory.clone(), at.transmit, tx).map_err(ring)?,
            sent: Consumer::new(memory, at.sent, tx).map_err(ring)?,
            to_driver,
            to_client,
            buffers: Vec::new(),
            partial: Vec::new(),
            ended: false,
        });
        Ok(number)
    }

    fn depths(&self, session: SessionNumber) -> (u16, u16) {
        self.sessions.get(session).map_or((0, 0), |s| s.depths)
    }

    fn close_session(&mut self, session: SessionNumber) -> Result<(), Problem> {
        let client = self.session(session)?;
        let (id, queue) = (client.id, client.queue);
        self.supervisor
            .send(queue, Command::Close(id))
            .map_err(system("ending a session"))?;
        let ended = self.step_until(REMOVAL_LIMIT_MS, |nic| Ok(nic.session(session)?.ended))?;
        if !ended {
            return Err(Problem::failed("a session does not end"));
        }
        let buffers = std::mem::take(&mut self.session(session)?.buffers);
        if buffers.iter().flatten().any(|payload| payload.is_pinned()) {
            return Err(Problem::failed("a buffer of an ended session is pinned"));
        }
        Ok(())
    }

    fn register(
        &mut self,
        session: SessionNumber,
        len: usize,
        access: Access,
    ) -> Result<u16, Problem> {
        let access = match access {
            Access::DeviceReads => DeviceAccess::Reads,
            Access::DeviceWrites => DeviceAccess::Writes,
            Access::Both => DeviceAccess::Both,
        };
        let (buffer, payload) = self.device.payload(len.div_ceil(PAGE), access)?;
        let client = self.session(session)?;
        let (id, queue) = (client.id, client.queue);
        let free = client.buffers.iter().position(Option::is_none);
        let slot = free.unwrap_or(client.buffers.len());
        if slot >= usize::from(BUFFERS_MAX) {
            return Err(Problem::failed("too many buffers"));
        }
        if slot == client.buffers.len() {
            client.buffers.push(None);
        }
        client.buffers[slot] = Some(payload);
        self.supervisor
            .send(queue, Command::AddBuffer(id, slot as u16, buffer))
            .map_err(system("registering a buffer"))?;
        Ok(slot as u16)
    }

    fn unregister(&mut self, session: SessionNumber, slot: u16) -> Result<(), Problem> {
        /// Not answered yet.
        const PENDING: u32 = 2;
        let client = self.session(session)?;
        let (id, queue) = (client.id, client.queue);
        let entry = client.buffers.get(usize::from(slot));
        if entry.is_none_or(Option::is_none) {
            return Err(Problem::Failed(format!(
                "there is no buffer in slot {slot}"
            )));
        }
        let answer = Arc::new(AtomicU32::new(PENDING));
        let answered = answer.clone();
        let done = move |removed| answered.store(u32::from(removed), Ordering::Relaxed);
        self.supervisor
            .send(queue, Command::RemoveBuffer(id, slot, Box::new(done)))
            .map_err(system("removing a buffer"))?;
        let seen = answer.clone();
        let is_answered = move |_: &mut Self| Ok(seen.load(Ordering::Relaxed) != PENDING);
        if !self.step_until(REMOVAL_LIMIT_MS, is_answered)? && !self.gone {
            return Err(Problem::failed("a buffer is in use without end"));
        }
        let pinned = self.buffer(session, slot)?.is_pinned();
        match answer.load(Ordering::Relaxed) {
            1 if pinned => Err(Problem::failed("a buffer that was removed is pinned")),
            0 => Err(Problem::failed("a buffer that was registered is not known")),
            _ => Ok(()),
        }
    }

    fn put(
        &mut self,
        session: SessionNumber,
        slot: u16,
        offset: usize,
        bytes: &[u8],
    ) -> Result<(), Problem> {
        self.buffer(session, slot)?.write(offset, bytes);
        Ok(())
    }

    fn get(
        &self,
        session: SessionNumber,
        slot: u16,
        offset: usize,
        into: &mut [u8],
    ) -> Result<(), Problem> {
        self.buffer(session, slot)?.read(offset, into);
        Ok(())
    }

    fn provide(
        &mut self,
        session: SessionNumber,
        part: &Part,
        token: u32,
    ) -> Result<bool, Problem> {
        let client = self.session(session)?;
        if client.provided >= client.depths.0 {
            return Ok(false);
        }
        let entry = RxBuffer {
            id: token,
            offset: part.offset,
            length: part.length,
            slot: part.slot,
            reserved: 0,
        };
        client.free.push(&entry).map_err(ring)?;
        client.provided += 1;
        Ok(true)
    }

    fn transmit(
        &mut self,
        session: SessionNumber,
        parts: &[Part],
        sum: Option<Sum>,
        cut: Option<Cut>,
        token: u32,
    ) -> Result<bool, Problem> {
        let client = self.session(session)?;
        let room = usize::from(client.depths.1 - client.fragments);
        if parts.len() > room {
            return Ok(false);
        }
        for (n, part) in parts.iter().enumerate() {
            let more = n + 1 < parts.len();
            let mut entry = Transmit {
                id: token,
                offset: part.offset,
                length: part.length,
                slot: part.slot,
                flags: if more { tx_flags::MORE } else { 0 },
                ..Transmit::default()
            };
            if let (0, Some(sum)) = (n, sum) {
                entry.flags |= tx_flags::CHECKSUM;
                entry.checksum_start = sum.start;
                entry.checksum_offset = sum.offset;
            }
            if let (0, Some(cut)) = (n, cut) {
                entry.segmentation = cut.kind.0;
                entry.segment_size = cut.size;
                entry.header_length = cut.header_length;
            }
            client.transmit.push(&entry).map_err(ring)?;
        }
        client.fragments += parts.len() as u16;
        Ok(true)
    }

    fn kick(&mut self, session: SessionNumber) -> Result<(), Problem> {
        let client = self.session(session)?;
        let provided = client.free.publish();
        if client.transmit.publish() | provided {
            client.to_driver.ring();
        }
        Ok(())
    }

    fn received(&mut self, session: SessionNumber) -> Result<Option<Arrived>, Problem> {
        let client = self.session(session)?;
        while let Some(entry) = client.received.pop().map_err(ring)? {
            // One too many is the suite's to notice.
            client.provided = client.provided.saturating_sub(1);
            client.partial.push(entry);
            if entry.flags & rx_flags::MORE == 0 {
                return Ok(Some(arrived(&std::mem::take(&mut client.partial))));
            }
        }
        Ok(None)
    }

    fn sent(&mut self, session: SessionNumber) -> Result<Option<(u32, Status)>, Problem> {
        let client = self.session(session)?;
        let Some(entry) = client.sent.pop().map_err(ring)? else {
            return Ok(None);
        };
        client.fragments = client.fragments.saturating_sub(entry.fragments);
        Ok(Some((entry.id, Status(entry.status))))
    }

    fn wait_received(&mut self, session: SessionNumber, limit_ms: u32) -> Result<Woken, Problem> {
        self.wait(session, limit_ms, |client| {
            client.received.arm().map_err(ring)
        })
    }

    fn wait_sent(&mut self, session: SessionNumber, limit_ms: u32) -> Result<Woken, Problem> {
        self.wait(session, limit_ms, |client| client.sent.arm().map_err(ring))
    }

    fn pause(&mut self, ms: u32) -> Result<Woken, Problem> {
        self.step_until(ms, |_| Ok(false))?;
        Ok(if self.gone { Woken::Gone } else { Woken::Limit })
    }

    fn settle(&mut self) -> Result<(), Problem> {
        if self.device.has_virtual_time() {
            self.step_until(SETTLE_MS, |_| Ok(false))?;
        }
        Ok(())
    }

    fn set_receive_mode(
        &mut self,
        mode: ReceiveMode,
        groups: &[MacAddress],
    ) -> Result<(), Problem> {
        let set = self.supervisor.set_receive_mode(mode, groups);
        set.map_err(driver("receive mode"))
    }

    fn set_mac(&mut self, mac: MacAddress) -> Result<bool, Problem> {
        match self.supervisor.set_mac(mac) {
            Ok(()) => Ok(true),
            Err(DriverError::Unsupported { .. }) => Ok(false),
            Err(error) => Err(driver("hardware address")(error)),
        }
    }

    fn set_receive_offloads(&mut self, offloads: Offloads) -> Result<(), Problem> {
        let set = self.supervisor.set_receive_offloads(offloads);
        set.map_err(driver("receive offloads"))
    }

    fn reset(&mut self) -> Result<(), Problem> {
        self.supervisor.reset_device();
        Ok(())
    }

    fn set_link(&mut self, link: Wired) -> Result<(), Problem> {
        self.device.set_link(link)
    }

    fn fault(&mut self, fault: Fault) -> Result<(), Problem> {
        self.sound &= fault == Fault::None;
        self.device.fault(fault)
    }

    fn lies(&self) -> &'static [&'static str] {
        self.device.lies()
    }

    fn wire_send(&mut self, frame: &[u8]) -> Result<(), Problem> {
        self.device.wire_send(frame)
    }

    fn wire_send_joined(&mut self, frame: &[u8], cut: &Cut, sum: &Sum) -> Result<(), Problem> {
        self.settle()?;
        self.device.wire_send_joined(frame, cut, sum)
    }

    fn wire_next(&mut self, limit_ms: u32) -> Result<Option<Vec<u8>>, Problem> {
        let mut seen = None;
        self.step_until(limit_ms, |nic| {
            seen = nic.device.wire_next()?;
            Ok(seen.is_some())
        })?;
        Ok(seen)
    }

    fn close(mut self: Box<Self>) -> Result<(), Problem> {
        if self.gone {
            // The process ends without touching anything: the system fences the device.
            let HostNic { mut device, .. } = *self;
            return device.finish(Ended::GivenUp);
        }
        // What is still under way finds its end before the driver does.
        let until = self.limit(STEP_MS);
        while self.broken.is_none() && !until.is_over(self.cx.now_ns()) {
            self.step(until)?;
        }
        self.supervisor.stop(StopReason::Requested);
        let HostNic {
            mut device,
            gateway,
            cx,
            supervisor,
            threads,
            changes,
            sessions,
            ..
        } = *self;
        drop((threads, supervisor, sessions, changes, cx, gateway));
        device.finish(Ended::Stopped)
    }
}
