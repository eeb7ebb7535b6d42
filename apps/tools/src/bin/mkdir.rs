//! `mkdir`: makes directories.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::string::String;
use alloc::vec::Vec;

use unix::{Arg, Args, Stop, Tool};
unix::program!("mkdir", HELP, run);

const HELP: &str = "\
Usage: mkdir [-p] DIRECTORY...
Makes directories.

  -p  those above too; one that exists is no error
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
        } else if let Err(error) = unix::fs::make_dir(name, 0o777) {
            tool.fail(format_args!("cannot create directory '{name}': {error}"));
        }
    }
    Ok(())
}

fn with_parents(tool: &mut Tool, path: &str) {
    let ends = path
        .match_indices('/')
        .map(|(at, _)| at)
        .filter(|at| *at > 0)
        .chain([path.len()]);
    for end in ends {
        let name = path.get(..end).unwrap_or(path);
        match unix::fs::make_dir(name, 0o777) {
            Ok(()) => {}
            Err(_) if unix::fs::stat(name).is_ok_and(|m| m.is_dir()) => {}
            Err(error) => {
                tool.fail(format_args!("cannot create directory '{name}': {error}"));
                return;
            }
        }
    }
}
