//! When an interrupt storms: it fires again and again while nobody takes its packet.
//!
//! Pure: the time comes in. An interrupt that is served, at whatever rate, does not storm: what counts is what
//! fired since its last packet was taken.

/// So many in a row that nobody served are a storm,
pub const FIRES: u64 = 10_000;
/// if they came within this time: a device that is left alone may well say something now and then.
pub const WINDOW_NS: u64 = 1_000_000_000;

/// Watches one interrupt.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Gauge {
    /// When the present count of [`FIRES`] began.
    since_ns: u64,
}

impl Gauge {
    /// It fired, for the `unserved`-th time since its last packet was taken. `true` if it storms. The time is asked
    /// for at the first of a count only, and at the last.
    #[inline]
    pub fn fired(&mut self, unserved: u64, now_ns: impl FnOnce() -> u64) -> bool {
        match unserved % FIRES {
            1 => {
                self.since_ns = now_ns();
                false
            }
            0 if unserved > 0 => now_ns().saturating_sub(self.since_ns) < WINDOW_NS,
            _ => false,
        }
    }
}

// Sums and comparisons, by the million: nothing that Miri could find.
#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;

    /// Whether `count` interrupts storm, `gap_ns` apart, of which every `served`-th has its packet taken.
    fn storms(count: u64, gap_ns: u64, served: u64) -> bool {
        let mut gauge = Gauge::default();
        let mut unserved = 0;
        (0..count).any(|n| {
            unserved += 1;
            let storm = gauge.fired(unserved, || n * gap_ns);
            if n % served == served - 1 {
                unserved = 0;
            }
            storm
        })
    }

    #[test]
    fn fast_and_unserved_is_a_storm() {
        assert!(storms(FIRES, 1_000, u64::MAX));
        assert!(!storms(FIRES - 1, 1_000, u64::MAX));
    }

    #[test]
    fn one_that_is_served_is_none_however_fast() {
        assert!(!storms(3 * FIRES, 10, 1));
        assert!(!storms(3 * FIRES, 10, FIRES - 1));
    }

    #[test]
    fn slow_ones_that_nobody_serves_are_none() {
        assert!(!storms(5 * FIRES, 2 * WINDOW_NS / FIRES, u64::MAX));
    }

    #[test]
    fn one_that_begins_late_is_noticed() {
        let mut gauge = Gauge::default();
        let mut now = 0;
        let noticed = (1..=3 * FIRES).find(|n| {
            now += if *n < FIRES {
                2 * WINDOW_NS / FIRES
            } else {
                100
            };
            gauge.fired(*n, || now)
        });
        assert_eq!(noticed, Some(2 * FIRES));
    }
}
