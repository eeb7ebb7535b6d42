//! The microkernel's home for network interfaces: a booted system with the device and `test-conformance-net` as its client, and
//! this process at the other end of the wire.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;

use super::Verdict;
use super::booted::lines;
use super::wire::Wire;
use crate::build::{self, ArchiveExtras, Profile};
use crate::guest::{self, Machine, Outcome, Streams};
use crate::setup;

/// How long the suite may take in a machine under emulation, beside other work.
const TIME_LIMIT: Duration = Duration::from_secs(900);
/// CPUs of the machine.
const CPUS: u32 = 2;
/// Addresses of the interface under test, and of the one that the guest talks to us over.
const ADDRESS: &str = "52:54:00:12:34:60";
const HELPER: &str = "52:54:00:12:34:61";

/// QEMU's device of a row, and what it makes of frames to be cut.
fn device(row: &str) -> Option<(&'static str, &'static str)> {
    match row {
        "virtio-net" => Some(("virtio-net-pci", "right")),
        "e1000" => Some(("e1000", "empty-last")),
        "e1000e" => Some(("e1000e", "fragments")),
        _ => None,
    }
}

/// Runs the suite for a row of the matrix; gives each case with its verdict.
///
/// # Errors
/// When the system does not build or QEMU does not run.
pub fn run(row: &str, filter: Option<&str>, seed: u64) -> anyhow::Result<Vec<(String, Verdict)>> {
    let Some((device, cutting)) = device(row) else {
        let reason = Verdict::NotRun("QEMU has no such device".to_owned());
        return Ok(vec![("all".to_owned(), reason)]);
    };
    setup::ensure(&[setup::MACHINE])?;
    let built = build::build(Profile::Release)?;
    let folder = build::target_folder(&format!("conformance/{row}"))?;
    // The interfaces have one queue each, and the network stack has them: it makes room.
    let script = format!(
        "svc stop httpd; svc stop netstack; sleep 1\n\
         test-conformance-net {seed} {ADDRESS} {HELPER} {cutting} {}\n",
        filter.unwrap_or_default()
    );
    let archive = folder.join("boot.archive");
    let extras = ArchiveExtras {
        exec: Some(script),
        ..ArchiveExtras::default()
    };
    build::write_archive(&built, &extras, &archive)?;
    let mut machine = Machine::new(&built.kernel, Some(archive.clone()));
    machine.cpus = CPUS;
    // Sockets have short names.
    let sockets = tempfile::tempdir().context("folder for sockets")?;
    let mut wire = Wire::new(sockets.path())?;
    machine
        .extra
        .extend(wire.arguments(device, ADDRESS, HELPER)?);
    let (mut console, mut log) = (Vec::new(), Vec::new());
    let stop = AtomicBool::new(false);
    let (outcome, served) = std::thread::scope(|scope| {
        let serving = scope.spawn(|| wire.serve(&stop));
        let outcome = guest::run(
            &machine,
            Some(TIME_LIMIT),
            &mut Streams {
                console: &mut console,
                log: &mut log,
                input: None,
            },
        );
        stop.store(true, Ordering::Relaxed);
        (outcome, serving.join())
    });
    let outcome = outcome?;
    fs::remove_file(archive)?;
    fs::write(folder.join("console"), &console)?;
    fs::write(folder.join("log"), &log)?;
    let mut verdicts = lines(&String::from_utf8_lossy(&console));
    let log = folder.join("log").display().to_string();
    let broken = match (served, outcome) {
        (Ok(Err(error)), _) => Some(format!("the wire: {error:#}")),
        (Err(_), _) => Some("the wire panicked".to_owned()),
        (Ok(Ok(())), Outcome::Exit(0 | 1)) if !verdicts.is_empty() => None,
        (Ok(Ok(())), outcome) => Some(format!("the machine ended with {outcome:?}; see {log}")),
    };
    if let Some(text) = broken {
        verdicts.push(("whole run".to_owned(), Verdict::Failed(text)));
    }
    if let Some(filter) = filter {
        verdicts.retain(|(case, _)| case.contains(filter));
    }
    Ok(verdicts)
}
