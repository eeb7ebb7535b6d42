//! `cmp`: compares two files byte by byte.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::string::String;
use alloc::vec::Vec;

use unix::input::Input;
use unix::{Arg, Args, Stop, Tool};
unix::program!("cmp", HELP, run);

const HELP: &str = "\
Usage: cmp [-ls] [-n LIMIT] FILE1 [FILE2 [SKIP1 [SKIP2]]]
Print the first place where the files differ.

  -l        print every byte that differs: number, octal values
  -s        print nothing
  -n LIMIT  compare at most LIMIT bytes
  -i SKIP   skip that many bytes of both files (SKIP1:SKIP2 for different numbers)
";

fn run(tool: &mut Tool) -> Result<(), Stop> {
    tool.usage_status = 2;
    let mut style = Style::First;
    let mut limit = u64::MAX;
    let mut skips = (0, 0);
    let mut operands = Vec::new();
    while let Some(arg) = tool.advance()? {
        match arg {
            Arg::Short('l') => style = Style::All,
            Arg::Short('s') => style = Style::Silent,
            Arg::Short('n') => limit = number(tool)?,
            Arg::Short('i') => {
                let text = tool.value()?;
                let (a, b) = text.split_once(':').unwrap_or((&text, &text));
                skips = match (unix::size::parse(a), unix::size::parse(b)) {
                    (Some(a), Some(b)) => (a, b),
                    _ => {
                        return Err(
                            tool.fatal(2, format_args!("invalid --ignore-initial value '{text}'"))
                        );
                    }
                };
            }
            Arg::Operand(text) => operands.push(text),
            other => return Err(Args::unknown(&other).into()),
        }
    }
    let mut operands = operands.into_iter();
    let Some(first) = operands.next() else {
        return Err(Stop::Usage(String::from("missing operand after 'cmp'")));
    };
    let second = operands.next().unwrap_or_else(|| String::from("-"));
    for (index, text) in operands.enumerate() {
        match (index, unix::size::parse(&text)) {
            (0, Some(n)) => skips.0 = n,
            (1, Some(n)) => skips.1 = n,
            _ => return Err(Stop::Usage(alloc::format!("extra operand '{text}'"))),
        }
    }
    // As wide as the last offset that can differ.
    let size = |name: &str| unix::fs::stat(name).map_or(u64::MAX, |m| m.size);
    let width = alloc::format!("{}", size(&first).min(size(&second)).min(limit)).len();
    let mut left = open(tool, &first, skips.0)?;
    let mut right = open(tool, &second, skips.1)?;
    let (mut at, mut line) = (0u64, 1u64);
    let mut last = 0u8;
    let mut differs = false;
    while at < limit {
        let (a, b) = (
            next(tool, &mut left, &first)?,
            next(tool, &mut right, &second)?,
        );
        let n = a
            .min(b)
            .min(usize::try_from(limit - at).unwrap_or(usize::MAX));
        if n == 0 {
            if a == b {
                break;
            }
            if style != Style::Silent {
                let short = if a == 0 { &first } else { &second };
                let place = match (at, style) {
                    (0, _) => String::from("which is empty"),
                    (_, Style::All) => alloc::format!("after byte {at}"),
                    _ if last == b'\n' => alloc::format!("after byte {at}, line {}", line - 1),
                    _ => alloc::format!("after byte {at}, in line {line}"),
                };
                tool.warn(format_args!("EOF on {short} {place}"));
            }
            return Err(Stop::Status(1));
        }
        let (x, y) = (left.bytes(n), right.bytes(n));
        if x != y || style == Style::All {
            for (p, q) in x.iter().zip(y) {
                at += 1;
                if p != q {
                    differs = true;
                    match style {
                        Style::Silent => return Err(Stop::Status(1)),
                        Style::First => {
                            writeln!(tool.out, "{first} {second} differ: byte {at}, line {line}")?;
                            return Err(Stop::Status(1));
                        }
                        Style::All => writeln!(tool.out, "{at:width$} {p:3o} {q:3o}")?,
                    }
                }
                line += u64::from(*p == b'\n');
                last = *p;
            }
        } else {
            line += x.iter().filter(|b| **b == b'\n').count() as u64;
            last = x.last().copied().unwrap_or(0);
            at += n as u64;
        }
        left.start += n;
        right.start += n;
    }
    if differs {
        Err(Stop::Status(1))
    } else {
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    First,
    All,
    Silent,
}

struct Side {
    input: Input,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Side {
    fn bytes(&self, n: usize) -> &[u8] {
        self.buffer
            .get(self.start..self.start + n)
            .unwrap_or_default()
    }
}

fn number(tool: &mut Tool) -> Result<u64, Stop> {
    let text = tool.value()?;
    unix::size::parse(&text)
        .ok_or_else(|| tool.fatal(2, format_args!("invalid --bytes value '{text}'")))
}

fn open(tool: &mut Tool, name: &str, skip: u64) -> Result<Side, Stop> {
    let opened = Input::open(name).and_then(|mut input| {
        match &mut input {
            Input::File(file) => file.seek(skip)?,
            Input::Stream(stream) => {
                let mut byte = [0u8];
                for _ in 0..skip {
                    if stream.read(&mut byte)? == 0 {
                        break;
                    }
                }
            }
        }
        Ok(input)
    });
    match opened {
        Ok(input) => Ok(Side {
            input,
            buffer: alloc::vec![0; 64 * 1024],
            start: 0,
            end: 0,
        }),
        Err(error) => Err(tool.fatal(2, format_args!("{name}: {error}"))),
    }
}

/// Bytes that are there, after reading if there were none.
fn next(tool: &mut Tool, side: &mut Side, name: &str) -> Result<usize, Stop> {
    if side.start == side.end {
        side.start = 0;
        side.end = match side.input.read(&mut side.buffer) {
            Ok(n) => n,
            Err(error) => return Err(tool.fatal(2, format_args!("{name}: {error}"))),
        };
    }
    Ok(side.end - side.start)
}
