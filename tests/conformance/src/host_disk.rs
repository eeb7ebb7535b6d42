//! A disk at a home on the host: the driver under the class layer, all of it in one thread.
//!
//! A worker runs only when its thread on the microkernel would: once at its start, and then when an event
//! came for it. A client looks for answers only when its doorbell rang. So a lost wake-up shows as it does
//! in a real system, as a request without an answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use ddk::{
    Deadline, DeviceAccess, DeviceContext, DriverError, EventQueue, PAGE, PlatformError,
    StopReason, block_on,
};
use ddk_class_block::{
    BlockDevice, Command, DiskInfo, Extent, Session, Supervisor, Verdict, Worker,
};
use ddk_class_core::Doorbell;
use ddk_conformance_block::{
    Access, Answer, BlockInfo, Disk, Fault, Problem, Promise, Request, SessionNumber, Status, Woken,
};
use proto::block::{BUFFERS_MAX, Completion, DEPTH_MAX, Submission};
use ring::{Consumer, HeapMemory, Layout, Producer};

use crate::device::{Device, Ended, Payload};
use crate::doorbell::{ToClient, ToDriver};
use crate::gateway::{Gateway, Queue, Watched};

/// How long the adapter sleeps at most before it looks at everything again, in milliseconds.
const STEP_MS: u32 = 1;
/// Longest that the end of a buffer's use may take, in milliseconds.
const REMOVAL_LIMIT_MS: u32 = 60_000;
/// Longest that a suspension may take, in milliseconds.
const SUSPENSION_LIMIT_MS: u32 = 60_000;
/// Longest that a model that keeps the rules lets a client wait, in milliseconds of its own time. The class
/// layer's watchdog looks once a second: an answer that comes only then came without its interrupt.
const LATE_MS: u32 = 500;
/// Key of the device's announcements of changes.
const KEY_CHANGES: u64 = 1;

/// The client's half of a session.
struct ClientSession {
    queue: usize,
    depth: u16,
    outstanding: u16,
    submissions: Producer<Submission, HeapMemory>,
    completions: Consumer<Completion, HeapMemory>,
    submitted: ToDriver,
    completed: ToClient,
    buffers: Vec<Option<Box<dyn Payload>>>,
}

struct Thread<Q, M> {
    worker: Worker<Q, M>,
    queue: Arc<Watched>,
    asleep: bool,
}

/// See the module.
pub struct HostDisk<D: BlockDevice, B> {
    device: B,
    gateway: Arc<Gateway>,
    cx: DeviceContext,
    supervisor: Supervisor<D, HeapMemory>,
    threads: Vec<Thread<D::Queue, HeapMemory>>,
    changes: Queue,
    sessions: Vec<ClientSession>,
    /// Number by which the driver knows the disk.
    unit: u32,
    /// What the driver said of it at the start.
    first_info: DiskInfo,
    /// Nothing was done to the device so far.
    sound: bool,
    gone: bool,
    /// What became of the last suspension.
    suspended: Option<Result<(), DriverError>>,
    broken: Option<String>,
}

fn system(what: &str) -> impl Fn(PlatformError) -> Problem + '_ {
    move |error| Problem::Failed(format!("{what}: {error}"))
}

impl<D: BlockDevice + 'static, B: Device> HostDisk<D, B> {
    /// Starts the driver on a device, to use disk number `index` of it.
    ///
    /// # Errors
    /// When it does not start.
    pub fn new(device: B, index: usize) -> Result<HostDisk<D, B>, Problem> {
        let platform = device
            .platform()
            .ok_or_else(|| Problem::failed("the device has no platform any more"))?;
        let gateway = Gateway::new(platform);
        let cx = DeviceContext::new(gateway.clone()).map_err(system("the driver's context"))?;
        let driver = block_on(&cx, D::start(cx.clone())).map_err(system("start of the driver"))?;
        let driver = driver.map_err(|error| Problem::Failed(format!("start: {error}")))?;
        gateway.take_queues();
        let (mut supervisor, workers) = Supervisor::new(cx.clone(), driver, Box::new(|| {}))
            .map_err(|error| Problem::Failed(format!("start of the class layer: {error}")))?;
        let threads: Vec<_> = workers
            .into_iter()
            .zip(gateway.take_queues())
            .map(|(worker, queue)| Thread {
                worker,
                queue,
                asleep: false,
            })
            .collect();
        let first_info = match supervisor.disks().get(index) {
            Some(disk) => disk.clone(),
            None => return Err(Problem::Failed(format!("the driver has no disk {index}"))),
        };
        let changes = gateway.queue().map_err(system("queue"))?;
        supervisor
            .bind_changes(&changes, KEY_CHANGES)
            .map_err(system("interrupt of changes"))?;
        Ok(HostDisk {
            device,
            gateway,
            cx,
            supervisor,
            threads,
            changes,
            sessions: Vec::new(),
            unit: first_info.unit,
            first_info,
            sound: true,
            gone: false,
            suspended: None,
            broken: None,
        })
    }

    /// The disk under test; nothing of it is left when the driver says that it is gone.
    fn disk(&self) -> Result<&DiskInfo, Problem> {
        let none = || Problem::Failed(format!("the driver has no disk {}", self.unit));
        self.supervisor.disk(self.unit).ok_or_else(none)
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
        let mut moved = false;
        for thread in &mut self.threads {
            if thread.asleep && !thread.queue.look(Deadline::NOW).map_err(system("events"))? {
                continue;
            }
            moved = true;
            thread
                .worker
                .turn(Deadline::NOW)
                .map_err(system("events of a worker"))?;
            thread.asleep = thread.queue.has_slept();
        }
        if self
            .changes
            .0
            .look(Deadline::NOW)
            .map_err(system("events"))?
        {
            let mut events = [ddk::Event::default(); 4];
            let _ = self.changes.wait(&mut events, Deadline::NOW);
            moved = true;
            if self.supervisor.changed().is_err() {
                self.gone = true;
            }
        }
        for verdict in self.supervisor.attend() {
            match verdict {
                Verdict::GiveUp(_) => self.gone = true,
                Verdict::Alive(_) => {}
                Verdict::Suspended(result) => self.suspended = Some(result),
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
        let deadline = if step.as_ns() < until.as_ns() {
            step
        } else {
            until
        };
        let longest = self.threads.first().map(|thread| &thread.queue);
        let queue = longest.unwrap_or(&self.changes.0);
        queue.look(deadline).map_err(system("events"))?;
        Ok(())
    }

    fn limit(&self, limit_ms: u32) -> Deadline {
        self.cx.deadline_in_ms(limit_ms)
    }
}

impl<D: BlockDevice + 'static, B: Device> Disk for HostDisk<D, B> {
    fn info(&self) -> BlockInfo {
        let disk = self.disk().unwrap_or(&self.first_info);
        BlockInfo {
            block_size: 1 << disk.block_shift,
            physical_block_size: disk.physical_block_size,
            block_count: disk.block_count,
            first_lba: 0,
            access: match disk.read_only {
                true => proto::block::Access::ReadOnly,
                false => proto::block::Access::ReadWrite,
            },
            max_transfer: disk.max_transfer,
            max_discard: disk.max_discard,
            max_write_zeroes: disk.max_write_zeroes,
            volatile_cache: disk.volatile_cache,
            queues: self.supervisor.queues() as u16,
            max_depth: DEPTH_MAX,
            serial: disk.serial.clone(),
            driver: D::MANIFEST.name().to_owned(),
            generation: self.supervisor.generation(),
        }
    }

    fn promise(&self) -> Promise {
        self.device.promise()
    }

    fn open_session(&mut self, depth: u16) -> Result<SessionNumber, Problem> {
        let depth = depth.clamp(1, DEPTH_MAX).next_power_of_two();
        let layout = |error| Problem::Failed(format!("rings: {error}"));
        let offset = Layout::of::<Submission>(depth.into())
            .map_err(layout)?
            .size_bytes();
        let completions = Layout::of::<Completion>(depth.into()).map_err(layout)?;
        let memory = HeapMemory::new(offset + completions.size_bytes());
        let queue = self.supervisor.choose_queue(None);
        let thread = self
            .threads
            .get(queue)
            .ok_or_else(|| Problem::Failed(format!("there is no queue {queue}")))?;
        let submitted = ToDriver::new(&thread.queue);
        let completed = ToClient::default();
        let extent = Extent::whole(self.disk()?);
        let number = self.sessions.len();
        let session = Session::new(
            number as u32,
            extent,
            depth,
            memory.clone(),
            offset,
            Box::new(submitted.clone()),
            Box::new(completed.clone()),
        );
        let session = session.map_err(layout)?;
        self.supervisor
            .send(queue, Command::Open(Box::new(session)))
            .map_err(system("opening a session"))?;
        self.sessions.push(ClientSession {
            queue,
            depth,
            outstanding: 0,
            submissions: Producer::new(memory.clone(), 0, depth.into()).map_err(layout)?,
            completions: Consumer::new(memory, offset, depth.into()).map_err(layout)?,
            submitted,
            completed,
            buffers: Vec::new(),
        });
        Ok(number)
    }

    fn depth(&self, session: SessionNumber) -> u16 {
        self.sessions.get(session).map_or(0, |s| s.depth)
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
        let queue = client.queue;
        let free = client.buffers.iter().position(Option::is_none);
        let slot = free.unwrap_or(client.buffers.len());
        if slot >= usize::from(BUFFERS_MAX) {
            return Err(Problem::failed("too many buffers"));
        }
        if slot == client.buffers.len() {
            client.buffers.push(None);
        }
        client.buffers[slot] = Some(payload);
        let command = Command::AddBuffer(session as u32, slot as u16, buffer);
        self.supervisor
            .send(queue, command)
            .map_err(system("registering a buffer"))?;
        Ok(slot as u16)
    }

    fn unregister(&mut self, session: SessionNumber, slot: u16) -> Result<(), Problem> {
        /// Not answered yet.
        const PENDING: u32 = 2;
        let client = self.session(session)?;
        let queue = client.queue;
        let entry = client.buffers.get_mut(usize::from(slot));
        let Some(payload) = entry.and_then(Option::take) else {
            return Err(Problem::Failed(format!(
                "there is no buffer in slot {slot}"
            )));
        };
        let answer = Arc::new(AtomicU32::new(PENDING));
        let answered = answer.clone();
        let done = move |removed| answered.store(u32::from(removed), Ordering::Relaxed);
        let command = Command::RemoveBuffer(session as u32, slot, Box::new(done));
        self.supervisor
            .send(queue, command)
            .map_err(system("removing a buffer"))?;
        let until = self.limit(REMOVAL_LIMIT_MS);
        while answer.load(Ordering::Relaxed) == PENDING && !self.gone {
            if until.is_over(self.cx.now_ns()) {
                return Err(Problem::failed("a buffer is in use without end"));
            }
            self.step(until)?;
        }
        match answer.load(Ordering::Relaxed) {
            1 if payload.is_pinned() => Err(Problem::failed("a buffer that was removed is pinned")),
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

    fn submit(
        &mut self,
        session: SessionNumber,
        request: &Request,
        token: u64,
    ) -> Result<bool, Problem> {
        let client = self.session(session)?;
        if client.outstanding >= client.depth {
            return Ok(false);
        }
        let submission = Submission {
            id: token,
            lba: request.lba,
            offset: request.offset,
            length: request.length,
            slot: request.slot,
            operation: request.operation as u8,
            flags: request.flags,
        };
        client
            .submissions
            .push(&submission)
            .map_err(|error| Problem::Failed(format!("ring of submissions: {error}")))?;
        client.outstanding += 1;
        Ok(true)
    }

    fn kick(&mut self, session: SessionNumber) -> Result<(), Problem> {
        let client = self.session(session)?;
        if client.submissions.publish() {
            client.submitted.ring();
        }
        Ok(())
    }

    fn poll(&mut self, session: SessionNumber) -> Result<Option<Answer>, Problem> {
        let client = self.session(session)?;
        let completion = client
            .completions
            .pop()
            .map_err(|error| Problem::Failed(format!("ring of completions: {error}")))?;
        let Some(completion) = completion else {
            return Ok(None);
        };
        // One too many is the suite's to notice.
        client.outstanding = client.outstanding.saturating_sub(1);
        Ok(Some(Answer {
            token: completion.id,
            status: Status(completion.status),
        }))
    }

    fn wait(&mut self, session: SessionNumber, limit_ms: u32) -> Result<Woken, Problem> {
        let until = self.limit(limit_ms);
        let late = self.limit(LATE_MS);
        loop {
            let ring = |error| Problem::Failed(format!("ring of completions: {error}"));
            let client = self.session(session)?;
            client.completed.clear();
            if client.completions.arm().map_err(ring)? {
                let watched = self.sound && self.device.has_virtual_time();
                if watched && late.is_over(self.cx.now_ns()) {
                    let text = format!("an answer took more than {LATE_MS} ms: a lost interrupt");
                    return Err(Problem::Failed(text));
                }
                return Ok(Woken::Answer);
            }
            let rung = client.completed.clone();
            while !rung.is_rung() {
                if self.gone {
                    let left = self.session(session)?.completions.available();
                    return Ok(match left.map_err(ring)? {
                        0 => Woken::Gone,
                        _ => Woken::Answer,
                    });
                }
                if until.is_over(self.cx.now_ns()) {
                    return Ok(Woken::Limit);
                }
                self.step(until)?;
            }
        }
    }

    fn reset(&mut self) -> Result<(), Problem> {
        self.supervisor.reset_device();
        Ok(())
    }

    fn suspend(&mut self) -> Result<(), Problem> {
        self.suspended = None;
        self.supervisor.suspend();
        let until = self.limit(SUSPENSION_LIMIT_MS);
        loop {
            match self.suspended.take() {
                Some(Ok(())) => return Ok(()),
                Some(Err(error)) => return Err(Problem::Failed(format!("suspension: {error}"))),
                None if self.gone || until.is_over(self.cx.now_ns()) => {
                    return Err(Problem::failed("the suspension does not end"));
                }
                None => self.step(until)?,
            }
        }
    }

    fn resume(&mut self) -> Result<(), Problem> {
        let resumed = self.supervisor.resume();
        resumed.map_err(|error| Problem::Failed(format!("resume: {error}")))
    }

    fn fault(&mut self, fault: Fault) -> Result<(), Problem> {
        self.sound &= fault == Fault::None;
        self.device.fault(fault)
    }

    fn lies(&self) -> &'static [&'static str] {
        self.device.lies()
    }

    fn medium(&mut self, lba: u64, into: &mut [u8]) -> Result<(), Problem> {
        self.device.medium(lba, into)
    }

    fn durable(&mut self, lba: u64, into: &mut [u8]) -> Result<(), Problem> {
        self.device.durable(lba, into)
    }

    fn close(mut self: Box<Self>) -> Result<(), Problem> {
        if self.gone {
            // The process ends without touching anything: the system fences the device.
            let HostDisk { mut device, .. } = *self;
            return device.finish(Ended::GivenUp);
        }
        // What is still under way finds its end before the driver does.
        let until = self.limit(STEP_MS);
        while self.broken.is_none() && !until.is_over(self.cx.now_ns()) {
            self.step(until)?;
        }
        self.supervisor.stop(StopReason::Requested);
        let HostDisk {
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
