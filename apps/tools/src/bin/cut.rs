//! `cut`: prints parts of lines.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::string::String;
use alloc::vec::Vec;

use unix::input::{Input, Lines, chomp};
use unix::{Arg, Args, Stop, Tool};
unix::program!("cut", HELP, run);

const HELP: &str = "\
Usage: cut -b LIST | -c LIST | -f LIST [-d CHARACTER] [-s] [FILE]...
Print the bytes or fields of LIST from each line; LIST is numbers and ranges such as 1,3-5,7-.

  -b, -c LIST  bytes
  -d CHARACTER between fields, instead of a tab
  -f LIST      fields
  -s           leave out lines without the separator
  --complement everything but LIST
  --output-delimiter TEXT
";

fn run(tool: &mut Tool) -> Result<(), Stop> {
    let mut delimiter = b'\t';
    let mut list = None;
    let mut fields = false;
    let (mut only_delimited, mut complement) = (false, false);
    let mut joint: Option<String> = None;
    let mut names = Vec::new();
    while let Some(arg) = tool.advance()? {
        match arg {
            Arg::Short(option @ ('b' | 'c' | 'f')) => {
                let text = tool.value()?;
                fields = option == 'f';
                match ranges(&text) {
                    Some(ranges) => list = Some(ranges),
                    None => {
                        return Err(Stop::Usage(alloc::format!("invalid field value '{text}'")));
                    }
                }
            }
            Arg::Short('d') => {
                let text = tool.value()?;
                match text.as_bytes() {
                    [byte] => delimiter = *byte,
                    _ => {
                        return Err(Stop::Usage(String::from(
                            "the delimiter must be a single character",
                        )));
                    }
                }
            }
            Arg::Short('s') => only_delimited = true,
            Arg::Short('n') => {}
            Arg::Long(name) if name == "complement" => complement = true,
            Arg::Long(name) if name == "output-delimiter" => joint = Some(tool.value()?),
            Arg::Operand(name) => names.push(name),
            other => return Err(Args::unknown(&other).into()),
        }
    }
    let Some(list) = list else {
        let text = "you must specify a list of bytes, characters, or fields";
        return Err(Stop::Usage(String::from(text)));
    };
    let chosen =
        |n: usize| list.iter().any(|(low, high)| (*low..=*high).contains(&n)) != complement;
    let joint = joint.map_or_else(|| alloc::vec![delimiter], String::into_bytes);
    for name in Tool::inputs(names) {
        let mut lines = match Input::open(&name) {
            Ok(input) => Lines::new(input),
            Err(error) => {
                tool.fail(format_args!("{name}: {error}"));
                continue;
            }
        };
        loop {
            let line = match lines.next_line() {
                Ok(Some(line)) => chomp(line),
                Ok(None) => break,
                Err(error) => {
                    tool.fail(format_args!("{name}: {error}"));
                    break;
                }
            };
            if !fields {
                let bytes: Vec<u8> = line
                    .iter()
                    .enumerate()
                    .filter(|(index, _)| chosen(index + 1))
                    .map(|(_, byte)| *byte)
                    .collect();
                tool.out.bytes(&bytes)?;
            } else if !line.contains(&delimiter) {
                if only_delimited {
                    continue;
                }
                tool.out.bytes(line)?;
            } else {
                let mut any = false;
                for (index, field) in line.split(|b| *b == delimiter).enumerate() {
                    if chosen(index + 1) {
                        if any {
                            tool.out.bytes(&joint)?;
                        }
                        tool.out.bytes(field)?;
                        any = true;
                    }
                }
            }
            tool.out.bytes(b"\n")?;
        }
    }
    Ok(())
}

fn ranges(text: &str) -> Option<Vec<(usize, usize)>> {
    text.split(',')
        .map(|part| {
            let (low, high) = match part.split_once('-') {
                Some(("", "")) => return None,
                Some((low, "")) => (low.parse().ok()?, usize::MAX),
                Some(("", high)) => (1, high.parse().ok()?),
                Some((low, high)) => (low.parse().ok()?, high.parse().ok()?),
                None => {
                    let n = part.parse().ok()?;
                    (n, n)
                }
            };
            (low >= 1 && low <= high).then_some((low, high))
        })
        .collect()
}
