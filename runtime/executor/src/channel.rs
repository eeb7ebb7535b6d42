//! Messages and requests as they come.

use core::cell::Cell;

use ipc::{Message, Server};
use sys::{Channel, Deadline, Error, HandleList, Result, Scratch, Signals};

use crate::run::Executor;
use crate::source::Source;

/// A channel end whose messages are awaited.
pub struct AsyncChannel {
    // Before the channel: it is to go first.
    readable: Source,
    executor: Executor,
    channel: Channel,
}

impl AsyncChannel {
    /// The channel.
    pub fn channel(&self) -> &Channel {
        &self.channel
    }

    /// The next message. `PeerClosed` once everything is read, `TimedOut`.
    pub async fn recv(&self, deadline: Deadline) -> Result<Message> {
        loop {
            if let Some(message) = self.try_recv()? {
                return Ok(message);
            }
            self.readable.next(deadline).await?;
        }
    }

    /// The next message if there is one.
    pub fn try_recv(&self) -> Result<Option<Message>> {
        let mut scratch = Scratch::take();
        let mut message = Message::default();
        match self
            .channel
            .read(&mut scratch, &mut message.handles, Deadline::NOW)
        {
            Ok(received) => {
                message.bytes = scratch.get(..received.len).unwrap_or(&[]).to_vec();
                Ok(Some(message))
            }
            Err(Error::TimedOut | Error::ShouldWait) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends a message, waiting for room. `PeerClosed`, `TimedOut`.
    pub async fn send(
        &self,
        bytes: &[u8],
        handles: &mut HandleList,
        deadline: Deadline,
    ) -> Result<()> {
        loop {
            match self.channel.write(bytes, handles) {
                Err(Error::ShouldWait) => {}
                result => return result,
            }
            let signals = Signals::WRITABLE | Signals::PEER_CLOSED;
            self.executor
                .wait_signals(&self.channel, signals, deadline)
                .await?;
        }
    }

    /// The channel back.
    pub fn into_channel(self) -> Channel {
        self.channel
    }
}

/// The requests that come to a protocol's server.
pub struct Requests<S: Server> {
    readable: Source,
    server: S,
    /// How many messages there may be at most without news from `readable`: every message is an edge,
    /// so once as many were read as edges came, the channel need not be asked. `ALL_THERE` at the start.
    expected: Cell<u64>,
}

/// An unknown number of messages is there: all those from before the watch count as one edge.
const ALL_THERE: u64 = u64::MAX;

impl<S: Server> Requests<S> {
    /// The next request; `None` once the last client end is closed and everything is read.
    pub async fn next(&self) -> Result<Option<S::Request>> {
        self.next_until(Deadline::FOREVER).await
    }

    /// As [`Requests::next`], with a deadline: `TimedOut`.
    pub async fn next_until(&self, deadline: Deadline) -> Result<Option<S::Request>> {
        loop {
            let expected = self.expected.get();
            if expected != 0 {
                match self.server.try_next() {
                    Ok(Some(request)) => {
                        if expected != ALL_THERE {
                            self.expected.set(expected - 1);
                        }
                        return Ok(Some(request));
                    }
                    Ok(None) => self.expected.set(0),
                    Err(Error::PeerClosed) => return Ok(None),
                    Err(error) => return Err(error),
                }
            }
            self.expected.set(self.readable.next_count(deadline).await?);
        }
    }

    /// The server.
    pub fn server(&self) -> &S {
        &self.server
    }
}

impl Executor {
    /// Waits for messages of a channel from now on.
    pub fn channel(&self, channel: Channel) -> Result<AsyncChannel> {
        let readable = self.watch(&channel, Signals::READABLE | Signals::PEER_CLOSED)?;
        Ok(AsyncChannel {
            readable,
            executor: self.clone(),
            channel,
        })
    }

    /// Waits for requests to a server from now on.
    pub fn requests<S: Server>(&self, server: S) -> Result<Requests<S>> {
        let readable = self.watch(server.channel(), Signals::READABLE | Signals::PEER_CLOSED)?;
        Ok(Requests {
            readable,
            server,
            expected: Cell::new(ALL_THERE),
        })
    }
}
