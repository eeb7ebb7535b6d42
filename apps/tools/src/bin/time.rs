//! `time`: runs a program and tells how long it took.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::string::String;

use tools::command::Naming;
use unix::{Stop, Stream, Tool};
unix::program!("time", HELP, run);

const HELP: &str = "\
Usage: time COMMAND [ARGUMENT]...
Run COMMAND, then print the time that it took to standard error.
";

fn run(tool: &mut Tool) -> Result<(), Stop> {
    tool.args.options_first();
    let command = tool.operands()?;
    if command.is_empty() {
        return Err(Stop::Usage(String::from("missing command")));
    }
    let started = unix::process::monotonic_ns();
    let status = tools::command::run(tool, &command, &unix::process::environment(), Naming::Plain);
    let ms = unix::process::monotonic_ns().saturating_sub(started) / 1_000_000;
    let text = alloc::format!("real {}.{:03}\n", ms / 1000, ms % 1000);
    // Nowhere to report that a message cannot be shown.
    let _ = Stream::stderr().write_all(text.as_bytes());
    Err(Stop::Status(status))
}
