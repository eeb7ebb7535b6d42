//! Running the suite.

use alloc::boxed::Box;
use alloc::format;

use ddk_conformance_core::ended;
pub use ddk_conformance_core::{Options, Outcome};
use fastrand::Rng;

use crate::client::Bench;
use crate::home::{Home, Nic, Problem, Shape};
use crate::tests::TESTS;

/// A test on interfaces of one shape.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Case {
    /// Name of the test.
    pub test: &'static str,
    /// The interface's shape.
    pub shape: Shape,
}

impl core::fmt::Display for Case {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}/{}", self.test, self.shape)
    }
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
            if options.wants(&name) {
                let seed = options.seed_of(&name);
                let result = one(home, shape, options.seed, seed, test.run);
                report(case, &Outcome::from(result));
            }
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
    let mut nic: Box<dyn Nic + '_> = home.open(shape, home_seed)?;
    let mut bench = Bench::new(&mut *nic, Rng::with_seed(seed), shape);
    let result = body(&mut bench);
    ended(result, nic.close())
}
