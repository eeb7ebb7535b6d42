//! `stat`: all that is known of a file.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::string::String;
use alloc::vec::Vec;

use unix::{Arg, Args, Stop, Tool};
unix::program!("stat", HELP, run);

const HELP: &str = "\
Usage: stat [-Lf] [-c FORMAT] FILE...
Print what the file system knows of each FILE.

  -c FORMAT  %a %A mode, %b %B blocks, %d device, %f raw mode, %F kind, %g %G group, %h links,
             %i inode, %n %N name, %o block size, %s size, %t %T device numbers, %u %U owner,
             %w %W birth, %x %X access, %y %Y change of contents, %z %Z change of the inode
  -f         of the volume instead
  -L         follow links
";

fn run(tool: &mut Tool) -> Result<(), Stop> {
    let mut format: Option<String> = None;
    let (mut follow, mut volume) = (false, false);
    let mut names = Vec::new();
    while let Some(arg) = tool.advance()? {
        match arg {
            Arg::Short('c') => format = Some(tool.value()? + "\n"),
            Arg::Long(name) if name == "format" => format = Some(tool.value()? + "\n"),
            Arg::Short('L') => follow = true,
            Arg::Short('f') => volume = true,
            Arg::Operand(name) => names.push(name),
            other => return Err(Args::unknown(&other).into()),
        }
    }
    if names.is_empty() {
        return Err(Stop::Usage(String::from("missing operand")));
    }
    for name in &names {
        if volume {
            match unix::fs::volume_info(name) {
                Ok(v) => {
                    writeln!(tool.out, "  File: \"{name}\"\nBlock size: {}", v.block_size)?;
                    writeln!(
                        tool.out,
                        "Blocks: Total: {:<10} Free: {:<10} Available: {}",
                        v.blocks, v.free, v.available
                    )?;
                    writeln!(
                        tool.out,
                        "Inodes: Total: {:<10} Free: {}",
                        v.inodes, v.free_inodes
                    )?;
                }
                Err(error) => {
                    tool.fail(format_args!(
                        "cannot read file system information for '{name}': {error}"
                    ));
                }
            }
            continue;
        }
        let found = if follow {
            unix::fs::stat(name)
        } else {
            unix::fs::lstat(name)
        };
        match found {
            Ok(m) => {
                let text = match &format {
                    Some(format) => tools::listing::stat_format(format, name, &m),
                    None => tools::listing::stat_default(name, &m),
                };
                tool.out.bytes(text.as_bytes())?;
            }
            Err(error) => tool.fail(format_args!("cannot statx '{name}': {error}")),
        }
    }
    Ok(())
}
