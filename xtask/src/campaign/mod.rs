//! `cargo xtask campaign`: faults are injected into drivers under a verified load, and counted.
//!
//! The class that exists is `kill`: the driver's process is killed at random moments of its life, also
//! while it starts.

use std::process::ExitCode;

use crate::build::{self, Profile};
use crate::setup;
use crate::system::endurance::{DRIVERS, Findings, Trial};

/// A class of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Class {
    /// The driver's process is killed.
    Kill,
}

/// What `cargo xtask campaign` takes.
#[derive(Clone, Debug, clap::Args)]
pub struct CampaignArgs {
    /// Seed of the load and of the faults; the same seed gives the same choices.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Faults for each driver.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    faults: u32,
    /// Class of faults.
    #[arg(long, value_enum, default_value_t = Class::Kill)]
    class: Class,
    /// Only this driver.
    #[arg(long, value_name = "NAME")]
    driver: Option<String>,
    /// Processors of the machine.
    #[arg(long, default_value_t = 2)]
    cpus: u32,
    /// Longest service of an incarnation in microseconds.
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    life_us: u32,
    /// Print one JSON object for each driver.
    #[arg(long)]
    json: bool,
}

/// Runs a campaign. The status is 1 if a workload was not right or something was not recovered.
///
/// # Errors
///
/// When the system does not build, or there is no such driver.
pub fn run(args: &CampaignArgs) -> anyhow::Result<ExitCode> {
    let wanted = |driver: &str| args.driver.as_deref().is_none_or(|name| name == driver);
    let drivers: Vec<&'static str> = DRIVERS
        .iter()
        .map(|(driver, ..)| *driver)
        .filter(|driver| wanted(driver))
        .collect();
    if drivers.is_empty() {
        let names: Vec<&str> = DRIVERS.iter().map(|(driver, ..)| *driver).collect();
        let text = format!("--driver: there is {}", names.join(" and "));
        return Err(crate::UsageError(text).into());
    }
    setup::ensure(&[setup::MACHINE])?;
    let built = build::build(Profile::Release)?;
    let folder = build::target_folder("campaign")?;
    let mut failed = false;
    for driver in drivers {
        let trial = Trial {
            driver,
            cpus: args.cpus,
            kills: args.faults,
            seed: args.seed,
            life_us: args.life_us,
        };
        let name = format!("{driver}-{}", args.seed);
        let report = trial.test(name)?.execute(&built, &folder);
        let findings = report.and_then(|report| trial.findings(&report));
        match findings {
            Ok(findings) if args.json => println!("{}", findings.json(&trial)),
            Ok(findings) => tell(&trial, &findings),
            Err(error) if args.json => {
                failed = true;
                let (seed, injected) = (trial.seed, trial.kills);
                println!(
                    "{}",
                    serde_json::json!({
                        "class": "kill",
                        "driver": driver,
                        "seed": seed,
                        "injected": injected,
                        "workload_correct": false,
                        "error": format!("{error:#}"),
                    })
                );
            }
            Err(error) => {
                failed = true;
                println!("{driver}: NOT RECOVERED: {error:#}");
                println!(
                    "    console and log: {}; again: cargo xtask campaign --class kill --driver {driver} --seed {} --faults {} --cpus {} --life-us {}",
                    folder.display(),
                    trial.seed,
                    trial.kills,
                    trial.cpus,
                    trial.life_us
                );
            }
        }
    }
    Ok(ExitCode::from(u8::from(failed)))
}

fn tell(trial: &Trial, findings: &Findings) {
    let [reads, writes, flushes] = findings.requests;
    let [p50, p99, max] = findings.gap_us;
    println!(
        "{}: {} killed, {} times seen by the load, all recovered; {reads} reads, {writes} writes, {flushes} flushes in {} s: \
         none failed, lost, torn or repeated; gap p50 {p50} us, p99 {p99} us, longest {max} us",
        trial.driver,
        findings.kills,
        findings.recoveries,
        findings.elapsed_ms / 1000,
    );
}
