//! The life of a service: when it is started, asked for a sign of life, ended, given up.
//!
//! Pure: what happened and the time come in, what is to be done goes out. The process does it.

use alloc::string::String;

use proto::devmgr::RestartRules;
use proto::services::{End, EndReason, ServiceState};
use supervision::heartbeat::{Heartbeat, Pulse, Rhythm};
use supervision::restart::{History, Verdict};

/// What is to be done now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Nothing.
    None,
    /// Start the next incarnation; then [`Life::started`] or [`Life::ended`].
    Start,
    /// Send it the ping of this number.
    Ping(u32),
    /// End the process; its end is told of with [`Life::ended`].
    Kill,
}

/// What somebody wants of a service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wanted {
    /// To serve; started again by the rules.
    Serving,
    /// To end and stay so.
    Stopped,
    /// To end and start again.
    Again,
}

/// A service's state.
#[derive(Clone, Debug)]
pub struct Life {
    state: ServiceState,
    epoch: u32,
    rules: RestartRules,
    rhythm: Option<Rhythm>,
    heartbeat: Option<Heartbeat>,
    history: History,
    wanted: Wanted,
    start_at_ms: Option<u64>,
    /// Why it is being ended by us.
    ending: Option<(EndReason, String)>,
    last_end: Option<End>,
}

impl Life {
    /// Not started. Without a rhythm it is never asked for a sign of life.
    pub const fn new(rules: RestartRules, rhythm: Option<Rhythm>) -> Life {
        Life {
            state: ServiceState::Idle,
            epoch: 0,
            rules,
            rhythm,
            heartbeat: None,
            history: History::new(),
            wanted: Wanted::Serving,
            start_at_ms: None,
            ending: None,
            last_end: None,
        }
    }

    /// State.
    pub const fn state(&self) -> ServiceState {
        self.state
    }

    /// Incarnation; 0 before the first.
    pub const fn epoch(&self) -> u32 {
        self.epoch
    }

    /// How the last incarnation ended.
    pub const fn last_end(&self) -> Option<&End> {
        self.last_end.as_ref()
    }

    /// What is done when it dies, and the deaths that count.
    pub fn rules(&self, now_ms: u64) -> (RestartRules, u32) {
        (self.rules, self.history.deaths(&self.rules, now_ms))
    }

    /// Sets what is done when it dies.
    pub fn set_rules(&mut self, rules: RestartRules) {
        self.rules = rules;
    }

    /// Whether nobody will serve unless it is started by hand.
    pub const fn is_over(&self) -> bool {
        matches!(
            self.state,
            ServiceState::Stopped | ServiceState::Quarantined
        )
    }

    /// The number of the incarnation that is started now.
    pub fn starting(&mut self) -> u32 {
        self.start_at_ms = None;
        self.epoch = self.epoch.saturating_add(1);
        self.epoch
    }

    /// Its process runs.
    pub fn started(&mut self, now_ms: u64) {
        self.state = ServiceState::Running;
        self.ending = None;
        self.heartbeat = self.rhythm.map(|rhythm| Heartbeat::new(rhythm, now_ms));
    }

    /// A ping was answered.
    pub fn alive(&mut self, beat: u32, now_ms: u64) {
        if let Some(heartbeat) = &mut self.heartbeat {
            heartbeat.answered(beat, now_ms);
        }
    }

    /// Its process ended, or could not be started.
    pub fn ended(&mut self, reason: EndReason, text: String, now_ms: u64) {
        self.heartbeat = None;
        let (reason, text) = self.ending.take().unwrap_or((reason, text));
        self.last_end = Some(End {
            reason,
            text,
            time_ms: now_ms,
        });
        match core::mem::replace(&mut self.wanted, Wanted::Serving) {
            Wanted::Stopped => {
                self.wanted = Wanted::Stopped;
                self.state = ServiceState::Stopped;
            }
            Wanted::Again => {
                self.state = ServiceState::Restarting;
                self.start_at_ms = Some(now_ms);
            }
            Wanted::Serving => match self.history.died(&self.rules, now_ms) {
                Verdict::RestartAt(at_ms) => {
                    self.state = ServiceState::Restarting;
                    self.start_at_ms = Some(at_ms);
                }
                Verdict::GiveUp => self.state = ServiceState::Quarantined,
            },
        }
    }

    /// Somebody wants it to run. A pause is cut short, its deaths are forgotten.
    pub fn ask_start(&mut self, now_ms: u64) {
        self.history.forget();
        match self.state {
            // Under way to its end: it comes back afterwards.
            ServiceState::Running if self.wanted == Wanted::Stopped => self.wanted = Wanted::Again,
            ServiceState::Running => {}
            _ => {
                self.wanted = Wanted::Serving;
                self.state = ServiceState::Restarting;
                self.start_at_ms = Some(now_ms);
            }
        }
    }

    /// Somebody wants it to end.
    pub fn ask_stop(&mut self) -> Action {
        self.wanted = Wanted::Stopped;
        self.start_at_ms = None;
        if self.state == ServiceState::Running {
            return self.end(EndReason::Asked, "stopped");
        }
        self.state = ServiceState::Stopped;
        Action::None
    }

    /// Somebody wants it to end and start again.
    pub fn ask_restart(&mut self, now_ms: u64) -> Action {
        if self.state != ServiceState::Running {
            self.ask_start(now_ms);
            return Action::None;
        }
        self.wanted = Wanted::Again;
        self.end(EndReason::Asked, "restarted")
    }

    fn end(&mut self, reason: EndReason, text: &str) -> Action {
        self.heartbeat = None;
        self.ending = Some((reason, text.into()));
        Action::Kill
    }

    /// When [`Life::tick`] has something to do next.
    pub fn due_ms(&self) -> Option<u64> {
        let beat = self.heartbeat.as_ref().map(Heartbeat::due_ms);
        self.start_at_ms.into_iter().chain(beat).min()
    }

    /// What is to be done at this time.
    pub fn tick(&mut self, now_ms: u64) -> Action {
        if self.start_at_ms.is_some_and(|at_ms| at_ms <= now_ms) {
            return Action::Start;
        }
        match self.heartbeat.as_mut().map(|beat| beat.tick(now_ms)) {
            Some(Pulse::Ping(beat)) => Action::Ping(beat),
            Some(Pulse::Silent) => self.end(EndReason::NoHeartbeat, "no heartbeat"),
            Some(Pulse::Wait) | None => Action::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RULES: RestartRules = RestartRules {
        budget: 2,
        window_ms: 1000,
        pause_min_ms: 10,
        pause_max_ms: 20,
    };
    const RHYTHM: Rhythm = Rhythm {
        pause_ms: 100,
        silence_ms: 300,
    };

    fn running(now_ms: u64) -> Life {
        let mut life = Life::new(RULES, Some(RHYTHM));
        life.starting();
        life.started(now_ms);
        life
    }

    #[test]
    fn dies_restarts_and_is_given_up() {
        let mut life = running(0);
        life.ended(EndReason::Faulted, "page fault".into(), 5);
        assert_eq!(life.state(), ServiceState::Restarting);
        assert_eq!(life.tick(5), Action::Start);
        assert_eq!(life.starting(), 2);
        life.started(6);
        life.ended(EndReason::Exited, "exited with 0".into(), 7);
        assert_eq!(
            (life.tick(16), life.tick(17)),
            (Action::None, Action::Start)
        );
        life.starting();
        life.ended(EndReason::CannotStart, "no memory".into(), 18);
        assert_eq!(life.state(), ServiceState::Quarantined);
        assert_eq!((life.due_ms(), life.is_over()), (None, true));
        assert_eq!(life.last_end().unwrap().reason, EndReason::CannotStart);
        life.ask_start(50);
        assert_eq!(life.tick(50), Action::Start);
        assert_eq!(life.rules(50).1, 0);
    }

    #[test]
    fn one_that_is_silent_is_ended_and_comes_back() {
        let mut life = running(0);
        assert_eq!(life.tick(100), Action::Ping(1));
        life.alive(1, 150);
        assert_eq!(life.due_ms(), Some(250));
        assert_eq!(life.tick(250), Action::Ping(2));
        assert_eq!(life.tick(549), Action::None);
        assert_eq!(life.tick(550), Action::Kill);
        // It is ended once.
        assert_eq!(life.tick(10_000), Action::None);
        life.ended(EndReason::Killed, "killed".into(), 560);
        assert_eq!(life.last_end().unwrap().reason, EndReason::NoHeartbeat);
        assert_eq!(life.tick(560), Action::Start);
    }

    #[test]
    fn what_is_asked_is_no_death() {
        let mut life = running(0);
        assert_eq!(life.ask_restart(1), Action::Kill);
        life.ended(EndReason::Killed, "killed".into(), 2);
        assert_eq!(life.tick(2), Action::Start);
        life.starting();
        life.started(3);
        assert_eq!(life.ask_stop(), Action::Kill);
        life.ended(EndReason::Killed, "killed".into(), 4);
        assert_eq!((life.state(), life.due_ms()), (ServiceState::Stopped, None));
        assert_eq!(life.rules(4).1, 0);
        // A stop that was taken back before the process was gone.
        life.ask_start(5);
        life.starting();
        life.started(6);
        let _ = life.ask_stop();
        life.ask_start(7);
        life.ended(EndReason::Killed, "killed".into(), 8);
        assert_eq!(life.tick(8), Action::Start);
    }

    #[test]
    fn a_stop_in_the_pause_holds() {
        let mut life = running(0);
        life.ended(EndReason::Killed, String::new(), 1);
        assert_eq!(life.ask_stop(), Action::None);
        assert_eq!(
            (life.tick(100), life.state()),
            (Action::None, ServiceState::Stopped)
        );
    }

    proptest! {
        /// Whatever happens in whatever order: it runs, or has a time at which it will, or is over.
        #[test]
        fn there_is_always_a_way_on(steps in prop::collection::vec((0u8..6, 0u64..400), 1..200)) {
            let mut life = running(0);
            let (mut now, mut alive, mut dying) = (0, true, false);
            for (step, gap) in steps {
                now += gap;
                let action = match step {
                    0 => life.ask_stop(),
                    1 => life.ask_restart(now),
                    2 => { life.ask_start(now); Action::None }
                    3 if alive => {
                        (alive, dying) = (false, false);
                        life.ended(EndReason::Killed, String::new(), now);
                        Action::None
                    }
                    _ => life.tick(now),
                };
                match action {
                    Action::Start => {
                        prop_assert!(!alive, "two at a time");
                        life.starting();
                        life.started(now);
                        alive = true;
                    }
                    Action::Kill => dying = true,
                    Action::Ping(beat) if gap % 2 == 0 => life.alive(beat, now),
                    Action::Ping(_) | Action::None => {}
                }
                prop_assert_eq!(alive, life.state() == ServiceState::Running);
                prop_assert!(alive || life.due_ms().is_some() || life.is_over());
                prop_assert!(!alive || dying || life.due_ms().is_some(), "nobody watches over it");
            }
        }
    }
}
