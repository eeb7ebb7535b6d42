//! The world of a simulation: its clock, its memory, its threads, and what was found wrong.

use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex};

use crate::threads::Threads;
use crate::{DeviceMemory, Schedule, SimPlatformBuilder};

/// The environment variable that gives the seed of a [`Sim`] that was given none.
pub const SEED_VARIABLE: &str = "BULKHEAD_SIM_SEED";

/// A simulation. Clones are the same one.
#[derive(Clone)]
pub struct Sim(Arc<World>);

struct World {
    schedule: Schedule,
    memory: DeviceMemory,
    threads: Threads,
    violations: Mutex<Vec<String>>,
}

impl Default for Sim {
    /// With the seed that the environment gives ([`SEED_VARIABLE`]), or 1.
    ///
    /// # Panics
    /// When it gives one that is not a number.
    fn default() -> Sim {
        let seed = match std::env::var(SEED_VARIABLE) {
            Ok(text) => text.parse().unwrap_or_else(|_| {
                panic!("{SEED_VARIABLE}={text} is not a number: give 0 to 2^64-1")
            }),
            Err(_) => 1,
        };
        Sim::new(seed)
    }
}

impl Sim {
    /// A simulation whose every choice follows from `seed`.
    pub fn new(seed: u64) -> Sim {
        let schedule = Schedule::new(seed);
        Sim(Arc::new(World {
            threads: Threads::new(schedule.clone()),
            schedule,
            memory: DeviceMemory::default(),
            violations: Mutex::default(),
        }))
    }

    /// The clock and the events.
    pub fn schedule(&self) -> &Schedule {
        &self.0.schedule
    }

    /// The memory that devices reach.
    pub fn memory(&self) -> &DeviceMemory {
        &self.0.memory
    }

    pub(crate) fn threads(&self) -> &Threads {
        &self.0.threads
    }

    /// Nanoseconds since the start.
    pub fn now_ns(&self) -> u64 {
        self.0.schedule.now_ns()
    }

    /// A platform in this simulation.
    pub fn platform(&self) -> SimPlatformBuilder {
        SimPlatformBuilder::new(self.clone())
    }

    /// Lets the models work until they are at rest. See [`Schedule::settle`].
    pub fn settle(&self) {
        self.0.schedule.settle();
    }

    /// Lets the spawned threads run until each has come to its end. When they wait for something that
    /// will never come, their waits fail with [`ddk::PlatformError::Closed`].
    pub fn join(&self) {
        self.0.threads.join();
    }

    /// Notes that the driver broke a rule.
    pub fn violation(&self, text: impl Into<String>) {
        self.0.violations.lock().unwrap().push(text.into());
    }

    /// What was noted.
    pub fn violations(&self) -> Vec<String> {
        self.0.violations.lock().unwrap().clone()
    }

    /// Takes what was noted: for tests of models and of wrong drivers.
    pub fn take_violations(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.violations.lock().unwrap())
    }

    /// Fails the test if the driver broke a rule.
    ///
    /// # Panics
    /// With what it did, and the seed.
    pub fn check(&self) {
        let violations = self.violations();
        assert!(
            violations.is_empty(),
            "the driver broke rules ({SEED_VARIABLE}={}): {violations:#?}",
            self.0.schedule.seed()
        );
    }
}

impl std::fmt::Debug for Sim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (seed, now_ns) = (self.0.schedule.seed(), self.now_ns());
        write!(f, "Sim {{ seed: {seed}, now_ns: {now_ns} }}")
    }
}

/// How long a modelled device takes, in nanoseconds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Timing {
    /// From a doorbell to looking at the queue.
    pub fetch_ns: RangeInclusive<u64>,
    /// From there to carrying a request out.
    pub serve_ns: RangeInclusive<u64>,
    /// From there to showing its completion.
    pub publish_ns: RangeInclusive<u64>,
    /// From there to the interrupt.
    pub interrupt_ns: RangeInclusive<u64>,
    /// A reset.
    pub reset_ns: RangeInclusive<u64>,
}

impl Default for Timing {
    /// Wide enough that the requests of one batch overtake each other.
    fn default() -> Timing {
        Timing {
            fetch_ns: 50..=2_000,
            serve_ns: 1_000..=60_000,
            publish_ns: 0..=3_000,
            interrupt_ns: 0..=5_000,
            reset_ns: 100..=50_000,
        }
    }
}

impl Timing {
    /// Everything at once: one order whatever the seed.
    pub fn immediate() -> Timing {
        Timing {
            fetch_ns: 0..=0,
            serve_ns: 0..=0,
            publish_ns: 0..=0,
            interrupt_ns: 0..=0,
            reset_ns: 0..=0,
        }
    }
}
