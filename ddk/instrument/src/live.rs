//! Faults in a driver that serves: the plan comes from outside and changes while it runs.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use ddk::{Event, PlatformError};
use spin::Mutex;

use crate::faults::{Change, Faults, Rule, When};
use crate::probe::{Access, Probe, Waiting, Wanted};
use crate::record::Record;

/// A plan as it comes from outside.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Plan {
    /// Counts plans; 0 while there is none.
    pub sequence: u64,
    /// Which fault, see [`Plan::rule`]. From [`Plan::SYSTEM`] on it is the home's own business.
    pub kind: u64,
    /// A number of the fault's.
    pub parameter: u64,
    /// Seed of its choices.
    pub seed: u64,
}

impl Plan {
    /// The first kind that is not a rule of this crate.
    pub const SYSTEM: u64 = 100;

    /// The rule that it stands for.
    pub fn rule(&self) -> Option<Rule> {
        let one_in = |times: u64| match times {
            0 | 1 => When::Always,
            times => When::OneIn(u32::try_from(times).unwrap_or(u32::MAX)),
        };
        let register = |change, when| Rule::Register {
            place: None,
            offset: None,
            change,
            when,
        };
        let when = one_in(self.parameter);
        Some(match self.kind {
            1 => register(Change::FlipOne, when),
            2 => register(Change::To(self.seed), when),
            3 => Rule::Gone {
                access: self.parameter,
            },
            4 => Rule::Memory { region: None, when },
            5 => Rule::LostInterrupt { when },
            6 => Rule::ExtraInterrupt { when },
            7 => Rule::InterruptStorm {
                interrupts: self.parameter,
            },
            8 => Rule::Refused { wanted: None, when },
            9 => Rule::End {
                step: self.parameter,
            },
            10 => Rule::Hang {
                step: self.parameter,
            },
            11 => Rule::Slow {
                access_ns: self.parameter,
            },
            12 => Rule::Astray {
                below: 1 << 32,
                when,
            },
            _ => return None,
        })
    }
}

/// Where the plan comes from, where word of faults goes, and what the home does about kinds of its own.
pub trait PlanReader: Send + Sync + 'static {
    /// The plan as it is now.
    fn plan(&self) -> Plan;
    /// The first fault by a plan was injected.
    fn injected(&self, plan: &Plan, text: &str);
    /// Carries out a fault that is no rule; says what it did.
    fn system(&self, plan: &Plan) -> String;
}

struct State {
    plan: Plan,
    faults: Arc<Faults>,
    /// Interrupts that are bound, for the next plan.
    bound: Vec<Record>,
}

/// The probe.
pub struct Live {
    reader: Arc<dyn PlanReader>,
    state: Mutex<State>,
}

impl Live {
    /// A probe that asks for its plan at each occasion.
    pub fn new(reader: impl PlanReader) -> Arc<Live> {
        Arc::new(Live {
            reader: Arc::new(reader),
            state: Mutex::new(State {
                plan: Plan::default(),
                faults: Faults::new(0, []),
                bound: Vec::new(),
            }),
        })
    }

    /// The faults in force.
    fn faults(&self) -> Arc<Faults> {
        let plan = self.reader.plan();
        let mut state = self.state.lock();
        if plan.sequence == state.plan.sequence {
            return state.faults.clone();
        }
        state.plan = plan;
        let reader = self.reader.clone();
        state.faults = Faults::telling(plan.seed, plan.rule(), move |text| {
            reader.injected(&plan, text);
        });
        for record in &state.bound {
            state.faults.note(record.clone());
        }
        let faults = state.faults.clone();
        drop(state);
        if plan.kind >= Plan::SYSTEM && plan.sequence != 0 {
            let text = self.reader.system(&plan);
            self.reader.injected(&plan, &text);
        }
        faults
    }
}

impl Probe for Live {
    fn want(&self, wanted: Wanted) -> Result<(), PlatformError> {
        self.faults().want(wanted)
    }

    fn read(&self, access: Access, inner: &dyn Fn() -> u64) -> u64 {
        self.faults().read(access, inner)
    }

    fn write(&self, access: Access, value: u64, inner: &dyn Fn(u64)) {
        self.faults().write(access, value, inner);
    }

    fn dma_read(&self, region: u32, offset: usize, bytes: &mut [u8]) {
        self.faults().dma_read(region, offset, bytes);
    }

    fn dma_write(&self, region: u32, offset: usize, bytes: &mut [u8]) {
        self.faults().dma_write(region, offset, bytes);
    }

    fn wait(&self, waiting: &Waiting<'_>, events: &mut [Event]) -> Result<usize, PlatformError> {
        self.faults().wait(waiting, events)
    }

    fn now_ns(&self, inner: &dyn Fn() -> u64) -> u64 {
        self.faults().now_ns(inner)
    }

    fn note(&self, record: Record) {
        {
            let mut state = self.state.lock();
            match &record {
                Record::Bind { index, .. } | Record::Unbind(index) => {
                    let index = *index;
                    let other =
                        |r: &Record| !matches!(r, Record::Bind { index: i, .. } if *i == index);
                    state.bound.retain(other);
                    if let Record::Bind { .. } = record {
                        state.bound.push(record.clone());
                    }
                }
                _ => {}
            }
        }
        self.faults().note(record);
    }
}
