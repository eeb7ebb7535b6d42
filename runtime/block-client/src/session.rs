//! A session: rings, doorbells, buffers, the ledger.

use endpoint_client::{Buffers, Registered};
use ipc::CallError;
use proto::block::{
    BlockEndpointClient, BlockSessionClient, BufferAccess, Completion, SessionInfo, Status,
    Submission,
};
use proto::devmgr::Complaint;
use ring::{Consumer, Layout, Producer};
use sys::{
    AsHandle, Channel, Deadline, Event, Handle, MapAccess, Mapping, Packet, Port, SharedMapping,
    Signals, Vmo, Watch,
};

use crate::patience::Patience;
use crate::recovery::{CALL_LIMIT, Recovery};
use crate::{Buffer, Disk, Done, Ledger, Request, SessionError};

const KEY_COMPLETED: u64 = 1;
const KEY_CLOSED: u64 = 2;
const KEY_OTHER: u64 = 3;

/// The session's side of one incarnation of the driver.
pub(crate) struct Connection {
    control: BlockSessionClient,
    info: SessionInfo,
    submissions: Producer<Submission, SharedMapping>,
    completions: Consumer<Completion, SharedMapping>,
    submitted: Event,
    completed: Event,
}

/// A queue of requests to a disk. Not for several threads: each opens its own.
pub struct Session {
    pub(crate) connection: Connection,
    pub(crate) ledger: Ledger,
    pub(crate) buffers: Buffers,
    /// Made at the first wait: one who uses an executor needs none.
    pub(crate) port: Option<Port>,
    /// What else ends a wait.
    others: alloc::vec::Vec<(Handle, Signals)>,
    /// The driver of this connection is gone, or of no use.
    pub(crate) closed: bool,
    /// The driver of this connection broke the protocol or fell silent: nothing of it is looked at any more.
    pub(crate) given_up: bool,
    /// When it is taken to be silent.
    pub(crate) patience: Patience,
    #[cfg(feature = "control-no-replay")]
    pub(crate) forgotten: alloc::vec::Vec<crate::Entry>,
    /// What it takes to go on after the driver's death; `None` for a disk without a name.
    pub(crate) recovery: Option<Recovery>,
    max_transfer: u32,
}

impl Connection {
    pub(crate) fn open(
        endpoint: &BlockEndpointClient,
        depth: u16,
        cpu: Option<u32>,
    ) -> Result<Connection, SessionError> {
        let cpu = cpu.unwrap_or(u32::MAX);
        let (info, session, rings, submitted, completed) = endpoint.open_session(depth, cpu)?;
        let at = info.completion_offset as usize;
        let completions_len = Layout::of::<Completion>(info.depth.into())?.size_bytes();
        let len = at
            .checked_add(completions_len)
            .ok_or(SessionError::Corrupt)?;
        let memory = SharedMapping::new(Mapping::map(&rings, 0, len, MapAccess::ReadWrite)?);
        Ok(Connection {
            control: BlockSessionClient::new(session).with_timeout(CALL_LIMIT),
            submissions: Producer::new(memory.clone(), 0, info.depth.into())?,
            completions: Consumer::new(memory, at, info.depth.into())?,
            submitted,
            completed,
            info,
        })
    }

    pub(crate) fn info(&self) -> &SessionInfo {
        &self.info
    }

    /// Registers a buffer with the driver.
    pub(crate) fn register(&self, buffer: &Registered) -> Result<(), SessionError> {
        let vmo = buffer.handle()?;
        let Registered { slot, access, .. } = *buffer;
        Ok(self
            .control
            .register_buffer(slot, access, buffer.offset, buffer.length, vmo)?)
    }

    #[inline]
    pub(crate) fn push(&mut self, submission: &Submission) -> Result<(), SessionError> {
        Ok(self.submissions.push(submission)?)
    }

    #[inline]
    pub(crate) fn kick(&mut self) -> Result<(), SessionError> {
        if self.submissions.publish() {
            self.submitted.ring()?;
        }
        Ok(())
    }

    /// Completions that were not polled yet.
    pub(crate) fn available(&mut self) -> Result<usize, SessionError> {
        Ok(self.completions.available()? as usize)
    }
}

impl Session {
    pub(crate) fn open(disk: &Disk, depth: u16, cpu: Option<u32>) -> Result<Session, SessionError> {
        let connection = Connection::open(disk.endpoint(), depth, cpu)?;
        Ok(Session {
            ledger: Ledger::new(connection.info.depth, connection.info.epoch),
            connection,
            buffers: Buffers::default(),
            port: None,
            others: alloc::vec::Vec::new(),
            closed: false,
            given_up: false,
            patience: Patience::default(),
            #[cfg(feature = "control-no-replay")]
            forgotten: alloc::vec::Vec::new(),
            recovery: Recovery::of(disk, cpu)?,
            max_transfer: disk.info().max_transfer,
        })
    }

    /// What the driver said of the session.
    pub fn info(&self) -> &SessionInfo {
        &self.connection.info
    }

    /// Most requests in flight.
    pub fn depth(&self) -> usize {
        self.connection.info.depth.into()
    }

    /// Longest read or write in bytes.
    pub fn max_transfer(&self) -> u32 {
        self.max_transfer
    }

    /// What is in flight.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Registers a part of a VMO (whole pages) as a buffer. The driver gets a handle that can be pinned and
    /// not mapped; `vmo` needs the rights DUPLICATE, TRANSFER, PIN, and READ or WRITE as the device needs.
    ///
    /// # Errors
    /// When all slots are in use, or the driver or the system refuses.
    pub fn register(
        &mut self,
        vmo: &Vmo,
        offset: u64,
        length: u64,
        access: BufferAccess,
    ) -> Result<Buffer, SessionError> {
        let added = self.buffers.add(vmo, offset, length, access)?;
        let buffer = added.ok_or(SessionError::Full)?;
        let slot = buffer.slot;
        if let Err(error) = self.connection.register(buffer) {
            self.buffers.remove(slot);
            return Err(error);
        }
        Ok(Buffer(slot))
    }

    /// Ends the use of a buffer, once no request uses it. Afterwards its pages are not pinned any more.
    ///
    /// # Errors
    /// When it is not registered.
    pub fn unregister(&mut self, buffer: Buffer) -> Result<(), SessionError> {
        match self.connection.control.unregister_buffer(buffer.0) {
            Ok(()) => {}
            // Its pins went with the driver.
            Err(CallError::ServerDied { .. }) if self.recovery.is_some() => {}
            Err(error) => return Err(error.into()),
        }
        self.buffers.remove(buffer.0);
        Ok(())
    }

    /// Queues a request. The driver sees it with [`Session::kick`]; `token` comes back with the completion.
    ///
    /// # Errors
    /// [`SessionError::Full`]: poll completions first.
    #[inline]
    pub fn submit(&mut self, request: &Request, token: u64) -> Result<(), SessionError> {
        let id = self.ledger.add(*request, token)?;
        if self.given_up {
            // The next incarnation gets it with all the others.
            return Ok(());
        }
        // The ledger has as many entries as the ring, so the ring has room unless the driver broke it.
        match self.connection.push(&request.submission(id)) {
            Ok(()) => Ok(()),
            Err(error) => self.broken(error).inspect_err(|_| {
                let _ = self.ledger.remove(id);
            }),
        }
    }

    /// Shows the driver what was queued, and wakes it if it sleeps.
    ///
    /// # Errors
    /// When its doorbell is gone.
    #[inline]
    pub fn kick(&mut self) -> Result<(), SessionError> {
        if self.given_up {
            return Ok(());
        }
        match self.connection.kick() {
            Ok(()) => Ok(()),
            Err(error) => self.broken(error),
        }
    }

    /// The next completion that is there. With a named disk a request that the device did not answer, so
    /// that it had to be reset, is given to it again a few times first; and a driver that breaks the
    /// protocol is complained of, and its successor is waited for by [`Session::wait`].
    ///
    /// # Errors
    /// [`SessionError::Corrupt`] when the driver breaks the protocol and the disk has no name.
    #[inline]
    pub fn poll(&mut self) -> Result<Option<Done>, SessionError> {
        match self.next_done() {
            Ok(done) => Ok(done),
            Err(error) => self.broken(error).map(|()| None),
        }
    }

    #[inline]
    fn next_done(&mut self) -> Result<Option<Done>, SessionError> {
        #[cfg(feature = "control-no-replay")]
        if let Some(entry) = self.forgotten.pop() {
            return Ok(Some(Done {
                token: entry.token,
                request: entry.request,
                status: Status::OK,
            }));
        }
        loop {
            if self.given_up {
                return Ok(None);
            }
            let Some(completion) = self.connection.completions.pop()? else {
                return Ok(None);
            };
            let entry = self.ledger.remove(completion.id)?;
            let status = Status(completion.status);
            let whole = completion.length == entry.request.length;
            if status == Status::OK && !whole {
                // It was not answered: somebody has to do it.
                self.ledger.put_again(entry)?;
                return Err(SessionError::Corrupt);
            }
            if status == Status::TIMED_OUT && self.repeat(&entry)? {
                continue;
            }
            return Ok(Some(Done {
                token: entry.token,
                request: entry.request,
                status,
            }));
        }
    }

    /// Asks for the event to be rung with the next completion. `true`: there is one already, poll again.
    ///
    /// # Errors
    /// As [`Session::poll`].
    #[inline]
    pub fn arm(&mut self) -> Result<bool, SessionError> {
        if self.given_up {
            return Ok(false);
        }
        match self.connection.completions.arm() {
            Ok(more) => Ok(more),
            Err(error) => self.broken(error.into()).map(|()| false),
        }
    }

    /// The event that is rung with a completion after [`Session::arm`]: `SIGNALED`, a new edge each time.
    pub fn completed_event(&self) -> &Event {
        &self.connection.completed
    }

    /// The session's channel: `PEER_CLOSED` when the driver is gone.
    pub fn channel(&self) -> &Channel {
        self.connection.control.channel()
    }

    /// Sleeps until there is a completion to poll. May return early. When the driver died and the disk is
    /// a named one, it connects to the next incarnation and gives it what was in flight.
    ///
    /// # Errors
    /// [`SessionError::TimedOut`], or [`SessionError::Closed`] when the driver is gone for good.
    pub fn wait(&mut self, deadline: Deadline) -> Result<(), SessionError> {
        if self.arm()? {
            return Ok(());
        }
        if self.closed {
            return self.recover(deadline);
        }
        let limit = match self.patience.limit(&self.ledger) {
            Some(limit) if self.recovery.is_some() => limit,
            _ => Deadline::FOREVER,
        };
        if limit.has_passed() {
            self.complain(Complaint::Silent);
            return self.recover(deadline);
        }
        let port = match self.port.take() {
            Some(port) => port,
            None => self.watch()?,
        };
        let mut packets = [Packet::default(); 2];
        let count = match port.wait(&mut packets, deadline.min(limit)) {
            // The next call finds the driver silent.
            Err(sys::Error::TimedOut) if limit < deadline => Ok(0),
            other => other,
        };
        self.port = Some(port);
        self.closed = packets.iter().take(count?).any(|p| p.key == KEY_CLOSED);
        if !self.closed {
            return Ok(());
        }
        // What the driver completed before it went counts.
        match self.connection.available() {
            Ok(0) => self.recover(deadline),
            Ok(_) => Ok(()),
            Err(error) => self.broken(error),
        }
    }

    /// [`Session::wait`] also returns when one of `signals` of this object goes from clear to set: for a thread that
    /// serves somebody else beside the disk.
    pub fn also_wait_for(&mut self, handle: Handle, signals: Signals) {
        self.others.push((handle, signals));
        // Made anew with the next wait.
        self.port = None;
    }

    fn watch(&self) -> Result<Port, SessionError> {
        let port = Port::create()?;
        self.connection.completed.wait_async(
            &port,
            KEY_COMPLETED,
            Signals::SIGNALED,
            Watch::Persistent,
        )?;
        self.channel()
            .wait_async(&port, KEY_CLOSED, Signals::PEER_CLOSED, Watch::Persistent)?;
        for (handle, signals) in &self.others {
            handle.wait_async(&port, KEY_OTHER, *signals, Watch::Persistent)?;
        }
        Ok(port)
    }

    /// Runs one request to its end, with nothing else in flight.
    ///
    /// # Errors
    /// [`SessionError::Refused`] with the driver's status, or why there is no answer.
    pub fn run(&mut self, request: &Request, deadline: Deadline) -> Result<(), SessionError> {
        if !self.ledger.is_empty() {
            return Err(SessionError::Full);
        }
        self.submit(request, 0)?;
        self.kick()?;
        loop {
            if let Some(done) = self.poll()? {
                return done.outcome();
            }
            self.wait(deadline)?;
        }
    }
}

impl core::fmt::Debug for Session {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(
            f,
            "Session {{ {:?}, in flight: {} }}",
            self.connection.info,
            self.ledger.len()
        )
    }
}
