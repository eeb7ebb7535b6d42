//! Deadlines: every wait has one.

/// A point in time, in nanoseconds of the platform's clock.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Deadline(u64);

impl Deadline {
    /// Never. For waits that another event ends, such as a driver that has nothing to do.
    pub const NEVER: Deadline = Deadline(u64::MAX);
    /// Already over: look, do not wait.
    pub const NOW: Deadline = Deadline(0);

    /// At `ns` of the platform's clock.
    pub const fn at_ns(ns: u64) -> Deadline {
        Deadline(ns)
    }

    /// Nanoseconds of the platform's clock.
    pub const fn as_ns(self) -> u64 {
        self.0
    }

    /// Whether it is over at `now_ns`.
    pub const fn is_over(self, now_ns: u64) -> bool {
        now_ns >= self.0
    }
}
