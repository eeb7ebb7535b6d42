//! The virtual clock and what happens on it, in an order that a seed decides.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

type Work = Box<dyn FnOnce() + Send>;

/// Most events that [`Schedule::settle`] runs before it takes the models for a perpetual motion.
const SETTLE_EVENTS_MAX: u32 = 10_000_000;

/// The clock, the events to come and the generator that chooses among what the specifications leave open. Clones
/// are the same schedule.
///
/// Time moves when the driver waits, and a little with each access to a register or to shared memory
/// ([`Schedule::pass`]). Two runs with the same seed and the same driver are the same in every event;
/// another seed gives other delays, and so another order.
///
/// ```
/// use ddk_backend_sim::Schedule;
/// use std::sync::{Arc, Mutex};
///
/// let order = |seed| {
///     let schedule = Schedule::new(seed);
///     let seen = Arc::new(Mutex::new(String::new()));
///     for name in ["a", "b", "c", "d"] {
///         let seen = seen.clone();
///         schedule.after(100..=900, move || seen.lock().unwrap().push_str(name));
///     }
///     schedule.settle();
///     assert!((100..=900).contains(&schedule.now_ns()));
///     let order = seen.lock().unwrap().clone();
///     order
/// };
/// assert_eq!(order(1), order(1));
/// assert!((2..20).any(|seed| order(seed) != order(1)));
/// ```
#[derive(Clone)]
pub struct Schedule(Arc<Inner>);

struct Inner {
    seed: u64,
    now_ns: AtomicU64,
    state: Mutex<State>,
}

struct State {
    random: fastrand::Rng,
    events: BTreeMap<Due, Work>,
    count: u64,
    /// Events are being run: those that they cause wait until they are through.
    running: bool,
}

/// Events at the same time come in an order that the seed decides.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    at_ns: u64,
    tie: u32,
    number: u64,
}

impl Schedule {
    /// An empty schedule at time 0.
    pub fn new(seed: u64) -> Schedule {
        Schedule(Arc::new(Inner {
            seed,
            now_ns: AtomicU64::new(0),
            state: Mutex::new(State {
                random: fastrand::Rng::with_seed(seed),
                events: BTreeMap::new(),
                count: 0,
                running: false,
            }),
        }))
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.0.seed
    }

    /// Nanoseconds since the start.
    pub fn now_ns(&self) -> u64 {
        self.0.now_ns.load(Ordering::Relaxed)
    }

    /// Lets `event` happen after a delay from this range, in nanoseconds.
    pub fn after(&self, delay_ns: RangeInclusive<u64>, event: impl FnOnce() + Send + 'static) {
        let mut state = self.0.state.lock().unwrap();
        let delay_ns = state.random.u64(delay_ns);
        let due = Due {
            at_ns: self.now_ns().saturating_add(delay_ns),
            tie: state.random.u32(..),
            number: state.count,
        };
        state.count += 1;
        state.events.insert(due, Box::new(event));
    }

    /// One of `count` choices (at least 1).
    pub fn choose(&self, count: usize) -> usize {
        self.0.state.lock().unwrap().random.usize(..count.max(1))
    }

    /// Whether something happens that does once in `times`, on average.
    pub fn once_in(&self, times: u32) -> bool {
        self.0.state.lock().unwrap().random.u32(..times.max(1)) == 0
    }

    /// When the next event is due, in nanoseconds since the start.
    pub fn next_due(&self) -> Option<u64> {
        let state = self.0.state.lock().unwrap();
        state.events.first_key_value().map(|(due, _)| due.at_ns)
    }

    /// Lets `ns` pass, and what falls due happen.
    pub fn pass(&self, ns: u64) {
        self.advance_to(self.now_ns().saturating_add(ns));
    }

    /// Moves the clock to `at_ns`, with everything on the way in its order. The clock never goes back.
    pub fn advance_to(&self, at_ns: u64) {
        let mut state = self.0.state.lock().unwrap();
        if std::mem::replace(&mut state.running, true) {
            // Inside of an event; whoever runs the events moves the clock.
            return;
        }
        while let Some(entry) = state.events.first_entry()
            && entry.key().at_ns <= at_ns
        {
            let (due, event) = entry.remove_entry();
            self.0.now_ns.fetch_max(due.at_ns, Ordering::Relaxed);
            drop(state);
            event();
            state = self.0.state.lock().unwrap();
        }
        state.running = false;
        self.0.now_ns.fetch_max(at_ns, Ordering::Relaxed);
    }

    /// Runs everything that is to come, however late.
    ///
    /// # Panics
    /// When it does not end.
    pub fn settle(&self) {
        for _ in 0..SETTLE_EVENTS_MAX {
            match self.next_due() {
                Some(at_ns) => self.advance_to(at_ns),
                None => return,
            }
        }
        panic!(
            "after {SETTLE_EVENTS_MAX} steps the models are not at rest: one of them keeps itself busy"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_at_their_time_and_see_it() {
        let schedule = Schedule::new(5);
        let seen = Arc::new(Mutex::new(Vec::new()));
        for delay in [30, 10, 20] {
            let (clock, seen) = (schedule.clone(), seen.clone());
            schedule.after(delay..=delay, move || {
                let again = (clock.clone(), seen.clone());
                seen.lock().unwrap().push((delay, clock.now_ns()));
                clock.after(5..=5, move || {
                    again.1.lock().unwrap().push((0, again.0.now_ns()));
                });
            });
        }
        schedule.pass(20);
        assert_eq!(*seen.lock().unwrap(), [(10, 10), (0, 15), (20, 20)]);
        assert_eq!((schedule.now_ns(), schedule.next_due()), (20, Some(25)));
        schedule.settle();
        assert_eq!(seen.lock().unwrap()[3..], [(0, 25), (30, 30), (0, 35)]);
        schedule.advance_to(1);
        assert_eq!(schedule.now_ns(), 35, "never back");
    }

    #[test]
    fn an_event_that_accesses_registers_does_not_start_others_inside_of_itself() {
        let schedule = Schedule::new(1);
        let depth = Arc::new(AtomicU64::new(0));
        for _ in 0..3 {
            let (clock, depth) = (schedule.clone(), depth.clone());
            schedule.after(1..=1, move || {
                assert_eq!(depth.fetch_add(1, Ordering::Relaxed), 0);
                clock.pass(100);
                depth.fetch_sub(1, Ordering::Relaxed);
            });
        }
        schedule.settle();
        assert_eq!(schedule.now_ns(), 1);
    }
}
