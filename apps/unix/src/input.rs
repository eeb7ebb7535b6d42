//! Input of a tool: a named file or, for `-`, standard input; and lines of it.

use alloc::vec::Vec;

use crate::errno::Result;
use crate::fs::File;
use crate::stream::Stream;

/// Where a tool reads from.
#[derive(Debug)]
pub enum Input {
    /// A file.
    File(File),
    /// Standard input.
    Stream(Stream),
}

impl Input {
    /// Opens an operand. A directory gives [`Errno::IsDirectory`](crate::Errno::IsDirectory) at the
    /// first read, as on Unix.
    pub fn open(operand: &str) -> Result<Input> {
        if operand == "-" {
            Ok(Input::Stream(Stream::stdin()))
        } else if operand == "/dev/null" {
            Ok(Input::Stream(Stream::Null))
        } else {
            File::open(operand).map(Input::File)
        }
    }

    /// Reads some bytes; 0 at the end.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        match self {
            Input::File(file) => file.read(buffer),
            Input::Stream(stream) => stream.read(buffer),
        }
    }
}

/// Lines of an input, each with its newline (the last one perhaps without).
#[derive(Debug)]
pub struct Lines {
    input: Input,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    finished: bool,
    delimiter: u8,
}

/// Bytes asked for at once.
const CHUNK: usize = 64 * 1024;

impl Lines {
    /// Over lines that end with a newline.
    pub fn new(input: Input) -> Lines {
        Lines::delimited(input, b'\n')
    }

    /// Over records that end with `delimiter`.
    pub fn delimited(input: Input, delimiter: u8) -> Lines {
        Lines {
            input,
            buffer: Vec::new(),
            start: 0,
            end: 0,
            finished: false,
            delimiter,
        }
    }

    /// The next line with its delimiter, or `None` at the end.
    pub fn next_line(&mut self) -> Result<Option<&[u8]>> {
        let mut searched = self.start;
        loop {
            let found = self
                .buffer
                .get(searched..self.end)
                .and_then(|b| b.iter().position(|b| *b == self.delimiter));
            if let Some(at) = found {
                let from = self.start;
                self.start = searched + at + 1;
                return Ok(self.buffer.get(from..self.start));
            }
            searched = self.end;
            if self.finished {
                let from = self.start;
                self.start = self.end;
                return Ok(self
                    .buffer
                    .get(from..self.end)
                    .filter(|rest| !rest.is_empty()));
            }
            if self.start > 0 {
                self.buffer.copy_within(self.start..self.end, 0);
                searched -= self.start;
                self.end -= self.start;
                self.start = 0;
            }
            if self.buffer.len() - self.end < CHUNK {
                self.buffer.resize(self.end + CHUNK, 0);
            }
            let room = self.buffer.get_mut(self.end..).unwrap_or_default();
            match self.input.read(room)? {
                0 => self.finished = true,
                n => self.end += n,
            }
        }
    }
}

/// A line without its newline.
pub fn chomp(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\n").unwrap_or(line)
}
