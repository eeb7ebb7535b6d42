//! The tests, by what they are about.

mod identity;
mod transfers;

use crate::client::Bench;
use crate::home::{Problem, Shape};

/// A test.
pub(crate) struct Test {
    pub(crate) name: &'static str,
    pub(crate) shapes: &'static [Shape],
    pub(crate) run: fn(&mut Bench<'_>) -> Result<(), Problem>,
}

use Shape::{Bare, Plain};

const ALL: &[Shape] = &Shape::ALL;
const BOTH: &[Shape] = &[Plain, Bare];

const fn test(
    name: &'static str,
    shapes: &'static [Shape],
    run: fn(&mut Bench<'_>) -> Result<(), Problem>,
) -> Test {
    Test { name, shapes, run }
}

/// All of them.
pub(crate) const TESTS: &[Test] = &[
    test("identity", ALL, identity::identity),
    test("lengths-out", BOTH, transfers::lengths_out),
    test("lengths-in", BOTH, transfers::lengths_in),
    test("fragments", BOTH, transfers::fragments),
    test("burst-out", BOTH, transfers::burst_out),
    test("burst-in", BOTH, transfers::burst_in),
];
