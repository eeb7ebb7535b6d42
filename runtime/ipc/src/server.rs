//! The serving side.

use alloc::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sys::{Channel, Deadline, Error, HandleList, Scratch, Txid};

use crate::codec::{
    Outcome, Refusal, ReplyHeader, RequestHeader, decode_body, decode_header, encode,
};
use crate::handles::Handles;

/// A server end of some protocol; what an executor needs to know of it.
pub trait Server {
    /// The protocol's requests.
    type Request;
    /// The channel, to wait for `READABLE`.
    fn channel(&self) -> &Channel;
    /// The next request that is there; `None` if there is none right now, `Err(PeerClosed)` once the
    /// last client end is closed and everything is read.
    fn try_next(&self) -> Result<Option<Self::Request>, Error>;
}

/// The server's end of a channel, for any protocol.
#[derive(Clone, Debug)]
pub struct ServerEnd {
    channel: Arc<Channel>,
}

impl ServerEnd {
    /// Serves this end.
    pub fn new(channel: Channel) -> ServerEnd {
        ServerEnd {
            channel: Arc::new(channel),
        }
    }

    /// The channel.
    pub fn channel(&self) -> &Channel {
        &self.channel
    }

    /// The channel back, if no reply is outstanding.
    pub fn into_channel(self) -> Option<Channel> {
        Arc::into_inner(self.channel)
    }

    /// Refuses every message that is there; tells how many there were.
    ///
    /// # Errors
    /// `PeerClosed` when the last client end is closed and nothing was there.
    pub fn refuse_all(&self, refusal: Refusal) -> Result<usize, Error> {
        let mut scratch = Scratch::take();
        let mut handles = HandleList::new();
        let mut count = 0_usize;
        loop {
            let received = match self.channel.read(&mut scratch, &mut handles, Deadline::NOW) {
                Ok(received) => received,
                Err(Error::TimedOut | Error::ShouldWait) => return Ok(count),
                // Who was refused may close its end at once.
                Err(Error::PeerClosed) if count != 0 => return Ok(count),
                Err(error) => return Err(error),
            };
            let bytes = scratch.get(..received.len).unwrap_or(&[]);
            let tag =
                decode_header::<RequestHeader>(bytes).map_or(0, |(header, _)| header.tag.get());
            let reply_to = ReplyTo {
                channel: Some(self.channel.clone()),
                txid: received.txid,
                tag,
            };
            reply_to.refuse(refusal);
            count = count.saturating_add(1);
        }
    }

    /// Reads messages until one of `protocol` decodes; the others are answered with a refusal.
    /// `decode` gets the ordinal and the message.
    pub fn receive<Q>(
        &self,
        protocol: u32,
        version: u16,
        deadline: Deadline,
        decode: impl Fn(u16, &mut Incoming<'_>) -> Result<Q, Refusal>,
    ) -> Result<Q, Error> {
        let mut scratch = Scratch::take();
        let mut handles = HandleList::new();
        loop {
            let received = self.channel.read(&mut scratch, &mut handles, deadline)?;
            let bytes = scratch.get(..received.len).unwrap_or(&[]);
            let reply_to = |tag| ReplyTo {
                channel: Some(self.channel.clone()),
                txid: received.txid,
                tag,
            };
            let Ok((header, body)) = decode_header::<RequestHeader>(bytes) else {
                reply_to(0).refuse(Refusal::Malformed);
                continue;
            };
            if header.protocol.get() != protocol || header.version.get() != version {
                reply_to(header.tag.get()).refuse(Refusal::WrongProtocol { protocol, version });
                continue;
            }
            let mut incoming = Incoming {
                body,
                handles: &mut handles,
                reply_to: Some(reply_to(header.tag.get())),
            };
            match decode(header.ordinal.get(), &mut incoming) {
                // What is left of `incoming` for a message without reply asks for none.
                Ok(request) => return Ok(request),
                Err(refusal) => {
                    if let Some(reply_to) = incoming.reply_to.take() {
                        reply_to.refuse(refusal);
                    }
                }
            }
        }
    }
}

/// A message on its way to a request.
pub struct Incoming<'a> {
    body: &'a [u8],
    handles: &'a mut HandleList,
    reply_to: Option<ReplyTo>,
}

impl Incoming<'_> {
    /// Decodes arguments and handles of a message without reply.
    pub fn message<A: DeserializeOwned, H: Handles>(&mut self) -> Result<(A, H), Refusal> {
        decode_body(self.body, self.handles).map_err(|_| Refusal::Malformed)
    }

    /// Decodes arguments and handles of a call, and where its reply goes.
    pub fn call<A: DeserializeOwned, H: Handles>(&mut self) -> Result<(A, H, ReplyTo), Refusal> {
        let (args, handles) = self.message()?;
        let reply_to = self.reply_to.take().ok_or(Refusal::Malformed)?;
        Ok((args, handles, reply_to))
    }
}

/// Where a reply goes. Dropped without a reply it tells the client so.
#[derive(Debug)]
pub struct ReplyTo {
    /// `None` once answered.
    channel: Option<Arc<Channel>>,
    txid: Txid,
    tag: u32,
}

impl ReplyTo {
    fn is_wanted(&self) -> bool {
        self.txid.is_call() || self.tag != 0
    }

    /// Sends results. Errors: `PeerClosed` if the client is gone, `BadState` if it has given up,
    /// `ShouldWait` if it does not read its replies, `OutOfRange` if they do not fit into a message
    /// (the client is told).
    pub fn ok<R: Serialize, H: Handles>(mut self, results: &R, handles: H) -> Result<(), Error> {
        self.send(Outcome::Ok, results, handles)
    }

    /// Sends the protocol's error. Errors as for [`ReplyTo::ok`].
    pub fn error<E: Serialize>(mut self, error: &E) -> Result<(), Error> {
        self.send(Outcome::Failed, &(error,), ())
    }

    /// Sends a refusal; whoever made the mistake need not be there any more.
    fn refuse(mut self, refusal: Refusal) {
        let _ = self.send(Outcome::Refused, &(refusal,), ());
    }

    fn send<R: Serialize, H: Handles>(
        &mut self,
        outcome: Outcome,
        results: &R,
        handles: H,
    ) -> Result<(), Error> {
        let Some(channel) = self.channel.take() else {
            return Ok(());
        };
        if !self.is_wanted() {
            return Ok(());
        }
        let mut scratch = Scratch::take();
        let mut list = HandleList::new();
        let header = ReplyHeader {
            tag: self.tag.into(),
            outcome: (outcome as u32).into(),
        };
        let Ok(len) = encode(&mut scratch, &header, results, handles, &mut list) else {
            // Dropping `self` tells the client that there will be no other answer.
            self.channel = Some(channel);
            return Err(Error::OutOfRange);
        };
        let bytes = scratch.get(..len).ok_or(Error::Internal)?;
        channel.reply(self.txid, bytes, &mut list)
    }
}

impl Drop for ReplyTo {
    fn drop(&mut self) {
        if self.channel.is_some() {
            let _ = self.send(Outcome::Refused, &(Refusal::Abandoned,), ());
        }
    }
}
