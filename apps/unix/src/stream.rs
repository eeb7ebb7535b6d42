//! Byte streams: standard input, output and errors, pipes, and files opened for redirection.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;

use crate::backend;
use crate::errno::{Errno, Result};

/// How a file is opened as a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpenMode {
    /// Read from its start.
    Read,
    /// Write over it, created or emptied first.
    Truncate,
    /// Write behind its end, created first if need be.
    Append,
}

/// One end of a byte stream. Clones are further references to the same end, which closes with the
/// last of them (and with those of the processes that it was given to).
#[derive(Clone, Debug)]
pub enum Stream {
    /// Reads as empty, swallows what is written.
    Null,
    /// Collects what is written, inside this process.
    Capture(Rc<RefCell<Vec<u8>>>),
    /// An end that other processes can be given.
    Os(backend::OsStream),
}

impl Stream {
    /// Standard input of this process.
    pub fn stdin() -> Stream {
        backend::standard_stream(0)
    }
    /// Standard output of this process.
    pub fn stdout() -> Stream {
        backend::standard_stream(1)
    }
    /// Where this process reports errors.
    pub fn stderr() -> Stream {
        backend::standard_stream(2)
    }
    /// An in-process collector and its contents.
    pub fn capture() -> (Stream, Rc<RefCell<Vec<u8>>>) {
        let bytes = Rc::new(RefCell::new(Vec::new()));
        (Stream::Capture(bytes.clone()), bytes)
    }
    /// A pipe: the end to read and the end to write.
    pub fn pipe() -> Result<(Stream, Stream)> {
        let (reader, writer) = backend::pipe()?;
        Ok((Stream::Os(reader), Stream::Os(writer)))
    }
    /// A file as a stream. `/dev/null` is [`Stream::Null`] on every system.
    pub fn open(path: &str, mode: OpenMode) -> Result<Stream> {
        if path == "/dev/null" {
            return Ok(Stream::Null);
        }
        backend::open_stream(path, mode).map(Stream::Os)
    }

    /// Reads some bytes; 0 at the end.
    pub fn read(&self, buffer: &mut [u8]) -> Result<usize> {
        match self {
            Stream::Null => Ok(0),
            Stream::Capture(_) => Err(Errno::BadDescriptor),
            Stream::Os(os) => os.read(buffer),
        }
    }

    /// Writes all of `bytes`. [`Errno::BrokenPipe`] when nobody reads any more.
    pub fn write_all(&self, bytes: &[u8]) -> Result<()> {
        match self {
            Stream::Null => Ok(()),
            Stream::Capture(buffer) => {
                buffer.borrow_mut().extend_from_slice(bytes);
                Ok(())
            }
            Stream::Os(os) => os.write_all(bytes),
        }
    }

    /// Everything up to the end.
    pub fn read_to_end(&self) -> Result<Vec<u8>> {
        let mut all = Vec::new();
        let mut chunk = alloc::vec![0u8; 16 * 1024];
        loop {
            match self.read(&mut chunk)? {
                0 => return Ok(all),
                n => all.extend_from_slice(chunk.get(..n).unwrap_or_default()),
            }
        }
    }

    /// Metadata, if a file is behind it.
    pub fn metadata(&self) -> Option<crate::fs::Metadata> {
        match self {
            Stream::Os(os) => os.metadata(),
            _ => None,
        }
    }

    /// Whether a person sits at the other end.
    pub fn is_terminal(&self) -> bool {
        match self {
            Stream::Os(os) => os.is_terminal(),
            _ => false,
        }
    }
}
