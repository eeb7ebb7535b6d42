//! Going on after the driver's death.

use core::time::Duration;

use endpoint_client::{Buffers, EndpointName, Refusal};
use proto::block::{BlockEndpointClient, BlockError, BlockInfo};
use proto::devmgr::Complaint;
use sys::{AsHandle, Deadline};

use crate::disk::checked;
use crate::ledger::{Entry, Repeat};
use crate::session::Connection;
use crate::{Disk, Session, SessionError};

/// How often a request is given to a device that does not answer it: the first time, and after each reset.
const ATTEMPTS_MAX: u8 = 3;
/// Living drivers that end a session one after the other before the client believes them.
const REFUSALS_MAX: u8 = 3;
/// Time for a driver to answer one call.
pub(crate) const CALL_LIMIT: Duration = Duration::from_secs(10);

/// What a session keeps for its driver's successor.
pub(crate) struct Recovery {
    name: EndpointName,
    endpoint: BlockEndpointClient,
    /// What the disk was like.
    disk: BlockInfo,
    cpu: Option<u32>,
    /// Time for one call.
    call_limit: Duration,
    /// How many requests were answered when a living driver ended the session, and how often that was so.
    refused: (u64, u8),
}

impl Recovery {
    pub(crate) fn of(disk: &Disk, cpu: Option<u32>) -> Result<Option<Recovery>, SessionError> {
        let Some(name) = disk.name() else {
            return Ok(None);
        };
        let endpoint = disk.endpoint().channel().duplicate()?;
        Ok(Some(Recovery {
            name: name.duplicate()?,
            endpoint: BlockEndpointClient::new(endpoint).with_timeout(CALL_LIMIT),
            disk: disk.info().clone(),
            cpu,
            call_limit: CALL_LIMIT,
            refused: (0, 0),
        }))
    }

    /// Whether it is the disk that it was.
    fn is_same(&self, now: &BlockInfo) -> bool {
        let was = &self.disk;
        now.block_size == was.block_size
            && now.block_count >= was.block_count
            && now.first_lba == was.first_lba
            && now.serial == was.serial
            && now.access == was.access
            && now.max_transfer >= was.max_transfer
    }
}

/// What a failure to connect says of the incarnation.
fn refusal(error: SessionError) -> Refusal<SessionError> {
    match error {
        SessionError::Closed | SessionError::Control(BlockError::Gone) => Refusal::Gone,
        SessionError::System(_) => Refusal::Fatal(error),
        SessionError::TimedOut => Refusal::Useless(Complaint::Silent, error),
        SessionError::OtherDisk => Refusal::Useless(Complaint::OtherDevice, error),
        _ => Refusal::Useless(Complaint::Protocol, error),
    }
}

impl Session {
    /// Connects to the next incarnation of a driver that died, registers the buffers with it, and gives it
    /// what was in flight, in the order of submission. Does nothing while there are completions to poll:
    /// they count. Watches of [`Session::completed_event`] and [`Session::channel`] are to be made anew
    /// afterwards.
    ///
    /// # Errors
    /// [`SessionError::Closed`] when there will be none, or drivers end the session again and again;
    /// [`SessionError::OtherDisk`] when several in a row have one; [`SessionError::TimedOut`]. What was in flight stays in the ledger.
    pub fn recover(&mut self, deadline: Deadline) -> Result<(), SessionError> {
        let Some(recovery) = &mut self.recovery else {
            return Err(SessionError::Closed);
        };
        if !self.given_up && self.connection.available().is_ok_and(|n| n > 0) {
            self.closed = true;
            return Ok(());
        }
        let after = self.connection.info().epoch;
        // One that answers has ended this session. The client has done nothing to deserve it; but if its
        // successors do the same before anything was answered, they have their reasons.
        if !self.given_up && recovery.endpoint.info().is_ok() {
            let answered = self.ledger.answered();
            let (at, times) = recovery.refused;
            recovery.refused = (answered, if at == answered { times + 1 } else { 1 });
            if recovery.refused.1 > REFUSALS_MAX {
                return Err(SessionError::Closed);
            }
            recovery.name.complain(after, Complaint::Protocol);
        }
        let depth = self.connection.info().depth;
        let (_, (endpoint, connection)) = recovery.name.successor(after, deadline, |endpoint| {
            let endpoint = BlockEndpointClient::new(endpoint).with_timeout(recovery.call_limit);
            match connect(recovery, &self.buffers, &endpoint, depth) {
                Ok(connection) => Ok((endpoint, connection)),
                Err(error) => Err(refusal(error)),
            }
        })?;
        recovery.endpoint = endpoint;
        self.connection = connection;
        self.port = None;
        self.closed = false;
        self.given_up = false;
        self.patience.renew();
        let in_flight = self.ledger.renew(self.connection.info().epoch);
        #[cfg(feature = "control-no-replay")]
        let in_flight = self.forgotten(in_flight)?;
        for (id, request) in in_flight {
            self.connection.push(&request.submission(id))?;
        }
        self.connection.kick()
    }

    /// How long a request may be in flight before its driver is taken to be silent; the unit is a client's
    /// patience, so it may take up to twice as long. Without effect for a disk that has no name.
    pub fn set_patience(&mut self, time: Duration) {
        self.patience.allow(time);
        if let Some(recovery) = &mut self.recovery {
            recovery.call_limit = time.min(CALL_LIMIT);
        }
    }

    /// The driver is of no use: it is to be replaced. Nothing it does is looked at any more.
    #[cold]
    pub(crate) fn complain(&mut self, complaint: Complaint) {
        if let Some(recovery) = &self.recovery {
            recovery
                .name
                .complain(self.connection.info().epoch, complaint);
            self.closed = true;
            self.given_up = true;
        }
    }

    /// Something of the connection failed: a break of the protocol becomes a complaint where there is a name,
    /// anything else is the caller's.
    #[cold]
    pub(crate) fn broken(&mut self, error: SessionError) -> Result<(), SessionError> {
        if error != SessionError::Corrupt || self.recovery.is_none() {
            return Err(error);
        }
        self.complain(Complaint::Protocol);
        Ok(())
    }

    /// Negative control: what was in flight is answered as if it had been done.
    #[cfg(feature = "control-no-replay")]
    fn forgotten(
        &mut self,
        in_flight: alloc::vec::Vec<(u64, crate::Request)>,
    ) -> Result<alloc::vec::Vec<(u64, crate::Request)>, SessionError> {
        for (id, _) in in_flight {
            self.forgotten.push(self.ledger.remove(id)?);
        }
        Ok(alloc::vec::Vec::new())
    }

    /// Gives a request to the device again that it did not answer; `false` when that is not to be done.
    #[cold]
    pub(crate) fn repeat(&mut self, entry: &Entry) -> Result<bool, SessionError> {
        let tried = entry.attempts.saturating_add(1);
        let again =
            self.recovery.is_some() && entry.repeat() == Repeat::Idempotent && tried < ATTEMPTS_MAX;
        if again {
            let id = self.ledger.put_again(*entry)?;
            self.patience.renew();
            self.connection.push(&entry.request.submission(id))?;
            self.connection.kick()?;
        }
        Ok(again)
    }
}

fn connect(
    recovery: &Recovery,
    buffers: &Buffers,
    endpoint: &BlockEndpointClient,
    depth: u16,
) -> Result<Connection, SessionError> {
    if !recovery.is_same(&checked(endpoint.info()?)?) {
        return Err(SessionError::OtherDisk);
    }
    let connection = Connection::open(endpoint, depth, recovery.cpu)?;
    if connection.info().depth < depth {
        return Err(SessionError::OtherDisk);
    }
    for buffer in buffers.iter() {
        connection.register(buffer)?;
    }
    Ok(connection)
}
