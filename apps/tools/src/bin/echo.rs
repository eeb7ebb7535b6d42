//! `echo`: prints its arguments.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use unix::{Stop, Tool};
unix::program!("echo", HELP, run);

const HELP: &str = "\
Usage: echo [-neE] [STRING]...
Print the STRINGs with spaces between them.

  -n  no newline at the end
  -e  backslash escapes count
  -E  they do not (default)
";

fn run(tool: &mut Tool) -> Result<(), Stop> {
    let args = tool.args.remaining();
    tool.out.bytes(shell::printf::echo(&args).as_bytes())
}
