//! Streams over channels, open files as streams, and the log.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};

use rt::io::Read as _;
use rt::process::Stdio;
use rt::proto::fs::{FileClient, OpenFlags};
use rt::proto::startup::StreamKind;
use rt::stream::{StreamReader, write_stream};
use rt::{AsHandle, Channel, Deadline, Resource, startup};

use super::errno;
use super::files::File;
use crate::errno::{Errno, Result};
use crate::stream::{OpenMode, Stream};

/// The byte that a terminal in cooked mode sends alone for the end of input.
const END_OF_INPUT: u8 = 4;

#[derive(Debug)]
enum End {
    /// Standard input of this process: a stream.
    Input(StreamKind),
    /// Standard output or standard error of this process: a stream.
    Output(&'static Channel, StreamKind),
    /// The log, as raw text.
    Log,
    Reader(RefCell<StreamReader>, Cell<Buffered>),
    Writer(Channel),
    File(RefCell<File>),
}

/// Whether a reader holds bytes that the channel no longer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Buffered {
    Nothing,
    Perhaps,
}

/// An end of a stream that other processes can be given.
#[derive(Clone, Debug)]
pub struct OsStream(Rc<End>);

fn os(end: End) -> OsStream {
    OsStream(Rc::new(end))
}

pub fn standard_stream(number: u32) -> Stream {
    let (name, kind) = match number {
        0 => (startup::name::STDIN, rt::io::stdin().kind()),
        1 => (startup::name::STDOUT, rt::io::stdout().kind()),
        _ => (startup::name::STDERR, rt::io::stderr().kind()),
    };
    let channel = startup::handle::<Channel>(name);
    let end = match (kind, channel) {
        (StreamKind::Log, _) => End::Log,
        (StreamKind::File, Some(channel)) => match channel.duplicate() {
            Ok(channel) => End::File(RefCell::new(File::from_client(FileClient::new(channel)))),
            Err(_) => return Stream::Null,
        },
        (StreamKind::Pipe | StreamKind::Terminal, Some(channel)) => {
            if number == 0 {
                End::Input(kind)
            } else {
                End::Output(channel, kind)
            }
        }
        _ => return Stream::Null,
    };
    Stream::Os(os(end))
}

pub fn pipe() -> Result<(OsStream, OsStream)> {
    let (reader, writer) = Channel::create().map_err(errno)?;
    let reader = RefCell::new(StreamReader::new(reader));
    Ok((
        os(End::Reader(reader, Cell::new(Buffered::Nothing))),
        os(End::Writer(writer)),
    ))
}

pub fn open_stream(path: &str, mode: OpenMode) -> Result<OsStream> {
    // Several processes may write to one redirection after each other, and positions are their
    // own: so each write goes to the end.
    let write = OpenFlags::WRITE | OpenFlags::CREATE | OpenFlags::APPEND;
    let flags = match mode {
        OpenMode::Read => OpenFlags::READ,
        OpenMode::Truncate => write | OpenFlags::TRUNCATE,
        OpenMode::Append => write,
    };
    Ok(os(End::File(RefCell::new(File::with_flags(path, flags)?))))
}

impl OsStream {
    pub fn read(&self, buffer: &mut [u8]) -> Result<usize> {
        match &*self.0 {
            End::Input(kind) => {
                let n = rt::io::stdin().read(buffer).map_err(errno)?;
                let ended = *kind == StreamKind::Terminal
                    && buffer.get(..n) == Some(&[END_OF_INPUT])
                    && !super::processes::terminal_is_raw();
                Ok(if ended { 0 } else { n })
            }
            End::Reader(reader, buffered) => {
                buffered.set(Buffered::Perhaps);
                reader.borrow_mut().read(buffer).map_err(errno)
            }
            End::File(file) => file.borrow_mut().read(buffer),
            _ => Err(Errno::BadDescriptor),
        }
    }

    pub fn write_all(&self, bytes: &[u8]) -> Result<()> {
        match &*self.0 {
            End::Output(channel, _) => {
                write_stream(channel, bytes, Deadline::FOREVER).map_err(errno)
            }
            End::Writer(channel) => write_stream(channel, bytes, Deadline::FOREVER).map_err(errno),
            End::Log => match startup::handle::<Resource>(startup::name::LOG) {
                Some(log) => rt::log_write_raw(log, bytes).map_err(errno),
                None => Ok(()),
            },
            End::File(file) => file.borrow_mut().write_all(bytes),
            _ => Err(Errno::BadDescriptor),
        }
    }

    pub fn metadata(&self) -> Option<crate::fs::Metadata> {
        match &*self.0 {
            End::File(file) => file.borrow().metadata().ok(),
            _ => None,
        }
    }

    pub fn is_terminal(&self) -> bool {
        matches!(
            &*self.0,
            End::Input(StreamKind::Terminal) | End::Output(_, StreamKind::Terminal)
        )
    }

    /// The end for a child.
    pub(super) fn stdio(&self) -> Result<Stdio> {
        let kind = |kind: StreamKind, channel: &Channel| {
            let channel = channel.duplicate().map_err(errno)?;
            Ok(if kind == StreamKind::Terminal {
                Stdio::Terminal(channel)
            } else {
                Stdio::Pipe(channel)
            })
        };
        match &*self.0 {
            End::Input(stream) => match startup::handle::<Channel>(startup::name::STDIN) {
                Some(channel) => kind(*stream, channel),
                None => Ok(Stdio::Null),
            },
            End::Output(channel, stream) => kind(*stream, channel),
            End::Log => Ok(Stdio::Log),
            End::Reader(reader, buffered) => {
                if buffered.get() == Buffered::Perhaps {
                    return self.forwarded();
                }
                kind(StreamKind::Pipe, reader.borrow().channel())
            }
            End::Writer(channel) => kind(StreamKind::Pipe, channel),
            End::File(file) => {
                // A child begins at the start of the file; what was read already is not its.
                if file.borrow().position() > 0 {
                    return self.forwarded();
                }
                file.borrow().duplicate_channel().map(Stdio::File)
            }
        }
    }

    /// The rest of this stream as a fresh one: what this process has read ahead must not be lost for
    /// the child. Only for ends that are short or done, as here-documents and scripts' inputs are:
    /// the rest is read to its end first.
    fn forwarded(&self) -> Result<Stdio> {
        let mut rest = Vec::new();
        let mut chunk = alloc::vec![0u8; 16 * 1024];
        loop {
            match self.read(&mut chunk)? {
                0 => break,
                n => rest.extend_from_slice(chunk.get(..n).unwrap_or_default()),
            }
        }
        let (reader, writer) = Channel::create().map_err(errno)?;
        rt::thread::builder("forward")
            .spawn(move || {
                // A child that does not read all of it ends the thread.
                let _ = write_stream(&writer, &rest, Deadline::FOREVER);
            })
            .map_err(errno)?;
        Ok(Stdio::Pipe(reader))
    }
}
