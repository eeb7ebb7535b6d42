//! Tests that run on the host: cargo test, loom, Miri.

use std::io::{self, BufRead, BufReader};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::thread::{self, JoinHandle};

use anyhow::{Context, anyhow};

use super::Tally;
use crate::build::cargo::{Package, packages};
use crate::build::{target_folder, workspace_root};
use crate::setup;
use crate::tool;

/// All tests of the host: libraries, programs of the host, integration tests,
/// examples in the documentation.
pub(super) fn host() -> anyhow::Result<Tally> {
    // Tests of file systems read what others' tools make, those of the guests' supervision run QEMU.
    setup::ensure(&[setup::MACHINE, setup::IMAGES])?;
    let packages = packages()?;
    // What runs on the bare target has its logic in a library that builds on the host as well. All packages are named
    // in both commands: with another choice, dependencies have other features and are built again.
    let chosen = select(&packages, |package| !package.is_target_only());
    let mut targets = vec!["--lib", "--test", "*"];
    for package in chosen.iter().filter(|package| !package.is_bare()) {
        for binary in &package.binaries {
            targets.extend(["--bin", binary.as_str()]);
        }
    }
    let mut build = test_command(&chosen, &targets);
    build.args(["--no-run", "--quiet"]);
    if tool::run(&mut build, tool::Output::Inherit).is_ok() {
        // Most examples are compiled one after the other: they leave room for the tests.
        let examples = Running::start(test_command(&chosen, &["--doc"]));
        let mut tally = counted(test_command(&chosen, &targets))?;
        tally.add(examples.finish()?);
        return Ok(tally);
    }
    // It says once more what does not compile.
    counted(test_command(&chosen, &targets))
}

/// Tests that loom drives through every interleaving.
pub(super) fn loom() -> anyhow::Result<Tally> {
    let packages = packages()?;
    let chosen = select(&packages, |package| package.uses_loom);
    let mut tally = Tally::default();
    if chosen.is_empty() {
        return Ok(tally);
    }
    let mut command = test_command(&chosen, &["--lib"]);
    command
        .env("RUSTFLAGS", "--cfg loom")
        .arg("--target-dir")
        .arg(target_folder("loom")?);
    tally.add(counted(command)?);
    Ok(tally)
}

/// Tests of packages with `package.metadata.bulkhead = { miri = true }`.
pub(super) fn miri() -> anyhow::Result<Tally> {
    let packages = packages()?;
    let chosen = select(&packages, |package| package.wants_miri);
    let mut tally = Tally::default();
    if chosen.is_empty() {
        return Ok(tally);
    }
    let there = tool::command("cargo")
        .args(["+nightly", "miri", "--version"])
        .output()
        .is_ok_and(|output| output.status.success());
    if !there {
        tally.skip("Miri", "no nightly toolchain with Miri is installed");
        return Ok(tally);
    }
    let mut command = tool::command("cargo");
    command.args(["+nightly", "miri", "test", "--lib", "--no-fail-fast"]);
    for package in &chosen {
        command.args(["--package", &package.name]);
    }
    command
        // Property tests look for their files of failures.
        .env("MIRIFLAGS", "-Zmiri-disable-isolation")
        // Set by the cargo that runs this, for another toolchain.
        .env_remove("RUSTUP_TOOLCHAIN")
        .env_remove("CARGO")
        .env_remove("RUSTC")
        .arg("--target-dir")
        .arg(target_folder("miri")?)
        .current_dir(workspace_root());
    // Beside another level: what it prints shall not get between that level's lines.
    Running::start(command).finish()
}

/// A test command that runs beside something else; what it prints is shown when it has ended.
struct Running {
    text: String,
    output: JoinHandle<io::Result<Output>>,
}

impl Running {
    fn start(mut command: Command) -> Self {
        Self {
            text: tool::shown(&command),
            output: thread::spawn(move || command.stdin(Stdio::null()).output()),
        }
    }

    /// Waits for it, shows what it says of failures, and counts.
    fn finish(self) -> anyhow::Result<Tally> {
        let Self { text, output } = self;
        let output = output.join();
        let output = output.map_err(|_| anyhow!("whoever waits for {text} panicked"))?;
        let output = output.with_context(|| format!("cannot start {text}"))?;
        eprint!("{}", String::from_utf8_lossy(&output.stderr));
        let mut tally = count(&text, output.stdout.as_slice())?;
        expect_success(&mut tally, &text, output.status);
        Ok(tally)
    }
}

fn select(packages: &[Package], wanted: impl Fn(&Package) -> bool) -> Vec<&Package> {
    packages.iter().filter(|package| wanted(package)).collect()
}

fn test_command(packages: &[&Package], arguments: &[&str]) -> Command {
    let mut command = setup::cargo();
    command.args(["test", "--no-fail-fast"]).args(arguments);
    for package in packages {
        command.args(["--package", &package.name]);
    }
    command.current_dir(workspace_root());
    command
}

/// Runs a test command, shows what it says of failures, and counts.
fn counted(mut command: Command) -> anyhow::Result<Tally> {
    let text = tool::shown(&command);
    command.stdout(Stdio::piped());
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot start {text}"))?;
    let stdout = child.stdout.take().context("the tests' output")?;
    let mut tally = count(&text, BufReader::new(stdout))?;
    let status = child.wait().with_context(|| text.clone())?;
    expect_success(&mut tally, &text, status);
    Ok(tally)
}

/// Shows what a test command says of failures, and counts.
fn count(text: &str, output: impl BufRead) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    let mut named = 0;
    for line in output.split(b'\n') {
        let line = line.context("the tests' output")?;
        let line = String::from_utf8_lossy(&line);
        if let Some(counts) = result_line(&line) {
            tally.passed += counts.passed;
            tally.skipped += counts.ignored;
            // Tests whose own line was broken up by what they printed.
            for _ in named..counts.failed {
                tally.fail(format!("a test of {text}"));
            }
            named = 0;
        } else if let Some(name) = failed_test(&line) {
            tally.fail(name.to_owned());
            named += 1;
        }
        if !is_noise(&line) {
            println!("        {line}");
        }
    }
    Ok(tally)
}

/// Counts a failure that no test was named for: it did not compile, or a test ended the whole process.
fn expect_success(tally: &mut Tally, text: &str, status: ExitStatus) {
    if !status.success() && tally.failures.is_empty() {
        println!("FAILED  {text}: {status}");
        tally.fail(format!("{text}: {status}"));
    }
}

/// Lines that would hide the others: one for each test that passed, and for
/// each file without tests.
fn is_noise(line: &str) -> bool {
    line.is_empty()
        || line.starts_with("running ")
        || line.starts_with("all doctests ran")
        || line.starts_with("test result: ok. 0 passed; 0 failed; 0 ignored")
        || line.ends_with(" ... ok")
}

/// The name in a line such as `test a::b ... FAILED`.
fn failed_test(line: &str) -> Option<&str> {
    line.strip_prefix("test ")?.strip_suffix(" ... FAILED")
}

/// What one file's tests came to.
#[derive(Debug, PartialEq, Eq)]
struct Counts {
    passed: usize,
    failed: usize,
    ignored: usize,
}

/// Counts of a line such as `test result: ok. 8 passed; 0 failed; 1 ignored; ...`.
fn result_line(line: &str) -> Option<Counts> {
    let counts = line.strip_prefix("test result: ")?;
    let count = |word: &str| {
        counts
            .split([';', '.'])
            .filter_map(|part| part.trim().strip_suffix(word))
            .find_map(|number| number.trim().parse().ok())
            .unwrap_or(0)
    };
    Some(Counts {
        passed: count("passed"),
        failed: count("failed"),
        ignored: count("ignored"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_from_the_result_line() {
        let line = "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; \
                    7 filtered out; finished in 0.00s";
        let expected = Counts {
            passed: 12,
            failed: 3,
            ignored: 1,
        };
        assert_eq!(result_line(line), Some(expected));
        assert_eq!(result_line("test a::b ... ok"), None);
    }

    #[test]
    fn failed_tests_are_known_by_their_name() {
        assert_eq!(failed_test("test a::b ... FAILED"), Some("a::b"));
        assert_eq!(failed_test("test a::b ... ok"), None);
        assert_eq!(failed_test("test result: FAILED. 1 passed; 1 failed"), None);
    }
}
