//! `true`: succeeds.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use unix::{Stop, Tool};
unix::program!("true", HELP, run);

const HELP: &str = "\
Usage: true
Do nothing, successfully.
";

fn run(_tool: &mut Tool) -> Result<(), Stop> {
    Ok(())
}
