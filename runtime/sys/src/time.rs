//! Clocks and deadlines. Time is nanoseconds since boot; reading it costs no system call.

use core::ops::{Add, Sub};
use core::time::Duration;

use crate::abi::{FOREVER, Result};

/// Nanoseconds since boot, monotonic, the same on all CPUs.
#[cfg(target_os = "none")]
#[inline]
pub fn now_ns() -> u64 {
    let info = crate::task::system_info();
    // SAFETY: reading the time-stamp counter is allowed at any privilege here (CR4.TSD is clear).
    let counter = unsafe { core::arch::x86_64::_rdtsc() };
    let elapsed = counter.wrapping_sub(info.clock_base);
    ((u128::from(elapsed) * u128::from(info.clock_mult)) >> (info.clock_shift & 127)) as u64
}

/// Nanoseconds since the first call, on a host.
#[cfg(not(target_os = "none"))]
pub fn now_ns() -> u64 {
    static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    let start = START.get_or_init(std::time::Instant::now);
    // 1: a deadline of 0 means "never block", so no moment is called 0.
    u64::try_from(start.elapsed().as_nanos())
        .unwrap_or(u64::MAX)
        .saturating_add(1)
}

/// Unix time in nanoseconds: what the real-time clock said at boot, plus the time since.
pub fn wall_clock_ns() -> u64 {
    crate::task::system_info()
        .wall_clock_at_boot_ns
        .saturating_add(now_ns())
}

/// Sleeps until the deadline.
pub fn sleep_until(deadline: Deadline) {
    let word = core::sync::atomic::AtomicU32::new(0);
    while !deadline.has_passed() {
        // Nobody knows the word's address, so only the deadline ends the wait.
        let _ = crate::sync::futex_wait(&word, 0, deadline);
    }
}

/// Sleeps for a duration.
pub fn sleep(duration: Duration) {
    sleep_until(Deadline::after(duration));
}

/// Lets another thread of the same priority run.
pub fn yield_now() {
    let word = core::sync::atomic::AtomicU32::new(0);
    let _ = crate::sync::futex_wait(&word, 0, Deadline::NOW);
}

/// A moment, in nanoseconds since boot.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Instant(u64);

impl Instant {
    /// This moment.
    #[inline]
    pub fn now() -> Instant {
        Instant(now_ns())
    }
    /// From nanoseconds since boot.
    pub const fn from_ns(ns: u64) -> Instant {
        Instant(ns)
    }
    /// Nanoseconds since boot.
    pub const fn as_ns(self) -> u64 {
        self.0
    }
    /// Time since this moment; zero if it lies ahead.
    pub fn elapsed(self) -> Duration {
        Instant::now() - self
    }
}

impl Sub for Instant {
    type Output = Duration;
    /// Zero if `other` is later.
    fn sub(self, other: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(other.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;
    fn add(self, duration: Duration) -> Instant {
        Instant(self.0.saturating_add(duration_ns(duration)))
    }
}

fn duration_ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(FOREVER)
}

/// When a wait gives up: a moment, [`Deadline::NOW`] or [`Deadline::FOREVER`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Deadline(u64);

impl Deadline {
    /// Does not wait at all.
    pub const NOW: Deadline = Deadline(0);
    /// Never gives up. For waits that end by themselves, such as a server's for its next request.
    pub const FOREVER: Deadline = Deadline(FOREVER);

    /// That long from now.
    pub fn after(duration: Duration) -> Deadline {
        Deadline(now_ns().saturating_add(duration_ns(duration)))
    }
    /// That many milliseconds from now.
    pub fn after_ms(ms: u64) -> Deadline {
        Deadline(now_ns().saturating_add(ms.saturating_mul(1_000_000)))
    }
    /// That many seconds from now.
    pub fn after_secs(seconds: u64) -> Deadline {
        Deadline::after_ms(seconds.saturating_mul(1000))
    }
    /// At a moment.
    pub const fn at(instant: Instant) -> Deadline {
        Deadline(instant.as_ns())
    }
    /// As system calls take it: nanoseconds since boot.
    pub const fn as_ns(self) -> u64 {
        self.0
    }
    /// From nanoseconds since boot.
    pub const fn from_ns(ns: u64) -> Deadline {
        Deadline(ns)
    }
    /// Whether it has passed.
    pub fn has_passed(self) -> bool {
        self.0 != FOREVER && now_ns() >= self.0
    }
    /// Time left; `None` for `FOREVER`.
    pub fn remaining(self) -> Option<Duration> {
        (self.0 != FOREVER).then(|| Duration::from_nanos(self.0.saturating_sub(now_ns())))
    }
    /// The earlier of the two.
    pub fn min(self, other: Deadline) -> Deadline {
        Deadline(core::cmp::min(self.0, other.0))
    }
}

/// `TimedOut` once the deadline has passed, for loops that poll.
pub fn check(deadline: Deadline) -> Result<()> {
    if deadline.has_passed() {
        Err(crate::abi::Error::TimedOut)
    } else {
        Ok(())
    }
}
