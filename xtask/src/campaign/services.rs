//! The class `services`: the device manager, the bus driver, file systems, the VFS, the network stack and others are killed
//! at random moments, in boots of so many deaths, while every file of a disk is read and compared.

use std::collections::BTreeMap;
use std::process::ExitCode;

use serde_json::json;

use super::CampaignArgs;
use crate::build::{self, Profile};
use crate::setup;
use crate::system::services::Trial;

/// Runs it. The status is 1 if a file was not right or something did not come back.
///
/// # Errors
///
/// When the system does not build.
pub fn run(args: &CampaignArgs) -> anyhow::Result<ExitCode> {
    setup::ensure(&[setup::MACHINE, setup::IMAGES])?;
    let built = build::build(Profile::Release)?;
    let folder = build::target_folder("campaign")?;
    let batch = u64::try_from(args.batch)?.max(1);
    let (mut left, mut seed, mut failed) = (args.faults, args.seed, 0u64);
    let mut killed: BTreeMap<&str, u32> = BTreeMap::new();
    let (mut rounds, mut boots) = (0, 0);
    while left > 0 && args.boots.is_none_or(|most| boots < most) {
        let trial = Trial {
            cpus: args.cpus,
            kills: u32::try_from(left.min(batch))?,
            seed,
        };
        let report = trial
            .test(format!("services-{seed}"))?
            .execute(&built, &folder);
        match report.and_then(|report| trial.findings(&report)) {
            Ok(found) => {
                for (who, count) in found.killed {
                    *killed.entry(who).or_default() += count;
                }
                rounds += found.rounds;
            }
            Err(error) => {
                failed += 1;
                eprintln!(
                    "xtask: seed {seed}: NOT RECOVERED: {error:#}\n    console and log: {}; again: \
                     cargo xtask campaign --class services --seed {seed} --faults {} --cpus {}",
                    folder.display(),
                    trial.kills,
                    trial.cpus
                );
            }
        }
        left = left.saturating_sub(batch);
        seed = seed.wrapping_add(1);
        boots += 1;
    }
    let all: u32 = killed.values().sum();
    if args.json {
        println!(
            "{}",
            json!({
                "class": "services", "seed": args.seed, "cpus": args.cpus, "boots": boots, "boots_failed": failed,
                "recovered": all, "by_service": killed, "rounds_read": rounds,
            })
        );
    } else {
        let list: Vec<String> = killed.iter().map(|(who, n)| format!("{who} {n}")).collect();
        println!(
            "{all} killed and back in {boots} boots ({}); {rounds} rounds of reading every file, all right; {failed} boots failed",
            list.join(", ")
        );
    }
    Ok(ExitCode::from(u8::from(failed > 0)))
}
