//! `cargo xtask bench`: measures Bulkhead and, beside it, Linux.
//!
//! Instructions are exact and are counted by a QEMU plugin ([`measure::count`]); they
//! hide what an address-space switch costs under emulation, which time shows
//! ([`measure::time`]). Both are given. An operation is counted from the application's
//! request to its completion, with whatever the kernel, drivers and file systems do
//! for it.

pub mod measure;
mod ours;
mod passes;
mod peer;
mod profile;
mod rows;
mod table;
mod wire;

use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::guest::nic::Model;
use crate::{UsageError, build, setup};
use measure::{Devices, Results, System};
use ours::Ours;
use passes::{Count, Pass};
use peer::{Linux, Tuning};
use rows::Row;
use table::{Samples, Table};

/// Boots for the time of each row; the two systems take turns.
const TIMED_BOOTS: u32 = 5;

/// What `cargo xtask bench` was asked to measure.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct BenchArgs {
    /// Only rows whose name contains this.
    pub name: Option<String>,
    /// Also measure this system in the same QEMU and compare.
    #[arg(long, value_enum)]
    pub peer: Option<Peer>,
    /// Write the rows to this file as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Fail when a row takes more instructions than in bench/baseline.json: 3 % more,
    /// 5 % at depth 1.
    #[arg(long)]
    pub check: bool,
    /// How often to boot for the times; 0 counts instructions only.
    #[arg(long, value_name = "N", default_value_t = TIMED_BOOTS)]
    pub boots: u32,
    /// Print the functions that the instructions of the rows went to, and nothing else.
    #[arg(long, conflicts_with_all = ["peer", "check", "json"])]
    pub profile: bool,
    /// Measure the peer alone.
    #[arg(long, requires = "peer", conflicts_with = "check")]
    pub peer_only: bool,
}

/// A system to compare with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Peer {
    /// Debian's own kernel, tuned for speed.
    Linux,
    /// The same kernel as Debian sets it up.
    LinuxDefault,
}

/// Measures and prints the table.
///
/// # Errors
///
/// When a guest cannot be built, does not start or gives no result, or when a row
/// regressed and `--check` was given.
pub fn run(args: BenchArgs) -> anyhow::Result<()> {
    let rows = rows::matching(args.name.as_deref());
    if rows.is_empty() {
        let all: Vec<&str> = rows::ROWS.iter().map(|row| row.name).collect();
        let part = args.name.unwrap_or_default();
        return Err(UsageError(format!(
            "no row has {part:?} in its name: {}",
            all.join(" ")
        ))
        .into());
    }
    let measured = rows.iter().filter(|row| row.on == rows::On::Both).count();
    if args.profile && measured != 1 {
        let text = "--profile takes a NAME that selects one row".to_owned();
        return Err(UsageError(text).into());
    }
    setup::ensure(&[setup::MACHINE, setup::IMAGES, setup::COMPILER])?;
    let plugin = measure::plugin()?;
    let mut samples = [Samples::default(), Samples::default()];
    let (network, inside): (Vec<&Row>, Vec<&Row>) = rows.iter().partition(|row| row.nic.is_some());
    if !network.is_empty()
        && measure_network(&args, &network, &plugin, &mut samples)? == Printed::Yes
    {
        return Ok(());
    }
    if !inside.is_empty() && measure_inside(&args, &inside, &plugin, &mut samples)? == Printed::Yes
    {
        return Ok(());
    }
    tell(&args, rows, samples)
}

/// Whether all that was asked for is printed.
#[derive(PartialEq, Eq)]
enum Printed {
    Yes,
    No,
}

/// The rows that a guest measures by itself.
fn measure_inside(
    args: &BenchArgs,
    rows: &[&Row],
    plugin: &Path,
    samples: &mut [Samples; 2],
) -> anyhow::Result<Printed> {
    let names: Vec<&str> = rows.iter().map(|row| row.name).collect();
    let ours = match args.peer_only {
        true => None,
        false => Some(ours::prepare(rows)?),
    };
    let peer = args
        .peer
        .map(|peer| prepare_peer(peer, &names))
        .transpose()?;
    let devices = Devices::prepare()?;
    measure::stay_on_one_processor()?;

    if let (true, Some(ours)) = (args.profile, &ours) {
        let file = measure::counter_file()?;
        let passes = measure::count(&ours.system, &devices, plugin, Some(file.path()))?;
        print_profile(ours, &passes, file.path())?;
        return Ok(Printed::Yes);
    }
    in_turns(
        args,
        "",
        [ours.as_ref().map(|ours| &ours.system), peer.as_ref()],
        samples,
        |system, samples| {
            samples.add_counts(&measure::count(system, &devices, plugin, None)?);
            Ok(())
        },
        |system, samples| {
            samples.add_times(&measure::time(system, &devices)?);
            Ok(())
        },
    )?;
    Ok(Printed::No)
}

/// The rows for which the host is the load, one interface after the other.
fn measure_network(
    args: &BenchArgs,
    rows: &[&Row],
    plugin: &Path,
    samples: &mut [Samples; 2],
) -> anyhow::Result<Printed> {
    let ours = match args.peer_only {
        true => None,
        false => Some(ours::prepare_server()?),
    };
    if let (true, Some(ours), Some(row)) = (args.profile, &ours, rows.first())
        && let Some(model) = row.nic
    {
        let file = measure::counter_file()?;
        let passes = wire::count(
            &ours.system,
            model,
            rows,
            ours::PAGE,
            plugin,
            Some(file.path()),
        )?;
        print_profile(ours, &passes, file.path())?;
        return Ok(Printed::Yes);
    }
    let peer = args.peer.map(prepare_serving_peer).transpose()?;
    let systems = [ours.as_ref().map(|ours| &ours.system), peer.as_ref()];
    for (name, model) in [("virtio-net", Model::Virtio), ("e1000", Model::E1000)] {
        let rows: Vec<&Row> = rows
            .iter()
            .filter(|row| row.nic == Some(model))
            .copied()
            .collect();
        if rows.is_empty() {
            continue;
        }
        let page = |system: &System| match system.results {
            Results::Console => ours::PAGE,
            Results::Log => peer::PAGE,
        };
        in_turns(
            args,
            name,
            systems,
            samples,
            |system, samples| {
                let page = page(system);
                samples.add_counts(&wire::count(system, model, &rows, page, plugin, None)?);
                Ok(())
            },
            |system, samples| {
                samples.add_times(&wire::time(system, model, &rows, page(system))?);
                Ok(())
            },
        )?;
    }
    Ok(Printed::No)
}

/// Where the instructions of all passes but the boot's went.
fn print_profile(ours: &Ours, passes: &[(Pass, Count)], file: &Path) -> anyhow::Result<()> {
    let measured = passes.iter().filter(|(pass, _)| pass.row != rows::BOOT);
    let operations = measured.map(|(pass, _)| pass.operations).sum();
    let profile = std::fs::read_to_string(file)?;
    print!("{}", profile::report(&profile, &ours.built, operations)?);
    Ok(())
}

/// Counts both systems, and times them in turns.
fn in_turns(
    args: &BenchArgs,
    what: &str,
    systems: [Option<&System>; 2],
    samples: &mut [Samples; 2],
    count: impl Fn(&System, &mut Samples) -> anyhow::Result<()>,
    time: impl Fn(&System, &mut Samples) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut systems: Vec<(&System, &mut Samples)> = systems
        .into_iter()
        .zip(samples)
        .filter_map(|(system, samples)| Some((system?, samples)))
        .collect();
    for (system, samples) in &mut systems {
        eprintln!("xtask: counting instructions: {} {what}", system.name);
        count(system, samples)?;
    }
    for boot in 1..=args.boots {
        for (system, samples) in &mut systems {
            eprintln!(
                "xtask: timing {boot} of {}: {} {what}",
                args.boots, system.name
            );
            time(system, samples)?;
        }
    }
    Ok(())
}

/// Prints and writes the table, and compares it with the baseline.
fn tell(args: &BenchArgs, rows: Vec<&'static Row>, samples: [Samples; 2]) -> anyhow::Result<()> {
    let [ours, linux] = samples;
    let linux = args.peer.is_some().then_some(linux);
    let table = Table { rows, ours, linux };
    print!("{}", table.text());
    if let Some(file) = &args.json {
        let mut text = serde_json::to_string_pretty(&table.json())?;
        text.push('\n');
        std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    if args.check {
        let file = build::workspace_root().join("bench/baseline.json");
        let text = std::fs::read_to_string(&file)
            .with_context(|| format!("cannot read {}", file.display()))?;
        let compared = table.check(&serde_json::from_str(&text)?)?;
        eprintln!("xtask: {compared} rows are within the baseline");
    }
    Ok(())
}

impl Peer {
    fn name_and_tuning(self) -> (&'static str, Tuning) {
        match self {
            Peer::Linux => ("Linux", Tuning::Fast),
            Peer::LinuxDefault => ("Linux, Debian's defaults", Tuning::Default),
        }
    }
}

fn prepare_peer(peer: Peer, rows: &[&str]) -> anyhow::Result<System> {
    Ok(peer_system(peer, Linux::prepare()?, rows))
}

fn prepare_serving_peer(peer: Peer) -> anyhow::Result<System> {
    Ok(peer_system(peer, Linux::prepare_server()?, &["net"]))
}

fn peer_system(peer: Peer, linux: Linux, rows: &[&str]) -> System {
    let (name, tuning) = peer.name_and_tuning();
    System {
        name,
        kernel: linux.kernel,
        initrd: linux.initrd,
        command_line: Linux::command_line(tuning, rows),
        results: Results::Log,
    }
}
