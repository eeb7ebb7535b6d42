//! `readlink`: the target of a symbolic link.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::string::String;

use unix::{Stop, Tool};
unix::program!("readlink", HELP, run);

const HELP: &str = "\
Usage: readlink FILE...
Print where each symbolic link leads.
";

fn run(tool: &mut Tool) -> Result<(), Stop> {
    let names = tool.operands()?;
    if names.is_empty() {
        return Err(Stop::Usage(String::from("missing operand")));
    }
    for name in &names {
        match unix::fs::read_link(name) {
            Ok(target) => writeln!(tool.out, "{target}")?,
            Err(_) => tool.status = 1,
        }
    }
    Ok(())
}
