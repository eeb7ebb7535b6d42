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

    /// Tells the device manager that the incarnation `epoch` is of no use to a client; it ends it.
    ///
    /// # Errors
    /// [`ReopenError::Gone`] when there is no manager to tell, and what the system refuses.
    pub fn complain(
        &self,
        epoch: u32,
        complaint: Complaint,
        deadline: Deadline,
    ) -> Result<(), ReopenError> {
        let time = deadline.remaining().unwrap_or(WAIT_MAX);
        let name = self.duplicate().map_err(ReopenError::System)?;
        let name = EndpointNameClient::new(name.0).with_timeout(time);
        match name.complain(epoch, complaint) {
            Ok(()) => Ok(()),
            Err(CallError::Transport(error)) => Err(ReopenError::System(error)),
            Err(_) => Err(ReopenError::Gone),
        }
    }
}
