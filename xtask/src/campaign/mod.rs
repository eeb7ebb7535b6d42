//! `cargo xtask campaign`: faults are injected into drivers under a verified load, and counted.
//!
//! `kills.rs` kills a driver at full speed, `services.rs` services. The other classes are trials, one fault after the other in a running
//! system: `plan.rs` says which, `boot.rs` injects them, `journal.rs` keeps what became of each, `tally.rs` counts.

mod boot;
mod curve;
mod journal;
mod kills;
mod memory;
mod mutation;
mod plan;
mod reached;
mod services;
mod subject;
mod tally;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::build::{self, Profile};
use crate::setup;
use boot::{Boot, End};
use journal::{Entry, Journal};
use mutation::Code;
use reached::Reached;
use subject::Subject;

/// A class of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// The driver's process is killed.
    Kill,
    /// An instruction of the driver's code is another one.
    Code,
    /// The driver loops for ever at some place of its code.
    Hang,
    /// The driver ends at some instruction of its code.
    KillStep,
    /// The driver is killed, and again while it starts.
    KillRecovery,
    /// The device's registers answer something else, or nothing.
    Mmio,
    /// Memory that device and driver share holds something else.
    Dma,
    /// Interrupts are lost, come without a cause, or in a storm.
    Interrupt,
    /// The driver sends rubbish to the device manager and to its bus.
    Ipc,
    /// The driver has used up its memory, its handles, or the system refuses it more.
    Oom,
    /// The driver tries what it was not granted.
    Grant,
    /// The device is sent to addresses outside of what was granted. Needs the IOMMU.
    Astray,
    /// Services, bus drivers and drivers are killed while files are read.
    Services,
}

/// All classes that are trials.
const TRIALS: [Class; 11] = [
    Class::Code,
    Class::Hang,
    Class::KillStep,
    Class::KillRecovery,
    Class::Mmio,
    Class::Dma,
    Class::Astray,
    Class::Interrupt,
    Class::Ipc,
    Class::Oom,
    Class::Grant,
];

impl Class {
    /// Whether the driver has to be built with faults in it: its code alone cannot be made to do this.
    fn needs_faults_built_in(self) -> bool {
        use Class::{Astray, Dma, Grant, Interrupt, Ipc, Mmio, Oom};
        matches!(self, Mmio | Dma | Astray | Interrupt | Ipc | Oom | Grant)
    }
}

/// What `cargo xtask campaign` takes.
#[derive(Clone, Debug, clap::Args)]
pub struct CampaignArgs {
    /// Seed of the load and of the faults; the same seed gives the same choices.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Faults for each driver, spread evenly over the classes.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    faults: u64,
    /// Classes of faults, separated by commas.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "kill")]
    class: Vec<Class>,
    /// Every class but `kill`; of a driver's faults half are mutations of its code.
    #[arg(long, conflicts_with = "class")]
    all: bool,
    /// Only these drivers, separated by commas.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    driver: Vec<String>,
    /// Processors of the machine.
    #[arg(long, default_value_t = 2)]
    cpus: u32,
    /// Leave out the IOMMU: a device then writes wherever a driver that has gone wrong sends it.
    #[arg(long)]
    no_iommu: bool,
    /// Class `kill`: longest service of an incarnation in microseconds.
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    life_us: u32,
    /// Only the fault of this number.
    #[arg(long, value_name = "N")]
    number: Option<u64>,
    /// Keep what became of each fault in this file, and leave out what it has already.
    #[arg(long, value_name = "FILE")]
    resume: Option<PathBuf>,
    /// End after so many boots; with `--resume` the rest is for another time.
    #[arg(long, value_name = "N")]
    boots: Option<u64>,
    /// Faults of one boot.
    #[arg(long, value_name = "N", default_value_t = 300)]
    batch: usize,
    /// Measure throughput over the interval at which the driver is killed, instead of injecting faults.
    #[arg(long)]
    curve: bool,
    /// With `--curve`: seconds at each interval.
    #[arg(long, value_name = "N", default_value_t = 30)]
    seconds: u64,
    /// With `--curve`: how often each interval has its turn.
    #[arg(long, value_name = "N", default_value_t = 2)]
    rounds: u64,
    /// With `--curve`: where the plot goes; in `target/campaign` otherwise.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Print JSON objects.
    #[arg(long)]
    json: bool,
}

/// Runs a campaign. The status is 1 if something was not recovered that must be.
///
/// # Errors
///
/// When the system does not build, or there is no such driver.
pub fn run(args: &CampaignArgs) -> anyhow::Result<ExitCode> {
    let known = subject::all();
    for name in &args.driver {
        if !known.iter().any(|subject| subject.name == name) {
            let names: Vec<&str> = known.iter().map(|subject| subject.name).collect();
            let text = format!("--driver: there is {}", names.join(", "));
            return Err(crate::UsageError(text).into());
        }
    }
    let wanted =
        |subject: &Subject| args.driver.is_empty() || args.driver.iter().any(|n| n == subject.name);
    let drivers: Vec<Subject> = known.into_iter().filter(wanted).collect();
    let disks: Vec<&'static str> = drivers
        .iter()
        .filter(|subject| subject.is_disk())
        .map(|subject| subject.name)
        .collect();
    if args.curve {
        if disks.is_empty() {
            let text = "--curve: disks only".to_owned();
            return Err(crate::UsageError(text).into());
        }
        return curve::run(args, &disks);
    }
    if args.all {
        // A code fault after each of the others.
        let left_out =
            |class: Class| class == Class::Code || args.no_iommu && class == Class::Astray;
        let others = TRIALS.iter().filter(|class| !left_out(**class));
        let class = others.flat_map(|class| [Class::Code, *class]).collect();
        let args = CampaignArgs {
            class,
            ..args.clone()
        };
        return trials(&args, &drivers);
    }
    if args.no_iommu && args.class.contains(&Class::Astray) {
        let text = "--class astray: without the IOMMU the kernel would be hit".to_owned();
        return Err(crate::UsageError(text).into());
    }
    if args.class == [Class::Services] {
        return services::run(args);
    }
    if args.class.contains(&Class::Services) {
        let text = "--class: services is a campaign of its own".to_owned();
        return Err(crate::UsageError(text).into());
    }
    if args.class == [Class::Kill] && args.number.is_none() && !disks.is_empty() {
        let killed = kills::run(args, &disks)?;
        let others: Vec<Subject> = drivers.into_iter().filter(|s| !s.is_disk()).collect();
        if killed != ExitCode::SUCCESS || others.is_empty() {
            return Ok(killed);
        }
        return trials(args, &others);
    }
    trials(args, &drivers)
}

/// Functions whose code is mutated: the driver's own, its class's and the DDK's, and what they stand on. Not the panic
/// handler's and the like, which nobody comes along.
fn is_drivers_code(name: &str) -> bool {
    const OURS: [&str; 13] = [
        "virtio",
        "nvme",
        "e1000",
        "ddk",
        "ring::",
        "proto::",
        "ipc::",
        "executor::",
        "sys::",
        "spec_",
        "rt::",
        "alloc::vec",
        "alloc::collections",
    ];
    const NOT: [&str; 5] = ["panic", "fmt", "symbols", "crash", "drop_in_place"];
    OURS.iter().any(|part| name.contains(part)) && !NOT.iter().any(|part| name.contains(part))
}

/// How often a fault is injected on which QEMU crashes.
const ATTEMPTS: u32 = 3;

/// Class and number of each fault of a driver.
fn faults(args: &CampaignArgs) -> Vec<(Class, u64)> {
    if let Some(number) = args.number {
        return args.class.iter().map(|class| (*class, number)).collect();
    }
    let mut counts = std::collections::BTreeMap::new();
    let turns = args.class.iter().cycle().zip(0..args.faults);
    let numbered = turns.map(|(class, _)| {
        let count: &mut u64 = counts.entry(*class as u8).or_default();
        *count += 1;
        (*class, *count - 1)
    });
    numbered.collect()
}

fn trials(args: &CampaignArgs, drivers: &[Subject]) -> anyhow::Result<ExitCode> {
    setup::ensure(&[setup::MACHINE])?;
    let built = build::build(Profile::Release)?;
    let folder = build::target_folder("campaign")?;
    let mut journal = Journal::open(args.resume.as_ref())?;
    let mut boots = 0;
    let mut traces = Vec::new();
    let (mut crashes, mut barren) = (0, 0);
    let mut variants = Vec::new();
    let copies = tempfile::tempdir_in(&folder)?;
    if args.class.iter().any(|class| class.needs_faults_built_in()) {
        let mut programs: Vec<&str> = drivers.iter().map(|subject| subject.program).collect();
        programs.dedup();
        let faulty = build::with_features(&built, &programs, "ddk-backend-os/faults")?;
        variants.push((true, build::kept(&faulty, &copies.path().join("faulty"))?));
    }
    variants.insert(
        0,
        (false, build::kept(&built, &copies.path().join("shipped"))?),
    );
    'runs: for driver in drivers.iter().copied() {
        for (faults_built_in, built) in &variants {
            let program = built.programs.iter().find(|p| p.name == driver.program);
            let program = program.context("the driver was not built")?;
            let mut code = Code::load(&program.stripped, is_drivers_code)?;
            if !faults_built_in {
                let reached = Reached::find(built, driver, &program.stripped, &folder)?;
                code = code.with_reached(reached);
            }
            let mut rest: Vec<(Class, u64)> = faults(args)
                .into_iter()
                .filter(|(class, n)| {
                    class.needs_faults_built_in() == *faults_built_in
                        && !journal.has(driver.name, *class, args.seed, *n)
                })
                .collect();
            while !rest.is_empty() {
                if args.boots.is_some_and(|most| boots >= most) {
                    break 'runs;
                }
                boots += 1;
                let batch: Vec<_> = rest.iter().copied().take(args.batch).collect();
                let boot = Boot {
                    built,
                    subject: driver,
                    code: &code,
                    cpus: args.cpus,
                    iommu: !args.no_iommu,
                    seed: args.seed,
                    folder: &folder,
                };
                let mut finished = 0;
                let mut problem = None;
                let ended = boot.run(&batch, &mut |entry| {
                    finished += 1;
                    if entry.seen.stuck || !entry.seen.recovered && entry.seen.manifested() {
                        eprintln!("xtask: {}", told(&entry, args));
                    }
                    problem = journal.add(entry).err();
                })?;
                if let Some(problem) = problem {
                    return Err(problem);
                }
                rest.drain(..finished.min(rest.len()));
                eprintln!(
                    "xtask: {}: {} faults done, {} to go{}{}",
                    driver.name,
                    journal.entries.len(),
                    rest.len(),
                    if *faults_built_in {
                        " with faults built in"
                    } else {
                        ""
                    },
                    match &ended {
                        End::Done => String::new(),
                        End::Interrupted => ", interrupted".to_owned(),
                        End::Stuck(how) | End::Traces(how) => format!("; {how}"),
                        End::Emulator(signal, _) => format!("; QEMU crashed (signal {signal})"),
                    }
                );
                if !matches!(ended, End::Emulator(..)) {
                    barren = 0;
                }
                match ended {
                    End::Done => {}
                    End::Traces(how) => traces.push(format!("{}: {how}", driver.name)),
                    // The fault that did it is in the journal; without one it is nobody's, and would come again.
                    End::Stuck(how) if finished == 0 => anyhow::bail!("{}: {how}", driver.name),
                    End::Stuck(_) => {}
                    // The fault that was in is injected again; one on which QEMU crashes each time cannot be judged.
                    End::Emulator(signal, during) => {
                        crashes += 1;
                        barren = if finished == 0 { barren + 1 } else { 1 };
                        if barren < ATTEMPTS {
                            continue;
                        }
                        let entry = during.with_context(|| {
                            format!("{}: QEMU crashed (signal {signal})", driver.name)
                        })?;
                        eprintln!("xtask: {}", told(&entry, args));
                        rest.remove(0);
                        journal.add(*entry)?;
                        barren = 0;
                    }
                    End::Interrupted => break 'runs,
                }
            }
        }
    }
    let ours = |entry: &&Entry| {
        entry.seed == args.seed
            && drivers.iter().any(|subject| subject.name == entry.driver)
            && args.class.contains(&entry.class)
    };
    let entries: Vec<&Entry> = journal.entries.iter().filter(ours).collect();
    let mut groups = tally::groups(entries.iter().copied());
    let unrecovered = entries.iter().filter(|entry| {
        entry.seen.manifested() && (!entry.seen.recovered || !entry.seen.workload_correct())
    });
    if args.json {
        for (name, tally) in &mut groups {
            println!(
                "{}",
                json!({ "group": name, "seed": args.seed, "counts": tally.json() })
            );
        }
        for entry in unrecovered {
            println!("{}", serde_json::to_string(entry)?);
        }
        for how in &traces {
            println!("{}", json!({ "left_behind": how }));
        }
        println!("{}", json!({ "emulator_crashes": crashes }));
    } else {
        print!("{}", tally::table(&mut groups));
        for entry in unrecovered {
            println!("{}", told(entry, args));
        }
        for how in &traces {
            println!("left behind: {how}");
        }
        if crashes > 0 {
            println!("QEMU crashed {crashes} times; what was in then was injected again");
        }
    }
    let good = groups.last().is_none_or(|(_, all)| all.is_good());
    Ok(ExitCode::from(u8::from(!good)))
}

/// A fault in words, with the command that injects it again. What failed are requests of a disk, what was wrong are blocks or echoes, what
/// was lost are sessions.
fn told(entry: &Entry, args: &CampaignArgs) -> String {
    let seen = &entry.seen;
    let became = if seen.unjudged {
        "not judged"
    } else if seen.kernel {
        "the kernel crashed"
    } else if seen.stuck {
        "stuck"
    } else if !seen.recovered {
        "recovered by hand"
    } else {
        "recovered"
    };
    let class = clap::ValueEnum::to_possible_value(&entry.class);
    format!(
        "{} {}: {}: {became}, {} failed, {} wrong, {} lost; {}; \
         again: cargo xtask campaign --class {} --driver {} --seed {} --cpus {} --number {}",
        entry.driver,
        entry.number,
        entry.fault,
        seen.failed,
        seen.wrong,
        seen.lost,
        seen.reason,
        class.map_or_else(String::new, |class| class.get_name().to_owned()),
        entry.driver,
        entry.seed,
        args.cpus,
        entry.number,
    )
}
