//! The homes of the host: the program of `tests/conformance`, whose lines are read.

use std::io::{BufRead, BufReader};
use std::ops::Range;
use std::process::Stdio;

use anyhow::{Context, bail};
use serde_json::Value;

use super::matrix::{Entry, Verdict};
use crate::build::workspace_root;
use crate::setup;
use crate::tool::{self, Output};

/// Runs the suite for these drivers at these homes, all at once: most of them wait most of the time.
///
/// # Errors
/// When the program does not build or breaks off.
pub fn run(
    drivers: &[&str],
    homes: &[&str],
    filter: Option<&str>,
    seeds: &Range<u64>,
) -> anyhow::Result<Vec<Entry>> {
    let mut build = setup::cargo();
    build
        .args(["build", "--quiet", "--package", "conformance"])
        .current_dir(workspace_root());
    tool::run(&mut build, Output::OnFailure)?;
    let cells = drivers
        .iter()
        .flat_map(|driver| homes.iter().map(move |home| (*driver, *home)));
    std::thread::scope(|scope| {
        let running: Vec<_> = cells
            .map(|(driver, home)| scope.spawn(move || cell(driver, home, filter, seeds)))
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
    driver: &str,
    home: &str,
    filter: Option<&str>,
    seeds: &Range<u64>,
) -> anyhow::Result<Vec<Entry>> {
    let mut command = setup::cargo();
    command
        .args(["run", "--quiet", "--package", "conformance", "--", "--json"])
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
