//! A service's end of its channel to init.

use alloc::vec::Vec;
use core::fmt;

use executor::Executor;
use ipc::{CallError, Channel, Handle, Server};
use proto::fs::{Bytes, BytesRef};
use proto::services::{SupervisedRequest, SupervisedServer, SupervisorClient, SupervisorError};
use rt::{AsHandle, Error, Signals, Watch};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why the vault did not do it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum VaultError {
    /// What is kept there is of another format.
    Format,
    /// The vault's answer, or that there was none.
    Call(CallError<SupervisorError>),
}

impl fmt::Display for VaultError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            VaultError::Format => f.write_str("what the vault keeps has another format"),
            VaultError::Call(error) => write!(f, "vault: {error}"),
        }
    }
}

impl From<CallError<SupervisorError>> for VaultError {
    fn from(error: CallError<SupervisorError>) -> VaultError {
        VaultError::Call(error)
    }
}

/// The channel to init: pings come over it, and calls to the vault go over it.
#[derive(Debug)]
pub struct Supervised {
    pings: SupervisedServer,
    init: SupervisorClient,
}

impl Supervised {
    /// The channel that init gave; `None` for a process that nobody supervises so.
    pub fn from_startup() -> Option<Supervised> {
        let channel: Channel = rt::startup::take("supervisor")?;
        Supervised::new(channel).ok()
    }

    /// Over this channel.
    ///
    /// # Errors
    /// When the channel cannot be duplicated.
    pub fn new(channel: Channel) -> Result<Supervised, Error> {
        let init = SupervisorClient::new(channel.duplicate()?);
        Ok(Supervised {
            pings: SupervisedServer::new(channel),
            init,
        })
    }

    /// Has the port tell of pings under this key; [`Supervised::answer`] is to be called then.
    ///
    /// # Errors
    /// When the port has no room.
    pub fn watch(&self, port: &rt::Port, key: u64) -> Result<(), Error> {
        let channel = self.pings.channel();
        channel.wait_async(port, key, Signals::READABLE, Watch::Persistent)
    }

    /// The server of the pings, for an executor.
    pub const fn pings(&self) -> &SupervisedServer {
        &self.pings
    }

    /// Answers one ping.
    pub fn alive(&self, request: &SupervisedRequest) {
        let SupervisedRequest::Ping { beat } = request;
        // An init that does not read, or is gone, watches over nobody.
        let _ = self.init.alive(*beat);
    }

    /// Answers the pings that are there. To be called from the loop that does the work: an answer says that
    /// the loop turns.
    pub fn answer(&self) {
        while let Ok(Some(request)) = self.pings.try_next() {
            self.alive(&request);
        }
    }

    /// Answers pings for as long as the executor runs: each answer says that its tasks have their turn.
    pub async fn serve(self, executor: Executor) {
        let Ok(requests) = executor.requests(self.pings.clone()) else {
            return;
        };
        while let Ok(Some(request)) = requests.next().await {
            self.alive(&request);
        }
    }

    /// A second end over the same channel, for the vault.
    ///
    /// # Errors
    /// When the channel cannot be duplicated.
    pub fn duplicate(&self) -> Result<Supervised, Error> {
        Supervised::new(self.pings.channel().duplicate()?)
    }

    /// Keeps a value and handles under a key, in place of what was there. The vault gets the handles; they
    /// need the right to be duplicated.
    ///
    /// # Errors
    /// [`SupervisorError::Full`], or that init does not answer.
    pub fn put<T: Serialize>(
        &self,
        key: &str,
        value: &T,
        handles: Vec<Handle>,
    ) -> Result<(), VaultError> {
        let bytes = postcard::to_allocvec(value).map_err(|_| VaultError::Format)?;
        Ok(self.init.put(key, BytesRef(&bytes), handles)?)
    }

    /// What is kept under a key, with duplicates of the handles; `None` if there is nothing.
    ///
    /// # Errors
    /// As for [`Supervised::put`]; [`VaultError::Format`] when it is no `T`.
    pub fn get<T: DeserializeOwned>(
        &self,
        key: &str,
    ) -> Result<Option<(T, Vec<Handle>)>, VaultError> {
        let (Bytes(bytes), handles) = match self.init.get(key) {
            Ok(kept) => kept,
            Err(CallError::Remote(SupervisorError::NotFound)) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let value = postcard::from_bytes(&bytes).map_err(|_| VaultError::Format)?;
        Ok(Some((value, handles)))
    }

    /// Forgets what is kept under a key, if anything is.
    ///
    /// # Errors
    /// That init does not answer.
    pub fn remove(&self, key: &str) -> Result<(), VaultError> {
        Ok(self.init.remove(key)?)
    }

    /// All keys that begin so, in their order.
    ///
    /// # Errors
    /// That init does not answer.
    pub fn keys(&self, prefix: &str) -> Result<Vec<alloc::string::String>, VaultError> {
        let mut all: Vec<alloc::string::String> = Vec::new();
        loop {
            let after = all.last().map_or("", |key| key.as_str());
            let batch = self.init.keys(prefix, after)?;
            // One that does not get on must not be asked for ever.
            if batch.last().is_none_or(|last| last.as_str() <= after) {
                return Ok(all);
            }
            all.extend(batch);
        }
    }
}
