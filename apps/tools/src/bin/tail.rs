//! `tail`: the end of files.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;

use unix::fs::File;
use unix::input::{Input, Lines};
use unix::{Arg, Args, Errno, Stop, Tool};
unix::program!("tail", HELP, run);

const HELP: &str = "\
Usage: tail [-n [+]N | -c [+]N] [-qv] [FILE]...
Print the last 10 lines of each FILE.

  -n N  the last N lines; with +N everything from line N on
  -c N  the last N bytes; with +N everything from byte N on
  -q    never print the names
  -v    always print the names
";

fn run(tool: &mut Tool) -> Result<(), Stop> {
    let mut unit = Unit::Lines;
    let mut start = Start::FromEnd(10);
    let mut names = Vec::new();
    let mut headers = None;
    let mut digits = String::new();
    while let Some(arg) = tool.advance()? {
        match arg {
            Arg::Short(option @ ('n' | 'c')) => {
                unit = if option == 'n' {
                    Unit::Lines
                } else {
                    Unit::Bytes
                };
                let text = tool.value()?;
                start = parse(tool, &text, unit)?;
            }
            Arg::Short('q') => headers = Some(false),
            Arg::Short('v') => headers = Some(true),
            Arg::Short(c) if c.is_ascii_digit() => {
                digits.push(c);
                start = parse(tool, &digits, unit)?;
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
        if let Err(error) = show(tool, input, unit, start)? {
            tool.fail(format_args!("error reading '{name}': {error}"));
        }
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Unit {
    Lines,
    Bytes,
}

#[derive(Clone, Copy)]
enum Start {
    /// So many before the end.
    FromEnd(u64),
    /// With this one, counted from 1.
    At(u64),
}

fn parse(tool: &mut Tool, text: &str, unit: Unit) -> Result<Start, Stop> {
    let (from_start, number) = match text.strip_prefix('+') {
        Some(number) => (true, number),
        None => (false, text.strip_prefix('-').unwrap_or(text)),
    };
    let what = if unit == Unit::Lines {
        "lines"
    } else {
        "bytes"
    };
    match unix::size::parse(number) {
        Some(n) if from_start => Ok(Start::At(n.max(1))),
        Some(n) => Ok(Start::FromEnd(n)),
        None => Err(tool.fatal(1, format_args!("invalid number of {what}: '{text}'"))),
    }
}

fn show(
    tool: &mut Tool,
    mut input: Input,
    unit: Unit,
    start: Start,
) -> Result<unix::Result<()>, Stop> {
    if let (Input::File(file), Start::FromEnd(count)) = (&mut input, start) {
        let found = match file.metadata() {
            Ok(m) if m.is_dir() => return Ok(Err(Errno::IsDirectory)),
            Ok(m) if unit == Unit::Bytes => Ok(m.size.saturating_sub(count)),
            Ok(m) => line_start(file, m.size, count),
            Err(error) => Err(error),
        };
        match found.and_then(|offset| file.seek(offset)) {
            Ok(()) => return copy_rest(tool, &mut input),
            Err(error) => return Ok(Err(error)),
        }
    }
    match (unit, start) {
        (_, Start::At(first)) => skip(tool, input, unit, first - 1),
        (Unit::Bytes, Start::FromEnd(count)) => {
            let count = usize::try_from(count).unwrap_or(usize::MAX);
            let mut held: Vec<u8> = Vec::new();
            let mut chunk = alloc::vec![0u8; 64 * 1024];
            loop {
                match input.read(&mut chunk) {
                    Ok(0) => break,
                    Ok(n) => held.extend_from_slice(chunk.get(..n).unwrap_or_default()),
                    Err(error) => return Ok(Err(error)),
                }
                held.drain(..held.len().saturating_sub(count));
            }
            tool.out.bytes(&held)?;
            Ok(Ok(()))
        }
        (Unit::Lines, Start::FromEnd(count)) => {
            let mut kept: VecDeque<Vec<u8>> = VecDeque::new();
            let mut lines = Lines::new(input);
            loop {
                match lines.next_line() {
                    Ok(Some(line)) => kept.push_back(line.to_vec()),
                    Ok(None) => break,
                    Err(error) => return Ok(Err(error)),
                }
                if kept.len() as u64 > count {
                    kept.pop_front();
                }
            }
            for line in kept {
                tool.out.bytes(&line)?;
            }
            Ok(Ok(()))
        }
    }
}

/// Offset of the line that is `count` before the end, found from behind.
fn line_start(file: &mut File, size: u64, count: u64) -> unix::Result<u64> {
    if count == 0 {
        return Ok(size);
    }
    let mut chunk = alloc::vec![0u8; 64 * 1024];
    let mut end = size;
    let mut seen = 0;
    while end > 0 {
        let start = end.saturating_sub(chunk.len() as u64);
        let mut filled = 0;
        let wanted = usize::try_from(end - start).unwrap_or(0);
        while filled < wanted {
            let room = chunk.get_mut(filled..wanted).unwrap_or_default();
            match file.read_at(start + filled as u64, room)? {
                0 => break,
                n => filled += n,
            }
        }
        for (index, byte) in chunk.iter().take(filled).enumerate().rev() {
            let at = start + index as u64;
            // The newline at the very end ends the last line; it does not begin another.
            if *byte == b'\n' && at + 1 != size {
                seen += 1;
                if seen == count {
                    return Ok(at + 1);
                }
            }
        }
        end = start;
    }
    Ok(0)
}

fn copy_rest(tool: &mut Tool, input: &mut Input) -> Result<unix::Result<()>, Stop> {
    let mut chunk = alloc::vec![0u8; 64 * 1024];
    loop {
        match input.read(&mut chunk) {
            Ok(0) => return Ok(Ok(())),
            Ok(n) => tool.out.bytes(chunk.get(..n).unwrap_or_default())?,
            Err(error) => return Ok(Err(error)),
        }
    }
}

fn skip(
    tool: &mut Tool,
    mut input: Input,
    unit: Unit,
    mut count: u64,
) -> Result<unix::Result<()>, Stop> {
    if unit == Unit::Lines {
        let mut lines = Lines::new(input);
        loop {
            match lines.next_line() {
                Ok(Some(_)) if count > 0 => count -= 1,
                Ok(Some(line)) => tool.out.bytes(line)?,
                Ok(None) => return Ok(Ok(())),
                Err(error) => return Ok(Err(error)),
            }
        }
    }
    if let Input::File(file) = &mut input {
        return match file.seek(count) {
            Ok(()) => copy_rest(tool, &mut input),
            Err(error) => Ok(Err(error)),
        };
    }
    let mut chunk = alloc::vec![0u8; 64 * 1024];
    while count > 0 {
        let wanted = usize::try_from(count)
            .unwrap_or(usize::MAX)
            .min(chunk.len());
        match input.read(chunk.get_mut(..wanted).unwrap_or_default()) {
            Ok(0) => return Ok(Ok(())),
            Ok(n) => count -= n as u64,
            Err(error) => return Ok(Err(error)),
        }
    }
    copy_rest(tool, &mut input)
}
