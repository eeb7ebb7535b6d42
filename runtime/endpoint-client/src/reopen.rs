//! The next incarnation of a driver.

use core::time::Duration;

use ipc::{CallError, Channel};
use proto::devmgr::{Complaint, DevError, EndpointNameClient};
use sys::Deadline;

/// Longest wait for a driver, when its client sets no deadline.
const WAIT_MAX: Duration = Duration::from_secs(86400);

/// Why there is no next incarnation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReopenError {
    /// It will not come back, or not with this endpoint.
    Gone,
    /// The answer makes no sense.
    Corrupt,
    /// The deadline passed, or the system or the device manager ran out of something.
    System(sys::Error),
}

/// Drivers in a row that a client has no use of before it gives up: what each of them says must be so.
const USELESS_MAX: u8 = 3;
/// Time for the device manager to take a complaint.
const COMPLAINT_LIMIT: Duration = Duration::from_secs(10);

/// Why a client cannot connect to an incarnation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal<E> {
    /// It died as well; its successor may do.
    Gone,
    /// It lives and is of no use: it is complained of.
    Useless(Complaint, E),
    /// Its successors would not help: the client's own limits.
    Fatal(E),
}

/// The name of an endpoint, which outlives the driver (`proto::devmgr::EndpointName`).
#[derive(Debug)]
pub struct EndpointName(Channel);

impl EndpointName {
    /// The name behind a channel, as opening an endpoint gives it.
    pub fn new(channel: Channel) -> EndpointName {
        EndpointName(channel)
    }

    /// Another handle to the same name.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn duplicate(&self) -> sys::Result<EndpointName> {
        use sys::AsHandle;
        Ok(EndpointName(self.0.duplicate()?))
    }

    /// The endpoint of a later incarnation than `after`, with that incarnation's epoch. Waits for it.
    ///
    /// # Errors
    /// See [`ReopenError`].
    pub fn next(&self, after: u32, deadline: Deadline) -> Result<(u32, Channel), ReopenError> {
        // Without a deadline the wait is as long as anybody can ask for.
        let time = deadline.remaining().unwrap_or(WAIT_MAX);
        let name = self.duplicate().map_err(ReopenError::System)?;
        let name = EndpointNameClient::new(name.0)
            .with_timeout(time)
            .repeating();
        match name.reopen(after) {
            Ok((info, endpoint)) => Ok((info.epoch, endpoint)),
            Err(CallError::Remote(DevError::NoResources)) => {
                Err(ReopenError::System(sys::Error::NoMemory))
            }
            Err(CallError::Remote(_) | CallError::ServerDied { .. }) => Err(ReopenError::Gone),
            Err(CallError::Transport(error)) => Err(ReopenError::System(error)),
            Err(_) => Err(ReopenError::Corrupt),
        }
    }

    /// Connects to the first incarnation later than `after` that is of use, with its epoch. The device manager ends
    /// those that live and are of none; after three in a row the client believes them.
    ///
    /// # Errors
    /// What [`EndpointName::next`] says, and the error of the last incarnation that was tried.
    pub fn successor<T, E: From<ReopenError>>(
        &self,
        mut after: u32,
        deadline: Deadline,
        mut connect: impl FnMut(Channel) -> Result<T, Refusal<E>>,
    ) -> Result<(u32, T), E> {
        let mut useless = 0;
        loop {
            let (epoch, endpoint) = self.next(after, deadline)?;
            after = epoch;
            match connect(endpoint) {
                Ok(connection) => return Ok((epoch, connection)),
                Err(Refusal::Gone) => {}
                Err(Refusal::Fatal(error)) => return Err(error),
                Err(Refusal::Useless(complaint, error)) => {
                    useless += 1;
                    if useless == USELESS_MAX {
                        return Err(error);
                    }
                    self.complain(epoch, complaint);
                }
            }
        }
    }

    /// Tells the device manager that the incarnation `epoch` is of no use to a client; it ends it. A manager
    /// that cannot be told hears of it from somebody else, or not at all.
    pub fn complain(&self, epoch: u32, complaint: Complaint) {
        if let Ok(name) = self.duplicate() {
            let name = EndpointNameClient::new(name.0).with_timeout(COMPLAINT_LIMIT);
            let _ = name.complain(epoch, complaint);
        }
    }
}
