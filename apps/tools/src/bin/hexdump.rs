//! `hexdump`: shows bytes as numbers.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::vec::Vec;

use unix::input::Input;
use unix::{Arg, Args, Stop, Tool};
unix::program!("hexdump", HELP, run);

const HELP: &str = "\
Usage: hexdump [-Cv] [-n LENGTH] [-s OFFSET] [FILE]...
Print the FILEs, one after the other, as hexadecimal numbers.

  -C         bytes and characters
  -v         every line, also those like the one before
  -n LENGTH  only that many bytes
  -s OFFSET  skip that many bytes
";

fn run(tool: &mut Tool) -> Result<(), Stop> {
    let mut canonical = false;
    let mut squeeze = true;
    let (mut left, mut skip) = (u64::MAX, 0u64);
    let mut names = Vec::new();
    while let Some(arg) = tool.advance()? {
        match arg {
            Arg::Short('C') => canonical = true,
            Arg::Short('v') => squeeze = false,
            Arg::Short('n') => left = number(tool)?,
            Arg::Short('s') => skip = number(tool)?,
            Arg::Operand(name) => names.push(name),
            other => return Err(Args::unknown(&other).into()),
        }
    }
    let mut offset = skip;
    let mut row = Vec::with_capacity(16);
    let mut previous: Vec<u8> = Vec::new();
    let mut starred = false;
    let mut chunk = alloc::vec![0u8; 64 * 1024];
    let mut any = false;
    for name in Tool::inputs(names) {
        let mut input = match Input::open(&name) {
            Ok(input) => input,
            Err(error) => {
                tool.fail(format_args!("{name}: {error}"));
                continue;
            }
        };
        if let Input::File(file) = &mut input
            && skip > 0
        {
            let size = file.metadata().map_or(0, |m| m.size);
            let jump = skip.min(size);
            if let Err(error) = file.seek(jump) {
                tool.fail(format_args!("{name}: {error}"));
                continue;
            }
            skip -= jump;
        }
        while left > 0 {
            let n = match input.read(&mut chunk) {
                Ok(0) => break,
                Ok(n) => n,
                Err(error) => {
                    tool.fail(format_args!("{name}: {error}"));
                    break;
                }
            };
            let jump = usize::try_from(skip).unwrap_or(usize::MAX).min(n);
            skip -= jump as u64;
            for byte in chunk.get(jump..n).unwrap_or_default() {
                if left == 0 {
                    break;
                }
                left -= 1;
                any = true;
                row.push(*byte);
                if row.len() == 16 {
                    if squeeze && row == previous {
                        if !starred {
                            tool.out.bytes(b"*\n")?;
                        }
                        starred = true;
                    } else {
                        print_row(tool, offset, &row, canonical)?;
                        starred = false;
                        previous.clone_from(&row);
                    }
                    offset += 16;
                    row.clear();
                }
            }
        }
    }
    if !row.is_empty() {
        print_row(tool, offset, &row, canonical)?;
        offset += row.len() as u64;
    }
    if any {
        if canonical {
            writeln!(tool.out, "{offset:08x}")?;
        } else {
            writeln!(tool.out, "{offset:07x}")?;
        }
    }
    Ok(())
}

fn number(tool: &mut Tool) -> Result<u64, Stop> {
    let text = tool.value()?;
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => unix::size::parse(&text),
    };
    parsed.ok_or_else(|| tool.fatal(1, format_args!("{text}: bad number")))
}

fn print_row(tool: &mut Tool, offset: u64, row: &[u8], canonical: bool) -> Result<(), Stop> {
    if canonical {
        write!(tool.out, "{offset:08x} ")?;
        for index in 0..16 {
            if index == 8 {
                tool.out.bytes(b" ")?;
            }
            match row.get(index) {
                Some(byte) => write!(tool.out, " {byte:02x}")?,
                None => tool.out.bytes(b"   ")?,
            }
        }
        tool.out.bytes(b"  |")?;
        for byte in row {
            let shown = if (0x20..0x7f).contains(byte) {
                *byte
            } else {
                b'.'
            };
            tool.out.bytes(&[shown])?;
        }
        return tool.out.bytes(b"|\n");
    }
    write!(tool.out, "{offset:07x}")?;
    for pair in row.chunks(2) {
        let word = match pair {
            [low, high] => u16::from_le_bytes([*low, *high]),
            [low] => u16::from(*low),
            _ => 0,
        };
        write!(tool.out, " {word:04x}")?;
    }
    for _ in row.len().div_ceil(2)..8 {
        tool.out.bytes(b"     ")?;
    }
    tool.out.bytes(b"\n")
}
