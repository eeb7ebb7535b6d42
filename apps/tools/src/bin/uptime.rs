//! `uptime`: how long the system has been running.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use unix::{Arg, Args, Stop, Tool, civil};
unix::program!("uptime", HELP, run);

const HELP: &str = "\
Usage: uptime [-p | -s]
Print the time, and how long the system has been running.

  -p  in words
  -s  when it started
";

fn run(tool: &mut Tool) -> Result<(), Stop> {
    let seconds = unix::process::monotonic_ns() / 1_000_000_000;
    let now = (unix::process::wall_clock_ns() / 1_000_000_000) as i64;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    let mut style = 'u';
    while let Some(arg) = tool.advance()? {
        match arg {
            Arg::Short(c @ ('p' | 's')) => style = c,
            other => return Err(Args::unknown(&other).into()),
        }
    }
    match style {
        's' => {
            let start = civil::format("%F %T", now.saturating_sub(seconds as i64), 0);
            writeln!(tool.out, "{start}")
        }
        'p' => {
            let mut parts = Vec::new();
            for (n, unit) in [(days, "day"), (hours, "hour"), (minutes, "minute")] {
                if n > 0 {
                    parts.push(format!("{n} {unit}{}", if n == 1 { "" } else { "s" }));
                }
            }
            if parts.is_empty() {
                parts.push(String::from("0 minutes"));
            }
            writeln!(tool.out, "up {}", parts.join(", "))
        }
        _ => {
            let mut text = String::new();
            if days > 0 {
                text.push_str(&format!("{days} day{}, ", if days == 1 { "" } else { "s" }));
            }
            if hours > 0 {
                text.push_str(&format!("{hours:2}:{minutes:02}"));
            } else {
                text.push_str(&format!("{minutes} min"));
            }
            writeln!(tool.out, " {} up {text}", civil::format("%T", now, 0))
        }
    }
}
