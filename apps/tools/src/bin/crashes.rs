//! `crashes`: reports of processes that were ended by faults.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use rt::proto::proc::{self, ProcessesClient};
use tools::service;
use unix::{Arg, Args, Stop, Tool};
unix::program!("crashes", HELP, run);

const HELP: &str = "\
Usage: crashes [-v]
List the last crashes.

  -v  all of each report; `drv crash` shows those of one driver
";

fn run(tool: &mut Tool) -> Result<(), Stop> {
    let mut verbose = false;
    while let Some(arg) = tool.advance()? {
        match arg {
            Arg::Short('v') => verbose = true,
            other => return Err(Args::unknown(&other).into()),
        }
    }
    let client: ProcessesClient = service::connect(tool, "proc")?;
    let list = service::answer(tool, "cannot read the reports", proc::crashes(&client, 0))?;
    for c in list {
        let ms = c.time_ns / 1_000_000;
        writeln!(
            tool.out,
            "[{:5}.{:03}] {}[{}]: {}",
            ms / 1000,
            ms % 1000,
            c.subject.name,
            c.subject.pid,
            c.text
        )?;
        if verbose {
            write!(tool.out, "{c}")?;
        }
    }
    Ok(())
}
