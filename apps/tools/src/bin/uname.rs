//! `uname`: the name of the system.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::format;
use alloc::vec::Vec;

use unix::{Arg, Args, Stop, Tool};
unix::program!("uname", HELP, run);

const HELP: &str = "\
Usage: uname [-amnrsv]
Print the name of the system.

  -a  everything
  -m  machine
  -n  network name
  -r  release
  -s  system (default)
  -v  version of the kernel interface
";

fn run(tool: &mut Tool) -> Result<(), Stop> {
    let mut wanted = Vec::new();
    while let Some(arg) = tool.advance()? {
        match arg {
            Arg::Short('a') => wanted.extend(['s', 'n', 'r', 'v', 'm']),
            Arg::Short(c @ ('s' | 'n' | 'r' | 'v' | 'm')) => wanted.push(c),
            other => return Err(Args::unknown(&other).into()),
        }
    }
    if wanted.is_empty() {
        wanted.push('s');
    }
    let version = format!("ABI {}", rt::abi::ABI_VERSION);
    let parts: Vec<&str> = ['s', 'n', 'r', 'v', 'm']
        .into_iter()
        .filter(|c| wanted.contains(c))
        .map(|c| match c {
            's' => "Bulkhead",
            'n' => "bulkhead",
            'r' => env!("CARGO_PKG_VERSION"),
            'v' => &version,
            _ => "x86_64",
        })
        .collect();
    writeln!(tool.out, "{}", parts.join(" "))
}
