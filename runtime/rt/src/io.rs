//! Standard input, output and error, and the traits of what can be read and written.
//!
//! Standard output goes out line by line to a terminal or the log and in blocks else, and when the program
//! ends; standard error goes out at once. A [`print!`](crate::print!) to a reader that is gone ends
//! the program with status 141, as a broken pipe does elsewhere.

use alloc::vec::Vec;
use core::fmt;

use ipc::CallError;
use proto::fs::{BytesRef, FileClient, FsError, INLINE_BYTES_MAX};
use proto::startup::StreamKind;
use sys::{AsHandle, Channel, Deadline, Error, Mutex, Resource, Result};

use crate::startup;
use crate::stream::{StreamReader, write_stream};

/// A source of bytes.
pub trait Read {
    /// Reads up to `buffer.len()` bytes, waiting for the first; 0 is the end (or an empty buffer).
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize>;

    /// Reads up to the end, to the end of a vector; tells the number of bytes.
    fn read_to_end(&mut self, vector: &mut Vec<u8>) -> Result<usize> {
        let start = vector.len();
        let mut chunk = alloc::vec![0; 64 * 1024];
        loop {
            match self.read(&mut chunk)? {
                0 => return Ok(vector.len() - start),
                n => vector.extend_from_slice(chunk.get(..n).unwrap_or(&chunk)),
            }
        }
    }
}

/// A sink of bytes.
pub trait Write {
    /// Writes all bytes.
    fn write_all(&mut self, bytes: &[u8]) -> Result<()>;

    /// Sends on what is buffered.
    fn flush(&mut self) -> Result<()> {
        Ok(())
    }

    /// Writes formatted text: what `write!` calls.
    fn write_fmt(&mut self, text: fmt::Arguments<'_>) -> Result<()> {
        struct Adapter<'a, W: ?Sized> {
            writer: &'a mut W,
            result: Result<()>,
        }
        impl<W: Write + ?Sized> fmt::Write for Adapter<'_, W> {
            fn write_str(&mut self, s: &str) -> fmt::Result {
                self.result = self.writer.write_all(s.as_bytes());
                self.result.map_err(|_| fmt::Error)
            }
        }
        let mut adapter = Adapter {
            writer: self,
            result: Ok(()),
        };
        match fmt::write(&mut adapter, text) {
            Ok(()) => Ok(()),
            // An error without one of the writer's is a formatter's own.
            Err(_) => adapter.result.and(Err(Error::Internal)),
        }
    }
}

impl Write for Vec<u8> {
    fn write_all(&mut self, bytes: &[u8]) -> Result<()> {
        self.extend_from_slice(bytes);
        Ok(())
    }
}

/// Bytes that standard output gathers.
const BLOCK: usize = 16 * 1024;

enum Source {
    Unopened,
    Null,
    Stream(StreamReader),
    /// An open file and the position in it.
    File(FileClient, u64),
}

static INPUT: Mutex<Source> = Mutex::new(Source::Unopened);

/// Standard input.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stdin;

/// Standard input.
pub const fn stdin() -> Stdin {
    Stdin
}

impl Stdin {
    /// What is behind it.
    pub fn kind(self) -> StreamKind {
        startup::streams()[0]
    }

    /// As [`Read::read`], with a deadline.
    pub fn read_deadline(self, buffer: &mut [u8], deadline: Deadline) -> Result<usize> {
        let mut input = INPUT.lock();
        if let Source::Unopened = *input {
            *input = match (
                self.kind(),
                startup::handle::<Channel>(startup::name::STDIN),
            ) {
                (StreamKind::File, Some(channel)) => {
                    Source::File(FileClient::new(channel.duplicate()?), 0)
                }
                (_, Some(channel)) => Source::Stream(StreamReader::new(channel.duplicate()?)),
                (_, None) => Source::Null,
            };
        }
        match &mut *input {
            Source::Stream(reader) => reader.read_deadline(buffer, deadline),
            Source::File(file, position) => {
                let len = u32::try_from(buffer.len())
                    .unwrap_or(u32::MAX)
                    .min(INLINE_BYTES_MAX);
                let data = file.read(*position, len).map_err(file_error)?;
                let n = data.len().min(buffer.len());
                if let (Some(to), Some(from)) = (buffer.get_mut(..n), data.get(..n)) {
                    to.copy_from_slice(from);
                }
                *position = position.saturating_add(n as u64);
                Ok(n)
            }
            _ => Ok(0),
        }
    }
}

impl Read for Stdin {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        self.read_deadline(buffer, Deadline::FOREVER)
    }
}

/// What is left of a file's error in a stream's.
fn file_error(error: CallError<FsError>) -> Error {
    match error {
        CallError::Transport(error) => error,
        CallError::Remote(FsError::ReadOnlyFileSystem) => Error::AccessDenied,
        CallError::Remote(_) => Error::Internal,
        _ => Error::BadState,
    }
}

/// Writes to a file that was opened for appending: the server knows where the end is.
fn append(channel: &Channel, bytes: &[u8]) -> Result<()> {
    let file = FileClient::new(channel.duplicate()?);
    let mut rest = bytes;
    while !rest.is_empty() {
        let (chunk, _) = rest.split_at(rest.len().min(INLINE_BYTES_MAX as usize));
        match file.write(0u64, BytesRef(chunk)).map_err(file_error)? {
            0 => return Err(Error::NoMemory),
            written => rest = rest.get(written as usize..).unwrap_or(&[]),
        }
    }
    Ok(())
}

/// Where output goes.
fn write_to(stream: usize, name: &str, bytes: &[u8]) -> Result<()> {
    match startup::streams().get(stream) {
        Some(StreamKind::File) => match startup::handle::<Channel>(name) {
            Some(channel) => append(channel, bytes),
            None => Ok(()),
        },
        Some(StreamKind::Pipe | StreamKind::Terminal) => match startup::handle::<Channel>(name) {
            Some(channel) => write_stream(channel, bytes, Deadline::FOREVER),
            None => Ok(()),
        },
        Some(StreamKind::Log) => match startup::handle::<Resource>(startup::name::LOG) {
            Some(log) => sys::log_write_raw(log, bytes),
            None => Ok(()),
        },
        _ => Ok(()),
    }
}

static OUTPUT: Mutex<Vec<u8>> = Mutex::new(Vec::new());

fn send_output(buffer: &mut Vec<u8>) -> Result<()> {
    if buffer.is_empty() {
        return Ok(());
    }
    let result = write_to(1, startup::name::STDOUT, buffer);
    buffer.clear();
    result
}

/// Standard output, buffered.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stdout;

/// Standard output.
pub const fn stdout() -> Stdout {
    Stdout
}

impl Stdout {
    /// What is behind it.
    pub fn kind(self) -> StreamKind {
        startup::streams()[1]
    }
}

impl Write for Stdout {
    fn write_all(&mut self, bytes: &[u8]) -> Result<()> {
        let mut buffer = OUTPUT.lock();
        if bytes.len() >= BLOCK {
            send_output(&mut buffer)?;
            return write_to(1, startup::name::STDOUT, bytes);
        }
        buffer.extend_from_slice(bytes);
        let full = buffer.len() >= BLOCK;
        let by_line = matches!(self.kind(), StreamKind::Terminal | StreamKind::Log);
        if full || (by_line && bytes.contains(&b'\n')) {
            return send_output(&mut buffer);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        flush()
    }
}

/// Sends on what was printed.
pub fn flush() -> Result<()> {
    send_output(&mut OUTPUT.lock())
}

/// Standard error, not buffered.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stderr;

/// Standard error.
pub const fn stderr() -> Stderr {
    Stderr
}

impl Stderr {
    /// What is behind it.
    pub fn kind(self) -> StreamKind {
        startup::streams()[2]
    }
}

impl Write for Stderr {
    fn write_all(&mut self, bytes: &[u8]) -> Result<()> {
        write_to(2, startup::name::STDERR, bytes)
    }
}

/// Writes to standard error without allocating, if the start-up message has been read.
#[cfg_attr(
    not(target_os = "none"),
    expect(dead_code, reason = "a host has its own panics")
)]
pub(crate) fn panic_message(line: &[u8]) {
    // To the log the line has gone already.
    let kind = match startup::handle_if_known::<sys::Handle>(startup::name::STDERR) {
        Some(_) => startup::streams()[2],
        None => StreamKind::Null,
    };
    if matches!(kind, StreamKind::Pipe | StreamKind::Terminal) {
        let _ = write_to(2, startup::name::STDERR, line);
        let _ = write_to(2, startup::name::STDERR, b"\n");
    }
}

/// What [`print!`](crate::print!) does.
pub fn print(text: fmt::Arguments<'_>) {
    let result = match text.as_str() {
        Some(text) => Stdout.write_all(text.as_bytes()),
        None => Stdout.write_fmt(text),
    };
    if result == Err(Error::PeerClosed) {
        sys::exit(141);
    }
}

/// What [`eprint!`](crate::eprint!) does: one write for the whole text, so that lines of several
/// processes do not mix.
pub fn eprint(text: fmt::Arguments<'_>) {
    let text = alloc::fmt::format(text);
    let _ = Stderr.write_all(text.as_bytes());
}

/// Prints to standard output.
#[macro_export]
macro_rules! print {
    ($($arg:tt)*) => { $crate::io::print(::core::format_args!($($arg)*)) };
}

/// Prints a line to standard output.
#[macro_export]
macro_rules! println {
    () => { $crate::io::print(::core::format_args!("\n")) };
    ($($arg:tt)*) => {
        $crate::io::print(::core::format_args!("{}\n", ::core::format_args!($($arg)*)))
    };
}

/// Prints to standard error.
#[macro_export]
macro_rules! eprint {
    ($($arg:tt)*) => { $crate::io::eprint(::core::format_args!($($arg)*)) };
}

/// Prints a line to standard error.
#[macro_export]
macro_rules! eprintln {
    () => { $crate::io::eprint(::core::format_args!("\n")) };
    ($($arg:tt)*) => {
        $crate::io::eprint(::core::format_args!("{}\n", ::core::format_args!($($arg)*)))
    };
}
