//! `test`: evaluates a condition.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use unix::{Stop, Tool};
unix::program!("test", HELP, run);

const HELP: &str = "\
Usage: test EXPRESSION
Succeed if EXPRESSION is true, see the builtin of sh.
";

fn run(tool: &mut Tool) -> Result<(), Stop> {
    let args = tool.args.remaining();
    match shell::condition::evaluate(&args, &unix::fs::current_dir()) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Stop::Status(1)),
        Err(message) => Err(tool.fatal(2, format_args!("{message}"))),
    }
}
