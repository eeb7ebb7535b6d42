//! `wc`: counts lines, words and bytes.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::string::String;
use alloc::vec::Vec;

use unix::input::Input;
use unix::{Arg, Args, Errno, Stop, Stream, Tool};
unix::program!("wc", HELP, run);

const HELP: &str = "\
Usage: wc [-clmwL] [FILE]...
Print the number of newlines, words and bytes of each FILE, and a total if there are several.

  -c  bytes
  -l  newlines
  -m  characters (of UTF-8)
  -w  words
  -L  length of the longest line
";

fn run(tool: &mut Tool) -> Result<(), Stop> {
    let mut wanted = Vec::new();
    let mut names = Vec::new();
    while let Some(arg) = tool.advance()? {
        match arg {
            Arg::Short(c @ ('c' | 'l' | 'm' | 'w' | 'L')) => wanted.push(c),
            Arg::Operand(name) => names.push(name),
            other => return Err(Args::unknown(&other).into()),
        }
    }
    if wanted.is_empty() {
        wanted.extend(['l', 'w', 'c']);
    }
    let columns: Vec<char> = ['l', 'w', 'm', 'c', 'L']
        .into_iter()
        .filter(|c| wanted.contains(c))
        .collect();
    let named = !names.is_empty();
    let names = Tool::inputs(names);
    let width = width(&names, columns.len());
    let mut total = Counts::default();
    for name in &names {
        let counted = Input::open(name).and_then(|mut input| count(&mut input, &columns));
        match counted {
            Ok(counts) => {
                print(
                    tool,
                    &counts,
                    &columns,
                    width,
                    named.then_some(name.as_str()),
                )?;
                total.add(&counts);
            }
            Err(error) => {
                tool.fail(format_args!("{name}: {error}"));
                if error == Errno::IsDirectory {
                    print(
                        tool,
                        &Counts::default(),
                        &columns,
                        width,
                        Some(name.as_str()),
                    )?;
                }
            }
        }
    }
    if names.len() > 1 {
        print(tool, &total, &columns, width, Some("total"))?;
    }
    Ok(())
}

/// Width of a number, as GNU's: enough for the sum of the sizes, at least 7 if one is not known.
fn width(names: &[String], columns: usize) -> usize {
    if names.len() == 1 && columns == 1 {
        return 1;
    }
    let mut least = 1;
    let mut sum: u64 = 0;
    for name in names {
        let found = if name == "-" {
            Stream::stdin().metadata().ok_or(Errno::NotSeekable)
        } else {
            unix::fs::stat(name)
        };
        match found {
            Ok(m) if m.is_file() => sum = sum.saturating_add(m.size),
            Err(Errno::NoEntry) => {}
            _ => least = 7,
        }
    }
    alloc::format!("{sum}").len().max(least)
}

#[derive(Default)]
struct Counts {
    lines: u64,
    words: u64,
    chars: u64,
    bytes: u64,
    longest: u64,
}

impl Counts {
    fn add(&mut self, other: &Counts) {
        self.lines += other.lines;
        self.words += other.words;
        self.chars += other.chars;
        self.bytes += other.bytes;
        self.longest = self.longest.max(other.longest);
    }
}

fn count(input: &mut Input, columns: &[char]) -> unix::Result<Counts> {
    let mut counts = Counts::default();
    if columns == ['c']
        && let Input::File(file) = input
        && let Ok(m) = file.metadata()
        && m.is_file()
    {
        counts.bytes = m.size;
        return Ok(counts);
    }
    let mut chunk = alloc::vec![0u8; 64 * 1024];
    let only_lines = columns.iter().all(|c| matches!(c, 'l' | 'c'));
    let (mut in_word, mut length) = (false, 0u64);
    loop {
        let n = input.read(&mut chunk)?;
        if n == 0 {
            counts.longest = counts.longest.max(length);
            return Ok(counts);
        }
        let bytes = chunk.get(..n).unwrap_or_default();
        counts.bytes += n as u64;
        if only_lines {
            counts.lines += bytes.iter().filter(|b| **b == b'\n').count() as u64;
            continue;
        }
        for byte in bytes {
            counts.lines += u64::from(*byte == b'\n');
            counts.chars += u64::from(byte & 0xc0 != 0x80);
            match byte {
                b'\n' | b'\r' | 0x0c => {
                    counts.longest = counts.longest.max(length);
                    length = 0;
                    in_word = false;
                }
                b'\t' => {
                    length += 8 - length % 8;
                    in_word = false;
                }
                b' ' => {
                    length += 1;
                    in_word = false;
                }
                0x0b => in_word = false,
                _ => {
                    let printable = (0x20..0x7f).contains(byte);
                    length += u64::from(printable);
                    // As GNU in the C locale: what cannot be printed makes no word.
                    if printable && !in_word {
                        in_word = true;
                        counts.words += 1;
                    }
                }
            }
        }
    }
}

fn print(
    tool: &mut Tool,
    counts: &Counts,
    columns: &[char],
    width: usize,
    name: Option<&str>,
) -> Result<(), Stop> {
    for (index, column) in columns.iter().enumerate() {
        let number = match column {
            'l' => counts.lines,
            'w' => counts.words,
            'm' => counts.chars,
            'c' => counts.bytes,
            _ => counts.longest,
        };
        let gap = if index == 0 { "" } else { " " };
        write!(tool.out, "{gap}{number:width$}")?;
    }
    match name {
        Some(name) => writeln!(tool.out, " {name}"),
        None => tool.out.bytes(b"\n"),
    }
}
