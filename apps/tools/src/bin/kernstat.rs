//! `kernstat`: what the kernel counts.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use rt::proto::proc::ProcessesClient;
use serde_json::{Map, Value};
use tools::service;
use unix::{Arg, Args, Stop, Tool};
unix::program!("kernstat", HELP, run);

const HELP: &str = "\
Usage: kernstat [--json] [-l]
Print what the kernel counts: a name and a number on each line.

  -l      only what is held now (handles, pins, vectors, objects), not what went by
  --json  one object
";

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
    let s = service::answer(tool, "cannot read the counts", client.system())?;
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
