//! `free`: memory in use.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::format;

use rt::proto::proc::ProcessesClient;
use tools::service;
use unix::{Arg, Args, Stop, Tool};
unix::program!("free", HELP, run);

const HELP: &str = "\
Usage: free [-bhkm]
Print how much memory there is, in KiB, and what it is used for.

  -b  bytes
  -h  sizes for people
  -k  KiB (default)
  -m  MiB
";

fn run(tool: &mut Tool) -> Result<(), Stop> {
    let mut unit = Some(1024);
    while let Some(arg) = tool.advance()? {
        match arg {
            Arg::Short('b') => unit = Some(1),
            Arg::Short('k') => unit = Some(1024),
            Arg::Short('m') => unit = Some(1 << 20),
            Arg::Short('h') => unit = None,
            other => return Err(Args::unknown(&other).into()),
        }
    }
    let client: ProcessesClient = service::connect(tool, "proc")?;
    let s = service::answer(tool, "cannot read the counts", client.system())?;
    let show = |bytes: u64| match unit {
        Some(unit) => format!("{}", bytes / unit),
        None => {
            let text = unix::size::human(bytes);
            if text.ends_with(|c: char| c.is_ascii_digit()) {
                text + "B"
            } else {
                text + "i"
            }
        }
    };
    let used = s.total_bytes.saturating_sub(s.free_bytes);
    let columns = ["total", "used", "free", "kernel", "pinned", "quarantine"];
    write!(tool.out, "{:7}", "")?;
    for name in columns {
        write!(tool.out, "{name:>13}")?;
    }
    write!(tool.out, "\n{:7}", "Mem:")?;
    for n in [
        s.total_bytes,
        used,
        s.free_bytes,
        s.kernel_bytes,
        s.pinned_bytes,
        s.quarantined_bytes,
    ] {
        write!(tool.out, "{:>13}", show(n))?;
    }
    tool.out.bytes(b"\n")
}
