//! The calling side.

use alloc::vec::Vec;
use core::fmt;
use core::future::Future;
use core::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sys::{Channel, Deadline, Error, HandleList, Scratch};

use crate::codec::{
    CodecError, Method, Outcome, Refusal, ReplyHeader, RequestHeader, decode_body, decode_header,
    encode,
};
use crate::handles::Handles;

/// Time that a client's calls have unless it is told otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// Why a call gave no results.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CallError<E> {
    /// The server's answer is this error.
    Remote(E),
    /// There was no answer: `PeerClosed`, `TimedOut`, `BadHandle` and the like.
    Transport(Error),
    /// The server is gone, or died with this call in its hands and has a successor; the epoch that was set
    /// for this case (0 if none was).
    ServerDied {
        /// See [`Channel::set_epoch`].
        epoch: u64,
    },
    /// The server did not take the request.
    Refused(Refusal),
    /// The request could not be encoded or the reply not decoded.
    Codec(CodecError),
}

impl<E> CallError<E> {
    /// The server's own error, or else what `f` makes of the failure to get an answer.
    pub fn remote_or(self, f: impl FnOnce(CallError<core::convert::Infallible>) -> E) -> E {
        match self {
            CallError::Remote(error) => error,
            CallError::Transport(error) => f(CallError::Transport(error)),
            CallError::ServerDied { epoch } => f(CallError::ServerDied { epoch }),
            CallError::Refused(refusal) => f(CallError::Refused(refusal)),
            CallError::Codec(error) => f(CallError::Codec(error)),
        }
    }
}

impl<E: fmt::Display> fmt::Display for CallError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CallError::Remote(error) => error.fmt(f),
            CallError::Transport(error) => error.fmt(f),
            CallError::ServerDied { .. } => f.write_str("the server is gone"),
            CallError::Refused(refusal) => refusal.fmt(f),
            CallError::Codec(error) => error.fmt(f),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> core::error::Error for CallError<E> {}

impl<E> From<CodecError> for CallError<E> {
    fn from(error: CodecError) -> CallError<E> {
        CallError::Codec(error)
    }
}

fn decode_reply<R, RH, E>(bytes: &[u8], list: &mut HandleList) -> Result<(R, RH), CallError<E>>
where
    R: DeserializeOwned,
    RH: Handles,
    E: DeserializeOwned,
{
    let (header, body) = decode_header::<ReplyHeader>(bytes)?;
    match Outcome::from_number(header.outcome.get())? {
        Outcome::Ok => Ok(decode_body(body, list)?),
        Outcome::Failed => {
            let ((error,), ()) = decode_body::<(E,), ()>(body, list)?;
            Err(CallError::Remote(error))
        }
        Outcome::Refused => {
            let ((refusal,), ()) = decode_body::<(Refusal,), ()>(body, list)?;
            Err(CallError::Refused(refusal))
        }
    }
}

/// What becomes of a call whose server died with it in its hands while the channel lives on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OnDeath {
    /// It fails with [`CallError::ServerDied`]: whether it was carried out is not known.
    #[default]
    Fail,
    /// It is sent again, to the server's successor: for calls that may be carried out twice. A call that
    /// carries handles fails all the same.
    Repeat,
}

/// Calls a method and waits for its reply. Protocols' clients do this; see
/// [`protocol!`](crate::protocol!).
pub fn call<A, AH, R, RH, E>(
    channel: &Channel,
    method: Method,
    args: &A,
    handles: AH,
    (deadline, on_death): (Deadline, OnDeath),
) -> Result<(R, RH), CallError<E>>
where
    A: Serialize,
    AH: Handles,
    R: DeserializeOwned,
    RH: Handles,
    E: DeserializeOwned,
{
    let mut scratch = Scratch::take();
    let mut list = HandleList::new();
    let header = request_header(method, 0);
    let len = encode(&mut scratch, &header, args, handles, &mut list)?;
    let may_repeat = on_death == OnDeath::Repeat && list.is_empty();
    let mut known_epoch = 0;
    let len = loop {
        match channel.call_in_place(&mut scratch, len, &mut list, deadline) {
            Ok(len) => break len,
            // There is a successor if the epoch is news; without a reply the message is still in place.
            Err(failure)
                if failure.error == Error::PeerClosed
                    && may_repeat
                    && failure.epoch > known_epoch =>
            {
                known_epoch = failure.epoch;
            }
            Err(failure) if failure.error == Error::PeerClosed => {
                return Err(CallError::ServerDied {
                    epoch: failure.epoch,
                });
            }
            Err(failure) => return Err(CallError::Transport(failure.error)),
        }
    };
    let reply = scratch.get(..len).ok_or(CodecError::Malformed)?;
    decode_reply(reply, &mut list)
}

/// Sends a message that has no reply.
pub fn send<A, AH, E>(
    channel: &Channel,
    method: Method,
    args: &A,
    handles: AH,
) -> Result<(), CallError<E>>
where
    A: Serialize,
    AH: Handles,
{
    let mut scratch = Scratch::take();
    let mut list = HandleList::new();
    let header = request_header(method, 0);
    let len = encode(&mut scratch, &header, args, handles, &mut list)?;
    let bytes = scratch.get(..len).ok_or(CodecError::TooLong)?;
    channel
        .write(bytes, &mut list)
        .map_err(CallError::Transport)
}

fn request_header(method: Method, tag: u32) -> RequestHeader {
    let Method {
        protocol,
        version,
        ordinal,
    } = method;
    RequestHeader {
        protocol: protocol.into(),
        version: version.into(),
        ordinal: ordinal.into(),
        tag: tag.into(),
    }
}

/// Bytes and handles of a message.
#[derive(Debug, Default)]
pub struct Message {
    /// Bytes.
    pub bytes: Vec<u8>,
    /// Handles.
    pub handles: HandleList,
}

impl Message {
    /// The tag of a reply.
    pub fn reply_tag(&self) -> Result<u32, CodecError> {
        Ok(decode_header::<ReplyHeader>(&self.bytes)?.0.tag.get())
    }
}

/// How an asynchronous client's requests travel: sends them with a tag and finds the replies by it.
/// Implemented by the executor.
pub trait AsyncTransport {
    /// A tag that no outstanding request has; never 0.
    fn next_tag(&self) -> u32;
    /// Sends the request and waits for the reply with this tag.
    fn transact(
        &self,
        tag: u32,
        request: Message,
        deadline: Deadline,
    ) -> impl Future<Output = Result<Message, Error>>;
    /// Sends a message that has no reply.
    fn send(&self, message: Message) -> impl Future<Output = Result<(), Error>>;
}

/// Calls a method over an asynchronous transport.
pub async fn call_async<T, A, AH, R, RH, E>(
    transport: &T,
    method: Method,
    args: A,
    handles: AH,
    deadline: Deadline,
) -> Result<(R, RH), CallError<E>>
where
    T: AsyncTransport,
    A: Serialize,
    AH: Handles,
    R: DeserializeOwned,
    RH: Handles,
    E: DeserializeOwned,
{
    let tag = transport.next_tag();
    let request = encode_message(request_header(method, tag), &args, handles)?;
    match transport.transact(tag, request, deadline).await {
        Ok(mut reply) => decode_reply(&reply.bytes, &mut reply.handles),
        Err(Error::PeerClosed) => Err(CallError::ServerDied { epoch: 0 }),
        Err(error) => Err(CallError::Transport(error)),
    }
}

/// Sends a message that has no reply over an asynchronous transport.
pub async fn send_async<T, A, AH, E>(
    transport: &T,
    method: Method,
    args: A,
    handles: AH,
) -> Result<(), CallError<E>>
where
    T: AsyncTransport,
    A: Serialize,
    AH: Handles,
{
    let message = encode_message(request_header(method, 0), &args, handles)?;
    transport.send(message).await.map_err(CallError::Transport)
}

fn encode_message<A: Serialize, AH: Handles>(
    header: RequestHeader,
    args: &A,
    handles: AH,
) -> Result<Message, CodecError> {
    let mut scratch = Scratch::take();
    let mut message = Message::default();
    let len = encode(&mut scratch, &header, args, handles, &mut message.handles)?;
    message.bytes = scratch.get(..len).ok_or(CodecError::TooLong)?.to_vec();
    Ok(message)
}
