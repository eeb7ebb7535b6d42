//! `mount`: lists and mounts volumes.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::string::String;
use alloc::vec::Vec;

use unix::{Arg, Args, Stop, Tool};
unix::program!("mount", HELP, run);

const HELP: &str = "\
Usage: mount
       mount [-t TYPE] [-o OPTIONS] [-r] SOURCE DIRECTORY
Print every mounted volume, or mount SOURCE (for instance disk:/virtio1) on DIRECTORY.

  -t TYPE     ext4, vfat and so on; found out if not given
  -o OPTIONS  words between commas, for instance ro
  -r          read-only
";

fn run(tool: &mut Tool) -> Result<(), Stop> {
    let (mut kind, mut options) = (String::new(), Vec::new());
    let mut operands = Vec::new();
    while let Some(arg) = tool.advance()? {
        match arg {
            Arg::Short('t') => kind = tool.value()?,
            Arg::Short('o') => options.push(tool.value()?),
            Arg::Short('r') => options.push(String::from("ro")),
            Arg::Operand(text) => operands.push(text),
            other => return Err(Args::unknown(&other).into()),
        }
    }
    match operands.as_slice() {
        [] => match unix::fs::mounts() {
            Ok(mounts) => {
                for m in mounts.iter().filter(|m| kind.is_empty() || m.kind == kind) {
                    writeln!(
                        tool.out,
                        "{} on {} type {} ({})",
                        m.source, m.target, m.kind, m.options
                    )?;
                }
                Ok(())
            }
            Err(error) => {
                Err(tool.fatal(1, format_args!("cannot read the list of volumes: {error}")))
            }
        },
        [source, target] => {
            let source = match source.strip_prefix("/dev/") {
                Some(name) => alloc::format!("disk:/{name}"),
                None if source.contains(':') => source.clone(),
                None => alloc::format!("disk:/{source}"),
            };
            unix::fs::mount(&source, target, &kind, &options.join(","))
                .map_err(|why| tool.fatal(32, format_args!("{target}: {why}")))
        }
        _ => Err(Stop::Usage(String::from("bad usage"))),
    }
}
