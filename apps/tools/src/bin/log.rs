//! `log`: the system log.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::vec::Vec;

use rt::{Resource, startup};
use unix::{Arg, Args, Stop, Tool};
unix::program!("log", HELP, run);

const HELP: &str = "\
Usage: log [-f] [-n COUNT]
Print the log of kernel, services and drivers.

  -f        go on with what is added
  -n COUNT  begin with the last COUNT lines
";

/// How often `-f` looks for more.
const INTERVAL_NS: u64 = 200_000_000;

fn run(tool: &mut Tool) -> Result<(), Stop> {
    let mut follow = false;
    let mut last = None;
    while let Some(arg) = tool.advance()? {
        match arg {
            Arg::Short('f') => follow = true,
            Arg::Short('n') => {
                let n = tool.size_value("number of lines")?;
                last = Some(usize::try_from(n).unwrap_or(usize::MAX));
            }
            other => return Err(Args::unknown(&other).into()),
        }
    }
    let Some(log) = startup::handle::<Resource>("log-reader") else {
        return Err(tool.fatal(1, format_args!("no access to the log")));
    };
    let mut buffer = alloc::vec![0u8; 32 * 1024];
    let mut sequence = 0;
    let mut first: Vec<u8> = Vec::new();
    loop {
        let read = match rt::log_read(log, &mut buffer, sequence) {
            Ok(read) => read,
            Err(error) => return Err(tool.fatal(1, format_args!("cannot read the log: {error}"))),
        };
        let bytes = buffer.get(..read.len).unwrap_or_default();
        let at_end = read.len == 0 || read.next == sequence;
        sequence = read.next;
        match last {
            Some(_) => first.extend_from_slice(bytes),
            None => tool.out.bytes(bytes)?,
        }
        if !at_end {
            continue;
        }
        if let Some(count) = last.take() {
            let lines: Vec<&[u8]> = first.split_inclusive(|b| *b == b'\n').collect();
            for line in lines.iter().skip(lines.len().saturating_sub(count)) {
                tool.out.bytes(line)?;
            }
            first = Vec::new();
        }
        if !follow {
            return Ok(());
        }
        tool.out.flush()?;
        unix::process::sleep_ns(INTERVAL_NS);
    }
}
