//! The kernel's own tests: a program that runs in place of init, with hostile
//! children that make random system calls, fault, overflow and never end.

use anyhow::{Context, ensure};

use super::{Report, SystemTest};

/// Random system calls of one run, and of the long one.
const CALLS: u64 = 100_000;
const CALLS_LONG: u64 = 1_000_000;

pub(super) fn tests() -> anyhow::Result<Vec<SystemTest>> {
    let runs = [(1, CALLS_LONG), (2, CALLS), (4, CALLS), (8, CALLS)];
    Ok(runs
        .into_iter()
        .map(|(cpus, calls)| {
            SystemTest::without_shell(
                format!("kernel-cpus-{cpus}"),
                format!("init=bin/kernel-test calls={calls} seed={cpus}"),
                check,
            )
            .cpus(cpus)
            .time_limit(600)
        })
        .collect())
}

fn check(report: &Report) -> anyhow::Result<()> {
    let failed: Vec<&str> = report
        .log
        .lines()
        .filter(|line| line.contains("FAILED"))
        .collect();
    ensure!(failed.is_empty(), "{}", failed.join(" | "));
    report.expect_status(0)?;
    let passed = report
        .log
        .lines()
        .filter(|line| line.contains(": ok "))
        .count();
    let line = report.log_line(&[" passed, 0 failed"])?;
    let counted: usize = line
        .split_whitespace()
        .rev()
        .nth(3)
        .and_then(|word| word.parse().ok())
        .with_context(|| format!("{line:?} has no count"))?;
    ensure!(
        counted > 0 && counted == passed,
        "{passed} tests in the log, {counted} in its last line"
    );
    Ok(())
}
