//! `pwd`: the current directory.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use unix::{Stop, Tool};
unix::program!("pwd", HELP, run);

const HELP: &str = "\
Usage: pwd
Print the current directory.
";

fn run(tool: &mut Tool) -> Result<(), Stop> {
    writeln!(tool.out, "{}", unix::fs::current_dir())
}
