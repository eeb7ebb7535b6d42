//! Byte streams over channels: pipes and terminals.
//!
//! A stream is a channel on which each message is data: 1 to 65,536 bytes, no handles, no header.
//! The writer waits for `WRITABLE` when the queue is full; the end of the stream is the closing of
//! the writer's end; writing after the reader's end is closed gives `PeerClosed`. How a stream is cut
//! into messages means nothing, except that a terminal in cooked mode sends a line in one message.
//!
//! Data goes bare so that it is copied once in and once out; what else a terminal can do is a
//! protocol of its own ([`console`](crate::console)). `rt::stream` has reader and writer.

/// Most bytes of a message.
pub const CHUNK_MAX: usize = 64 * 1024;
