//! Running the suite.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;

use fastrand::Rng;

use crate::client::Bench;
use crate::home::{Disk, Home, Problem, Shape};
use crate::tests::TESTS;

/// A test on disks of one shape.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Case {
    /// Name of the test.
    pub test: &'static str,
    /// The disk's shape.
    pub shape: Shape,
}

impl core::fmt::Display for Case {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}/{}", self.test, self.shape)
    }
}

/// How a test ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The driver does what the class promises.
    Passed,
    /// It does not.
    Failed(String),
    /// The home cannot run the test.
    NotRun(String),
}

/// What to run.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Seed of everything that is random.
    pub seed: u64,
    /// Only cases whose name has this in it.
    pub filter: Option<String>,
}

/// Every case of the suite, in the order in which they run.
pub fn cases() -> impl Iterator<Item = Case> {
    TESTS.iter().flat_map(|test| {
        test.shapes.iter().map(|shape| Case {
            test: test.name,
            shape: *shape,
        })
    })
}

/// Runs the suite at a home; tells each outcome as it comes.
pub fn run(home: &mut dyn Home, options: &Options, report: &mut dyn FnMut(Case, &Outcome)) {
    for test in TESTS {
        for &shape in test.shapes {
            let case = Case {
                test: test.name,
                shape,
            };
            let name = format!("{case}");
            if options
                .filter
                .as_ref()
                .is_some_and(|f| !name.contains(f.as_str()))
            {
                continue;
            }
            // Each case has numbers of its own, so that one is the same alone and among the others.
            let seed = name.bytes().fold(options.seed, |seed, byte| {
                seed.rotate_left(7) ^ u64::from(byte).wrapping_mul(0x9e37_79b9_7f4a_7c15)
            });
            let outcome = match one(home, shape, options.seed, seed, test.run) {
                Ok(()) => Outcome::Passed,
                Err(Problem::NotOffered(reason)) => Outcome::NotRun(reason),
                Err(Problem::Failed(what)) => Outcome::Failed(what),
            };
            report(case, &outcome);
        }
    }
}

fn one(
    home: &mut dyn Home,
    shape: Shape,
    home_seed: u64,
    seed: u64,
    body: fn(&mut Bench<'_>) -> Result<(), Problem>,
) -> Result<(), Problem> {
    let mut disk: Box<dyn Disk + '_> = home.open(shape, home_seed)?;
    let mut bench = Bench {
        disk: &mut *disk,
        rng: Rng::with_seed(seed),
        shape,
    };
    let result = body(&mut bench);
    let closed = disk.close();
    match (result, closed) {
        // What the home saw the driver do comes first: it is the cause more often than not.
        (Err(Problem::Failed(what)), Err(Problem::Failed(seen))) => {
            Err(Problem::Failed(format!("{what}; {seen}")))
        }
        (Err(Problem::NotOffered(_)), Err(failed @ Problem::Failed(_))) => Err(failed),
        (Err(problem), _) | (Ok(()), Err(problem)) => Err(problem),
        (Ok(()), Ok(())) => Ok(()),
    }
}
