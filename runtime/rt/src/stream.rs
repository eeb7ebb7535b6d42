//! Byte streams over channels (see [`proto::stream`]): pipes and terminals.

use alloc::vec::Vec;

use proto::stream::CHUNK_MAX;
use sys::{AsHandle, Channel, Deadline, Error, HandleList, Result, Signals};

use crate::io::{Read, Write};

/// A new pipe: what is written to the one comes out of the other.
pub fn pipe() -> Result<(StreamReader, StreamWriter)> {
    let (read, write) = Channel::create()?;
    Ok((StreamReader::new(read), StreamWriter::new(write)))
}

/// The reading end of a stream.
#[derive(Debug)]
pub struct StreamReader {
    channel: Channel,
    /// A message that did not fit into what the reader asked for, from `position` on.
    pending: Vec<u8>,
    position: usize,
}

impl StreamReader {
    /// Reads from this channel.
    pub const fn new(channel: Channel) -> StreamReader {
        StreamReader {
            channel,
            pending: Vec::new(),
            position: 0,
        }
    }

    /// The channel.
    pub fn channel(&self) -> &Channel {
        &self.channel
    }

    /// The channel, owned; what was read ahead is lost.
    pub fn into_channel(self) -> Channel {
        self.channel
    }

    /// As [`Read::read`], with a deadline: `TimedOut` (`ShouldWait` with [`Deadline::NOW`]).
    pub fn read_deadline(&mut self, buffer: &mut [u8], deadline: Deadline) -> Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        if self.position < self.pending.len() {
            return Ok(self.take_pending(buffer));
        }
        let mut handles = HandleList::new();
        loop {
            // Straight into the caller's buffer, if the message fits.
            match self.channel.read(buffer, &mut handles, deadline) {
                // A message without bytes is not the end.
                Ok(received) if received.len == 0 => {}
                Ok(received) => return Ok(received.len),
                Err(Error::PeerClosed) => return Ok(0),
                Err(Error::BufferTooSmall) => {
                    match self
                        .channel
                        .read_vec(&mut self.pending, &mut handles, deadline)
                    {
                        Ok(_) => {}
                        Err(Error::PeerClosed) => return Ok(0),
                        Err(error) => return Err(error),
                    }
                    self.position = 0;
                    return Ok(self.take_pending(buffer));
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn take_pending(&mut self, buffer: &mut [u8]) -> usize {
        let rest = self.pending.get(self.position..).unwrap_or(&[]);
        let n = rest.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..n), rest.get(..n)) {
            to.copy_from_slice(from);
        }
        self.position += n;
        n
    }
}

impl Read for StreamReader {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        // A reader waits for its writer as long as that lives; its end is the end of the stream.
        self.read_deadline(buffer, Deadline::FOREVER)
    }
}

/// The writing end of a stream.
#[derive(Debug)]
pub struct StreamWriter {
    channel: Channel,
}

impl StreamWriter {
    /// Writes to this channel.
    pub const fn new(channel: Channel) -> StreamWriter {
        StreamWriter { channel }
    }

    /// The channel.
    pub fn channel(&self) -> &Channel {
        &self.channel
    }

    /// The channel, owned.
    pub fn into_channel(self) -> Channel {
        self.channel
    }

    /// Writes all bytes. `PeerClosed` if nobody reads any more, `TimedOut` if nobody does in time (a
    /// part may have been written then).
    pub fn write_deadline(&mut self, bytes: &[u8], deadline: Deadline) -> Result<()> {
        write_stream(&self.channel, bytes, deadline)
    }
}

/// Writes all bytes to a stream's channel; see [`StreamWriter::write_deadline`].
pub fn write_stream(channel: &Channel, bytes: &[u8], deadline: Deadline) -> Result<()> {
    let mut handles = HandleList::new();
    for chunk in bytes.chunks(CHUNK_MAX) {
        loop {
            match channel.write(chunk, &mut handles) {
                Ok(()) => break,
                Err(Error::ShouldWait) => {
                    channel.wait_one(Signals::WRITABLE | Signals::PEER_CLOSED, deadline)?;
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

impl Write for StreamWriter {
    fn write_all(&mut self, bytes: &[u8]) -> Result<()> {
        self.write_deadline(bytes, Deadline::FOREVER)
    }
}
