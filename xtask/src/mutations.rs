//! `cargo xtask test mutations`: breaks drivers on purpose, one place at a time, and sees whether the tests notice.
//!
//! The breaks are data (`tests/mutations/*.toml`). Each is made in a copy of the sources, where the
//! conformance suite of its driver runs at the simulator, where it has one, and the unit tests of what was broken. A break that
//! turns neither red has survived: the suite or the model has a hole. One that does not compile, or whose text is no
//! longer in the source, is an error of the list.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde::Deserialize;

use crate::build::cargo::name_host_packages;
use crate::build::{target_folder, workspace_root};
use crate::copy::{self, StandIn};
use crate::levels::Tally;
use crate::{setup, tool};

/// Seeds of the simulator that a break has to survive: those of the conformance level.
const SEEDS: u64 = 4;
/// Longer than any run takes; beyond it the break made something hang, which counts as noticed.
const TIME_LIMIT: Duration = Duration::from_secs(60);
/// How often a running test is looked at.
const POLL: Duration = Duration::from_millis(20);

/// A file of the list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    /// The driver whose conformance is asked; without one the unit tests alone are.
    driver: Option<String>,
    /// Packages whose unit tests run when the suite noticed nothing.
    packages: Vec<String>,
    mutation: Vec<Mutation>,
}

/// A break.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mutation {
    name: String,
    /// The file, from the repository's root.
    file: String,
    /// Text that stands there once.
    old: String,
    /// What takes its place.
    new: String,
}

/// What a run of tests said.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Said {
    Green,
    Red(String),
}

/// Which breaks a run makes.
#[derive(Clone, Copy, Debug)]
pub enum Choice<'a> {
    /// All.
    All,
    /// Those whose name contains this.
    Named(&'a str),
    /// One in [`SHARES`], as a run of all levels has time for. Each commit has another share, so that all are
    /// made again and again.
    Share,
}

/// Parts that the list is divided into for runs of all levels.
const SHARES: usize = 5;

/// The share of the present commit.
fn share() -> usize {
    let mut command = tool::command("git");
    command
        .args(["rev-parse", "HEAD"])
        .current_dir(workspace_root());
    // Without a repository there is a share as well.
    let commit = tool::read(&mut command).unwrap_or_default();
    commit.iter().map(|byte| usize::from(*byte)).sum::<usize>() % SHARES
}

/// Makes the chosen breaks.
///
/// # Errors
/// When the list is wrong or the unbroken sources are not green.
pub fn run(choice: Choice<'_>) -> anyhow::Result<Tally> {
    let copy = Copy::make()?;
    let share = share();
    if let Choice::Share = choice {
        println!(
            "        share {} of {SHARES}; `cargo xtask test mutations` makes all",
            share + 1
        );
    }
    let mut place = 0;
    let mut is_chosen = |mutation: &&Mutation| {
        place += 1;
        match choice {
            Choice::All => true,
            Choice::Named(part) => mutation.name.contains(part),
            Choice::Share => place % SHARES == share,
        }
    };
    let mut tally = Tally::default();
    let mut survivors = Vec::new();
    for (file, list) in lists()? {
        let chosen: Vec<&Mutation> = list.mutation.iter().filter(&mut is_chosen).collect();
        if chosen.is_empty() {
            continue;
        }
        copy.build(&list)?.context_of(&file)?;
        let unbroken = copy.test(&list)?;
        ensure!(
            unbroken == Said::Green,
            "{file}: the unbroken sources are not green: {unbroken:?}"
        );
        for mutation in chosen {
            let label = format!("{file} {}", mutation.name);
            let started = Instant::now();
            let said = copy
                .broken(mutation, || {
                    copy.build(&list)?.context_of(&label)?;
                    copy.test(&list)
                })
                .with_context(|| label.clone());
            let seconds = started.elapsed().as_secs_f64();
            match said {
                Ok(Said::Red(by)) => {
                    tally.passed += 1;
                    println!("caught  {label} ({seconds:.1} s): {by}");
                }
                Ok(Said::Green) => {
                    println!("FAILED  {label} ({seconds:.1} s): nothing noticed it");
                    tally.fail(format!("{label}: nothing noticed it"));
                    survivors.push(label);
                }
                Err(error) => {
                    println!("FAILED  {label}: {error:#}");
                    tally.fail(format!("{label}: {error:#}"));
                }
            }
        }
    }
    let all = tally.passed + tally.failures.len();
    if let (0, Choice::Named(part)) = (all, choice) {
        bail!("no break has {part:?} in its name");
    }
    println!("        caught {} of {all}", tally.passed);
    for survivor in survivors {
        println!("        survived: {survivor}");
    }
    Ok(tally)
}

/// The lists, by the names of their files.
fn lists() -> anyhow::Result<Vec<(String, List)>> {
    let folder = workspace_root().join("tests/mutations");
    let mut files: Vec<PathBuf> = fs::read_dir(&folder)
        .with_context(|| format!("cannot list {}", folder.display()))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    files.retain(|file| file.extension().is_some_and(|e| e == "toml"));
    files.sort();
    files
        .into_iter()
        .map(|file| {
            let text = fs::read_to_string(&file)?;
            let list = toml::from_str(&text).with_context(|| file.display().to_string())?;
            let name = file.file_stem().unwrap_or_default().to_string_lossy();
            Ok((name.into_owned(), list))
        })
        .collect()
}

/// The source with a break made in it.
fn mutated(source: &str, mutation: &Mutation) -> anyhow::Result<String> {
    // A list may begin a text on a line of its own.
    let old = mutation.old.trim_start_matches('\n');
    let new = mutation.new.trim_start_matches('\n');
    match source.matches(old).count() {
        1 => Ok(source.replacen(old, new, 1)),
        count => bail!("its text stands {count} times in {}", mutation.file),
    }
}

/// A copy of the repository that breaks are made in, with a build folder of its own.
struct Copy {
    root: PathBuf,
    target: PathBuf,
    stand_in: Option<StandIn>,
}

/// How a build went.
struct Build(Option<String>);

impl Build {
    fn context_of(self, what: &str) -> anyhow::Result<()> {
        match self.0 {
            None => Ok(()),
            Some(text) => bail!("{what} does not compile: {text}"),
        }
    }
}

impl Copy {
    fn make() -> anyhow::Result<Self> {
        let root = target_folder("mutations/source")?;
        copy::sources(&root)?;
        let target = root.join("target");
        let stand_in = StandIn::of(&root);
        match &stand_in {
            Some(stand_in) => stand_in.take_over(&["debug"])?,
            None => copy::seed(&target, &["debug"])?,
        }
        Ok(Self {
            root,
            target,
            stand_in,
        })
    }

    /// Makes a break, does something, and takes the break back.
    fn broken<T>(
        &self,
        mutation: &Mutation,
        work: impl FnOnce() -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let file = self.root.join(&mutation.file);
        let source =
            fs::read_to_string(&file).with_context(|| format!("cannot read {}", mutation.file))?;
        let changed = mutated(&source, mutation)?;
        copy::write(&self.root, &mutation.file, changed.as_bytes())?;
        let result = work();
        copy::write(&self.root, &mutation.file, source.as_bytes())?;
        result
    }

    fn cargo(&self, arguments: &[&str]) -> anyhow::Result<Command> {
        let plain = setup::cargo();
        let mut command = match &self.stand_in {
            Some(stand_in) => {
                let program = plain.get_program().to_str();
                stand_in.command(program.context("cargo's name")?)
            }
            None => plain,
        };
        command.args(arguments).env_remove("CARGO_TARGET_DIR");
        if self.stand_in.is_none() {
            command.current_dir(&self.root);
        }
        Ok(command)
    }

    /// Builds the suite and the unit tests: what then runs under the limit does not wait for a compiler.
    fn build(&self, list: &List) -> anyhow::Result<Build> {
        let suite = || {
            let mut suite = self.cargo(&["build", "--quiet", "--bin", "conformance"])?;
            name_host_packages(&mut suite).map(|()| suite)
        };
        let suite = list.driver.as_ref().map(|_| suite()).transpose()?;
        let mut units = self.units(list)?;
        units.arg("--no-run");
        for mut command in suite.into_iter().chain([units]) {
            let output = command.output().context("cargo build")?;
            if !output.status.success() {
                let text = String::from_utf8_lossy(&output.stderr);
                let error = text.lines().find(|line| line.starts_with("error"));
                let said = error.unwrap_or("cargo says no more").to_owned();
                return Ok(Build(Some(said)));
            }
        }
        Ok(Build(None))
    }

    fn units(&self, list: &List) -> anyhow::Result<Command> {
        let mut units = self.cargo(&["test", "--quiet", "--lib"])?;
        for package in &list.packages {
            units.args(["--package", package]);
        }
        Ok(units)
    }

    /// The suite, and then the unit tests.
    fn test(&self, list: &List) -> anyhow::Result<Said> {
        if let Some(driver) = &list.driver {
            let mut suite = Command::new(self.target.join("debug/conformance"));
            suite
                .args(["--homes=sim", "--first"])
                .arg(format!("--drivers={driver}"))
                .arg(format!("--seeds={SEEDS}"));
            let said = limited(suite, "FAILED")?;
            if said != Said::Green {
                return Ok(said);
            }
        }
        limited(self.units(list)?, "panicked at")
    }
}

/// Runs a test within the limit. When it is red the line that begins with `mark`, or has it, says why.
fn limited(mut command: Command, mark: &str) -> anyhow::Result<Said> {
    let output = tempfile::tempfile().context("a file for the output")?;
    command
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output.try_clone()?);
    let text = tool::shown(&command);
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot start {text}"))?;
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if started.elapsed() > TIME_LIMIT {
            child.kill()?;
            child.wait()?;
            return Ok(Said::Red("it hangs".to_owned()));
        }
        std::thread::sleep(POLL);
    };
    if status.success() {
        return Ok(Said::Green);
    }
    let said = read_back(output)?;
    let line = said.lines().find(|line| line.contains(mark));
    let reason = line.or(said.lines().last()).unwrap_or_default();
    Ok(Said::Red(shortened(reason)))
}

fn read_back(mut file: fs::File) -> anyhow::Result<String> {
    use std::io::{Read, Seek};
    file.rewind()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn shortened(line: &str) -> String {
    const MOST: usize = 160;
    let mut text: String = line.trim().chars().take(MOST).collect();
    if text.len() < line.trim().len() {
        text.push_str("...");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mutation(old: &str, new: &str) -> Mutation {
        Mutation {
            name: "x".into(),
            file: "x.rs".into(),
            old: old.into(),
            new: new.into(),
        }
    }

    #[test]
    fn a_text_has_to_stand_there_once() {
        assert_eq!(mutated("a b c", &mutation("b", "d")).unwrap(), "a d c");
        assert_eq!(
            mutated("a\n  b", &mutation("\n  b", "\n  c")).unwrap(),
            "a\n  c"
        );
        assert!(mutated("a b b", &mutation("b", "d")).is_err());
        assert!(mutated("a", &mutation("b", "d")).is_err());
    }

    #[test]
    fn every_break_of_the_list_fits_the_sources() {
        let mut count = 0;
        for (file, list) in lists().unwrap() {
            for mutation in &list.mutation {
                let path = workspace_root().join(&mutation.file);
                let source = fs::read_to_string(&path).unwrap();
                let changed = mutated(&source, mutation);
                assert!(changed.is_ok(), "{file} {}: {changed:?}", mutation.name);
                assert_ne!(changed.unwrap(), source, "{file} {}", mutation.name);
                count += 1;
            }
        }
        assert!(count >= 20);
    }

    #[test]
    fn a_red_test_is_told_from_a_green_one() {
        let shell = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            limited(command, "FAILED").unwrap()
        };
        assert_eq!(shell("echo FAILED not"), Said::Green);
        assert_eq!(
            shell("echo one; echo FAILED two; exit 1"),
            Said::Red("FAILED two".into())
        );
    }
}
