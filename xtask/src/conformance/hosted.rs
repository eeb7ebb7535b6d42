//! The homes of the host: the program of `tests/conformance`, whose lines are read.

use std::io::{BufRead, BufReader};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use serde_json::Value;

use super::matrix::{Entry, Verdict};
use crate::build::{Profile, cargo, workspace_root};
use crate::setup;
use crate::tool;

/// The suite's program.
const SUITE: &str = "conformance";

/// Builds the suite.
///
/// # Errors
/// When it does not compile.
pub fn build() -> anyhow::Result<PathBuf> {
    let mut build = setup::cargo();
    build.args(["build", "--quiet", "--bin", SUITE]);
    cargo::name_host_packages(&mut build)?;
    let mut built = cargo::compile(build, "", Profile::Debug)?;
    built
        .remove(SUITE)
        .context("cargo says nothing of the suite")
}

/// Runs the suite for these drivers at these homes, all at once.
///
/// # Errors
/// When the program breaks off.
pub fn run(
    suite: &Path,
    drivers: &[&str],
    homes: &[&str],
    filter: Option<&str>,
    seeds: &Range<u64>,
) -> anyhow::Result<Vec<Entry>> {
    let cells = drivers
        .iter()
        .flat_map(|driver| homes.iter().map(move |home| (*driver, *home)));
    std::thread::scope(|scope| {
        let running: Vec<_> = cells
            .map(|(driver, home)| scope.spawn(move || cell(suite, driver, home, filter, seeds)))
            .collect();
        let mut entries = Vec::new();
        for cell in running {
            let cell = cell
                .join()
                .map_err(|_| anyhow::anyhow!("a reader panicked"))?;
            entries.extend(cell?);
        }
        Ok(entries)
    })
}

fn cell(
    suite: &Path,
    driver: &str,
    home: &str,
    filter: Option<&str>,
    seeds: &Range<u64>,
) -> anyhow::Result<Vec<Entry>> {
    let mut command = Command::new(suite);
    command
        .arg("--json")
        .arg(format!("--drivers={driver}"))
        .arg(format!("--homes={home}"))
        .arg(format!("--seed={}", seeds.start))
        .arg(format!("--seeds={}", seeds.end - seeds.start))
        .current_dir(workspace_root())
        .stdout(Stdio::piped());
    if let Some(filter) = filter {
        command.arg(format!("--filter={filter}"));
    }
    let text = tool::shown(&command);
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot start {text}"))?;
    let stdout = child.stdout.take().context("the suite's output")?;
    let mut entries = Vec::new();
    for line in BufReader::new(stdout).lines() {
        let line = line.context("the suite's output")?;
        let value: Value =
            serde_json::from_str(&line).with_context(|| format!("line of the suite: {line}"))?;
        entries.push(entry(&value).with_context(|| format!("line of the suite: {line}"))?);
    }
    let status = child.wait().with_context(|| text.clone())?;
    // A failure is among the entries; anything else that is not success broke the run off.
    let count =
        |wanted: fn(&Verdict) -> bool| entries.iter().filter(|e| wanted(&e.verdict)).count();
    let ran = count(|verdict| !matches!(verdict, Verdict::NotRun(_)));
    let failed = count(|verdict| matches!(verdict, Verdict::Failed(_)));
    if !status.success() && failed == 0 && ran > 0 {
        bail!("{text}: {status}");
    }
    Ok(entries)
}

fn entry(value: &Value) -> Option<Entry> {
    let text = |name: &str| value[name].as_str();
    Some(Entry {
        driver: text("driver")?.to_owned(),
        home: text("home")?.to_owned(),
        case: text("case")?.to_owned(),
        verdict: Verdict::new(text("outcome")?, text("detail")?)?,
    })
}
