//! Going on after the driver's death.

use core::time::Duration;

use endpoint_client::{Buffers, EndpointName};
use proto::block::{BlockEndpointClient, BlockError, BlockInfo};
use sys::{AsHandle, Deadline};

use crate::disk::checked;
use crate::ledger::{Entry, Repeat};
use crate::session::Connection;
use crate::{Disk, Session, SessionError};

/// How often a request is given to a device that does not answer it: the first time, and after each reset.
const ATTEMPTS_MAX: u8 = 3;
/// Time for the new incarnation to answer one call.
const CALL_LIMIT: Duration = Duration::from_secs(10);

/// What a session keeps for its driver's successor.
pub(crate) struct Recovery {
    name: EndpointName,
    endpoint: BlockEndpointClient,
    /// What the disk was like.
    disk: BlockInfo,
    cpu: Option<u32>,
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
        }))
    }

    /// The endpoint of a later incarnation than `after`, with that incarnation's epoch.
    fn next(
        &self,
        after: u32,
        deadline: Deadline,
    ) -> Result<(u32, BlockEndpointClient), SessionError> {
        let (epoch, endpoint) = self.name.next(after, deadline)?;
        let endpoint = BlockEndpointClient::new(endpoint).with_timeout(CALL_LIMIT);
        Ok((epoch, endpoint))
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

/// Whether the incarnation that failed so is gone itself.
fn is_gone(error: SessionError) -> bool {
    matches!(
        error,
        SessionError::Closed | SessionError::Control(BlockError::Gone)
    )
}

impl Session {
    /// Connects to the next incarnation of a driver that died, registers the buffers with it, and gives it
    /// what was in flight, in the order of submission. Does nothing while there are completions to poll:
    /// they count. Watches of [`Session::completed_event`] and [`Session::channel`] are to be made anew
    /// afterwards.
    ///
    /// # Errors
    /// [`SessionError::Closed`] when there will be none, or the driver ended the session and lives;
    /// [`SessionError::OtherDisk`]; [`SessionError::TimedOut`]. What was in flight stays in the ledger.
    pub fn recover(&mut self, deadline: Deadline) -> Result<(), SessionError> {
        let Some(recovery) = &mut self.recovery else {
            return Err(SessionError::Closed);
        };
        if self.connection.available()? > 0 {
            self.closed = true;
            return Ok(());
        }
        // One that answers has ended this session, and has its reasons.
        if recovery.endpoint.info().is_ok() {
            return Err(SessionError::Closed);
        }
        let mut after = self.connection.info().epoch;
        let (endpoint, connection) = loop {
            let (epoch, endpoint) = recovery.next(after, deadline)?;
            after = epoch;
            let depth = self.connection.info().depth;
            match connect(recovery, &self.buffers, &endpoint, depth) {
                Ok(connection) => break (endpoint, connection),
                // It died as well: on to its successor.
                Err(error) if is_gone(error) => {}
                Err(error) => return Err(error),
            }
        };
        recovery.endpoint = endpoint;
        self.connection = connection;
        self.port = None;
        self.closed = false;
        for (id, request) in self.ledger.renew(self.connection.info().epoch) {
            self.connection.push(&request.submission(id))?;
        }
        self.connection.kick()
    }

    /// Gives a request to the device again that it did not answer; `false` when that is not to be done.
    #[cold]
    pub(crate) fn repeat(&mut self, entry: &Entry) -> Result<bool, SessionError> {
        let tried = entry.attempts.saturating_add(1);
        let again =
            self.recovery.is_some() && entry.repeat() == Repeat::Idempotent && tried < ATTEMPTS_MAX;
        if again {
            let id = self.ledger.put_again(*entry)?;
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
