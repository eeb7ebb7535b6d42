//! Frames: where a message begins and ends in a stream of bytes, and whether it is whole.

use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use crc::{CRC_32_ISO_HDLC, Crc, Table};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Most bytes of a message before framing.
pub const BODY_BYTES_MAX: usize = 64 * 1024;
/// Most bytes of a frame: message and checksum, a byte of stuffing for each 254, and a zero at each end.
pub const FRAME_BYTES_MAX: usize = STUFFED_BYTES_MAX + 2;

const CHECKSUM_BYTES: usize = 4;
const STUFFED_BYTES_MAX: usize = cobs::max_encoding_length(BODY_BYTES_MAX + CHECKSUM_BYTES);
const CHECKSUM: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISO_HDLC);

/// A message that cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncodeError {
    /// It has more than [`BODY_BYTES_MAX`] bytes.
    TooLong {
        /// Its bytes.
        bytes: usize,
    },
    /// It has no representation.
    Unrepresentable,
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EncodeError::TooLong { bytes } => write!(
                f,
                "a message of {bytes} bytes, where {BODY_BYTES_MAX} is the most"
            ),
            EncodeError::Unrepresentable => f.write_str("a message that cannot be represented"),
        }
    }
}

impl core::error::Error for EncodeError {}

/// The frame of a message.
///
/// # Errors
/// When it is too long.
pub fn encode<M: Serialize>(message: &M) -> Result<Vec<u8>, EncodeError> {
    let mut body = postcard::to_allocvec(message).map_err(|_| EncodeError::Unrepresentable)?;
    if body.len() > BODY_BYTES_MAX {
        return Err(EncodeError::TooLong { bytes: body.len() });
    }
    body.extend_from_slice(&CHECKSUM.checksum(&body).to_le_bytes());
    // The zero in front ends whatever garbage came before.
    let mut frame = vec![0; cobs::max_encoding_length(body.len()) + 2];
    let stuffed = frame
        .get_mut(1..)
        .map_or(0, |room| cobs::encode(&body, room));
    frame.truncate(stuffed + 2);
    Ok(frame)
}

/// Bytes between two zeros that are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// They are more than a frame has.
    TooLong,
    /// Their stuffing is wrong.
    Stuffing,
    /// Their checksum is wrong.
    Checksum {
        /// What their contents give.
        expected: u32,
        /// What they end with.
        seen: u32,
    },
    /// They are whole, and no message of this protocol.
    Message,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrameError::TooLong => write!(f, "a frame of more than {FRAME_BYTES_MAX} bytes"),
            FrameError::Stuffing => f.write_str("a frame with wrong stuffing"),
            FrameError::Checksum { expected, seen } => {
                write!(
                    f,
                    "a frame with checksum {seen:#010x}, expected {expected:#010x}"
                )
            }
            FrameError::Message => f.write_str("a frame with an unknown message"),
        }
    }
}

impl core::error::Error for FrameError {}

/// Finds messages in a stream of bytes. It keeps at most one frame.
#[derive(Clone, Debug, Default)]
pub struct Decoder {
    frame: Vec<u8>,
    overlong: bool,
}

impl Decoder {
    /// A decoder at the start of a stream.
    pub const fn new() -> Decoder {
        Decoder {
            frame: Vec::new(),
            overlong: false,
        }
    }

    /// Takes `bytes` and gives what ends in them to `each`, in order. What has not ended is kept.
    pub fn push<M: DeserializeOwned>(
        &mut self,
        bytes: &[u8],
        mut each: impl FnMut(Result<M, FrameError>),
    ) {
        let mut parts = bytes.split(|byte| *byte == 0).peekable();
        while let Some(part) = parts.next() {
            self.extend(part);
            // After the last part no zero came yet.
            if parts.peek().is_some()
                && let Some(frame) = self.finish()
            {
                each(frame);
            }
        }
    }

    fn extend(&mut self, part: &[u8]) {
        if self.overlong || self.frame.len().saturating_add(part.len()) > STUFFED_BYTES_MAX {
            self.overlong = true;
            self.frame.clear();
        } else {
            self.frame.extend_from_slice(part);
        }
    }

    /// What stands between two zeros; `None` if nothing does.
    fn finish<M: DeserializeOwned>(&mut self) -> Option<Result<M, FrameError>> {
        if core::mem::take(&mut self.overlong) {
            return Some(Err(FrameError::TooLong));
        }
        if self.frame.is_empty() {
            return None;
        }
        let message = decode(&mut self.frame);
        self.frame.clear();
        Some(message)
    }
}

fn decode<M: DeserializeOwned>(frame: &mut [u8]) -> Result<M, FrameError> {
    let len = cobs::decode_in_place(frame).map_err(|_| FrameError::Stuffing)?;
    let whole = frame.get(..len).ok_or(FrameError::Stuffing)?;
    let (body, checksum) = whole
        .split_last_chunk::<CHECKSUM_BYTES>()
        .ok_or(FrameError::Stuffing)?;
    let (expected, seen) = (CHECKSUM.checksum(body), u32::from_le_bytes(*checksum));
    if expected != seen {
        return Err(FrameError::Checksum { expected, seen });
    }
    match postcard::take_from_bytes(body) {
        Ok((message, [])) => Ok(message),
        _ => Err(FrameError::Message),
    }
}
