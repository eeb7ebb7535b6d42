//! The bytes of a message: a header of fixed size, then the numbers of handles and the arguments in
//! postcard.
//!
//! Decoding takes nothing on trust: every length is checked against the bytes that are there,
//! trailing bytes and left-over handles are errors.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sys::HandleList;
use zerocopy::byteorder::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::handles::Handles;

/// Names a method: protocol, version, ordinal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Method {
    /// [`protocol_id`] of the protocol's name.
    pub protocol: u32,
    /// Version of the protocol; both sides must have the same.
    pub version: u16,
    /// Number of the method.
    pub ordinal: u16,
}

/// Number of a protocol: the 32-bit FNV-1a hash of its name.
pub const fn protocol_id(name: &str) -> u32 {
    let bytes = name.as_bytes();
    let mut hash: u32 = 0x811c_9dc5;
    let mut i = 0;
    while i < bytes.len() {
        hash = (hash ^ bytes[i] as u32).wrapping_mul(0x0100_0193);
        i += 1;
    }
    hash
}

/// First in every request.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub(crate) struct RequestHeader {
    pub(crate) protocol: U32,
    pub(crate) version: U16,
    pub(crate) ordinal: U16,
    /// Chosen by an asynchronous client to find its reply again; 0: the kernel's transaction does it,
    /// or no reply is wanted.
    pub(crate) tag: U32,
}

/// First in every reply.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub(crate) struct ReplyHeader {
    /// That of the request.
    pub(crate) tag: U32,
    /// [`Outcome`].
    pub(crate) outcome: U32,
}

/// What follows a reply's header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// The results.
    Ok = 0,
    /// The protocol's error.
    Failed = 1,
    /// A [`Refusal`].
    Refused = 2,
}

impl Outcome {
    pub(crate) fn from_number(number: u32) -> Result<Outcome, CodecError> {
        match number {
            0 => Ok(Outcome::Ok),
            1 => Ok(Outcome::Failed),
            2 => Ok(Outcome::Refused),
            _ => Err(CodecError::Malformed),
        }
    }
}

/// A header: plain bytes in a fixed order, since every message has one.
pub(crate) trait Header:
    FromBytes + IntoBytes + Immutable + KnownLayout + Unaligned + Copy
{
}
impl Header for RequestHeader {}
impl Header for ReplyHeader {}

/// Why a server did not take a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Refusal {
    /// It speaks another protocol or version.
    WrongProtocol {
        /// Its protocol.
        protocol: u32,
        /// Its version.
        version: u16,
    },
    /// It knows no such ordinal.
    UnknownMethod {
        /// The ordinal.
        ordinal: u16,
    },
    /// It could not decode the request.
    Malformed,
    /// It dropped the request without an answer.
    Abandoned,
    /// There is no server: it died too often and was given up, or was stopped.
    Unavailable,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::WrongProtocol { protocol, version } => {
                write!(
                    f,
                    "the server speaks protocol {protocol:#010x} version {version}"
                )
            }
            Refusal::UnknownMethod { ordinal } => write!(f, "the server has no method {ordinal}"),
            Refusal::Malformed => f.write_str("the server could not decode the request"),
            Refusal::Abandoned => f.write_str("the server dropped the request"),
            Refusal::Unavailable => f.write_str("the service is stopped or was given up"),
        }
    }
}

/// Why a message could not be encoded or decoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CodecError {
    /// It does not fit into 64 KiB.
    TooLong,
    /// It has more than 64 handles.
    TooManyHandles,
    /// It ends too early, or a value in it is not possible.
    Malformed,
    /// Bytes are left over.
    TrailingBytes(usize),
    /// It has fewer handles than it says.
    MissingHandle,
    /// The number of handles is wrong.
    HandleCount {
        /// Number expected.
        expected: usize,
        /// Number seen.
        seen: usize,
    },
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CodecError::TooLong => f.write_str("message longer than 64 KiB"),
            CodecError::TooManyHandles => f.write_str("message with more than 64 handles"),
            CodecError::Malformed => f.write_str("malformed message"),
            CodecError::TrailingBytes(n) => write!(f, "{n} bytes too many in a message"),
            CodecError::MissingHandle => f.write_str("a handle is missing in a message"),
            CodecError::HandleCount { expected, seen } => {
                write!(f, "{expected} handles expected in a message, {seen} seen")
            }
        }
    }
}

impl core::error::Error for CodecError {}

/// Values that are encoded as a `T` is: what a client method takes for an argument of type `T`.
pub trait Encodes<T: ?Sized>: Serialize {}
impl<T: Serialize> Encodes<T> for T {}
impl<T: Serialize> Encodes<T> for &T {}
impl Encodes<String> for &str {}
impl<T: Serialize> Encodes<Vec<T>> for &[T] {}
impl Encodes<Option<String>> for Option<&str> {}
impl<const N: usize, T> Encodes<Vec<T>> for &[T; N] where for<'a> &'a [T; N]: Serialize {}

/// Encodes header, counts and arguments at the front of `buffer`; tells the length.
#[inline]
pub(crate) fn encode<X, A, H>(
    buffer: &mut [u8],
    header: &X,
    args: &A,
    handles: H,
    list: &mut HandleList,
) -> Result<usize, CodecError>
where
    X: Header,
    A: Serialize,
    H: Handles,
{
    let (head, body) = buffer
        .split_at_mut_checked(size_of::<X>())
        .ok_or(CodecError::TooLong)?;
    head.copy_from_slice(header.as_bytes());
    let counts = handles.put(list)?;
    match postcard::to_slice(&(counts, args), body) {
        Ok(bytes) => Ok(size_of::<X>() + bytes.len()),
        Err(_) => Err(CodecError::TooLong),
    }
}

/// Decodes a header; the rest is for [`decode_body`].
#[inline]
pub(crate) fn decode_header<X: Header>(bytes: &[u8]) -> Result<(X, &[u8]), CodecError> {
    X::read_from_prefix(bytes).map_err(|_| CodecError::Malformed)
}

/// Decodes counts and arguments, and takes the handles.
#[inline]
pub(crate) fn decode_body<A, H>(body: &[u8], list: &mut HandleList) -> Result<(A, H), CodecError>
where
    A: DeserializeOwned,
    H: Handles,
{
    let ((counts, args), rest) =
        postcard::take_from_bytes::<(H::Counts, A)>(body).map_err(|_| CodecError::Malformed)?;
    if !rest.is_empty() {
        return Err(CodecError::TrailingBytes(rest.len()));
    }
    Ok((args, H::take(list, counts)?))
}
