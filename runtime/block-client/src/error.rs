//! Why a session fails.

use endpoint_client::ReopenError;
use ipc::CallError;
use proto::block::{BlockError, Status};
use ring::{LayoutError, PushError, RingError};

use crate::ledger::LedgerError;

/// Why a request or a session failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SessionError {
    /// As many requests are in flight as the session has room for.
    Full,
    /// The driver answered a request with this status.
    Refused(Status),
    /// The driver refused a control request.
    Control(BlockError),
    /// The driver is gone; what was in flight stays in the ledger.
    Closed,
    /// The deadline passed.
    TimedOut,
    /// The driver came back with another disk: what was in flight stays in the ledger.
    OtherDisk,
    /// The driver broke the protocol: its ring, an id, or what it said of the session.
    Corrupt,
    /// The system refused something.
    System(sys::Error),
}

impl core::fmt::Display for SessionError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            SessionError::Full => f.write_str("too many requests in flight"),
            SessionError::Refused(status) => f.write_str(status.text()),
            SessionError::Control(error) => error.fmt(f),
            SessionError::Closed => f.write_str("the disk's driver is gone"),
            SessionError::TimedOut => f.write_str("the disk did not answer in time"),
            SessionError::OtherDisk => f.write_str("the driver came back with another disk"),
            SessionError::Corrupt => f.write_str("the disk's driver broke the protocol"),
            SessionError::System(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for SessionError {}

impl From<sys::Error> for SessionError {
    fn from(error: sys::Error) -> Self {
        match error {
            sys::Error::PeerClosed => SessionError::Closed,
            sys::Error::TimedOut => SessionError::TimedOut,
            other => SessionError::System(other),
        }
    }
}

impl From<ReopenError> for SessionError {
    fn from(error: ReopenError) -> Self {
        match error {
            ReopenError::Gone => SessionError::Closed,
            ReopenError::Corrupt => SessionError::Corrupt,
            ReopenError::System(error) => error.into(),
        }
    }
}

impl From<CallError<BlockError>> for SessionError {
    fn from(error: CallError<BlockError>) -> Self {
        match error {
            CallError::Remote(error) => SessionError::Control(error),
            CallError::Transport(error) => error.into(),
            CallError::ServerDied { .. } => SessionError::Closed,
            _ => SessionError::Corrupt,
        }
    }
}

impl From<RingError> for SessionError {
    fn from(_: RingError) -> Self {
        SessionError::Corrupt
    }
}

impl From<PushError> for SessionError {
    fn from(error: PushError) -> Self {
        match error {
            PushError::Full => SessionError::Full,
            PushError::Ring(_) => SessionError::Corrupt,
        }
    }
}

impl From<LayoutError> for SessionError {
    fn from(_: LayoutError) -> Self {
        SessionError::Corrupt
    }
}

impl From<LedgerError> for SessionError {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::Full => SessionError::Full,
            LedgerError::UnknownId(_) => SessionError::Corrupt,
        }
    }
}
