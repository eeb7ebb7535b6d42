//! `rm`: removes files.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::string::String;
use alloc::vec::Vec;

use unix::{Arg, Args, Errno, Stop, Tool};
unix::program!("rm", HELP, run);

const HELP: &str = "\
Usage: rm [-fr] FILE...
Remove each FILE.

  -f  a FILE that is not there is no error
  -r  directories with all that is in them
";

fn run(tool: &mut Tool) -> Result<(), Stop> {
    let (mut force, mut recursive) = (false, false);
    let mut names = Vec::new();
    while let Some(arg) = tool.advance()? {
        match arg {
            Arg::Short('f') => force = true,
            Arg::Short('r' | 'R') => recursive = true,
            Arg::Operand(name) => names.push(name),
            other => return Err(Args::unknown(&other).into()),
        }
    }
    if names.is_empty() && !force {
        return Err(Stop::Usage(String::from("missing operand")));
    }
    for name in &names {
        match unix::fs::lstat(name) {
            Err(Errno::NoEntry) if force => {}
            Err(error) => tool.fail(format_args!("cannot remove '{name}': {error}")),
            Ok(m) if m.is_dir() && !recursive => {
                tool.fail(format_args!(
                    "cannot remove '{name}': {}",
                    Errno::IsDirectory
                ));
            }
            Ok(m) => remove(tool, name, m.is_dir()),
        }
    }
    Ok(())
}

fn remove(tool: &mut Tool, path: &str, is_dir: bool) {
    let result = if is_dir {
        match unix::fs::read_dir(path) {
            Ok(entries) => {
                for entry in entries {
                    let is_dir = entry.kind == unix::fs::Kind::Directory;
                    remove(tool, &unix::path::join(path, &entry.name), is_dir);
                }
                unix::fs::remove_dir(path)
            }
            Err(error) => Err(error),
        }
    } else {
        unix::fs::remove_file(path)
    };
    if let Err(error) = result {
        tool.fail(format_args!("cannot remove '{path}': {error}"));
    }
}
