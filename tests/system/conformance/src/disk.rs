//! A disk of the running system, through the client's half of the block protocol.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use block_client::{Buffer, Session, SessionError};
use ddk_conformance_block::{
    Access, Answer, BlockInfo, Disk, Problem, Promise, Request, SessionNumber, Shape, Woken,
};
use rt::{Deadline, Vmo};

use crate::Made;

/// Bytes of a page: buffers are whole pages.
const PAGE: usize = 4096;

struct OpenSession {
    session: Session,
    /// By slot, as the client numbers them.
    buffers: Vec<Option<(Buffer, Vmo)>>,
}

/// See the module.
pub struct SystemDisk<'m> {
    disk: block_client::Disk,
    made: &'m Made,
    serial: String,
    sessions: Vec<OpenSession>,
}

fn failed<E: core::fmt::Display>(what: &'static str) -> impl Fn(E) -> Problem {
    move |error| Problem::Failed(format!("{what}: {error}"))
}

impl<'m> SystemDisk<'m> {
    pub fn new(disk: block_client::Disk, made: &'m Made, serial: String) -> SystemDisk<'m> {
        SystemDisk {
            disk,
            made,
            serial,
            sessions: Vec::new(),
        }
    }

    fn session(&mut self, session: SessionNumber) -> Result<&mut OpenSession, Problem> {
        let none = || Problem::Failed(format!("there is no session {session}"));
        self.sessions.get_mut(session).ok_or_else(none)
    }

    fn memory(&self, session: SessionNumber, slot: u16) -> Result<&Vmo, Problem> {
        let buffers = self.sessions.get(session).map(|s| &s.buffers);
        match buffers.and_then(|buffers| buffers.get(usize::from(slot))) {
            Some(Some((_, vmo))) => Ok(vmo),
            _ => Err(Problem::Failed(format!(
                "there is no buffer in slot {slot}"
            ))),
        }
    }
}

impl Disk for SystemDisk<'_> {
    fn info(&self) -> BlockInfo {
        self.disk.info().clone()
    }

    fn promise(&self) -> Promise {
        let shape = self.made.shape;
        Promise {
            block_size: if shape == Shape::LargeBlocks {
                4096
            } else {
                512
            },
            block_count: self.made.blocks,
            read_only: shape == Shape::ReadOnly,
            // QEMU's NVMe does not tell that its cache is off.
            volatile_cache: (self.disk.info().driver != "nvme").then_some(shape != Shape::Odd),
            serial: Some(self.serial.clone()),
            discard_zeroes: false,
            damaged: self.made.damaged,
            stamped: self.made.untouched.get(),
        }
    }

    fn open_session(&mut self, depth: u16) -> Result<SessionNumber, Problem> {
        let session = self.disk.open_session(depth).map_err(failed("a session"))?;
        self.sessions.push(OpenSession {
            session,
            buffers: Vec::new(),
        });
        Ok(self.sessions.len() - 1)
    }

    fn depth(&self, session: SessionNumber) -> u16 {
        let session = self.sessions.get(session);
        session.map_or(0, |open| open.session.info().depth)
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
        let entry = open.buffers.get_mut(usize::from(slot));
        let Some((buffer, _vmo)) = entry.and_then(Option::take) else {
            return Err(Problem::Failed(format!(
                "there is no buffer in slot {slot}"
            )));
        };
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

    fn submit(
        &mut self,
        session: SessionNumber,
        request: &Request,
        token: u64,
    ) -> Result<bool, Problem> {
        if request.operation.modifies() && self.made.shape != Shape::ReadOnly {
            self.made.untouched.set(false);
        }
        let open = self.session(session)?;
        let buffer = match open.buffers.get(usize::from(request.slot)) {
            Some(Some((buffer, _))) => *buffer,
            _ => {
                return Err(Problem::not_offered(
                    "a client cannot name a buffer that it did not register",
                ));
            }
        };
        let request = block_client::Request {
            operation: request.operation,
            lba: request.lba,
            length: request.length,
            buffer,
            offset: request.offset,
            flags: request.flags,
        };
        match open.session.submit(&request, token) {
            Ok(()) => Ok(true),
            Err(SessionError::Full) => Ok(false),
            Err(error) => Err(failed("a request")(error)),
        }
    }

    fn kick(&mut self, session: SessionNumber) -> Result<(), Problem> {
        let open = self.session(session)?;
        open.session.kick().map_err(failed("the driver's doorbell"))
    }

    fn poll(&mut self, session: SessionNumber) -> Result<Option<Answer>, Problem> {
        let open = self.session(session)?;
        let done = open.session.poll().map_err(failed("an answer"))?;
        Ok(done.map(|done| Answer {
            token: done.token,
            status: done.status,
        }))
    }

    fn wait(&mut self, session: SessionNumber, limit_ms: u32) -> Result<Woken, Problem> {
        let open = self.session(session)?;
        let deadline = Deadline::after(Duration::from_millis(limit_ms.into()));
        loop {
            if open.session.arm().map_err(failed("waiting"))? {
                return Ok(Woken::Answer);
            }
            match open.session.wait(deadline) {
                // It may be early.
                Ok(()) => {}
                Err(SessionError::TimedOut) => return Ok(Woken::Limit),
                Err(SessionError::Closed) => return Ok(Woken::Gone),
                Err(error) => return Err(failed("waiting")(error)),
            }
        }
    }

    fn close(self: Box<Self>) -> Result<(), Problem> {
        Ok(())
    }
}
