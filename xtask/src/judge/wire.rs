//! `cargo xtask judge wire`: a hostile station on the guest's net. After each burst of frames a request has to be answered as before; the
//! system's memory keeps to its bounds, and nothing dies.

use anyhow::{Context, ensure};
use serde_json::Value;

use super::{Nics, Verdict, outcome, output};
use crate::build;
use crate::hostile::station::{self, Station};
use crate::hostile::{self, Burst, Plan};
use crate::system::headless::System;

/// Bytes that stack and driver may use more at any time than before the first frame: each half-open connection has buffers, and there is
/// one for each place in the web server's backlog; fragments have four buffers of 64 KiB.
const GROWTH_MAX: u64 = 48 << 20;
/// And afterwards.
const REST_MAX: u64 = 48 << 20;

/// What `cargo xtask judge wire` takes.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct WireArgs {
    #[command(flatten)]
    pub nics: Nics,
    /// Where chance begins.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Frames by chance.
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    frames: usize,
    /// Connection requests of the flood; of other floods a quarter.
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    flood: usize,
    /// Of the frames with a changed field or cut short, each so many-th.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    sweep_step: u32,
}

/// Memory that the network's processes are charged with, and that the system uses.
#[derive(Clone, Copy, Default)]
struct Memory {
    stack: u64,
    driver: u64,
    system: u64,
}

impl Memory {
    fn now(system: &System, driver: &str) -> anyhow::Result<Memory> {
        let text = output(system, "kernstat | grep used-bytes; ps -l")?;
        let number = |text: &str| -> anyhow::Result<u64> {
            let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
            let unit = match text.get(digits.len()..) {
                Some("K") => 1 << 10,
                Some("M") => 1 << 20,
                Some("G") => 1 << 30,
                _ => 1,
            };
            let value: f64 = digits.parse().with_context(|| format!("{text:?}"))?;
            Ok((value * f64::from(unit)) as u64)
        };
        let head = text.lines().find(|line| line.contains("CHARGED"));
        let column = head.and_then(|line| line.split_whitespace().position(|w| w == "CHARGED"));
        let column = column.with_context(|| format!("no memory in {text}"))?;
        let charged = |name: &str| -> anyhow::Result<u64> {
            let mut lines = text.lines();
            let line = lines.find(|line| line.split_whitespace().next_back() == Some(name));
            let line = line.with_context(|| format!("no process {name} in {text}"))?;
            number(line.split_whitespace().nth(column).unwrap_or_default())
        };
        let used = text.split_whitespace().nth(1).unwrap_or_default();
        Ok(Memory {
            stack: charged("netstack")?,
            driver: charged(driver)?,
            system: number(used)?,
        })
    }

    fn max(self, other: Memory) -> Memory {
        Memory {
            stack: self.stack.max(other.stack),
            driver: self.driver.max(other.driver),
            system: self.system.max(other.system),
        }
    }
}

impl std::fmt::Display for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kib = |bytes: u64| bytes >> 10;
        let (stack, driver, system) = (kib(self.stack), kib(self.driver), kib(self.system));
        write!(f, "stack {stack}, driver {driver}, system {system} KiB")
    }
}

/// Counters of the interface.
fn counters(system: &System) -> anyhow::Result<String> {
    let text = output(system, "ifconfig --json eth0")?;
    let value: Value = serde_json::from_str(&text)?;
    let mut found = Vec::new();
    collect(&value, &mut found);
    Ok(found.join(", "))
}

fn collect(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                match field.as_u64() {
                    Some(number) if name.contains("drop") || name.contains("frames") => {
                        found.push(format!("{name} {number}"));
                    }
                    _ => collect(field, found),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| collect(value, found)),
        _ => {}
    }
}

/// What the log must not have.
const BAD_SIGNS: [&str; 4] = ["panic", "crashed", "died", "quarantine"];

/// Whether nothing died: by the log, and by what the supervisors count.
pub(super) fn alive(system: &System) -> anyhow::Result<String> {
    let log = system.log()?;
    let bad = |line: &&str| BAD_SIGNS.iter().any(|sign| line.contains(sign));
    if let Some(line) = log.lines().find(bad) {
        anyhow::bail!("in the log: {line}");
    }
    let crashes = output(system, "drv crash")?;
    ensure!(crashes.lines().count() <= 1, "{crashes}");
    Ok("no death, no restart, no report of one".to_owned())
}

pub(super) fn judge(
    args: &WireArgs,
    nic: &str,
    tell: &mut dyn FnMut(Verdict),
) -> anyhow::Result<()> {
    let (device, driver) = match nic {
        "virtio" => ("virtio-net-pci", "virtio-net"),
        "e1000" => ("e1000", "e1000"),
        "e1000e" => ("e1000e", "e1000"),
        _ => anyhow::bail!("--nic {nic}: there are virtio, e1000, e1000e"),
    };
    let folder = tempfile::Builder::new()
        .prefix("wire-")
        .tempdir_in(build::target_folder("judge")?)?;
    let mut station = Station::new(folder.path())?;
    let machine = station::arguments(folder.path(), device);
    let mut arguments = vec!["--cpus", "2", "--nic", "none", "--"];
    arguments.extend(machine.iter().map(String::as_str));
    let mut system = System::start(&arguments)?;
    let page = hostile::ready(&mut station)?;
    let before = Memory::now(&system, driver)?;
    let mut peak = before;
    let mut say = |judge: &str, judged: anyhow::Result<String>| {
        let (outcome, seen) = outcome(judged);
        tell(Verdict {
            nic: nic.to_owned(),
            judge: judge.to_owned(),
            outcome,
            seen,
        });
    };
    let plan = Plan {
        seed: args.seed,
        frames: args.frames,
        sweep_step: args.sweep_step as usize,
        flood: args.flood,
    };
    let attacked = hostile::attack(&mut station, &page, plan, |burst: Burst| {
        let now = Memory::now(&system, driver)?;
        peak = peak.max(now);
        let Burst {
            name,
            frames,
            seconds,
            answer_seconds,
            ..
        } = burst;
        let seen = format!(
            "{frames} frames in {seconds:.1} s, then answered in {answer_seconds:.2} s; {now}"
        );
        say(&name, Ok(seen));
        Ok(())
    });
    if let Err(error) = attacked {
        say("service", Err(error));
    }
    say("alive", alive(&system));
    let held_up = station.held_up();
    let counted = counters(&system);
    say(
        "counters",
        counted.map(|text| format!("{text}; the guest's machine was full {held_up} times")),
    );
    let bounded = Memory::now(&system, driver).and_then(|after| {
        let grown =
            |now: Memory| (now.stack + now.driver).saturating_sub(before.stack + before.driver);
        ensure!(grown(peak) <= GROWTH_MAX, "grew from {before} to {peak}");
        ensure!(grown(after) <= REST_MAX, "{before} before, {after} after");
        Ok(format!("before: {before}; peak: {peak}; after: {after}"))
    });
    say("memory", bounded);
    system.sh("poweroff", 0)?;
    system.ended()
}
