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
use std::time::{Duration, Instant};

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
    Level::Unit,
    Level::Loom,
    Level::Miri,
    Level::System,
    Level::Conformance,
    Level::Vfio,
    Level::Mutations,
    Level::Controls,
    Level::Doc,
];

/// What `cargo xtask test` takes.
#[derive(Clone, Debug, clap::Args)]
pub struct TestArgs {
    /// Only this level.
    #[arg(value_enum)]
    level: Option<Level>,
    /// Only tests of system and vfio whose name contains this; for conformance, only this driver, home or case;
    /// for mutations, only breaks whose name contains it.
    filter: Option<String>,
    /// Conformance: the only seed of the simulator's devices.
    #[arg(long)]
    seed: Option<u64>,
    /// Conformance: the matrix as JSON.
    #[arg(long)]
    json: bool,
}

/// Counts of tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Tests that passed.
    pub passed: usize,
    /// Tests that failed.
    pub failed: usize,
    /// Tests that were not run.
    pub skipped: usize,
}

impl Tally {
    /// Adds another's counts.
    pub fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
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
                self.failed += 1;
                println!("FAILED  {name} ({seconds:.1} s): {error:#}");
            }
        }
    }

    /// Counts and prints a check that cannot run.
    pub fn skip(&mut self, name: &str, reason: &str) {
        self.skipped += 1;
        println!("not run {name}: {reason}");
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
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
/// When the tests cannot be started; failures are counted instead.
pub fn run(args: &TestArgs) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    let mut tally = Tally::default();
    for level in ORDER {
        if args.level.is_some_and(|wanted| wanted != level) {
            continue;
        }
        // Builds of their own, minutes long: only when they are asked for.
        if level == Level::Controls && args.level.is_none() {
            continue;
        }
        println!("==      {level:?} (at {} s)", started.elapsed().as_secs());
        tally.add(match level {
            Level::Lint => checks::lint()?,
            Level::Doc => checks::documentation(),
            Level::Unit => unit::host()?,
            Level::Loom => unit::loom()?,
            Level::Miri => unit::miri()?,
            Level::System => system::run(args.filter.as_deref())?,
            Level::Controls => controls::run()?,
            Level::Vfio => vfio::run(args.filter.as_deref())?,
            Level::Mutations => mutations::run(match (&args.filter, args.level) {
                (Some(part), _) => mutations::Choice::Named(part),
                (None, Some(_)) => mutations::Choice::All,
                (None, None) => mutations::Choice::Share,
            })?,
            Level::Conformance => conformance::run(&conformance::Options {
                seed: args.seed,
                filter: args.filter.clone(),
                json: args.json,
            })?,
        });
    }
    println!("==      took {} s", started.elapsed().as_secs());
    println!("{tally}");
    // A run without a test has shown nothing.
    Ok(if tally.failed == 0 && tally.passed > 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

#[cfg(test)]
mod tests {
    use super::Tally;

    #[test]
    fn the_last_line_names_skipped_tests_only_if_there_are_any() {
        let mut tally = Tally {
            passed: 3,
            failed: 1,
            skipped: 0,
        };
        assert_eq!(tally.to_string(), "3 passed, 1 failed");
        tally.skip("x", "a reason");
        assert_eq!(tally.to_string(), "3 passed, 1 failed, 1 skipped");
        tally.check("y", || Ok(()));
        tally.check("z", || anyhow::bail!("on purpose"));
        assert_eq!(tally.to_string(), "4 passed, 2 failed, 1 skipped");
    }
}
