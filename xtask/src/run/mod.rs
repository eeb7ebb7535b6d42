//! `cargo xtask run`: builds, boots, and either connects the terminal or runs
//! commands and gives their output and status.
//!
//! The console is a plain byte stream: the guest ends lines with a line feed
//! alone, and the host's terminal adds the carriage return. So the output of
//! `--exec` is exactly what the guest's programs wrote.

mod dashboard;
mod headless;
mod terminal;

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;

use crate::build::{self, ArchiveExtras, Built, ProfileArgs};
use crate::control::registry;
use crate::guest::disk::{self, Access, Disk};
use crate::guest::nic::{self, Forward, Model, Nic};
use crate::guest::{self, Machine, Outcome, Streams, Transport};
use crate::symbols::{Annotator, Symbols};
use crate::{UsageError, image, setup};

/// Time limit of a run without a terminal, in seconds.
const EXEC_TIMEOUT_S: u64 = 300;

/// What `cargo xtask run` takes.
///
/// With --exec or --script the standard output is what the commands printed,
/// and the exit status is that of the last command; 124 when time ran out, 101
/// when the kernel panicked, 102 when the machine ended without a status, 130
/// and 143 after Ctrl-C and SIGTERM. Without them Ctrl-A X leaves the guest.
#[derive(Clone, Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct RunArgs {
    /// Processor architecture.
    #[arg(long, value_enum, default_value_t)]
    arch: build::Architecture,
    /// Number of processors.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=8))]
    cpus: u32,
    /// Memory, for example 512M or 2G.
    #[arg(long, value_name = "SIZE", default_value = "512M")]
    memory: String,
    #[command(flatten)]
    profile: ProfileArgs,
    /// A disk image, raw or qcow2. May be given several times; NVMe disks that name the same controller are
    /// its namespaces. Without it the demo image is the disk; what is written to that is lost at power-off.
    #[arg(long = "disk", value_name = disk::SYNTAX)]
    disks: Vec<String>,
    /// A network interface, on a user network of its own. May be given several times; without it there is one of virtio.
    #[arg(long = "nic", value_name = nic::SYNTAX)]
    nics: Vec<String>,
    /// Lead a port of the host (on 127.0.0.1) to one of the guest, by the first interface; host port 0 is a
    /// free one. May be given several times.
    #[arg(long = "forward", value_name = nic::FORWARD_SYNTAX)]
    forwards: Vec<String>,
    /// Write the frames of the first interface to this file as pcap; those of others to FILE-1 and so on.
    #[arg(long, value_name = "FILE")]
    capture: Option<PathBuf>,
    /// Run these shell commands without a terminal, then power off.
    #[arg(long, value_name = "COMMANDS", conflicts_with = "script")]
    exec: Option<String>,
    /// Run the shell commands of this file without a terminal, then power off.
    #[arg(long, value_name = "FILE")]
    script: Option<PathBuf>,
    /// No terminal: print one line of JSON when the system is ready (control address, process id, log file,
    /// forwarded ports), and stay until it ends or this process is ended. `cargo xtask sh` runs commands in it.
    #[arg(long, conflicts_with_all = ["exec", "script", "gdb"])]
    headless: bool,
    /// With --headless: go on in the background once the line is printed.
    #[arg(long, requires = "headless")]
    detach: bool,
    /// What carries the control port, which a system without --exec and --script has.
    #[arg(long, value_enum, default_value_t)]
    control: Transport,
    /// Give up after so many seconds; 300 with --exec or --script, else no limit.
    #[arg(long, value_name = "N")]
    timeout_s: Option<u64>,
    /// Deterministic: guest time is the number of instructions executed.
    #[arg(long)]
    icount: bool,
    /// Wait for gdb before the first instruction, and print how to attach it.
    #[arg(long)]
    gdb: bool,
    /// An IOMMU between devices and memory: a device reaches what its driver pinned for it, and nothing else.
    #[arg(long)]
    iommu: bool,
    /// Further text for the kernel's command line.
    #[arg(long, value_name = "TEXT")]
    append: Option<String>,
    /// The disk or partition that is mounted at /.
    #[arg(long, value_name = "NODE")]
    root: Option<String>,
    /// Further arguments for QEMU.
    #[arg(last = true, value_name = "EXTRA QEMU ARGUMENTS")]
    extra: Vec<String>,
}

/// `cargo xtask run`.
///
/// # Errors
///
/// When set-up or build fails, or the arguments ask for what is not there.
pub fn run(args: &RunArgs) -> anyhow::Result<ExitCode> {
    if args.detach {
        return headless::detach();
    }
    let commands = commands(args)?;
    let mut disks = args
        .disks
        .iter()
        .map(|text| Disk::parse(text))
        .collect::<Result<Vec<Disk>, _>>()?;
    for disk in &disks {
        disk.check()?;
    }
    let front = match &commands {
        None if !args.headless => Front::Terminal,
        _ => Front::Program,
    };
    let network = network(args, front)?;
    setup::ensure(&[setup::MACHINE])?;
    let build::Architecture::X86_64 = args.arch;
    let built = build::build(args.profile.profile())?;
    if disks.is_empty() {
        disks.push(Disk::new(image::demo()?, Access::Snapshot));
    }

    // A folder of its own, so that several runs do not disturb each other.
    let folder = tempfile::Builder::new()
        .prefix("run-")
        .tempdir_in(build::target_folder("run")?)?;
    let archive = folder.path().join("boot.archive");
    let extras = ArchiveExtras {
        exec: commands.clone(),
        ..ArchiveExtras::default()
    };
    build::write_archive(&built, &extras, &archive)?;

    let mut machine = Machine::new(&built.kernel, Some(archive));
    machine.cpus = args.cpus;
    machine.memory.clone_from(&args.memory);
    machine.iommu = args.iommu;
    machine.disks = disks;
    let mut words: Vec<String> = args.append.iter().cloned().collect();
    if let Some(node) = &args.root {
        words.push(format!("root={node}"));
    }
    if front == Front::Terminal
        && let Some(dashboard) = dashboard::offer(&network, &words)?
    {
        eprintln!("xtask: {}", dashboard.line);
        words.push(dashboard.word);
    }
    machine.command_line = words.join(" ");
    if args.icount {
        machine.deterministic();
    }
    if args.gdb {
        machine.extra.extend(["-s".to_owned(), "-S".to_owned()]);
        eprintln!(
            "xtask: attach with: gdb {} -ex 'target remote :1234'",
            built.kernel.display()
        );
    }
    machine.extra.extend(network);
    machine.extra.extend(args.extra.iter().cloned());

    let time_limit = match (args.timeout_s, &commands) {
        (Some(seconds), _) => Some(Duration::from_secs(seconds)),
        (None, Some(_)) if !args.gdb => Some(Duration::from_secs(EXEC_TIMEOUT_S)),
        (None, _) => None,
    };
    let outcome = match commands {
        _ if args.headless => headless::run(machine, args.control, time_limit, &built)?,
        Some(_) => without_terminal(&machine, time_limit, &built)?,
        None => with_terminal(&machine, time_limit, &built)?,
    };
    match &outcome {
        Outcome::Died(reason) => eprintln!("xtask: {reason}"),
        Outcome::Crashed(signal) => eprintln!("xtask: QEMU crashed (signal {signal})"),
        Outcome::StayedOn(status) => {
            eprintln!("xtask: the guest gave status {status}, but did not switch the machine off")
        }
        Outcome::TimedOut => eprintln!(
            "xtask: no end after {} s",
            time_limit.unwrap_or_default().as_secs()
        ),
        Outcome::Panic => eprintln!("xtask: the kernel panicked"),
        _ => {}
    }
    Ok(ExitCode::from(outcome.status()))
}

/// Who a run is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Front {
    /// A person at a terminal.
    Terminal,
    /// A script or a program.
    Program,
}

/// QEMU's arguments for the network interfaces.
fn network(args: &RunArgs, front: Front) -> anyhow::Result<Vec<String>> {
    let nics = args.nics.iter().map(|text| Nic::parse(text));
    let mut nics: Vec<Nic> = nics
        .filter_map(Result::transpose)
        .collect::<Result<_, _>>()?;
    if args.nics.is_empty() {
        nics.push(Nic::new(Model::Virtio));
    }
    let forwards = args.forwards.iter().map(|text| Forward::parse(text));
    let mut forwards: Vec<Forward> = forwards.collect::<Result<_, _>>()?;
    if front == Front::Terminal && !nics.is_empty() {
        dashboard::forward(&mut forwards)?;
    }
    let network = nic::arguments(&nics, &forwards, args.capture.as_deref())?;
    if !args.headless {
        for forward in registry::forwards(&network) {
            eprintln!(
                "xtask: {} {} leads to port {} of the guest",
                forward.protocol, forward.host, forward.guest
            );
        }
    }
    Ok(network)
}

/// The commands of `--exec` or `--script`.
fn commands(args: &RunArgs) -> anyhow::Result<Option<String>> {
    match (&args.exec, &args.script) {
        (Some(text), _) => Ok(Some(text.clone())),
        (None, Some(file)) => match std::fs::read_to_string(file) {
            Ok(text) => Ok(Some(text)),
            Err(error) => Err(UsageError(format!("script {}: {error}", file.display())).into()),
        },
        (None, None) => Ok(None),
    }
}

fn without_terminal(
    machine: &Machine,
    time_limit: Option<Duration>,
    built: &Built,
) -> anyhow::Result<Outcome> {
    let mut stderr = io::stderr();
    guest::run(
        machine,
        time_limit,
        &mut Streams {
            console: &mut io::stdout(),
            log: &mut Annotator::new(Symbols::of(built), &mut stderr),
            input: None,
        },
    )
}

fn with_terminal(
    machine: &Machine,
    time_limit: Option<Duration>,
    built: &Built,
) -> anyhow::Result<Outcome> {
    let log_path = build::target_folder("run")?.join("log.txt");
    let mut log =
        File::create(&log_path).with_context(|| format!("cannot write {}", log_path.display()))?;
    if io::stdin().is_terminal() {
        eprintln!(
            "xtask: the log is in {}; Ctrl-A X leaves the guest",
            log_path.display()
        );
    }
    let outcome = {
        let _raw = terminal::RawMode::enter()?;
        guest::run(
            machine,
            time_limit,
            &mut Streams {
                console: &mut io::stdout(),
                log: &mut Annotator::new(Symbols::of(built), &mut log),
                input: Some(Box::new(io::stdin())),
            },
        )?
    };
    if outcome == Outcome::Panic {
        let text = std::fs::read(&log_path).context("the guest's log")?;
        io::stderr().write_all(panic_report(&text))?;
    }
    Ok(outcome)
}

/// The part of the log from the panic on; all of it when no line says so.
fn panic_report(log: &[u8]) -> &[u8] {
    let mut start = 0;
    for line in log.split_inclusive(|byte| *byte == b'\n') {
        let text = String::from_utf8_lossy(line).to_ascii_lowercase();
        if text.contains("panic") {
            return log.get(start..).unwrap_or(log);
        }
        start += line.len();
    }
    log
}

#[cfg(test)]
mod tests {
    use super::panic_report;

    #[test]
    fn the_report_starts_at_the_first_line_of_the_panic() {
        let log = b"boot\nkernel panic: x\n  rip 0\npanic again\n";
        assert_eq!(
            panic_report(log),
            b"kernel panic: x\n  rip 0\npanic again\n"
        );
        assert_eq!(panic_report(b"boot\n"), b"boot\n");
    }
}
