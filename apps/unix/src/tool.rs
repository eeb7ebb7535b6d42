//! The frame that every tool runs in: options, buffered standard output, error messages that begin
//! with the tool's name, and the exit status.

use alloc::string::String;
use alloc::vec::Vec;
use alloc::{format, vec};
use core::fmt;

use crate::args::{Arg, Args, UsageError};
use crate::errno::Errno;
use crate::stream::Stream;

/// Why a tool ends before its work is done.
#[derive(Debug)]
pub enum Stop {
    /// With this status; what there was to say has been said.
    Status(i32),
    /// The command line is wrong.
    Usage(String),
    /// Standard output does not take any more.
    Output(Errno),
}

impl From<UsageError> for Stop {
    fn from(error: UsageError) -> Stop {
        Stop::Usage(error.0)
    }
}

/// Buffered standard output; by line when it leads to a terminal.
#[derive(Debug)]
pub struct Output {
    stream: Stream,
    buffer: Vec<u8>,
    by_line: bool,
}

/// Bytes gathered before they are written.
const OUTPUT_BUFFER: usize = 32 * 1024;

impl Output {
    /// On standard output.
    pub fn new() -> Output {
        let stream = Stream::stdout();
        let by_line = stream.is_terminal();
        Output {
            stream,
            buffer: Vec::new(),
            by_line,
        }
    }

    /// Appends bytes.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        if bytes.len() >= OUTPUT_BUFFER {
            self.flush()?;
            return self.stream.write_all(bytes).map_err(Stop::Output);
        }
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= OUTPUT_BUFFER || (self.by_line && bytes.contains(&b'\n')) {
            self.flush()?;
        }
        Ok(())
    }

    /// Appends text; the form that `write!` and `writeln!` use.
    pub fn write_fmt(&mut self, args: fmt::Arguments<'_>) -> Result<(), Stop> {
        struct Sink<'a>(&'a mut Vec<u8>);
        impl fmt::Write for Sink<'_> {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                self.0.extend_from_slice(text.as_bytes());
                Ok(())
            }
        }
        let before = self.buffer.len();
        // The sink never fails; a Display that does would only shorten its own text.
        let _ = fmt::write(&mut Sink(&mut self.buffer), args);
        let newline = self
            .buffer
            .get(before..)
            .is_some_and(|new| new.contains(&b'\n'));
        if self.buffer.len() >= OUTPUT_BUFFER || (self.by_line && newline) {
            self.flush()?;
        }
        Ok(())
    }

    /// Writes what is gathered.
    pub fn flush(&mut self) -> Result<(), Stop> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let result = self.stream.write_all(&self.buffer).map_err(Stop::Output);
        self.buffer.clear();
        result
    }

    /// Whether a person reads it.
    pub fn is_terminal(&self) -> bool {
        self.by_line
    }
}

impl Default for Output {
    fn default() -> Output {
        Output::new()
    }
}

/// State of the running tool.
#[derive(Debug)]
pub struct Tool {
    name: &'static str,
    help: &'static str,
    /// Arguments that have not been looked at.
    pub args: Args,
    /// Standard output.
    pub out: Output,
    /// Exit status so far.
    pub status: i32,
    /// Exit status for a wrong command line.
    pub usage_status: i32,
}

impl Tool {
    /// The next argument; `--help` and `--version` are answered here.
    pub fn advance(&mut self) -> Result<Option<Arg>, Stop> {
        let arg = self.args.advance()?;
        match &arg {
            Some(Arg::Long(name)) if name == "help" => {
                let help = self.help;
                write!(self.out, "{}", help)?;
                if !help.ends_with('\n') {
                    self.out.bytes(b"\n")?;
                }
                Err(Stop::Status(0))
            }
            Some(Arg::Long(name)) if name == "version" => {
                writeln!(
                    self.out,
                    "{} (Bulkhead) {}",
                    self.name,
                    env!("CARGO_PKG_VERSION")
                )?;
                Err(Stop::Status(0))
            }
            _ => Ok(arg),
        }
    }

    /// For a tool without options: its operands.
    pub fn operands(&mut self) -> Result<Vec<String>, Stop> {
        let mut operands = Vec::new();
        while let Some(arg) = self.advance()? {
            match arg {
                Arg::Operand(text) => operands.push(text),
                other => return Err(Args::unknown(&other).into()),
            }
        }
        Ok(operands)
    }

    /// The value of the option that came last.
    pub fn value(&mut self) -> Result<String, Stop> {
        Ok(self.args.value()?)
    }

    /// Its value as a number with an optional size suffix; `what` stands in the message, for
    /// instance `number of lines`.
    pub fn size_value(&mut self, what: &str) -> Result<u64, Stop> {
        let text = self.value()?;
        match crate::size::parse(&text) {
            Some(n) => Ok(n),
            None => Err(self.fatal(1, format_args!("invalid {what}: '{text}'"))),
        }
    }

    /// Prints `name: message` to standard error, without touching the status.
    pub fn warn(&mut self, message: fmt::Arguments<'_>) {
        // Order of the two streams on one terminal; a broken output shows at the next write.
        let _ = self.out.flush();
        let text = format!("{}: {}\n", self.name, message);
        // Nowhere to report that errors cannot be reported.
        let _ = Stream::stderr().write_all(text.as_bytes());
    }

    /// Prints `name: message` to standard error and makes the status at least 1.
    pub fn fail(&mut self, message: fmt::Arguments<'_>) {
        self.warn(message);
        self.status = self.status.max(1);
    }

    /// Prints `name: message` and gives the [`Stop`] that ends the tool with `status`.
    pub fn fatal(&mut self, status: i32, message: fmt::Arguments<'_>) -> Stop {
        self.warn(message);
        Stop::Status(status)
    }

    /// The files to read: `-` when none is named.
    pub fn inputs(operands: Vec<String>) -> Vec<String> {
        if operands.is_empty() {
            vec![String::from("-")]
        } else {
            operands
        }
    }
}

/// Status of a tool whose output nobody reads: as if SIGPIPE had ended it.
pub const BROKEN_PIPE_STATUS: i32 = 141;

/// Runs a tool and gives its exit status.
pub fn run(
    name: &'static str,
    help: &'static str,
    args: Vec<String>,
    body: fn(&mut Tool) -> Result<(), Stop>,
) -> i32 {
    let args = Args::new(args.into_iter().skip(1).collect());
    let mut tool = Tool {
        name,
        help,
        args,
        out: Output::new(),
        status: 0,
        usage_status: 1,
    };
    let result = body(&mut tool);
    let flushed = tool.out.flush();
    let stop = match (result, flushed) {
        (Ok(()), Ok(())) => return tool.status,
        (Err(stop), _) | (Ok(()), Err(stop)) => stop,
    };
    match stop {
        Stop::Status(status) => status,
        Stop::Output(Errno::BrokenPipe) => BROKEN_PIPE_STATUS,
        Stop::Output(error) => {
            tool.warn(format_args!("write error: {error}"));
            1
        }
        Stop::Usage(message) => {
            tool.warn(format_args!("{message}"));
            let hint = format!("Try '{name} --help' for more information.\n");
            // As above: errors that cannot be reported.
            let _ = Stream::stderr().write_all(hint.as_bytes());
            tool.usage_status
        }
    }
}
