//! Whether every wait ends in time, and every loop waits.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use ddk::{Deadline, Event, PlatformError};

use crate::probe::{Access, Probe, Waiting};

/// What was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Finding {
    /// A wait came back after its deadline.
    Overrun {
        /// The queue.
        queue: u32,
        /// When it was to end, in nanoseconds.
        deadline_ns: u64,
        /// When it did.
        ended_ns: u64,
    },
    /// A wait without a deadline, where none was expected.
    Endless {
        /// The queue.
        queue: u32,
    },
    /// A loop that reads registers or the clock and does not wait.
    Busy {
        /// Reads since the last wait.
        reads: u64,
        /// The last of them.
        last: String,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::Overrun {
                queue,
                deadline_ns,
                ended_ns,
            } => {
                let late_ns = ended_ns - deadline_ns;
                write!(
                    f,
                    "wait on queue{queue} until {deadline_ns} ns: {late_ns} ns late"
                )
            }
            Finding::Endless { queue } => write!(f, "wait on queue{queue} without a deadline"),
            Finding::Busy { reads, last } => {
                write!(f, "{reads} reads without a wait, the last: {last}")
            }
        }
    }
}

/// Checks that no wait lasts past its deadline and no loop polls for ever.
///
/// A driver that polls longer than it may finds its device gone, so that an honest loop ends; one that goes on
/// nevertheless is stopped by a panic.
///
/// ```
/// use ddk::{DeviceContext, DriverError, block_on};
/// use ddk_backend_sim::Sim;
/// use ddk_instrument::{Deadlines, instrument};
///
/// let deadlines = Deadlines::new(0, 1000);
/// let platform = instrument(Sim::new(1).platform().build(), deadlines.clone());
/// let cx = DeviceContext::new(platform).unwrap();
/// let never = cx.poll_until("what never comes", 10, || Ok(false));
/// assert!(matches!(block_on(&cx, never).unwrap(), Err(DriverError::TimedOut { .. })));
/// deadlines.check();
/// ```
pub struct Deadlines {
    slack_ns: u64,
    reads_max: u64,
    endless_allowed: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    reads: u64,
    findings: Vec<Finding>,
}

impl Deadlines {
    /// Waits may end `slack_ns` late (what the home's clock and scheduler need); at most `reads_max` reads of registers
    /// or the clock may come between two waits.
    pub fn new(slack_ns: u64, reads_max: u64) -> Arc<Deadlines> {
        Arc::new(Deadlines {
            slack_ns,
            reads_max,
            endless_allowed: AtomicBool::new(true),
            state: Mutex::default(),
        })
    }

    /// From now on a wait without a deadline is a finding: for start, stop and reset.
    pub fn forbid_endless_waits(&self) {
        self.endless_allowed.store(false, Ordering::Relaxed);
    }

    /// What was found.
    pub fn findings(&self) -> Vec<Finding> {
        self.state.lock().unwrap().findings.clone()
    }

    /// Fails the test if anything was found.
    ///
    /// # Panics
    /// With what it was.
    pub fn check(&self) {
        let findings: Vec<_> = self.findings().iter().map(ToString::to_string).collect();
        assert!(findings.is_empty(), "deadlines: {findings:#?}");
    }

    /// Counts a read. `true`: it is one too many.
    fn count(&self, what: impl FnOnce() -> String) -> bool {
        let mut state = self.state.lock().unwrap();
        state.reads += 1;
        let reads = state.reads;
        if reads <= self.reads_max {
            return false;
        }
        if reads == self.reads_max + 1 {
            let last = what();
            state.findings.push(Finding::Busy { reads, last });
        }
        let stubborn = reads > self.reads_max.saturating_mul(2);
        drop(state);
        assert!(
            !stubborn,
            "the driver polls and never waits: {reads} reads, at last of a device that is gone"
        );
        true
    }
}

impl Probe for Deadlines {
    fn read(&self, access: Access, inner: &dyn Fn() -> u64) -> u64 {
        if self.count(|| format!("read{access}")) {
            return access.width.all_ones();
        }
        inner()
    }

    fn dma_read(&self, region: u32, offset: usize, bytes: &mut [u8]) {
        if self.count(|| format!("load region{region}+{offset:#x}")) {
            bytes.fill(0xff);
        }
    }

    fn now_ns(&self, inner: &dyn Fn() -> u64) -> u64 {
        match self.count(|| "clock".into()) {
            true => u64::MAX,
            false => inner(),
        }
    }

    fn wait(&self, waiting: &Waiting<'_>, events: &mut [Event]) -> Result<usize, PlatformError> {
        let deadline = waiting.deadline;
        let queue = waiting.queue;
        if deadline == Deadline::NEVER && !self.endless_allowed.load(Ordering::Relaxed) {
            let mut state = self.state.lock().unwrap();
            state.findings.push(Finding::Endless { queue });
        }
        let began_ns = waiting.now_ns();
        let done = waiting.wait(events, deadline);
        let ended_ns = waiting.now_ns();
        // A deadline that was over before says: look, do not wait.
        let due_ns = deadline.as_ns().max(began_ns);
        let mut state = self.state.lock().unwrap();
        state.reads = 0;
        if ended_ns > due_ns.saturating_add(self.slack_ns) {
            state.findings.push(Finding::Overrun {
                queue,
                deadline_ns: due_ns,
                ended_ns,
            });
        }
        done
    }
}
