//! `cargo xtask fuzz`: the targets of `fuzz/` under libFuzzer, on the stable toolchain.
//!
//! libFuzzer needs what the compiler's coverage pass leaves in the code; its flags are given here, as other
//! fuzzing front ends do on nightly. One program has all targets. What it finds stays in
//! `target/fuzz/findings`, with the command that shows it again.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::build::{target_folder, workspace_root};
use crate::tool::{self, Output};
use crate::{UsageError, setup};

/// What `cargo xtask fuzz` takes.
#[derive(Clone, Debug, clap::Args)]
pub struct FuzzArgs {
    /// The target; without it all of them, one after the other.
    target: Option<String>,
    /// How long to fuzz each target.
    #[arg(long, value_name = "N", default_value_t = 60)]
    seconds: u64,
    /// List the targets and do nothing.
    #[arg(long)]
    list: bool,
    /// Write inputs that reach something new back to fuzz/corpus, as few as do.
    #[arg(long)]
    minimise: bool,
}

/// Instrumentation that libFuzzer reads, and the checks of a debug build.
const FLAGS: &[&str] = &[
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cdebug-assertions=yes",
    "-Coverflow-checks=yes",
    // Sections of counters of several units in one crate do not add up.
    "-Ccodegen-units=1",
];
/// With an explicit target the flags do not reach build scripts and macros.
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// Longest run of one input, in seconds: longer is a hang.
const INPUT_LIMIT_S: u32 = 20;
/// Inputs that one process runs. A driver that cannot stop its device keeps the memory that the device may still
/// use, for good; a new process starts without what was kept.
const RUNS_MAX: u32 = 100_000;
/// Most files of a minimised corpus.
const CORPUS_FILES_MAX: usize = 24;
/// Longest file of it, in bytes.
const CORPUS_BYTES_MAX: u64 = 4096;

/// `cargo xtask fuzz`.
///
/// # Errors
///
/// When there is no such target, it does not build, or something was found.
pub fn run(args: &FuzzArgs) -> anyhow::Result<()> {
    let names = targets()?;
    if args.list {
        for name in &names {
            println!("{name}");
        }
        return Ok(());
    }
    let chosen: Vec<&String> = match &args.target {
        Some(name) => vec![names.iter().find(|known| *known == name).ok_or_else(|| {
            UsageError(format!(
                "there is no target {name:?}; there are {}",
                names.join(", ")
            ))
        })?],
        None => names.iter().collect(),
    };
    setup::ensure(&[setup::CXX])?;
    let program = build()?;
    let mut found = Vec::new();
    for name in chosen {
        if let Err(error) = fuzz(&program, name, args) {
            eprintln!("xtask: {name}: {error:#}");
            found.push(name.as_str());
        }
    }
    if !found.is_empty() {
        bail!("findings in {}", found.join(", "));
    }
    Ok(())
}

/// The folders of the corpora; a test of `fuzz` compares them with its list.
fn targets() -> anyhow::Result<Vec<String>> {
    let corpus = workspace_root().join("fuzz/corpus");
    let entries =
        fs::read_dir(&corpus).with_context(|| format!("cannot read {}", corpus.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

fn build() -> anyhow::Result<PathBuf> {
    let folder = target_folder("fuzz")?;
    let mut command = setup::cargo();
    command
        .args(["build", "--quiet", "--release", "--package", "fuzz"])
        .args(["--features", "libfuzzer", "--target", TARGET])
        .arg("--target-dir")
        .arg(&folder)
        .env("RUSTFLAGS", FLAGS.join(" "))
        .current_dir(workspace_root());
    tool::run(&mut command, Output::Inherit)?;
    Ok(folder.join(TARGET).join("release/fuzz"))
}

fn fuzz(program: &Path, name: &str, args: &FuzzArgs) -> anyhow::Result<()> {
    let stored = workspace_root().join("fuzz/corpus").join(name);
    let work = target_folder(&format!("fuzz/corpus/{name}"))?;
    let findings = target_folder("fuzz/findings")?;
    let before = artefacts(&findings, name)?;
    let end = Instant::now() + Duration::from_secs(args.seconds);
    let mut result = Ok(());
    while result.is_ok() {
        let left = end.saturating_duration_since(Instant::now()).as_secs();
        if left == 0 {
            break;
        }
        let mut command = tool::command(program);
        command
            .env("FUZZ_TARGET", name)
            .arg(format!("-max_total_time={left}"))
            .arg(format!("-runs={RUNS_MAX}"))
            .arg(format!("-timeout={INPUT_LIMIT_S}"))
            .arg("-print_final_stats=1")
            .arg(format!("-artifact_prefix={}/{name}-", findings.display()))
            .args([&work, &stored]);
        result = tool::run(&mut command, Output::Inherit);
    }
    if let Some(file) = artefacts(&findings, name)?
        .into_iter()
        .find(|file| !before.contains(file))
    {
        bail!(
            "found something; show it again with\n    FUZZ_TARGET={name} FUZZ_FILE={} cargo test -p fuzz \
             --test replay one_file",
            file.display()
        );
    }
    result?;
    if args.minimise {
        minimise(program, name, &work, &stored)?;
    }
    Ok(())
}

/// Files of what was found in a target.
fn artefacts(folder: &Path, name: &str) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let ours = path
            .file_name()
            .is_some_and(|file| file.to_string_lossy().starts_with(&format!("{name}-")));
        if ours {
            files.push(path);
        }
    }
    Ok(files)
}

/// Merges the inputs that were found, and copies the smallest of those that matter into the repository.
fn minimise(program: &Path, name: &str, work: &Path, stored: &Path) -> anyhow::Result<()> {
    let merged = tempfile::tempdir()?;
    let mut command = tool::command(program);
    command
        .env("FUZZ_TARGET", name)
        .args(["-merge=1", &format!("-max_len={CORPUS_BYTES_MAX}")])
        .args([merged.path(), stored, work]);
    tool::run(&mut command, Output::OnFailure)?;
    let mut files = Vec::new();
    for entry in fs::read_dir(merged.path())? {
        let entry = entry?;
        files.push((entry.metadata()?.len(), entry.path()));
    }
    // Long inputs reach more; a spread over the lengths keeps both.
    files.sort();
    let step = files.len().div_ceil(CORPUS_FILES_MAX).max(1);
    for (len, file) in files.iter().rev().step_by(step) {
        if *len <= CORPUS_BYTES_MAX
            && let Some(file_name) = file.file_name()
        {
            fs::copy(file, stored.join(file_name))?;
        }
    }
    Ok(())
}
