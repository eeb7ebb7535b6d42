//! `cargo xtask test`: all checks and tests, in levels.
//!
//! A level that could not run is reported as not run and counted as skipped,
//! never as passed. The last line is `N passed, N failed`, with `, N skipped`
//! behind it when something was.

mod checks;
mod controls;
mod drivers;
mod unit;
mod vfio;

use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::anyhow;

use crate::{conformance, mutations, system};

/// A level of testing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Level {
    /// rustfmt and clippy, on the host's packages and on the target's.
    Lint,
    /// The documentation builds without a warning.
    Doc,
    /// Pure logic, on the host.
    Unit,
    /// Concurrent data structures under every interleaving (loom).
    Loom,
    /// Unsafe code under Miri, where a nightly toolchain has it.
    Miri,
    /// The whole system, booted in QEMU and driven from outside.
    System,
    /// The conformance suite of the block class: drivers by homes.
    Conformance,
    /// Drivers as processes of a Linux guest, over VFIO.
    Vfio,
    /// Breaks of the drivers on purpose, each of which has to be noticed.
    Mutations,
    /// What recovery stands on is taken away, which has to be noticed.
    Controls,
}

/// The levels in the order in which they run: what fails fast comes first.
const ORDER: [Level; 10] = [
    Level::Lint,
    Level::Miri,
    Level::Unit,
    Level::Loom,
    Level::System,
    Level::Conformance,
    Level::Doc,
    Level::Vfio,
    Level::Mutations,
    Level::Controls,
];

/// Levels that begin with another one in a run of all, and the other: Miri has use for one processor only, and conformance waits for
/// devices most of the time.
const BESIDE: [(Level, Level); 2] = [(Level::Miri, Level::Lint), (Level::Doc, Level::Conformance)];

/// What `cargo xtask test` takes.
#[derive(Clone, Debug, clap::Args)]
pub struct TestArgs {
    /// Only this level.
    #[arg(value_enum)]
    level: Option<Level>,
    /// Only tests of system and vfio whose name contains this; for conformance, only this driver, home or case, or a few of them (`'nvme sim flush'`);
    /// for mutations, only breaks whose name contains it.
    filter: Option<String>,
    /// Conformance: the only seed of the simulator's devices.
    #[arg(long)]
    seed: Option<u64>,
    /// Conformance: the matrix as JSON.
    #[arg(long)]
    json: bool,
}

/// Counts of tests, and which failed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Tests that passed.
    pub passed: usize,
    /// Tests that failed: name and reason, one line each.
    pub failures: Vec<String>,
    /// Tests that were not run.
    pub skipped: usize,
}

impl Tally {
    /// Adds another's counts.
    pub fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failures.extend(other.failures);
        self.skipped += other.skipped;
    }

    /// Runs one check, and prints its name, result and time.
    pub fn check(&mut self, name: &str, check: impl FnOnce() -> anyhow::Result<()>) {
        let started = Instant::now();
        let result = check();
        self.record(name, started.elapsed(), result);
    }

    /// Counts and prints what became of a check that took so long.
    pub fn record(&mut self, name: &str, took: Duration, result: anyhow::Result<()>) {
        let seconds = took.as_secs_f64();
        match result {
            Ok(()) => {
                self.passed += 1;
                println!("ok      {name} ({seconds:.1} s)");
            }
            Err(error) => {
                println!("FAILED  {name} ({seconds:.1} s): {error:#}");
                self.fail(format!("{name}: {error:#}"));
            }
        }
    }

    /// Counts a failure; the caller has printed it.
    pub fn fail(&mut self, what: String) {
        self.failures.push(what);
    }

    /// Counts and prints a check that cannot run.
    pub fn skip(&mut self, name: &str, reason: &str) {
        self.skipped += 1;
        println!("not run {name}: {reason}");
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failures.len())?;
        if self.skipped > 0 {
            write!(f, ", {} skipped", self.skipped)?;
        }
        Ok(())
    }
}

/// `cargo xtask test`.
///
/// # Errors
///
/// When one level was asked for and cannot be started. Failures are counted
/// instead, and so is a level that cannot start when all are run: the others go on.
pub fn run(args: &TestArgs) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    let mut tally = Tally::default();
    let mut beside = Vec::new();
    for level in ORDER {
        if args.level.is_some_and(|wanted| wanted != level) {
            continue;
        }
        // Builds of their own, minutes long: only when they are asked for.
        if level == Level::Controls && args.level.is_none() {
            continue;
        }
        println!("==      {level:?} (at {} s)", started.elapsed().as_secs());
        for (other, _) in BESIDE.iter().filter(|(_, host)| *host == level) {
            if args.level.is_none() {
                let (other, args) = (*other, args.clone());
                beside.push((other, thread::spawn(move || run_level(other, &args))));
            }
        }
        let running = beside.iter().position(|(other, _)| *other == level);
        let counts = match running.map(|place| beside.swap_remove(place).1.join()) {
            None => run_level(level, args),
            Some(Ok(counts)) => counts,
            Some(Err(_)) => Err(anyhow!("it panicked")),
        };
        match counts {
            Ok(counts) => tally.add(counts),
            Err(error) if args.level.is_some() => return Err(error),
            Err(error) => {
                println!("FAILED  {level:?}: {error:#}");
                tally.fail(format!("{level:?}: {error:#}"));
            }
        }
    }
    println!("==      took {} s", started.elapsed().as_secs());
    // Once more, where a reader of a long log looks first.
    for failure in &tally.failures {
        println!("FAILED  {failure}");
    }
    println!("{tally}");
    // A run without a test has shown nothing.
    Ok(if tally.failures.is_empty() && tally.passed > 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn run_level(level: Level, args: &TestArgs) -> anyhow::Result<Tally> {
    let filter = args.filter.as_deref();
    match level {
        Level::Lint => checks::lint(),
        Level::Doc => Ok(checks::documentation()),
        Level::Unit => unit::host(),
        Level::Loom => unit::loom(),
        Level::Miri => unit::miri(),
        Level::System => system::run(filter),
        Level::Controls => controls::run(),
        Level::Vfio => vfio::run(filter),
        Level::Mutations => mutations::run(match (filter, args.level) {
            (Some(part), _) => mutations::Choice::Named(part),
            (None, Some(_)) => mutations::Choice::All,
            (None, None) => mutations::Choice::Share,
        }),
        Level::Conformance => conformance::run(&conformance::Options {
            seed: args.seed,
            filter: args.filter.clone(),
            json: args.json,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::Tally;

    #[test]
    fn the_last_line_names_skipped_tests_only_if_there_are_any() {
        let mut tally = Tally {
            passed: 3,
            failures: vec!["w".into()],
            skipped: 0,
        };
        assert_eq!(tally.to_string(), "3 passed, 1 failed");
        tally.skip("x", "a reason");
        assert_eq!(tally.to_string(), "3 passed, 1 failed, 1 skipped");
        tally.check("y", || Ok(()));
        tally.check("z", || anyhow::bail!("on purpose"));
        assert_eq!(tally.to_string(), "4 passed, 2 failed, 1 skipped");
        assert_eq!(tally.failures, ["w", "z: on purpose"]);
    }
}
