//! `sync`: makes what was written durable.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use unix::{Stop, Tool};
unix::program!("sync", HELP, run);

const HELP: &str = "\
Usage: sync
Wait until everything written is on the disks.
";

fn run(tool: &mut Tool) -> Result<(), Stop> {
    tool.operands()?;
    unix::fs::sync().map_err(|error| tool.fatal(1, format_args!("error syncing: {error}")))
}
