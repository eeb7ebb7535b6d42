//! `cargo xtask judge net`: clients that nobody here wrote use the network's services while the driver of the network
//! interface is killed over and over, and a decoder looks at every frame afterwards.
//!
//! `cargo xtask judge wire`: a station that means harm sends frames to the system. `cargo xtask judge http`: clients of the web
//! server that mean harm. `cargo xtask judge lossy`: transfers over a bad wire.
//!
//! `cargo xtask judge dashboard`: the dashboard in a browser.
//!
//! They take minutes and gigabytes, so they are no level of `cargo xtask test`; the system tests have a short share. A judge whose program
//! cannot be had is "not run", with the reason.

mod capture;
mod clients;
mod dashboard;
mod http;
mod lossy;
mod wire;

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::{Child, ExitCode, Stdio};

use anyhow::{Context, ensure};
use serde::Serialize;

use crate::fetch::sha256_of;
use crate::guest::machine;
use crate::system::headless::System;
use crate::{build, image, setup, tool};

/// Length of the disk that is exported.
const SCRATCH_BYTES: u64 = 128 << 20;
/// Ports of the guest: web server, NBD, iperf3.
const PORTS: [u16; 3] = [80, 10_809, 5_201];

/// What `cargo xtask judge` takes.
#[derive(Clone, Debug, clap::Args)]
pub struct JudgeArgs {
    #[command(subcommand)]
    subject: Subject,
}

/// What is judged.
#[derive(Clone, Debug, clap::Subcommand)]
enum Subject {
    /// The network while drivers die: stack, interfaces' drivers, web server, iperf3, NBD.
    Net(NetArgs),
    /// The network against a hostile station: malformed frames, fragments, floods.
    Wire(wire::WireArgs),
    /// The web server against clients that mean harm: slow ones, garbage, connections that are dropped.
    Http(http::HttpArgs),
    /// The network over a wire that loses, doubles, delays and damages frames.
    Lossy(lossy::LossyArgs),
    /// The dashboard in a real browser, on a wide screen and on a phone.
    Dashboard(dashboard::DashboardArgs),
}

/// What `cargo xtask judge net` takes.
#[derive(Clone, Debug, clap::Args)]
struct NetArgs {
    #[command(flatten)]
    nics: Nics,
    /// Time of each load that has no end of its own.
    #[arg(long, value_name = "N", default_value_t = 10)]
    seconds: u32,
    /// Size of the file that is fetched from the web server, in MiB.
    #[arg(long, value_name = "N", default_value_t = 1024)]
    mib: u64,
    /// Seconds between deaths of the driver; 0 for none.
    #[arg(long, value_name = "N", default_value_t = 2)]
    kill_every: u32,
    /// Only judges whose name contains this.
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
}

/// Interfaces that are judged, and how that is told.
#[derive(Clone, Debug, clap::Args)]
struct Nics {
    /// The interface's model; may be given several times. Without it, all.
    #[arg(long = "nic", value_name = "virtio|e1000|e1000e")]
    nics: Vec<String>,
    /// The verdicts as JSON.
    #[arg(long)]
    json: bool,
}

/// What became of a judge.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Outcome {
    /// It found nothing wrong.
    Passed,
    /// It did.
    Failed,
    /// It could not judge.
    NotRun,
}

/// What a judge says of an interface.
#[derive(Clone, Debug, Serialize)]
struct Verdict {
    nic: String,
    judge: String,
    outcome: Outcome,
    /// What it saw, or why it failed or did not run.
    seen: String,
}

/// What judges work with.
struct Court<'a> {
    system: &'a System,
    folder: &'a Path,
    /// Frames of the guest's, as a pcap.
    capture: &'a Path,
    web: u16,
    nbd: u16,
    iperf: u16,
    seconds: u32,
    large: &'a Large,
}

/// A file on a disk of the guest's.
struct Large {
    /// Its path there.
    name: String,
    bytes: u64,
    hash: String,
}

impl Large {
    /// Makes an ext4 image with such a file, for the third disk: the system mounts it at `/mnt/virtio2`.
    fn make(folder: &Path, image: &Path, mib: u64) -> anyhow::Result<Large> {
        let tree = folder.join("large");
        std::fs::create_dir(&tree)?;
        let file = tree.join("random.bin");
        let mut source = File::open("/dev/urandom")?.take(mib << 20);
        let bytes = std::io::copy(&mut source, &mut File::create(&file)?)?;
        let hash = sha256_of(&file)?;
        let size = format!("{}M", mib + mib / 16 + 32);
        let mut format = tool::command("mke2fs");
        format.args(["-q", "-F", "-t", "ext4", "-d"]);
        tool::read(format.arg(&tree).arg(image).arg(size))?;
        std::fs::remove_dir_all(&tree)?;
        Ok(Large {
            name: "mnt/virtio2/random.bin".to_owned(),
            bytes,
            hash,
        })
    }
}

/// A program that runs in the guest as long as this.
struct Running(Child);

impl Running {
    fn start(system: &System, commands: &str) -> anyhow::Result<Running> {
        let mut command = system.command(&["sh", commands])?;
        let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Running(quiet.spawn().context("a program in the guest")?))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `cargo xtask judge`.
///
/// # Errors
/// When a system cannot be started; what judges find is counted instead.
pub fn run(args: &JudgeArgs) -> anyhow::Result<ExitCode> {
    match &args.subject {
        Subject::Net(net) => net.nics.judge(|nic, tell| judge_interface(net, nic, tell)),
        Subject::Wire(wire) => wire.nics.judge(|nic, tell| wire::judge(wire, nic, tell)),
        Subject::Dashboard(args) => dashboard::run(args),
        Subject::Http(http) => http.nics.judge(|nic, tell| http::judge(http, nic, tell)),
        Subject::Lossy(lossy) => lossy.nics.judge(|nic, tell| lossy::judge(lossy, nic, tell)),
    }
}

impl Nics {
    /// Has each interface judged; the status says whether something was found wrong.
    fn judge(
        &self,
        mut judge: impl FnMut(&str, &mut dyn FnMut(Verdict)) -> anyhow::Result<()>,
    ) -> anyhow::Result<ExitCode> {
        let all = ["virtio", "e1000", "e1000e"].map(str::to_owned);
        let nics = if self.nics.is_empty() {
            &all[..]
        } else {
            &self.nics[..]
        };
        let mut verdicts = Vec::new();
        for nic in nics {
            judge(nic, &mut |verdict: Verdict| {
                if !self.json {
                    println!("{}", line(&verdict));
                }
                verdicts.push(verdict);
            })?;
        }
        if self.json {
            println!("{}", serde_json::to_string_pretty(&verdicts)?);
        }
        let failed = verdicts
            .iter()
            .any(|verdict| matches!(verdict.outcome, Outcome::Failed));
        let passed = verdicts
            .iter()
            .any(|verdict| matches!(verdict.outcome, Outcome::Passed));
        Ok(if passed && !failed {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}

fn line(verdict: &Verdict) -> String {
    let outcome = match verdict.outcome {
        Outcome::Passed => "ok",
        Outcome::Failed => "FAILED",
        Outcome::NotRun => "not run",
    };
    let Verdict {
        nic, judge, seen, ..
    } = verdict;
    format!("{outcome:<8}{nic:<8}{judge:<24}{seen}")
}

fn judge_interface(args: &NetArgs, nic: &str, tell: &mut dyn FnMut(Verdict)) -> anyhow::Result<()> {
    let folder = tempfile::Builder::new()
        .prefix("judge-")
        .tempdir_in(build::target_folder("judge")?)?;
    let demo = folder.path().join("demo.img");
    std::fs::copy(image::demo()?, &demo).context("a copy of the demo image")?;
    let scratch = folder.path().join("scratch.img");
    File::create(&scratch)?.set_len(SCRATCH_BYTES)?;
    let image = folder.path().join("large.img");
    let large = Large::make(folder.path(), &image, args.mib)?;
    let capture = folder.path().join("frames.pcap");
    let forwards = PORTS.map(|port| format!("0:{port}"));
    let paths = [&demo, &scratch, &image, &capture].map(|path| path.display().to_string());
    let [disks @ .., pcap] = &paths;
    let mut arguments = vec!["--cpus", "2", "--nic", nic, "--capture", pcap];
    for disk in disks {
        arguments.extend(["--disk", disk]);
    }
    for forward in &forwards {
        arguments.extend(["--forward", forward]);
    }
    if args.kill_every > 0 {
        arguments.push("--");
        arguments.extend(machine::reliable().arguments());
    }
    let mut system = System::start(&arguments)?;
    let [web, nbd, iperf] = PORTS.map(|port| system.port(port));
    let court = Court {
        system: &system,
        folder: folder.path(),
        capture: &capture,
        web: web?,
        nbd: nbd?,
        iperf: iperf?,
        seconds: args.seconds,
        large: &large,
    };
    // The boot has found the interface, not yet an address.
    system.sh("ip wait 30 >/dev/null", 0)?;
    let mounted = format!(
        "while ! stat /{} > /dev/null 2>&1; do sleep 0.1; done",
        large.name
    );
    system.sh(&mounted, 0)?;
    let _exporter = Running::start(&system, "nbd virtio1")?;
    let _meter = Running::start(&system, "iperf3 -s")?;
    let before = memory(&system)?;
    let killer = (args.kill_every > 0)
        .then(|| Running::start(&system, &killer(nic, args.kill_every)))
        .transpose()?;
    let wanted = |name: &str| args.only.as_ref().is_none_or(|part| name.contains(part));
    let mut say = |judge: &str, outcome, seen| {
        tell(Verdict {
            nic: nic.to_owned(),
            judge: judge.to_owned(),
            outcome,
            seen,
        });
    };
    for judge in clients::ALL.iter().filter(|judge| wanted(judge.name)) {
        let (outcome, seen) = hear(judge.needs, || (judge.judge)(&court));
        say(judge.name, outcome, seen);
    }
    drop(killer);
    let deaths = deaths(&system)?;
    let after = memory(&system)?;
    let (outcome, seen) = hear(&[], || {
        ensure!(
            args.kill_every == 0 || deaths > 0,
            "the driver was never killed"
        );
        Ok(format!(
            "driver replaced {deaths} times; memory {} MiB before, {} MiB after",
            before >> 20,
            after >> 20
        ))
    });
    say("deaths", outcome, seen);
    system.sh("poweroff", 0)?;
    system.ended()?;
    if wanted("tshark") {
        let (outcome, mut seen) = hear(capture::NEEDS, || capture::judge(&capture, deaths));
        if matches!(outcome, Outcome::Failed) {
            let kept = build::target_folder("judge")?.join(format!("{nic}.pcap"));
            std::fs::rename(&capture, &kept).context("the capture")?;
            seen.push_str(&format!("; the capture is {}", kept.display()));
        }
        say("tshark", outcome, seen);
    }
    Ok(())
}

/// Hears a judge, if its programs can be had.
fn hear(
    needs: &[setup::Needed],
    judge: impl FnOnce() -> anyhow::Result<String>,
) -> (Outcome, String) {
    if let Err(error) = setup::ensure(&[needs]) {
        return (Outcome::NotRun, format!("{error:#}"));
    }
    outcome(judge())
}

fn outcome(judged: anyhow::Result<String>) -> (Outcome, String) {
    match judged {
        Ok(seen) => (Outcome::Passed, seen),
        Err(error) => (Outcome::Failed, format!("{error:#}")),
    }
}

/// Commands of the guest that kill the interface's driver over and over.
fn killer(nic: &str, every_s: u32) -> String {
    let driver = match nic {
        "virtio" => "virtio-net",
        _ => "e1000",
    };
    format!(
        "drv policy eth0 budget=100000 pause-min-ms=1 pause-max-ms=1; \
         while sleep {every_s}; do ps | grep {driver} | {{ read pid rest; kill -9 $pid; }}; done"
    )
}

fn output(system: &System, commands: &str) -> anyhow::Result<String> {
    Ok(String::from_utf8(system.sh(commands, 0)?.stdout)?)
}

/// Bytes that the system uses.
fn memory(system: &System) -> anyhow::Result<u64> {
    let text = output(system, "kernstat | grep used-bytes")?;
    let number = text.split_whitespace().nth(1);
    Ok(number
        .with_context(|| format!("no bytes in {text:?}"))?
        .parse()?)
}

/// How often the interface's driver was replaced.
fn deaths(system: &System) -> anyhow::Result<u64> {
    let text = output(system, "ifconfig eth0")?;
    let number = text.split("replaced ").nth(1);
    let number = number.and_then(|rest| rest.split_whitespace().next());
    Ok(number
        .with_context(|| format!("no deaths in {text:?}"))?
        .parse()?)
}
