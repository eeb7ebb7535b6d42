//! `date`: the date and time.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::string::String;

use unix::{Arg, Args, Stop, Tool};
unix::program!("date", HELP, run);

const HELP: &str = "\
Usage: date [-u] [-d @SECONDS] [+FORMAT]
Print the date in FORMAT, as strftime does; the time zone is UTC.

  -d @SECONDS  that many seconds after 1970 instead of now
  -I           the date as YYYY-MM-DD
";

fn run(tool: &mut Tool) -> Result<(), Stop> {
    let mut format = String::from("%a %b %e %H:%M:%S UTC %Y");
    let now = unix::process::wall_clock_ns();
    let mut at = ((now / 1_000_000_000) as i64, (now % 1_000_000_000) as u32);
    while let Some(arg) = tool.advance()? {
        match arg {
            Arg::Short('u') | Arg::Long(_) => {}
            Arg::Short('I') => format = String::from("%F"),
            Arg::Short('d') => {
                let text = tool.value()?;
                match text.strip_prefix('@').and_then(|n| n.parse().ok()) {
                    Some(seconds) => at = (seconds, 0),
                    None => return Err(tool.fatal(1, format_args!("invalid date '{text}'"))),
                }
            }
            Arg::Operand(text) => match text.strip_prefix('+') {
                Some(pattern) => format = String::from(pattern),
                None => return Err(tool.fatal(1, format_args!("invalid date '{text}'"))),
            },
            other => return Err(Args::unknown(&other).into()),
        }
    }
    writeln!(tool.out, "{}", unix::civil::format(&format, at.0, at.1))
}
