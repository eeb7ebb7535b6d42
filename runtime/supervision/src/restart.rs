//! When a process that died is started again, and when it is given up: for init's services, devmgr's drivers,
//! the VFS's file systems.
//!
//! Pure: time comes in as a number, so that every course of events is tested on the host.

use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;

use proto::devmgr::{DriverPolicy, RestartRules};
use serde::{Deserialize, Serialize};

/// The rules unless manifest or administrator say otherwise: 8 restarts in a minute, at most 5 s apart.
pub const DEFAULT_RULES: RestartRules = RestartRules {
    budget: 8,
    window_ms: 60_000,
    pause_min_ms: 50,
    pause_max_ms: 5_000,
};

/// The rules of a process that is never restarted.
pub const NEVER: RestartRules = RestartRules {
    budget: 0,
    ..DEFAULT_RULES
};

/// Changes rules by one word of the form `budget=8`, `window-ms=60000`, `pause-min-ms=50` or `pause-max-ms=5000`.
///
/// # Errors
/// A text that says what is wrong with the word.
pub fn change(rules: &mut RestartRules, word: &str) -> Result<(), String> {
    let (name, value) = word
        .split_once('=')
        .ok_or_else(|| format!("{word:?} is not of the form NAME=NUMBER"))?;
    let value = value
        .parse()
        .map_err(|_| format!("{value:?} is no number from 0 to {}", u32::MAX))?;
    match name {
        "budget" => rules.budget = value,
        "window-ms" => rules.window_ms = value,
        "pause-min-ms" => rules.pause_min_ms = value,
        "pause-max-ms" => rules.pause_max_ms = value,
        _ => {
            return Err(format!(
                "unknown rule {name:?}: there are budget, window-ms, pause-min-ms, pause-max-ms"
            ));
        }
    }
    Ok(())
}

/// How drivers are watched over unless an administrator says otherwise.
pub const DEFAULT_POLICY: DriverPolicy = DriverPolicy {
    restart: DEFAULT_RULES,
    probation_ms: 60_000,
    heartbeat_ms: 2_000,
    silence_ms: 10_000,
    start_ms: 30_000,
    stop_ms: 5_000,
    trace: false,
    wire: None,
};

/// Most deaths that are remembered, and so the largest budget that counts.
const DEATHS_MAX: usize = 4096;

/// What to do after a death.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Start it again at this time, in milliseconds of the caller's clock.
    RestartAt(u64),
    /// The budget is used up.
    GiveUp,
}

/// The deaths within the window.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct History {
    deaths_ms: VecDeque<u64>,
}

impl History {
    /// No deaths.
    pub const fn new() -> History {
        History {
            deaths_ms: VecDeque::new(),
        }
    }

    /// It died now; what to do.
    pub fn died(&mut self, rules: &RestartRules, now_ms: u64) -> Verdict {
        let window = u64::from(rules.window_ms);
        self.deaths_ms
            .retain(|death| now_ms.saturating_sub(*death) < window);
        let before = self.deaths_ms.len();
        if before >= DEATHS_MAX {
            self.deaths_ms.pop_front();
        }
        self.deaths_ms.push_back(now_ms);
        if before >= (rules.budget as usize).min(DEATHS_MAX) {
            return Verdict::GiveUp;
        }
        // None, then the shortest pause, then twice as long each time.
        let pause = match u32::try_from(before).unwrap_or(u32::MAX).checked_sub(1) {
            None => 0,
            Some(doublings) => u64::from(rules.pause_min_ms)
                .checked_shl(doublings)
                .filter(|pause| pause >> doublings == u64::from(rules.pause_min_ms))
                .unwrap_or(u64::MAX)
                .min(u64::from(rules.pause_max_ms)),
        };
        #[cfg(feature = "control-no-backoff")]
        let pause = pause.min(0);
        Verdict::RestartAt(now_ms.saturating_add(pause))
    }

    /// Deaths that count at this time.
    pub fn deaths(&self, rules: &RestartRules, now_ms: u64) -> u32 {
        let window = u64::from(rules.window_ms);
        let counted = self.deaths_ms.iter();
        counted
            .filter(|death| now_ms.saturating_sub(**death) < window)
            .count() as u32
    }

    /// Somebody started it by hand: a new beginning.
    pub fn forget(&mut self) {
        self.deaths_ms.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RULES: RestartRules = RestartRules {
        budget: 4,
        window_ms: 1000,
        pause_min_ms: 10,
        pause_max_ms: 25,
    };

    #[test]
    fn at_once_then_slower_then_never() {
        let mut history = History::default();
        let verdicts = [0, 1, 2, 3, 4].map(|ms| history.died(&RULES, ms));
        assert_eq!(
            verdicts,
            [
                Verdict::RestartAt(0),
                Verdict::RestartAt(11),
                Verdict::RestartAt(22),
                Verdict::RestartAt(28),
                Verdict::GiveUp
            ]
        );
        assert_eq!(history.deaths(&RULES, 4), 5);
        history.forget();
        assert_eq!(history.died(&RULES, 5), Verdict::RestartAt(5));
    }

    #[test]
    fn deaths_out_of_the_window_do_not_count() {
        let mut history = History::default();
        for n in 0..100 {
            let now = n * 1000;
            assert_eq!(history.died(&RULES, now), Verdict::RestartAt(now));
        }
    }

    #[test]
    fn no_budget_no_restart() {
        assert_eq!(History::default().died(&NEVER, 7), Verdict::GiveUp);
    }

    proptest! {
        #[test]
        fn pauses_are_bounded_and_the_budget_holds(
            budget in 0u32..10_000,
            window_ms: u32,
            pause_min_ms: u32,
            pause_max_ms: u32,
            gaps in prop::collection::vec(0u64..5000, 1..300),
        ) {
            let rules = RestartRules { budget, window_ms, pause_min_ms, pause_max_ms };
            let mut history = History::default();
            let (mut now, mut given): (u64, alloc::vec::Vec<u64>) = (0, alloc::vec::Vec::new());
            for gap in gaps {
                now += gap;
                if let Verdict::RestartAt(at) = history.died(&rules, now) {
                    prop_assert!(at >= now && at - now <= u64::from(pause_max_ms));
                    given.push(now);
                    let recent = given.iter().filter(|t| now - **t < u64::from(window_ms)).count();
                    prop_assert!(recent <= budget as usize || window_ms == 0);
                }
            }
        }
    }
}
