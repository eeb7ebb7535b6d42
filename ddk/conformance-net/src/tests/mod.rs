//! The tests, by what they are about.

mod faults;
mod filters;
mod identity;
mod offloads;
mod refusals;
mod sessions;
mod transfers;

use crate::client::Bench;
use crate::home::{Problem, Shape};

/// A test.
pub(crate) struct Test {
    pub(crate) name: &'static str,
    pub(crate) shapes: &'static [Shape],
    pub(crate) run: fn(&mut Bench<'_>) -> Result<(), Problem>,
}

use Shape::{Bare, Plain, Queues};

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
    test("few-buffers", BOTH, sessions::few_buffers),
    test("small-buffers", &[Plain], sessions::small_buffers),
    test("random-traffic", BOTH, sessions::random_traffic),
    test("idle-between", BOTH, sessions::idle_between),
    test("tx-checksum", BOTH, offloads::tx_checksum),
    test("rx-checksum", BOTH, offloads::rx_checksum),
    test("segmentation", BOTH, offloads::segmentation),
    test("joined-segments", &[Plain], offloads::joined),
    test("receive-modes", BOTH, filters::receive_modes),
    test("address", BOTH, filters::address),
    test("bad-fragments", BOTH, refusals::bad_fragments),
    test("bad-offloads", BOTH, refusals::bad_offloads),
    test("bad-buffers", BOTH, refusals::bad_buffers),
    test("withdrawal", BOTH, sessions::withdrawal),
    test("succession", BOTH, sessions::succession),
    test("queues", &[Queues], sessions::queues),
    test("link", BOTH, faults::link),
    test("reset-idle", ALL, faults::reset_idle),
    test("reset-in-flight", ALL, faults::reset_in_flight),
    test("silent", BOTH, faults::silent),
    test("lies", &[Plain], faults::lies),
    test("dead", &[Plain], faults::dead),
    test("gone-idle", &[Plain], faults::gone_idle),
    test("gone-in-flight", &[Plain], faults::gone_in_flight),
];
