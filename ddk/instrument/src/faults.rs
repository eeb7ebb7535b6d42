//! Faults on purpose, by a plan and a seed.

use std::sync::{Arc, Mutex};

use ddk::{Event, PlatformError};

use crate::probe::{Access, Place, Probe, Waiting};
use crate::record::Record;

/// Which of the occasions that a rule is about are taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum When {
    /// Every one.
    Always,
    /// Only this one, counted from 0.
    Nth(u64),
    /// One in this many, on average.
    OneIn(u32),
}

/// What becomes of a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// This one stands in its place.
    To(u64),
    /// These bits are inverted.
    Flip(u64),
    /// One bit is inverted, which one the seed decides.
    FlipOne,
}

/// A kind of fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rule {
    /// A register answers something else.
    Register {
        /// Where; `None`: anywhere.
        place: Option<Place>,
        /// Byte offset; `None`: any.
        offset: Option<u32>,
        /// What it answers.
        change: Change,
        /// When.
        when: When,
    },
    /// Shared memory holds something else when the driver reads it: one bit is inverted.
    Memory {
        /// The region, counted from 0 in the order of allocation; `None`: any.
        region: Option<u32>,
        /// When.
        when: When,
    },
    /// An interrupt does not arrive.
    LostInterrupt {
        /// When.
        when: When,
    },
    /// An interrupt arrives that nobody raised, whenever a wait ends.
    ExtraInterrupt {
        /// When.
        when: When,
    },
    /// From this access to a register on, counted from 0, the device is gone: all ones.
    Gone {
        /// The access.
        access: u64,
    },
    /// Each access to a register takes this much longer on the driver's clock.
    Slow {
        /// Nanoseconds.
        access_ns: u64,
    },
}

/// Injects faults by a plan. The same seed and plan over the same run give the same faults.
///
/// ```
/// use ddk::Platform;
/// use ddk_backend_sim::Sim;
/// use ddk_instrument::{Faults, Rule, instrument};
///
/// let machine = Sim::new(1).platform().config(vec![0xf4, 0x1a]).build();
/// let faults = Faults::new(7, [Rule::Gone { access: 1 }]);
/// let platform = instrument(machine, faults.clone());
/// assert_eq!(platform.config_read(0, ddk::Width::U16), Ok(0x1af4));
/// assert_eq!(platform.config_read(0, ddk::Width::U16), Ok(0xffff));
/// assert_eq!(faults.injected(), ["the device is gone at access 1"]);
/// ```
pub struct Faults {
    state: Mutex<State>,
}

struct State {
    random: fastrand::Rng,
    /// Rules, and the occasions of each so far.
    rules: Vec<(Rule, u64)>,
    /// Accesses to registers so far.
    accesses: u64,
    gone: bool,
    /// How far the driver's clock is ahead of the home's, in nanoseconds.
    ahead_ns: u64,
    /// Interrupts that are bound: number, queue and key.
    bound: Vec<(u16, Option<u32>, u64)>,
    injected: Vec<String>,
}

impl When {
    /// Whether occasion `nth` is taken.
    fn takes(self, nth: u64, random: &mut fastrand::Rng) -> bool {
        match self {
            When::Always => true,
            When::Nth(wanted) => nth == wanted,
            When::OneIn(times) => random.u32(..times.max(1)) == 0,
        }
    }
}

impl State {
    /// The rules whose occasion this is and that take it, by what `about` says of them.
    fn taken<T>(&mut self, about: impl Fn(&Rule) -> Option<(When, T)>) -> Vec<T> {
        let State { random, rules, .. } = self;
        let mut taken = Vec::new();
        for (rule, occasions) in rules {
            if let Some((when, what)) = about(rule) {
                if when.takes(*occasions, random) {
                    taken.push(what);
                }
                *occasions += 1;
            }
        }
        taken
    }

    /// Counts an access to a register. `true`: nobody is there to answer.
    fn access(&mut self) -> bool {
        let number = self.accesses;
        self.accesses += 1;
        for (rule, _) in &self.rules {
            match rule {
                Rule::Slow { access_ns } => self.ahead_ns += access_ns,
                Rule::Gone { access } if *access <= number && !self.gone => {
                    self.gone = true;
                    let text = format!("the device is gone at access {number}");
                    self.injected.push(text);
                }
                _ => {}
            }
        }
        self.gone
    }

    /// Whether an event is an interrupt's.
    fn is_interrupt(&self, queue: u32, event: &Event) -> bool {
        let mut bound = self.bound.iter();
        bound.any(|(_, q, key)| *q == Some(queue) && *key == event.key)
    }
}

impl Faults {
    /// A plan.
    pub fn new(seed: u64, rules: impl IntoIterator<Item = Rule>) -> Arc<Faults> {
        Arc::new(Faults {
            state: Mutex::new(State {
                random: fastrand::Rng::with_seed(seed),
                rules: rules.into_iter().map(|rule| (rule, 0)).collect(),
                accesses: 0,
                gone: false,
                ahead_ns: 0,
                bound: Vec::new(),
                injected: Vec::new(),
            }),
        })
    }

    /// What was done, in order: the denominator of a campaign.
    pub fn injected(&self) -> Vec<String> {
        self.state.lock().unwrap().injected.clone()
    }

    /// Accesses to registers so far.
    pub fn accesses(&self) -> u64 {
        self.state.lock().unwrap().accesses
    }
}

impl Probe for Faults {
    fn read(&self, access: Access, inner: &dyn Fn() -> u64) -> u64 {
        if self.state.lock().unwrap().access() {
            return access.width.all_ones();
        }
        let true_value = inner();
        let mut value = true_value;
        let mut state = self.state.lock().unwrap();
        let changes = state.taken(|rule| match rule {
            Rule::Register {
                place,
                offset,
                change,
                when,
            } if place.is_none_or(|p| p == access.place)
                && offset.is_none_or(|o| o == access.offset) =>
            {
                Some((*when, *change))
            }
            _ => None,
        });
        for change in changes {
            value = match change {
                Change::To(other) => other,
                Change::Flip(bits) => value ^ bits,
                Change::FlipOne => value ^ 1 << state.random.usize(..access.width.bytes() * 8),
            } & access.width.all_ones();
            let number = state.accesses - 1;
            let text = format!("access {number}: read{access}: {true_value:#x} became {value:#x}");
            state.injected.push(text);
        }
        value
    }

    fn write(&self, _: Access, value: u64, inner: &dyn Fn(u64)) {
        let gone = self.state.lock().unwrap().access();
        if !gone {
            inner(value);
        }
    }

    fn dma_read(&self, number: u32, offset: usize, bytes: &mut [u8]) {
        let mut state = self.state.lock().unwrap();
        let taken = state.taken(|rule| match rule {
            Rule::Memory { region, when } if region.is_none_or(|r| r == number) => {
                Some((*when, ()))
            }
            _ => None,
        });
        for () in taken {
            let bit = state.random.usize(..bytes.len().max(1) * 8);
            if let Some(byte) = bytes.get_mut(bit / 8) {
                *byte ^= 1 << (bit % 8);
            }
            let text = format!("load region{number}+{offset:#x}: bit {bit} inverted");
            state.injected.push(text);
        }
    }

    fn wait(&self, waiting: &Waiting<'_>, events: &mut [Event]) -> Result<usize, PlatformError> {
        loop {
            let ahead_ns = self.state.lock().unwrap().ahead_ns;
            let deadline = match waiting.deadline {
                ddk::Deadline::NEVER => ddk::Deadline::NEVER,
                other => ddk::Deadline::at_ns(other.as_ns().saturating_sub(ahead_ns)),
            };
            let came = waiting.wait(events, deadline)?;
            let mut state = self.state.lock().unwrap();
            let mut kept = 0;
            for at in 0..came {
                let event = events[at];
                let lost = state.is_interrupt(waiting.queue, &event)
                    && !state
                        .taken(|rule| match rule {
                            Rule::LostInterrupt { when } => Some((*when, ())),
                            _ => None,
                        })
                        .is_empty();
                if lost {
                    let text = format!("interrupt with key {:#x} lost", event.key);
                    state.injected.push(text);
                } else {
                    events[kept] = event;
                    kept += 1;
                }
            }
            let extra = state.taken(|rule| match rule {
                Rule::ExtraInterrupt { when } => Some((*when, ())),
                _ => None,
            });
            let keys = state.bound.iter().filter(|b| b.1 == Some(waiting.queue));
            let keys: Vec<u64> = keys.map(|b| b.2).collect();
            if !extra.is_empty()
                && kept < events.len()
                && let Some(key) = state.random.choice(keys)
            {
                events[kept] = Event { key, count: 1 };
                kept += 1;
                let text = format!("interrupt with key {key:#x} that nobody raised");
                state.injected.push(text);
            }
            // A wait that ended for a lost interrupt alone goes on.
            if kept > 0 || came == 0 {
                return Ok(kept);
            }
        }
    }

    fn now_ns(&self, inner: &dyn Fn() -> u64) -> u64 {
        let ahead_ns = self.state.lock().unwrap().ahead_ns;
        inner().saturating_add(ahead_ns)
    }

    fn note(&self, record: Record) {
        let mut state = self.state.lock().unwrap();
        match record {
            Record::Bind {
                index, queue, key, ..
            } => {
                state.bound.retain(|b| b.0 != index);
                state.bound.push((index, queue, key));
            }
            Record::Unbind(index) => state.bound.retain(|b| b.0 != index),
            _ => {}
        }
    }
}
