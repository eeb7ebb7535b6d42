//! Faults on purpose, by a plan and a seed.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use core::ops::Range;

use ddk::{Event, PAGE, PlatformError};
use spin::Mutex;

use crate::probe::{Access, Place, Probe, Waiting, Wanted};
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
    /// A device address that the driver writes to shared memory is another one, outside of all that it was granted: its device is sent
    /// astray. Not without an IOMMU.
    Astray {
        /// Aligned words of 64 bits from the first megabyte up to here are taken for device addresses. Block numbers of a small disk
        /// lie below, other fields of descriptors above.
        below: u64,
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
    /// So many interrupts arrive one after the other that nobody raised.
    InterruptStorm {
        /// Interrupts.
        interrupts: u64,
    },
    /// The system has no more of it.
    Refused {
        /// What; `None`: anything.
        wanted: Option<Wanted>,
        /// When.
        when: When,
    },
    /// The driver's thread ends with a panic at this step, counted from 0: each access to a register or to shared memory, each
    /// wait and each wish is one.
    End {
        /// The step.
        step: u64,
    },
    /// The driver's thread loops for ever at this step.
    Hang {
        /// The step.
        step: u64,
    },
    /// Each access to a register takes this much longer on the driver's clock.
    Slow {
        /// Nanoseconds.
        access_ns: u64,
    },
}

/// See [`Rule::Astray`].
const LEAST_ADDRESS: u64 = 1 << 20;
/// Where a device that is sent astray ends up: code and data of the kernel, which begins at 2 MiB (`kernel/src/arch/x86_64/kernel.ld`).
const ASTRAY: Range<u64> = 2 << 20..(2 << 20) + (768 << 10);

/// Most faults that are kept as text.
const INJECTED_MAX: usize = 10_000;

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
    /// Steps so far.
    steps: u64,
    /// Interrupts of a storm so far.
    stormed: u64,
    gone: bool,
    /// How far the driver's clock is ahead of the home's, in nanoseconds.
    ahead_ns: u64,
    /// Interrupts that are bound: number, queue and key.
    bound: Vec<(u16, Option<u32>, u64)>,
    injected: Vec<String>,
    /// Is told of the first one.
    tell: Option<Tell>,
}

type Tell = Box<dyn Fn(&str) + Send + Sync>;

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
        let mut text = None;
        self.accesses += 1;
        for (rule, _) in &self.rules {
            match rule {
                Rule::Slow { access_ns } => self.ahead_ns += access_ns,
                Rule::Gone { access } if *access <= number && !self.gone => {
                    self.gone = true;
                    text = Some(format!("the device is gone at access {number}"));
                }
                _ => {}
            }
        }
        if let Some(text) = text {
            self.note(text);
        }
        self.gone
    }

    /// Notes a fault. What came after very many is not kept.
    fn note(&mut self, text: String) {
        if let Some(tell) = self.tell.take() {
            tell(&text);
        }
        if self.injected.len() < INJECTED_MAX {
            self.injected.push(text);
        }
    }

    /// Counts a step; the end that it is to be.
    fn step(&mut self) -> Option<Rule> {
        let number = self.steps;
        self.steps += 1;
        let mut rules = self.rules.iter().map(|(rule, _)| *rule);
        let end = rules.find(
            |rule| matches!(rule, Rule::End { step } | Rule::Hang { step } if *step == number),
        )?;
        self.note(format!("step {number}: {end:?}"));
        Some(end)
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
                steps: 0,
                stormed: 0,
                gone: false,
                ahead_ns: 0,
                bound: Vec::new(),
                injected: Vec::new(),
                tell: None,
            }),
        })
    }

    /// A plan that tells of its first fault when it is about to be injected.
    pub fn telling(
        seed: u64,
        rules: impl IntoIterator<Item = Rule>,
        tell: impl Fn(&str) + Send + Sync + 'static,
    ) -> Arc<Faults> {
        let faults = Faults::new(seed, rules);
        faults.state.lock().tell = Some(Box::new(tell));
        faults
    }

    /// What was done, in order: the denominator of a campaign.
    pub fn injected(&self) -> Vec<String> {
        self.state.lock().injected.clone()
    }

    /// Accesses to registers so far.
    pub fn accesses(&self) -> u64 {
        self.state.lock().accesses
    }
}

impl Faults {
    /// Puts an interrupt of a storm into the events, if there is one for this queue.
    fn storm(&self, queue: u32, events: &mut [Event]) -> bool {
        let mut state = self.state.lock();
        let limit = state.rules.iter().find_map(|(rule, _)| match rule {
            Rule::InterruptStorm { interrupts } => Some(*interrupts),
            _ => None,
        });
        let bound = state.bound.iter().find(|b| b.1 == Some(queue));
        let (Some(limit), Some(&(_, _, key)), Some(event)) = (limit, bound, events.first_mut())
        else {
            return false;
        };
        if state.stormed >= limit {
            return false;
        }
        if state.stormed == 0 {
            state.note(format!("{limit} interrupts with key {key:#x}"));
        }
        state.stormed += 1;
        *event = Event { key, count: 1 };
        true
    }

    fn step(&self) {
        // The lock is free before the end: other threads go on.
        let end = self.state.lock().step();
        match end {
            Some(Rule::End { step }) => panic!("ended on purpose at step {step}"),
            Some(_) => loop {
                core::hint::spin_loop();
            },
            None => {}
        }
    }
}

impl Probe for Faults {
    fn want(&self, wanted: Wanted) -> Result<(), PlatformError> {
        self.step();
        let mut state = self.state.lock();
        let taken = state.taken(|rule| match rule {
            Rule::Refused { wanted: what, when } if what.is_none_or(|what| what == wanted) => {
                Some((*when, ()))
            }
            _ => None,
        });
        if taken.is_empty() {
            return Ok(());
        }
        state.note(format!("{wanted:?} refused"));
        Err(PlatformError::NoMemory)
    }

    fn read(&self, access: Access, inner: &dyn Fn() -> u64) -> u64 {
        self.step();
        if self.state.lock().access() {
            return access.width.all_ones();
        }
        let true_value = inner();
        let mut value = true_value;
        let mut state = self.state.lock();
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
            state.note(text);
        }
        value
    }

    fn write(&self, _: Access, value: u64, inner: &dyn Fn(u64)) {
        self.step();
        let gone = self.state.lock().access();
        if !gone {
            inner(value);
        }
    }

    fn dma_write(&self, number: u32, offset: usize, bytes: &mut [u8]) {
        self.step();
        let mut state = self.state.lock();
        for (word, at) in bytes.chunks_exact_mut(8).zip((offset..).step_by(8)) {
            let mut raw = [0; 8];
            raw.copy_from_slice(word);
            let address = u64::from_le_bytes(raw);
            let taken = state.taken(|rule| match rule {
                Rule::Astray { below, when } if (LEAST_ADDRESS..*below).contains(&address) => {
                    Some((*when, ()))
                }
                _ => None,
            });
            if !taken.is_empty() {
                let page = state.random.u64(ASTRAY) & !(PAGE as u64 - 1);
                let other = page + address % PAGE as u64;
                word.copy_from_slice(&other.to_le_bytes());
                let text = format!("store region{number}+{at:#x}: {address:#x} became {other:#x}");
                state.note(text);
            }
        }
    }

    fn dma_read(&self, number: u32, offset: usize, bytes: &mut [u8]) {
        self.step();
        let mut state = self.state.lock();
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
            state.note(text);
        }
    }

    fn wait(&self, waiting: &Waiting<'_>, events: &mut [Event]) -> Result<usize, PlatformError> {
        self.step();
        if self.storm(waiting.queue, events) {
            return Ok(1);
        }
        loop {
            let ahead_ns = self.state.lock().ahead_ns;
            let deadline = match waiting.deadline {
                ddk::Deadline::NEVER => ddk::Deadline::NEVER,
                other => ddk::Deadline::at_ns(other.as_ns().saturating_sub(ahead_ns)),
            };
            let came = waiting.wait(events, deadline)?;
            let mut state = self.state.lock();
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
                    state.note(text);
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
                state.note(text);
            }
            // A wait that ended for a lost interrupt alone goes on.
            if kept > 0 || came == 0 {
                return Ok(kept);
            }
        }
    }

    fn now_ns(&self, inner: &dyn Fn() -> u64) -> u64 {
        let ahead_ns = self.state.lock().ahead_ns;
        inner().saturating_add(ahead_ns)
    }

    fn note(&self, record: Record) {
        let mut state = self.state.lock();
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
