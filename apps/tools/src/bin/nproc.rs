//! `nproc`: the number of CPUs.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use unix::{Stop, Tool};
unix::program!("nproc", HELP, run);

const HELP: &str = "\
Usage: nproc
Print the number of CPUs that run.
";

fn run(tool: &mut Tool) -> Result<(), Stop> {
    tool.operands()?;
    writeln!(tool.out, "{}", rt::system_info().cpu_count)
}
