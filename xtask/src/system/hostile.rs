//! A station on the guest's net that sends whatever it likes: a seeded share of `cargo xtask judge wire`. The guest calls the station, which does
//! its worst, asks for a page after each burst, and tells the guest what it saw.

use std::time::Duration;

use anyhow::Context;

use super::{Report, SystemTest, compare};
use crate::build;
use crate::hostile::station::{self, Station};
use crate::hostile::{self, Plan};

/// Port of the station at which the guest calls.
const CALL_PORT: u16 = 9;
const CALL_LIMIT: Duration = Duration::from_secs(120);

const SCRIPT: &str = "\
ip wait 60 > /dev/null
echo '== before'; kernstat | grep used-bytes
echo '== station'; nc 10.0.5.2 9
echo '== after'; kernstat | grep used-bytes
echo '== ends'; drv crash | grep -c . ; svc | grep -c restart
echo '== counters'; ifconfig eth0
true
";

/// Bytes that the system may use more afterwards: half-open connections have buffers until they are given up.
const GROWTH_MAX: u64 = 48 << 20;

const PLAN: Plan = Plan {
    seed: 11,
    frames: 2_000,
    sweep_step: 17,
    flood: 3_000,
};

pub(super) fn tests() -> anyhow::Result<Vec<SystemTest>> {
    ["virtio-net-pci", "e1000"].into_iter().map(test).collect()
}

fn test(device: &'static str) -> anyhow::Result<SystemTest> {
    let folder = build::target_folder("system")?.join(format!("hostile-{device}"));
    std::fs::create_dir_all(&folder)?;
    let machine = station::arguments(&folder, device);
    let machine: Vec<&str> = machine.iter().map(String::as_str).collect();
    let test = SystemTest::new(format!("hostile-station-{device}"), SCRIPT, check)
        .cpus(2)
        .devices(&machine)
        .time_limit(240)
        .meanwhile(move |_| {
            let mut station = Station::new(&folder)?;
            // The guest calls as soon as it has an address.
            let call = station.listen(CALL_PORT)?;
            let page = hostile::ready(&mut station)?;
            station.called(&call, CALL_LIMIT)?;
            let attacked = hostile::attack(&mut station, &page, PLAN, |_| Ok(()));
            let verdict = match attacked {
                Ok(()) => "served after every burst\n".to_owned(),
                Err(error) => format!("{error:#}\n"),
            };
            station.answer(call, &verdict)
        });
    Ok(test)
}

fn bytes(report: &Report, section: &str) -> anyhow::Result<u64> {
    let text = report.section(section)?;
    let number = text.split_whitespace().nth(1);
    let number = number.with_context(|| format!("{section}: {text:?}"))?;
    Ok(number.parse()?)
}

fn check(report: &Report) -> anyhow::Result<()> {
    report.expect_status(0)?;
    compare(
        "station",
        report.section("station")?,
        "served after every burst\n",
    )?;
    let (before, after) = (bytes(report, "before")?, bytes(report, "after")?);
    anyhow::ensure!(
        after <= before + GROWTH_MAX,
        "{before} bytes in use before, {after} after"
    );
    if let Some(line) = report.log.lines().find(|line| line.contains("panic")) {
        anyhow::bail!("in the log: {line}");
    }
    Ok(())
}
