//! The runtime's own test: a program that starts itself again and again, with an init that knows
//! nothing else.

use anyhow::ensure;

use super::{Report, SystemTest};

pub(super) fn tests() -> anyhow::Result<Vec<SystemTest>> {
    let on = |cpus: u32| {
        SystemTest::without_shell(
            format!("runtime-cpus-{cpus}"),
            "init=bin/test-runtime-init",
            check,
        )
        .cpus(cpus)
        .time_limit(600)
    };
    Ok(vec![on(1), on(4)])
}

fn check(report: &Report) -> anyhow::Result<()> {
    let lines = |start: &'static str| report.log.lines().filter(move |l| l.starts_with(start));
    let failed: Vec<&str> = lines("FAILED ").collect();
    ensure!(failed.is_empty(), "{}", failed.join(" | "));
    report.expect_status(0)?;
    let passed = lines("ok ").count();
    ensure!(passed > 0, "no check ran");
    report.log_line(&[&format!("{passed} passed, 0 failed")])?;
    Ok(())
}
