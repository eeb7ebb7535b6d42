//! `basename`: the last component of a path.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::string::String;
use alloc::vec::Vec;

use unix::{Arg, Args, Stop, Tool, path};
unix::program!("basename", HELP, run);

const HELP: &str = "\
Usage: basename NAME [SUFFIX]
       basename -a NAME...
Print NAME without leading directories and without SUFFIX.

  -a         every argument is a NAME
  -s SUFFIX  remove SUFFIX; implies -a
  -z         end each line with NUL
";

fn run(tool: &mut Tool) -> Result<(), Stop> {
    let mut names = Vec::new();
    let mut suffix = None;
    let mut several = false;
    let mut end = "\n";
    while let Some(arg) = tool.advance()? {
        match arg {
            Arg::Short('a') | Arg::Long(_) => several = true,
            Arg::Short('s') => {
                suffix = Some(tool.value()?);
                several = true;
            }
            Arg::Short('z') => end = "\0",
            Arg::Operand(name) => names.push(name),
            other => return Err(Args::unknown(&other).into()),
        }
    }
    if names.is_empty() {
        return Err(Stop::Usage(String::from("missing operand")));
    }
    if !several && names.len() > 1 {
        suffix = names.pop();
        if names.len() > 1 {
            let extra = suffix.unwrap_or_default();
            return Err(Stop::Usage(alloc::format!("extra operand '{extra}'")));
        }
    }
    for name in &names {
        let base = path::base_name(name);
        let shown = match suffix.as_deref() {
            Some(s) if base != s => base.strip_suffix(s).unwrap_or(base),
            _ => base,
        };
        write!(tool.out, "{shown}{end}")?;
    }
    Ok(())
}
