//! What a host and a running system say to each other over the control port: messages and their framing.
//!
//! The service `control` speaks it at one end of a serial line, `cargo xtask` at the other. Both sides are
//! here, so that they cannot differ. How bytes travel, who listens, and what a message makes somebody do is
//! not.
//!
//! # Conversation
//!
//! Every request has a number that its asker chooses, above zero and not in use; what belongs to it carries
//! that number, so that several are under way at a time. A request ends with exactly one
//! [`FromSystem::Ended`], also after [`ToSystem::Cancel`].
//!
//! # Flow
//!
//! Bytes of a request go as credit allows: whoever receives them grants so many bytes, and grants more as it
//! uses them up. So a reader that stops makes its own writer wait, and nobody else; and what is under way is
//! bounded, whatever the other side does. Below that the line as a whole has a window towards the host, whose
//! end may be a socket that drops what it has no room for: the host tells how many frames it has received.
//!
//! # Frames
//!
//! A frame is postcard, then a CRC-32 of that (as in Ethernet, least significant byte first), both in
//! consistent overhead byte stuffing (Cheshire and Baker, 1999), between zero bytes. A zero byte is nowhere
//! else, so after garbage the next frame is found at once. A line is expected to lose nothing; a frame that
//! was damaged all the same is dropped and told ([`FromSystem::Damaged`]), never guessed.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod frame;
mod message;

pub use frame::{BODY_BYTES_MAX, Decoder, EncodeError, FRAME_BYTES_MAX, FrameError, encode};
pub use message::{
    COMMAND_BYTES_MAX, CREDIT_BYTES, DATA_BYTES_MAX, Ending, FRAME_OVERHEAD_BYTES, FromSystem,
    Input, OutputStream, PROGRAM_BYTES_MAX, REQUESTS_MAX, Replaced, Swap, ToSystem, VERSION,
    WINDOW_BYTES,
};
