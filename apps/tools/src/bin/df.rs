//! `df`: space on volumes.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use unix::{Arg, Args, Stop, Tool};
unix::program!("df", HELP, run);

const HELP: &str = "\
Usage: df [-hT] [FILE]...
Print the space on every volume, or on those that hold the FILEs.

  -h  sizes for people
  -T  type of the file system
";

fn run(tool: &mut Tool) -> Result<(), Stop> {
    let (mut human, mut types) = (false, false);
    let mut names = Vec::new();
    while let Some(arg) = tool.advance()? {
        match arg {
            Arg::Short('h') => human = true,
            Arg::Short('T') => types = true,
            Arg::Short('k') => {}
            Arg::Operand(name) => names.push(name),
            other => return Err(Args::unknown(&other).into()),
        }
    }
    let mounts = match unix::fs::mounts() {
        Ok(mounts) => mounts,
        Err(error) => {
            return Err(tool.fatal(1, format_args!("cannot read the list of volumes: {error}")));
        }
    };
    let mut chosen = Vec::new();
    if names.is_empty() {
        chosen.extend(mounts.iter());
    }
    for name in &names {
        let device = unix::fs::stat(name).map(|m| m.device);
        match device {
            Ok(device) => chosen.extend(
                mounts
                    .iter()
                    .filter(|m| unix::fs::stat(&m.target).is_ok_and(|s| s.device == device)),
            ),
            Err(error) => tool.fail(format_args!("{name}: {error}")),
        }
    }
    let mut rows = Vec::new();
    let mut head: Vec<&str> = alloc::vec!["Filesystem"];
    if types {
        head.push("Type");
    }
    head.extend(if human {
        ["Size", "Used", "Avail"]
    } else {
        ["1K-blocks", "Used", "Available"]
    });
    head.extend(["Use%", "Mounted on"]);
    rows.push(head.into_iter().map(String::from).collect::<Vec<_>>());
    for mount in chosen {
        let v = match unix::fs::volume_info(&mount.target) {
            Ok(v) => v,
            Err(error) => {
                tool.fail(format_args!("{}: {error}", mount.target));
                continue;
            }
        };
        let used = v.blocks.saturating_sub(v.free);
        let size = |blocks: u64| {
            let bytes = blocks.saturating_mul(v.block_size);
            if human {
                unix::size::human(bytes)
            } else {
                format!("{}", bytes.div_ceil(1024))
            }
        };
        let usable = used.saturating_add(v.available);
        let percent = match usable {
            0 => String::from("-"),
            n => format!("{}%", (u128::from(used) * 100).div_ceil(u128::from(n))),
        };
        let mut row = alloc::vec![mount.source.clone()];
        if types {
            row.push(mount.kind.clone());
        }
        row.extend([
            size(v.blocks),
            size(used),
            size(v.available),
            percent,
            mount.target.clone(),
        ]);
        rows.push(row);
    }
    let left = if types { &[0usize, 1, 6][..] } else { &[0, 5] };
    tool.out.bytes(tools::table::render(&rows, left).as_bytes())
}
