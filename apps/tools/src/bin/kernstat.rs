//! `kernstat`: what the kernel counts.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use rt::proto::proc::ProcessesClient;
use serde_json::{Map, Value};
use tools::service;
use unix::{Arg, Args, Stop, Tool};
unix::program!("kernstat", HELP, run);

const HELP: &str = "\
Usage: kernstat [--json] [-l]
Print what the kernel counts: a name and a number on each line.

  -l      only what is held now (handles, pins, vectors, objects), once it stands still
          for 20 ms: servers may be about to close what a client left
  --json  one object
";

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);
/// A busy system does not stand still.
const ROUNDS_MAX: usize = 100;

fn run(tool: &mut Tool) -> Result<(), Stop> {
    let (mut json, mut live) = (false, false);
    while let Some(arg) = tool.advance()? {
        match arg {
            Arg::Short('l') => live = true,
            Arg::Long(name) if name == "json" => json = true,
            other => return Err(Args::unknown(&other).into()),
        }
    }
    let client: ProcessesClient = service::connect(tool, "proc")?;
    let mut s = service::answer(tool, "cannot read the counts", client.system())?;
    for _ in 0..if live { ROUNDS_MAX } else { 0 } {
        rt::time::sleep(PAUSE);
        let now = service::answer(tool, "cannot read the counts", client.system())?;
        let still = (now.handles, &now.objects) == (s.handles, &s.objects);
        s = now;
        if still {
            break;
        }
    }
    let mut counts: Vec<(String, u64)> = [
        ("handles", s.handles),
        ("pins", s.pins),
        ("pinned-bytes", s.pinned_bytes),
        ("quarantined-bytes", s.quarantined_bytes),
        ("vectors", s.vectors),
        ("used-bytes", s.total_bytes.saturating_sub(s.free_bytes)),
    ]
    .map(|(name, count)| (String::from(name), count))
    .into();
    counts.extend(
        s.objects
            .iter()
            .map(|(kind, count)| (format!("objects-{kind}"), *count)),
    );
    if !live {
        let gone_by = [
            ("context-switches", s.context_switches),
            ("syscalls", s.syscalls),
            ("page-faults", s.page_faults),
            ("interrupts", s.interrupts),
        ];
        counts.extend(gone_by.map(|(name, count)| (String::from(name), count)));
    }
    if json {
        let object: Map<String, Value> = counts
            .into_iter()
            .map(|(name, count)| (name, Value::from(count)))
            .collect();
        return writeln!(tool.out, "{}", Value::Object(object));
    }
    for (name, count) in counts {
        writeln!(tool.out, "{name} {count}")?;
    }
    Ok(())
}
