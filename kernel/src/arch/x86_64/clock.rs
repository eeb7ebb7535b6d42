//! Conversion between counter cycles and nanoseconds by multiplication.

use crate::arch::ClockParameters;

const NS_PER_S: u64 = 1_000_000_000;

/// The parameters for a counter of `hz` (1 kHz to 1 THz) that reads `tsc_base` at
/// time 0. `shift` is the largest for which `mult` fits, so that the rounding error
/// stays below 2^-31.
pub fn parameters(tsc_base: u64, hz: u64) -> ClockParameters {
    let hz = hz.clamp(1_000, 1_000_000_000_000);
    let mult_at =
        |shift: u8| ((u128::from(NS_PER_S) << shift) + u128::from(hz / 2)) / u128::from(hz);
    let fits = |shift: &u8| mult_at(*shift) <= u128::from(u32::MAX);
    let shift = (0..=63).rev().find(fits).unwrap_or(0);
    ClockParameters {
        tsc_base,
        mult: mult_at(shift) as u32,
        shift,
        tsc_hz: hz,
    }
}

/// Nanoseconds since time 0 at the counter value `counter`; 0 for earlier values.
#[inline]
pub fn nanoseconds(clock: &ClockParameters, counter: u64) -> u64 {
    let cycles = counter.saturating_sub(clock.tsc_base);
    ((u128::from(cycles) * u128::from(clock.mult)) >> clock.shift) as u64
}

/// Cycles of a counter per nanosecond, as a fixed-point number with 32 binary digits.
#[derive(Clone, Copy, Debug)]
pub struct Rate(u64);

impl Rate {
    /// For a counter of `hz`, up to 4 THz.
    pub const fn from_hz(hz: u64) -> Rate {
        Rate((((hz as u128) << 32) / NS_PER_S as u128) as u64)
    }

    /// The cycles in `ns`, rounded up, so that a timer does not fire early;
    /// saturates.
    #[inline]
    pub fn cycles(self, ns: u64) -> u64 {
        let cycles = (u128::from(ns) * u128::from(self.0)) >> 32;
        u64::try_from(cycles).unwrap_or(u64::MAX).saturating_add(1)
    }
}

/// Days from 1970-01-01 to a date of the Gregorian calendar; `month` and `day`
/// count from 1.
pub fn days_since_1970(year: u64, month: u64, day: u64) -> u64 {
    // Years start in March here, so that the leap day is the last of its year.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let before_year = 365 * year + year / 4 - year / 100 + year / 400;
    let before_month = (153 * month + 2) / 5;
    // 719_468 days lie between 0000-03-01 and 1970-01-01.
    before_year + before_month + (day - 1) - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_of_common_frequencies_converts_without_drift() {
        for hz in [
            1_000_000,
            24_000_000,
            999_999_999,
            1_000_000_000,
            2_400_123_456,
            5_800_000_000,
        ] {
            let clock = parameters(1000, hz);
            let day = 86_400;
            let ns = nanoseconds(&clock, 1000 + hz * day);
            let error = ns.abs_diff(day * NS_PER_S);
            assert!(error < 50_000, "{hz} Hz: off by {error} ns after a day");
        }
    }

    #[test]
    fn the_multiplier_uses_its_32_bits() {
        for hz in [1_000_000, 1_000_000_000, 3_000_000_000] {
            assert!(parameters(0, hz).mult >= 1 << 31, "{hz}");
        }
    }

    #[test]
    fn time_before_the_base_is_zero() {
        assert_eq!(nanoseconds(&parameters(500, 1_000_000_000), 499), 0);
    }

    #[test]
    fn a_deadline_is_never_early() {
        for hz in [62_500_000, 999_999_937, 1_000_000_000, 3_141_592_653] {
            let clock = parameters(0, hz);
            for ns in [0, 1, 999, 1_000_000, 123_456_789_012] {
                let reached = nanoseconds(&clock, Rate::from_hz(hz).cycles(ns));
                // The two directions are rounded on their own: 1 in 2^31.
                assert!(
                    reached + ns / (1 << 30) + 1 >= ns,
                    "{hz} Hz, {ns} ns: {reached}"
                );
            }
        }
        assert_eq!(Rate::from_hz(4_000_000_000).cycles(u64::MAX), u64::MAX);
    }

    #[test]
    fn dates() {
        assert_eq!(days_since_1970(1970, 1, 1), 0);
        assert_eq!(days_since_1970(2000, 2, 29), 11_016);
        assert_eq!(days_since_1970(2000, 3, 1), 11_017);
        assert_eq!(days_since_1970(2024, 1, 1), 19_723);
        assert_eq!(days_since_1970(2100, 3, 1), 47_541);
    }
}
