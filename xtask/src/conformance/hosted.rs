//! The homes of the host: the program of `tests/conformance`, whose lines are read.

use std::io::{BufRead, BufReader};
use std::ops::Range;
use std::process::Stdio;

use anyhow::{Context, bail};
use serde_json::Value;

use super::matrix::{Entry, Verdict};
use crate::build::workspace_root;
use crate::setup;
use crate::tool;

/// Runs the suite for these drivers at these homes.
///
/// # Errors
/// When the program does not build or breaks off.
pub fn run(
    drivers: &[&str],
    homes: &[&str],
    filter: Option<&str>,
    seeds: &Range<u64>,
) -> anyhow::Result<Vec<Entry>> {
    let mut command = setup::cargo();
    command
        .args(["run", "--quiet", "--package", "conformance", "--", "--json"])
        .arg(format!("--drivers={}", drivers.join(",")))
        .arg(format!("--homes={}", homes.join(",")))
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
    // A failure is in the entries; anything else that is not success broke the run off.
    let failed = |entry: &Entry| matches!(entry.verdict, Verdict::Failed(_));
    let ran = |entry: &Entry| !matches!(entry.verdict, Verdict::NotRun(_));
    if !status.success() && entries.iter().any(ran) && !entries.iter().any(failed) {
        bail!("{text}: {status}");
    }
    if entries.is_empty() && !status.success() {
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
