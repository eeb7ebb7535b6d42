//! `rmdir`: removes empty directories.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::string::String;
use alloc::vec::Vec;

use unix::{Arg, Args, Stop, Tool};
unix::program!("rmdir", HELP, run);

const HELP: &str = "\
Usage: rmdir [-p] DIRECTORY...
Removes empty directories.

  -p  those above too, if they are empty then
";

fn run(tool: &mut Tool) -> Result<(), Stop> {
    let mut parents = false;
    let mut names = Vec::new();
    while let Some(arg) = tool.advance()? {
        match arg {
            Arg::Short('p') => parents = true,
            Arg::Operand(name) => names.push(name),
            other => return Err(Args::unknown(&other).into()),
        }
    }
    if names.is_empty() {
        return Err(Stop::Usage(String::from("missing operand")));
    }
    for name in &names {
        if parents {
            with_parents(tool, name);
        } else if let Err(error) = unix::fs::remove_dir(name) {
            tool.fail(format_args!("failed to remove '{name}': {error}"));
        }
    }
    Ok(())
}

fn with_parents(tool: &mut Tool, path: &str) {
    let mut name = path.trim_end_matches('/');
    while !name.is_empty() && name != "." {
        if let Err(error) = unix::fs::remove_dir(name) {
            tool.fail(format_args!("failed to remove '{name}': {error}"));
            return;
        }
        name = unix::path::dir_name(name);
    }
}
