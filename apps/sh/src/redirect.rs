//! Redirections, and what collects output inside the shell.

use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::RefCell;

use unix::stream::OpenMode;
use unix::{Errno, Stream};

use crate::interp::{Flow, Interpreter};
use crate::state::Streams;
use crate::syntax::{Redirect, RedirectKind};

impl Interpreter {
    /// The streams with redirections; `None` if one failed (it has been reported).
    pub(crate) fn redirected(
        &mut self,
        redirects: &[Redirect],
        io: &Streams,
    ) -> Result<Option<Streams>, Flow> {
        let mut io = io.clone();
        for redirect in redirects {
            let target = self.expand_text(&redirect.target, &io)?;
            let stream = match redirect.kind {
                RedirectKind::Read => self.open(&target, OpenMode::Read),
                RedirectKind::Write => self.open(&target, OpenMode::Truncate),
                RedirectKind::Append => self.open(&target, OpenMode::Append),
                RedirectKind::Here => {
                    here_document(&target).map_err(|e| format!("here-document: {e}"))
                }
                RedirectKind::Duplicate => match target.as_str() {
                    "0" => Ok(io.input.clone()),
                    "1" => Ok(io.output.clone()),
                    "2" => Ok(io.errors.clone()),
                    "-" => Ok(Stream::Null),
                    other => Err(format!("{other}: Bad file descriptor")),
                },
            };
            let stream = match stream {
                Ok(stream) => stream,
                Err(message) => {
                    self.complain(&io, &message);
                    return Ok(None);
                }
            };
            match redirect.descriptor {
                0 => io.input = stream,
                1 => io.output = stream,
                _ => io.errors = stream,
            }
        }
        Ok(Some(io))
    }

    pub(crate) fn open(&self, target: &str, mode: OpenMode) -> Result<Stream, String> {
        let verb = if mode == OpenMode::Read {
            "open"
        } else {
            "create"
        };
        let full = self.state.absolute(target);
        if mode == OpenMode::Read && unix::fs::stat(&full).is_ok_and(|m| m.is_dir()) {
            return Err(format!("cannot open {target}: {}", Errno::IsDirectory));
        }
        Stream::open(&full, mode).map_err(|e| format!("cannot {verb} {target}: {e}"))
    }

    /// Streams for other processes: what collects inside this process becomes a pipe.
    pub(crate) fn without_capture(&self, io: &Streams) -> Result<(Streams, Captured), Flow> {
        let mut out = io.clone();
        let mut captured = Captured { pipes: Vec::new() };
        if let Stream::Capture(target) = &io.output {
            let (reader, writer) = self.pipe(io)?;
            if matches!(&io.errors, Stream::Capture(other) if Rc::ptr_eq(other, target)) {
                out.errors = writer.clone();
            }
            out.output = writer;
            captured.pipes.push((reader, target.clone()));
        }
        if let Stream::Capture(target) = &out.errors {
            let target = target.clone();
            let (reader, writer) = self.pipe(io)?;
            out.errors = writer;
            captured.pipes.push((reader, target));
        }
        Ok((out, captured))
    }
}

/// A stream that holds a text: the buffer of a pipe, so at most 64 KiB.
pub(crate) fn here_document(text: &str) -> Result<Stream, Errno> {
    /// What every pipe takes without a reader.
    const HERE_MAX: usize = 60 * 1024;
    if text.len() > HERE_MAX {
        return Err(Errno::FileTooLarge);
    }
    let (reader, writer) = Stream::pipe()?;
    writer.write_all(text.as_bytes())?;
    Ok(reader)
}

/// Pipes whose contents are to be collected.
pub(crate) struct Captured {
    pipes: Vec<(Stream, Rc<RefCell<Vec<u8>>>)>,
}

impl Captured {
    /// Reads them to their ends.
    pub(crate) fn finish(self) {
        for (reader, target) in self.pipes {
            // What came before a failure is kept.
            if let Ok(bytes) = reader.read_to_end() {
                target.borrow_mut().extend_from_slice(&bytes);
            }
        }
    }
}
