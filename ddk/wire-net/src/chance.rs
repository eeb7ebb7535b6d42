//! Which frames have a fault, and how many had.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::Rates;

/// Most frames that overtake a delayed one.
const OVERTAKEN_MAX: u64 = 4;
/// Longest delay, in nanoseconds: shorter than any retransmission timer.
const DELAY_MAX_NS: u64 = 20_000_000;

/// What becomes of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    Passes,
    Lost,
    Doubled,
    /// Until so many have overtaken it.
    Delayed(u64),
    /// With a number that chooses the bit.
    Damaged(u64),
}

/// When a delayed frame goes on: whichever comes first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Due {
    /// Number of a frame of its direction.
    frame: u64,
    time_ns: u64,
}

impl Due {
    /// As soon as it can be.
    pub(crate) const NOW: Due = Due {
        frame: 0,
        time_ns: 0,
    };
}

/// The faults of one direction of one queue.
pub(crate) struct Lottery {
    rates: Rates,
    /// State of SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
    state: u64,
    /// Frames that were drawn for.
    frames: u64,
    /// Of a frame that could not go on yet.
    kept: Option<Fate>,
}

impl Lottery {
    pub(crate) fn new(rates: Rates, seed: u64) -> Lottery {
        Lottery {
            rates,
            state: seed,
            frames: 0,
            kept: None,
        }
    }

    pub(crate) fn rates(&self) -> &Rates {
        &self.rates
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The fate of the next frame.
    pub(crate) fn draw(&mut self) -> Fate {
        if let Some(fate) = self.kept.take() {
            return fate;
        }
        self.frames += 1;
        let chosen = self.next() % 100;
        let parameter = self.next();
        let Rates {
            loss,
            duplicate,
            reorder,
            corrupt,
        } = self.rates;
        let fates = [
            (loss, Fate::Lost),
            (duplicate, Fate::Doubled),
            (reorder, Fate::Delayed(1 + parameter % OVERTAKEN_MAX)),
            (corrupt, Fate::Damaged(parameter)),
        ];
        let mut end = 0;
        for (percent, fate) in fates {
            end += u64::from(percent);
            if chosen < end {
                return fate;
            }
        }
        Fate::Passes
    }

    /// The frame that was drawn for comes again.
    pub(crate) fn keep(&mut self, fate: Fate) {
        self.kept = Some(fate);
    }

    pub(crate) fn due_after(&self, frames: u64, now_ns: u64) -> Due {
        Due {
            frame: self.frames + frames,
            time_ns: now_ns + DELAY_MAX_NS,
        }
    }

    pub(crate) fn is_over(&self, due: Due, now_ns: u64) -> bool {
        self.frames > due.frame || now_ns >= due.time_ns
    }
}

/// Faults of one direction.
#[derive(Debug, Default)]
pub struct Faults {
    pub(crate) frames: AtomicU64,
    pub(crate) lost: AtomicU64,
    pub(crate) doubled: AtomicU64,
    pub(crate) delayed: AtomicU64,
    pub(crate) damaged: AtomicU64,
}

impl Faults {
    pub(crate) fn count(&self, fate: Fate) {
        let one = |counter: &AtomicU64| {
            counter.fetch_add(1, Ordering::Relaxed);
        };
        one(&self.frames);
        match fate {
            Fate::Passes => {}
            Fate::Lost => one(&self.lost),
            Fate::Doubled => one(&self.doubled),
            Fate::Delayed(_) => one(&self.delayed),
            Fate::Damaged(_) => one(&self.damaged),
        }
    }

    /// Frames, and those that were lost, doubled, delayed and damaged.
    pub fn get(&self) -> [u64; 5] {
        let all = [
            &self.frames,
            &self.lost,
            &self.doubled,
            &self.delayed,
            &self.damaged,
        ];
        all.map(|counter| counter.load(Ordering::Relaxed))
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [frames, lost, doubled, delayed, damaged] = self.get();
        write!(
            f,
            "{frames} frames, {lost} lost, {doubled} doubled, {delayed} delayed, {damaged} damaged"
        )
    }
}

/// What a wire has done, over all queues.
#[derive(Debug, Default)]
pub struct Counts {
    /// To frames that were received.
    pub receive: Faults,
    /// To frames that were to be sent.
    pub transmit: Faults,
}

impl Counts {
    /// Frames that went over it, both ways.
    pub fn frames(&self) -> u64 {
        let [receive, transmit] = [&self.receive, &self.transmit];
        receive.frames.load(Ordering::Relaxed) + transmit.frames.load(Ordering::Relaxed)
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rx {}; tx {}", self.receive, self.transmit)
    }
}
