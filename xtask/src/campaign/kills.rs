//! The class `kill`: the driver's process is killed at random moments of its life, also while it starts, under a
//! load at full depth.

use std::process::ExitCode;

use super::CampaignArgs;
use crate::build::{self, Profile};
use crate::setup;
use crate::system::endurance::{Findings, Trial};

/// Runs it. The status is 1 if a workload was not right or something was not recovered.
///
/// # Errors
///
/// When the system does not build.
pub fn run(args: &CampaignArgs, drivers: &[&'static str]) -> anyhow::Result<ExitCode> {
    setup::ensure(&[setup::MACHINE])?;
    let built = build::build(Profile::Release)?;
    let folder = build::target_folder("campaign")?;
    let mut failed = false;
    for driver in drivers.iter().copied() {
        let trial = Trial {
            driver,
            cpus: args.cpus,
            kills: u32::try_from(args.faults)?,
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
