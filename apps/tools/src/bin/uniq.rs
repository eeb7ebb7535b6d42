//! `uniq`: leaves out lines that repeat the one before.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::vec::Vec;

use unix::input::{Input, Lines, chomp};
use unix::{Arg, Args, Stop, Tool};
unix::program!("uniq", HELP, run);

const HELP: &str = "\
Usage: uniq [-cdiu] [INPUT]
Print each line that differs from the one before.

  -c  with the number of repetitions in front
  -d  only lines that are repeated
  -u  only lines that are not
  -i  case does not matter
";

fn run(tool: &mut Tool) -> Result<(), Stop> {
    let (mut count, mut fold) = (false, false);
    let mut which = Which::All;
    let mut names = Vec::new();
    while let Some(arg) = tool.advance()? {
        match arg {
            Arg::Short('c') => count = true,
            Arg::Short('d') => which = Which::Repeated,
            Arg::Short('u') => which = Which::Single,
            Arg::Short('i') => fold = true,
            Arg::Operand(name) => names.push(name),
            other => return Err(Args::unknown(&other).into()),
        }
    }
    let name = Tool::inputs(names).into_iter().next().unwrap_or_default();
    let mut lines = match Input::open(&name) {
        Ok(input) => Lines::new(input),
        Err(error) => return Err(tool.fatal(1, format_args!("{name}: {error}"))),
    };
    let mut previous: Option<(Vec<u8>, u64)> = None;
    loop {
        let line = match lines.next_line() {
            Ok(line) => line.map(chomp),
            Err(error) => {
                return Err(tool.fatal(1, format_args!("error reading '{name}': {error}")));
            }
        };
        match (&mut previous, line) {
            (Some((held, n)), Some(line))
                if if fold {
                    held.eq_ignore_ascii_case(line)
                } else {
                    held == line
                } =>
            {
                *n += 1;
            }
            (held, line) => {
                let next = line.map(|l| (l.to_vec(), 1));
                if let Some((text, n)) = core::mem::replace(held, next) {
                    let shown = match which {
                        Which::All => true,
                        Which::Repeated => n > 1,
                        Which::Single => n == 1,
                    };
                    if shown {
                        if count {
                            write!(tool.out, "{n:7} ")?;
                        }
                        tool.out.bytes(&text)?;
                        tool.out.bytes(b"\n")?;
                    }
                }
                if held.is_none() {
                    return Ok(());
                }
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Which {
    All,
    Repeated,
    Single,
}
