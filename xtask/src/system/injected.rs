//! A short share of the fault campaign, seeded: what it cannot be is a campaign in which nothing happens.

use std::process::Command;

use anyhow::{Context, ensure};
use serde_json::Value;

/// Faults for each driver.
const FAULTS: u64 = 24;
/// Of the two controllers that the driver e1000 knows one is enough here.
const DRIVERS: [&str; 4] = ["virtio-blk", "nvme", "virtio-net", "e1000"];

/// Injects them, and looks at the counts.
pub(super) fn share() -> anyhow::Result<()> {
    let output = Command::new(std::env::current_exe()?)
        .args([
            "campaign",
            "--class",
            "code,code,kill-step,hang,kill-recovery",
        ])
        .args(["--driver", &DRIVERS.join(",")])
        .args(["--faults", &FAULTS.to_string(), "--seed", "11", "--json"])
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let lines = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let all = lines
        .filter(|value| value["group"] == "all")
        .map(|value| value["counts"].clone())
        .next_back();
    let all = all.with_context(|| format!("no counts: {errors}"))?;
    let count = |name: &str| all[name].as_u64().unwrap_or(0);
    ensure!(
        count("kernel_crashes") == 0 && count("stuck") == 0,
        "the system did not get over a fault: {text}{errors}"
    );
    ensure!(
        count("recovered") * 100 >= count("manifested") * 90,
        "not recovered: {text}{errors}"
    );
    let injected = DRIVERS.len() as u64 * FAULTS;
    ensure!(count("injected") + count("not_judged") == injected, "{all}");
    // Half of the faults end the driver whatever it does.
    ensure!(
        count("fail_stop") >= FAULTS / 2 && count("activated") >= count("manifested"),
        "the faults did nothing: {all}"
    );
    Ok(())
}
