//! `dirname`: a path without its last component.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::string::String;

use unix::{Stop, Tool, path};
unix::program!("dirname", HELP, run);

const HELP: &str = "\
Usage: dirname NAME...
Print each NAME without its last component.
";

fn run(tool: &mut Tool) -> Result<(), Stop> {
    let names = tool.operands()?;
    if names.is_empty() {
        return Err(Stop::Usage(String::from("missing operand")));
    }
    for name in &names {
        writeln!(tool.out, "{}", path::dir_name(name))?;
    }
    Ok(())
}
