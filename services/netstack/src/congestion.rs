//! CUBIC (RFC 9438): how much of a connection may be on its way. In integers, since the bare target has no floating point.

use smoltcp::time::{Duration, Instant};

/// Segments at the start, and their bytes (RFC 6928, 2).
const INITIAL_SEGMENTS: u64 = 10;
const INITIAL_BYTES: u64 = 14_600;
/// What a window is multiplied with after a loss: 0.7 (RFC 9438, 4.6).
const BETA: (u64, u64) = (7, 10);
/// Growth of the window that Reno would have: 3 * (1 - 0.7) / (1 + 0.7) (4.3).
const ALPHA: (u64, u64) = (9, 17);
/// 10^9 / C with C = 0.4: the cube of milliseconds for each segment (4.1), as a product.
const CUBE: (i64, i64) = (2_500, 1_000_000);
/// Longest time that the function is asked for, in milliseconds: far beyond the largest window.
const TIME_MAX: i64 = 100_000;
/// Most bytes that an acknowledgement counts for: a round trip's worth, and all products fit.
const STEP_MAX: u64 = 1 << 24;
/// Windows are kept in parts of a byte, so that small steps add up.
const PARTS: u64 = 256;
/// Largest window in bytes (RFC 7323, 2.3).
const LARGEST: u64 = 1 << 30;

/// The window of a connection. Bytes in it are in [`PARTS`].
#[derive(Debug)]
pub struct Cubic {
    segment: u64,
    window: u64,
    /// Below it the window doubles in each round trip.
    threshold: u64,
    /// Where the last loss was, or a little below.
    plateau: u64,
    /// The window before the last loss.
    prior: u64,
    /// Since when it grows by the cubic function, and when that reaches the plateau, in milliseconds from then.
    epoch: Option<(Instant, i64)>,
    /// What Reno's window would be.
    reno: u64,
}

impl Cubic {
    /// The window of a connection that begins; `segment`: bytes of its longest segment.
    pub fn new(segment: u16) -> Cubic {
        let segment = u64::from(segment.max(64));
        let initial = (INITIAL_SEGMENTS * segment).min(INITIAL_BYTES.max(2 * segment)) * PARTS;
        Cubic {
            segment: segment * PARTS,
            window: initial,
            threshold: u64::MAX,
            plateau: initial,
            prior: initial,
            epoch: None,
            reno: initial,
        }
    }

    /// Bytes that may be on their way.
    pub fn window(&self) -> u32 {
        (self.window / PARTS) as u32
    }

    /// The window was used, and so many bytes of it were acknowledged.
    pub fn acknowledged(&mut self, bytes: u32, round_trip: Duration, now: Instant) {
        let bytes = u64::from(bytes).min(STEP_MAX);
        if self.window < self.threshold {
            self.grow(bytes * PARTS);
            return;
        }
        let (start, plateau_ms) = match self.epoch {
            Some(epoch) => epoch,
            None => {
                let below = self.plateau.saturating_sub(self.window);
                self.plateau = self.plateau.max(self.window);
                self.reno = self.window;
                let cube = i128::from(CUBE.0 * CUBE.1) * i128::from(below);
                let root = cube_root((cube / i128::from(self.segment)).unsigned_abs());
                *self.epoch.insert((now, root))
            }
        };
        let elapsed = (now - start).total_millis() as i64 - plateau_ms;
        // As far as Reno, which is faster where round trips are short (4.3).
        let (part, whole) = if self.reno < self.prior {
            ALPHA
        } else {
            (1, 1)
        };
        let window = self.window / PARTS;
        self.reno += self.segment * bytes / window * part / whole;
        if self.at(elapsed) < self.reno {
            self.grow(self.reno.saturating_sub(self.window));
            return;
        }
        let ahead = elapsed + round_trip.total_millis() as i64;
        let target = self.at(ahead).min(self.window + self.window / 2);
        let distance = target.saturating_sub(self.window) / PARTS;
        self.grow(distance * (bytes * PARTS) / window);
    }

    /// The cubic function so many milliseconds after it reached its plateau (4.1).
    fn at(&self, ms: i64) -> u64 {
        let cube = ms.clamp(-TIME_MAX, TIME_MAX).pow(3) / CUBE.0;
        let bytes = cube * self.segment as i64 / CUBE.1;
        self.plateau.saturating_add_signed(bytes)
    }

    fn grow(&mut self, by: u64) {
        self.window = (self.window + by).min(LARGEST * PARTS);
    }

    /// Something was lost.
    pub fn lost(&mut self) {
        self.prior = self.window;
        // Leaves room for others that come (4.7).
        self.plateau = if self.window < self.plateau {
            self.window * (BETA.0 + BETA.1) / (2 * BETA.1)
        } else {
            self.window
        };
        self.threshold = (self.window * BETA.0 / BETA.1).max(2 * self.segment);
        self.window = self.threshold;
        self.epoch = None;
    }

    /// What was sent again got lost as well (RFC 5681, 3.1).
    pub fn lost_again(&mut self) {
        self.window = self.segment;
        self.epoch = None;
    }
}

fn cube_root(of: u128) -> i64 {
    let (mut low, mut high) = (0_u128, 1 << 40);
    while low < high {
        let middle = (low + high).div_ceil(2);
        if middle.pow(3) <= of {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    low as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: u16 = 1000;

    fn at(ms: i64) -> Instant {
        Instant::from_millis(ms)
    }

    /// A connection that lost something with a window of so many segments.
    fn after_a_loss(segments: u64) -> Cubic {
        let mut cubic = Cubic::new(SEGMENT);
        cubic.window = segments * 1000 * PARTS;
        cubic.lost();
        cubic
    }

    #[test]
    fn it_starts_with_ten_segments_and_doubles() {
        for (segment, bytes) in [(1460, 14_600), (536, 5_360), (9000, 18_000)] {
            assert_eq!(Cubic::new(segment).window(), bytes);
        }
        let mut cubic = Cubic::new(SEGMENT);
        for _ in 0..10 {
            cubic.acknowledged(1000, Duration::from_millis(10), at(1));
        }
        assert_eq!(cubic.window(), 20_000);
    }

    #[test]
    fn a_loss_takes_three_tenths_and_a_second_one_the_rest() {
        let mut cubic = after_a_loss(100);
        assert_eq!(cubic.window(), 70_000);
        cubic.lost();
        assert_eq!(cubic.window(), 49_000);
        // Fast convergence: 70 * 1.7 / 2.
        assert_eq!(cubic.plateau, 59_500 * PARTS);
        cubic.lost_again();
        assert_eq!(cubic.window(), 1000);
        // And quickly back to where there was room.
        for _ in 0..6 {
            cubic.acknowledged(cubic.window(), Duration::from_millis(10), at(1));
        }
        assert!(cubic.window() >= 49_000);
    }

    /// The function of RFC 9438, 4.1 and 4.3, in floating point, beside a connection with long round trips, where it is the faster one.
    #[test]
    fn it_follows_the_function() {
        let (round_trip, segments) = (100, 1000.0);
        let mut cubic = after_a_loss(segments as u64);
        let k = (segments * 0.3_f64 / 0.4).cbrt();
        for ms in (0..20_000).step_by(round_trip) {
            let (now, flight) = (at(1000 + ms as i64), cubic.window());
            // An acknowledgement for every second segment.
            for _ in 0..flight / 2000 {
                cubic.acknowledged(2000, Duration::from_millis(round_trip as u64), now);
            }
            let t = (ms + round_trip) as f64 / 1000.0;
            let expected = 0.4 * (t - k).powi(3) + segments;
            let window = f64::from(cubic.window()) / 1000.0;
            assert!(
                (window / expected - 1.0).abs() < 0.03,
                "{ms} ms: {window}, expected {expected}"
            );
        }
    }

    /// With short round trips it grows as Reno does with a smaller step (4.3).
    #[test]
    fn it_is_no_slower_than_reno() {
        let mut cubic = after_a_loss(20);
        for round in 0..100 {
            let flight = cubic.window();
            for _ in 0..flight / 1000 {
                cubic.acknowledged(1000, Duration::from_millis(1), at(1 + round));
            }
        }
        // 14 segments and 9/17 of one each round trip up to 20, then one each.
        let expected = 20.0 + (100.0 - 6.0 * 17.0 / 9.0);
        let window = f64::from(cubic.window()) / 1000.0;
        assert!(
            (window / expected - 1.0).abs() < 0.05,
            "{window}, {expected}"
        );
    }

    #[test]
    fn cube_roots() {
        for n in [0_u128, 1, 2, 7, 999, 1 << 39] {
            assert_eq!(cube_root(n.pow(3)), n as i64);
            assert_eq!(cube_root(n.pow(3) + 1), n as i64 + i64::from(n == 0));
        }
    }

    #[test]
    fn nothing_overflows() {
        let mut cubic = Cubic::new(u16::MAX);
        for n in 0..2000 {
            cubic.acknowledged(u32::MAX, Duration::from_secs(100), at(n * 1_000_000));
            if n % 97 == 96 {
                cubic.lost();
            }
        }
        assert!(u64::from(cubic.window()) <= LARGEST);
    }
}
