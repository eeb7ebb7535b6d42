//! `cargo xtask push`: from an edited driver to the running system.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use control_link::{Ending, PROGRAM_BYTES_MAX, Replaced, Swap};
use ddk_manifest::Manifest;
use elf::ElfStream;
use elf::endian::AnyEndian;
use serde_json::json;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::{Client, Ended, Interrupt, Limits, registry, sh};
use crate::UsageError;
use crate::build::{self, ProfileArgs};

/// What `cargo xtask push` takes.
///
/// Prints each device of the driver with the versions before and after, and how
/// long nobody served it. The exit status is 0 when the new version serves
/// everywhere; 1 when the old one came back or nothing was swapped somewhere;
/// 124, 125, 130, 143 and 102 as for `sh`.
#[derive(Clone, Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct PushArgs {
    /// The driver: the name of its package or program.
    #[arg(value_name = "NAME")]
    name: String,
    /// The system: its process id or control address, as `run --headless` printed them. Without it the
    /// only one that runs.
    #[arg(long, value_name = "PID|ADDRESS")]
    system: Option<String>,
    /// Send this program instead of building one.
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    #[command(flatten)]
    profile: ProfileArgs,
    /// Build it so that it records what passes between it and its device, where `drv policy NODE trace=on` says so.
    #[arg(long, conflicts_with = "program")]
    traced: bool,
    /// Give up after so many seconds. What has been handed over by then is swapped all the same.
    #[arg(long, value_name = "N")]
    timeout_s: Option<u64>,
    /// Print one line of JSON.
    #[arg(long)]
    json: bool,
}

/// Builds a driver and puts it in the place of the one that runs.
///
/// # Errors
/// When no system or no driver is meant, it does not build, or the connection breaks.
pub fn push(args: &PushArgs) -> anyhow::Result<ExitCode> {
    // Before the build, which may take a while.
    let address = registry::find(args.system.as_deref())?;
    let file = match &args.program {
        Some(file) if !file.is_file() => {
            return Err(UsageError(format!("there is no file {}", file.display())).into());
        }
        Some(file) => file.clone(),
        None if args.traced => {
            let profile = args.profile.profile();
            build::build_program_with(profile, &args.name, build::TRACE)?.stripped
        }
        None => build::build_program(args.profile.profile(), &args.name)?.stripped,
    };
    let manifest = manifest(&file)?.ok_or_else(|| {
        UsageError(format!(
            "{} is no driver: it has no manifest, and only drivers can be replaced while they run",
            args.name
        ))
    })?;
    let bytes = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
    if bytes.len() as u64 > PROGRAM_BYTES_MAX {
        return Err(UsageError(format!(
            "{} has {} bytes, where {PROGRAM_BYTES_MAX} is the most",
            file.display(),
            bytes.len()
        ))
        .into());
    }
    let limits = Limits {
        time: args.timeout_s.map(Duration::from_secs),
        interrupt: Interrupt::by(&[SIGINT, SIGTERM, SIGHUP])?,
    };
    let mut bar = Progress::new(bytes.len() as u64);
    let mut client = Client::connect(&address)?;
    let ended = client.replace(manifest.name(), bytes, &limits, |done| bar.show(done));
    bar.end();
    match ended? {
        Ended::ByItself(Ending::Replaced { devices }) => {
            report(manifest.name(), &devices, args.json)?;
            let all = !devices.is_empty() && devices.iter().all(stays);
            Ok(ExitCode::from(u8::from(!all)))
        }
        other => Ok(ExitCode::from(sh::status(&other))),
    }
}

/// Whether the new version serves the device.
fn stays(device: &Replaced) -> bool {
    device
        .swap
        .as_ref()
        .is_ok_and(|swap| swap.fell_back.is_none())
}

/// Says what became of each device.
fn report(driver: &str, devices: &[Replaced], json: bool) -> anyhow::Result<()> {
    let mut stdout = io::stdout();
    if json {
        let devices: Vec<_> = devices.iter().map(object).collect();
        let text = json!({ "driver": driver, "devices": devices });
        return writeln!(stdout, "{text}").context("standard output");
    }
    if devices.is_empty() {
        eprintln!("xtask: no device of the system is one for {driver}");
    }
    for device in devices {
        writeln!(stdout, "{}", line(driver, device)).context("standard output")?;
    }
    Ok(())
}

fn line(driver: &str, device: &Replaced) -> String {
    let node = &device.node;
    match &device.swap {
        Err(why) => format!("{driver} at {node}: not replaced: {why}"),
        Ok(swap) => {
            let before = swap.before.as_deref().unwrap_or("nothing");
            let (now, gap) = (&swap.now, milliseconds(swap));
            let back = match &swap.fell_back {
                Some(why) => format!("; the old version serves again: {why}"),
                None => String::new(),
            };
            format!(
                "{driver} at {node}: {before} -> {now}, incarnation {}, gap {gap} ms{back}",
                swap.epoch
            )
        }
    }
}

/// With two digits: nanoseconds of an emulated machine's clock mean nothing.
fn milliseconds(swap: &Swap) -> String {
    let hundredths = swap.gap_ns / 10_000;
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}

fn object(device: &Replaced) -> serde_json::Value {
    match &device.swap {
        Err(why) => json!({ "node": device.node, "error": why }),
        Ok(swap) => json!({
            "node": device.node,
            "before": swap.before,
            "now": swap.now,
            "epoch": swap.epoch,
            "fell_back": swap.fell_back,
            "gap_ns": swap.gap_ns,
        }),
    }
}

/// The manifest in an ELF file, if it has one.
fn manifest(file: &Path) -> anyhow::Result<Option<Manifest>> {
    let opened =
        std::fs::File::open(file).with_context(|| format!("cannot read {}", file.display()))?;
    let mut elf = ElfStream::<AnyEndian, _>::open_stream(opened)?;
    let Some(header) = elf.section_header_by_name(ddk_manifest::SECTION)?.copied() else {
        return Ok(None);
    };
    let (bytes, _) = elf.section_data(&header)?;
    Manifest::from_bytes(bytes)
        .map(Some)
        .with_context(|| format!("the manifest of {}", file.display()))
}

/// How far a program is on its way, for a person.
struct Progress {
    total: u64,
    shown: bool,
}

impl Progress {
    fn new(total: u64) -> Progress {
        let shown = io::stderr().is_terminal();
        Progress { total, shown }
    }

    fn show(&mut self, done: u64) {
        if self.shown {
            eprint!(
                "\r{:3} % of {} KiB",
                done * 100 / self.total.max(1),
                self.total / 1024
            );
        }
    }

    fn end(&mut self) {
        if self.shown {
            eprint!("\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fall_back_is_told_and_is_no_success() {
        let swap = Swap {
            before: Some("nvme 0.1.0 (bin/nvme)".to_owned()),
            now: "nvme 0.1.0 (bin/nvme)".to_owned(),
            epoch: 3,
            fell_back: Some("it exited with 1".to_owned()),
            gap_ns: 12_345_678,
        };
        let device = |swap| Replaced {
            node: "/pci/00:01.0".to_owned(),
            swap,
        };
        let back = device(Ok(swap.clone()));
        assert!(!stays(&back));
        assert_eq!(
            line("nvme", &back),
            "nvme at /pci/00:01.0: nvme 0.1.0 (bin/nvme) -> nvme 0.1.0 (bin/nvme), incarnation 3, \
             gap 12.34 ms; the old version serves again: it exited with 1"
        );
        assert!(!stays(&device(Err("no".to_owned()))));
        let stayed = Swap {
            fell_back: None,
            ..swap
        };
        assert!(stays(&device(Ok(stayed))));
    }
}
