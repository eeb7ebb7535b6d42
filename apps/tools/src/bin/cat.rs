//! `cat`: prints files.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::vec::Vec;

use unix::input::{Input, Lines};
use unix::{Arg, Args, Stop, Tool};
unix::program!("cat", HELP, run);

const HELP: &str = "\
Usage: cat [-n] [FILE]...
Print each FILE, or standard input where FILE is - or missing.

  -n  number the lines
";

fn run(tool: &mut Tool) -> Result<(), Stop> {
    let mut numbered = false;
    let mut names = Vec::new();
    while let Some(arg) = tool.advance()? {
        match arg {
            Arg::Short('n') => numbered = true,
            Arg::Short('u') => {}
            Arg::Operand(name) => names.push(name),
            other => return Err(Args::unknown(&other).into()),
        }
    }
    let mut line_number = 0u64;
    let mut chunk = alloc::vec![0u8; 64 * 1024];
    for name in Tool::inputs(names) {
        let mut input = match Input::open(&name) {
            Ok(input) => input,
            Err(error) => {
                tool.fail(format_args!("{name}: {error}"));
                continue;
            }
        };
        if numbered {
            let mut lines = Lines::new(input);
            loop {
                match lines.next_line() {
                    Ok(Some(line)) => {
                        line_number += 1;
                        write!(tool.out, "{line_number:6}\t")?;
                        tool.out.bytes(line)?;
                    }
                    Ok(None) => break,
                    Err(error) => {
                        tool.fail(format_args!("{name}: {error}"));
                        break;
                    }
                }
            }
            continue;
        }
        loop {
            match input.read(&mut chunk) {
                Ok(0) => break,
                Ok(n) => {
                    tool.out.bytes(chunk.get(..n).unwrap_or_default())?;
                    tool.out.flush()?;
                }
                Err(error) => {
                    tool.fail(format_args!("{name}: {error}"));
                    break;
                }
            }
        }
    }
    Ok(())
}
