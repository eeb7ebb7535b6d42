//! `seq`: counts.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::string::String;
use alloc::vec::Vec;

use unix::{Stop, Tool};
unix::program!("seq", HELP, run);

const HELP: &str = "\
Usage: seq [-w] [-s SEPARATOR] [FIRST [INCREMENT]] LAST
Print the whole numbers from FIRST (1) to LAST in steps of INCREMENT (1).

  -s SEPARATOR  between the numbers, instead of a newline
  -w            leading zeros, so that all have the same width
";

fn run(tool: &mut Tool) -> Result<(), Stop> {
    let mut separator = String::from("\n");
    let mut equal_width = false;
    let mut numbers: Vec<i64> = Vec::new();
    // A negative number is an operand, not an option.
    let args: Vec<String> = tool.args.remaining();
    let mut rest = args.into_iter();
    while let Some(arg) = rest.next() {
        if let Ok(n) = arg.parse() {
            numbers.push(n);
            continue;
        }
        match arg.as_str() {
            "-w" => equal_width = true,
            "-s" => match rest.next() {
                Some(text) => separator = text,
                None => {
                    return Err(Stop::Usage(String::from(
                        "option requires an argument -- 's'",
                    )));
                }
            },
            "--help" => {
                write!(tool.out, "{HELP}")?;
                return Ok(());
            }
            text => match text.strip_prefix("-s") {
                Some(value) => separator = String::from(value),
                None => {
                    return Err(Stop::Usage(alloc::format!(
                        "invalid floating point argument: '{text}'"
                    )));
                }
            },
        }
    }
    let (first, step, last) = match numbers.as_slice() {
        [last] => (1, 1, *last),
        [first, last] => (*first, 1, *last),
        [first, step, last] => (*first, *step, *last),
        [] => return Err(Stop::Usage(String::from("missing operand"))),
        _ => return Err(Stop::Usage(String::from("extra operand"))),
    };
    if step == 0 {
        return Err(Stop::Usage(String::from(
            "invalid Zero increment value: '0'",
        )));
    }
    let digits = |n: i64| alloc::format!("{n}").len();
    let width = if equal_width {
        digits(first).max(digits(last))
    } else {
        0
    };
    let mut at = Some(first);
    let mut any = false;
    while let Some(n) = at.filter(|n| if step > 0 { *n <= last } else { *n >= last }) {
        if any {
            tool.out.bytes(separator.as_bytes())?;
        }
        write!(tool.out, "{n:0width$}")?;
        any = true;
        at = n.checked_add(step);
    }
    if any {
        tool.out.bytes(b"\n")?;
    }
    Ok(())
}
