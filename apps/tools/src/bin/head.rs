//! `head`: the beginning of files.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;

use unix::input::{Input, Lines};
use unix::{Arg, Args, Errno, Stop, Tool};
unix::program!("head", HELP, run);

const HELP: &str = "\
Usage: head [-n [-]N | -c [-]N] [-qv] [FILE]...
Print the first 10 lines of each FILE.

  -n N  the first N lines; with -N all but the last N
  -c N  the first N bytes; with -N all but the last N
  -q    never print the names
  -v    always print the names
";

fn run(tool: &mut Tool) -> Result<(), Stop> {
    let mut amount = Amount::Lines(10);
    let mut names = Vec::new();
    let mut headers = None;
    let mut digits = String::new();
    while let Some(arg) = tool.advance()? {
        match arg {
            Arg::Short('n') => {
                let text = tool.value()?;
                amount = parse(tool, &text, "lines", Amount::Lines, Amount::LinesButLast)?;
            }
            Arg::Short('c') => {
                let text = tool.value()?;
                amount = parse(tool, &text, "bytes", Amount::Bytes, Amount::BytesButLast)?;
            }
            Arg::Short('q') => headers = Some(false),
            Arg::Short('v') => headers = Some(true),
            // The old form: -5.
            Arg::Short(c) if c.is_ascii_digit() => {
                digits.push(c);
                amount = parse(tool, &digits, "lines", Amount::Lines, Amount::LinesButLast)?;
            }
            Arg::Operand(name) => names.push(name),
            other => return Err(Args::unknown(&other).into()),
        }
    }
    let names = Tool::inputs(names);
    let headers = headers.unwrap_or(names.len() > 1);
    let mut first = true;
    for name in names {
        let input = match Input::open(&name) {
            Ok(input) => input,
            Err(error) => {
                tool.fail(format_args!("cannot open '{name}' for reading: {error}"));
                continue;
            }
        };
        if headers {
            let shown = if name == "-" { "standard input" } else { &name };
            let gap = if first { "" } else { "\n" };
            writeln!(tool.out, "{gap}==> {shown} <==")?;
        }
        first = false;
        match copy(tool, input, amount) {
            Ok(()) => {}
            Err(Problem::Read(error)) => tool.fail(format_args!("error reading '{name}': {error}")),
            Err(Problem::Write(stop)) => return Err(stop),
        }
    }
    tool.out.flush()
}

#[derive(Clone, Copy)]
enum Amount {
    Lines(u64),
    LinesButLast(u64),
    Bytes(u64),
    BytesButLast(u64),
}

fn parse(
    tool: &mut Tool,
    text: &str,
    what: &str,
    first: fn(u64) -> Amount,
    but_last: fn(u64) -> Amount,
) -> Result<Amount, Stop> {
    let (make, number) = match text.strip_prefix('-') {
        Some(number) => (but_last, number),
        None => (first, text),
    };
    match unix::size::parse(number) {
        Some(n) => Ok(make(n)),
        None => Err(tool.fatal(1, format_args!("invalid number of {what}: '{text}'"))),
    }
}

enum Problem {
    Read(Errno),
    Write(Stop),
}

impl From<Errno> for Problem {
    fn from(error: Errno) -> Problem {
        Problem::Read(error)
    }
}

impl From<Stop> for Problem {
    fn from(stop: Stop) -> Problem {
        Problem::Write(stop)
    }
}

fn copy(tool: &mut Tool, mut input: Input, amount: Amount) -> Result<(), Problem> {
    match amount {
        Amount::Lines(count) => {
            let mut lines = Lines::new(input);
            for _ in 0..count {
                match lines.next_line()? {
                    Some(line) => tool.out.bytes(line)?,
                    None => break,
                }
            }
        }
        Amount::LinesButLast(count) => {
            let mut lines = Lines::new(input);
            let mut kept: VecDeque<Vec<u8>> = VecDeque::new();
            while let Some(line) = lines.next_line()? {
                kept.push_back(line.to_vec());
                if kept.len() as u64 > count
                    && let Some(line) = kept.pop_front()
                {
                    tool.out.bytes(&line)?;
                }
            }
        }
        Amount::Bytes(mut left) => {
            let mut chunk = alloc::vec![0u8; 64 * 1024];
            while left > 0 {
                let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
                let n = input.read(chunk.get_mut(..wanted).unwrap_or_default())?;
                if n == 0 {
                    break;
                }
                tool.out.bytes(chunk.get(..n).unwrap_or_default())?;
                left -= n as u64;
            }
        }
        Amount::BytesButLast(count) => {
            let count = usize::try_from(count).unwrap_or(usize::MAX);
            let mut held = Vec::new();
            let mut chunk = alloc::vec![0u8; 64 * 1024];
            loop {
                let n = input.read(&mut chunk)?;
                if n == 0 {
                    break;
                }
                held.extend_from_slice(chunk.get(..n).unwrap_or_default());
                let ready = held.len().saturating_sub(count);
                tool.out.bytes(held.get(..ready).unwrap_or_default())?;
                held.drain(..ready);
            }
        }
    }
    Ok(())
}
