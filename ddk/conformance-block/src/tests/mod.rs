//! The tests, by what they are about.

mod concurrency;
mod contents;
mod durability;
mod faults;
mod geometry;
mod refusals;
mod transfers;
mod unmapping;

use crate::client::Bench;
use crate::home::{Problem, Shape};

pub use contents::{LAST_GENERATION, last_blocks};

/// A test.
pub(crate) struct Test {
    pub(crate) name: &'static str,
    pub(crate) shapes: &'static [Shape],
    pub(crate) run: fn(&mut Bench<'_>) -> Result<(), Problem>,
}

use Shape::{Damaged, LargeBlocks, Odd, Plain, ReadOnly};

const ALL: &[Shape] = &Shape::ALL;
const WRITABLE: &[Shape] = &[Plain, LargeBlocks, Odd];
const CACHED: &[Shape] = &[Plain, LargeBlocks];

const fn test(
    name: &'static str,
    shapes: &'static [Shape],
    run: fn(&mut Bench<'_>) -> Result<(), Problem>,
) -> Test {
    Test { name, shapes, run }
}

/// All of them. The first ones find disks as their makers left them; the last one leaves a known state.
pub(crate) const TESTS: &[Test] = &[
    test("geometry", ALL, geometry::geometry),
    test("first-contents", ALL, contents::first),
    test("single-blocks", WRITABLE, transfers::single_blocks),
    test("lengths", WRITABLE, transfers::lengths),
    test("buffer-offsets", WRITABLE, transfers::buffer_offsets),
    test("largest", CACHED, transfers::largest),
    test("too-long", ALL, refusals::too_long),
    test("beyond-the-end", ALL, refusals::beyond_the_end),
    test("wrap-around", ALL, refusals::wrap_around),
    test("malformed", ALL, refusals::malformed),
    test("bad-buffers", ALL, refusals::bad_buffers),
    test("read-only", &[ReadOnly], refusals::read_only),
    test("full-depth", ALL, concurrency::full_depth),
    test("beyond-depth", WRITABLE, concurrency::beyond_depth),
    test("random-traffic", WRITABLE, concurrency::random_traffic),
    test("sessions", WRITABLE, concurrency::sessions),
    test("idle-between", WRITABLE, concurrency::idle_between),
    test("flush", CACHED, durability::flush),
    test("flush-order", CACHED, durability::flush_order),
    test("force-unit-access", CACHED, durability::force_unit_access),
    test("write-through", &[Odd], durability::write_through),
    test("discard", CACHED, unmapping::discard),
    test("write-zeroes", WRITABLE, unmapping::write_zeroes),
    test("unmapping-limits", CACHED, unmapping::limits),
    test("media-error", &[Damaged], faults::media_error),
    test("reset-idle", WRITABLE, faults::reset_idle),
    test("reset-in-flight", WRITABLE, faults::reset_in_flight),
    test("reset-silent", CACHED, faults::reset_silent),
    test("suspension", WRITABLE, faults::suspension),
    test("silent", &[Plain], faults::silent),
    test("lies", &[Plain], faults::lies),
    test("dead", &[Plain], faults::dead),
    test("gone-idle", &[Plain], faults::gone_idle),
    test("gone-in-flight", &[Plain], faults::gone_in_flight),
    test("last-contents", WRITABLE, contents::last),
];
