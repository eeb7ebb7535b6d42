//! `false`: fails.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use unix::{Stop, Tool};
unix::program!("false", HELP, run);

const HELP: &str = "\
Usage: false
Do nothing, unsuccessfully.
";

fn run(_tool: &mut Tool) -> Result<(), Stop> {
    Err(Stop::Status(1))
}
