//! The BAR: registers (3.1) and doorbells (3.1.24, 3.1.25), with checks of what is written where and when.

use ddk::{Bus, Width};
use spec_nvme::register::{QUEUE_ENTRIES_MIN, cc, csts, offset};

use crate::prp::PAGE;
use crate::queue::{CompletionQueue, SubmissionQueue};
use crate::{Misbehaviour, NvmeModel, NvmeState};

/// Fields of CC that must not change while the controller is enabled (3.1.5).
const FIXED: u32 = 0x00ff_3ff0;

impl NvmeState {
    /// CAP (3.1.1): contiguous queues, the NVM command set, pages from the smallest to 2^16 bytes.
    fn capabilities(&self) -> u64 {
        let o = &self.options;
        u64::from(o.entries - 1)
            | 1 << 16
            | u64::from(o.timeout) << 24
            | u64::from(o.doorbell_stride) << 32
            | 1 << 37
            | u64::from(o.page_min_shift - 12) << 48
            | 4 << 52
    }

    /// The controller was enabled: it looks at the admin queues.
    pub(crate) fn start(&mut self) {
        let (asq, acq) = (self.asq, self.acq);
        let entries = |field: u32| (field & 0xfff) as u16 + 1;
        let (submissions, completions) = (entries(self.aqa), entries(self.aqa >> 16));
        if submissions < QUEUE_ENTRIES_MIN || completions < QUEUE_ENTRIES_MIN {
            self.violation(format!("AQA {:#x}: queues of one entry", self.aqa));
        }
        if !asq.is_multiple_of(PAGE) || !acq.is_multiple_of(PAGE) || asq == 0 || acq == 0 {
            self.violation(format!("admin queues at {asq:#x} and {acq:#x}"));
        }
        if self.cc & FIXED != cc::NVM_ENTRY_SIZES {
            self.violation(format!("CC {:#x}: entry sizes, page size or set", self.cc));
        }
        let queue = SubmissionQueue::new(asq, submissions, 0);
        self.submissions.insert(0, queue);
        let queue = CompletionQueue::new(acq, completions, Some(0));
        self.completions.insert(0, queue);
    }

    /// The controller was disabled: from now on, and not earlier, it uses no memory of the host.
    pub(crate) fn reset(&mut self) {
        let submissions = self.submissions.values().map(|queue| queue.base);
        let completions = self.completions.values().map(|queue| queue.base);
        for base in submissions.chain(completions) {
            if self.memory.read(base, &mut [0; 1]).is_err() {
                self.violation(format!(
                    "queue at {base:#x} given back before RDY was clear"
                ));
            }
        }
        if self.misbehaviour == Misbehaviour::Mute {
            self.misbehaviour = Misbehaviour::None;
        }
        self.submissions.clear();
        self.completions.clear();
        self.granted = None;
        self.held.clear();
        self.listeners.clear();
        self.events.clear();
        self.masked.clear();
        self.configured = 0;
        self.fire.clear();
    }

    fn configure(&mut self, value: u32) {
        if value & cc::RESERVED != 0 {
            self.violation(format!("CC {value:#x}: reserved bits"));
        }
        let (was, is) = (self.cc & cc::EN != 0, value & cc::EN != 0);
        let ready = self.csts & csts::RDY != 0;
        if was && (self.cc ^ value) & FIXED != 0 {
            self.violation(format!(
                "CC from {:#x} to {value:#x} while enabled",
                self.cc
            ));
        }
        if !was && is && ready {
            self.violation("CC.EN set before CSTS.RDY was clear".into());
        }
        let excused = self.csts & csts::CFS != 0 || self.misbehaviour != Misbehaviour::None;
        if was && !is && !ready && !excused {
            self.violation("CC.EN cleared before CSTS.RDY was set".into());
        }
        self.cc = value;
    }

    fn doorbell(&mut self, at: usize, width: Width, value: u64) {
        let stride = 4 << self.options.doorbell_stride;
        let index = at / stride;
        let (queue, completion) = ((index / 2) as u16, index % 2 == 1);
        let name = if completion { "head" } else { "tail" };
        if !at.is_multiple_of(stride) || width != Width::U32 {
            self.violation(format!("doorbell write of {width:?} at {at:#x}"));
            return;
        }
        let enabled = self.cc & cc::EN != 0 && self.csts & csts::RDY != 0;
        if !enabled || self.csts & csts::SHST_MASK != 0 {
            self.violation(format!("doorbell of queue {queue} while not ready"));
            return;
        }
        if queue != 0 {
            self.doorbells[usize::from(completion)] += 1;
        }
        let rung = if completion {
            self.completions
                .get_mut(&queue)
                .map(|q| q.ring(value as u32))
        } else {
            self.submissions
                .get_mut(&queue)
                .map(|q| q.ring(value as u32))
        };
        match rung {
            Some(Ok(())) => {}
            Some(Err(problem)) => self.violation(format!("{name} of queue {queue}: {problem}")),
            None => self.violation(format!("{name} of queue {queue}, which does not exist")),
        }
    }
}

impl Bus for NvmeModel {
    fn read(&self, at: usize, width: Width) -> u64 {
        let state = self.state.lock().unwrap();
        if state.gone {
            return width.all_ones();
        }
        match (at, width) {
            (offset::CAP, Width::U64) => state.capabilities(),
            (offset::VS, Width::U32) => state.options.version.into(),
            (offset::CC, Width::U32) => state.cc.into(),
            (offset::CSTS, Width::U32) => state.csts.into(),
            (offset::AQA, Width::U32) => state.aqa.into(),
            (offset::ASQ, Width::U64) => state.asq,
            (offset::ACQ, Width::U64) => state.acq,
            _ => {
                state.violation(format!("read of {width:?} at {at:#x}"));
                0
            }
        }
    }

    fn write(&self, at: usize, width: Width, value: u64) {
        let mut state = self.state.lock().unwrap();
        if state.gone {
            return;
        }
        if at >= offset::DOORBELLS {
            state.doorbell(at - offset::DOORBELLS, width, value);
            return;
        }
        let enabled = state.cc & cc::EN != 0;
        match (at, width) {
            (offset::CC, Width::U32) => state.configure(value as u32),
            (offset::AQA | offset::ASQ | offset::ACQ, _) if enabled => {
                state.violation(format!("admin queue register {at:#x} while enabled"));
            }
            (offset::AQA, Width::U32) => {
                if value & 0xf000_f000 != 0 {
                    state.violation(format!("AQA {value:#x}: reserved bits"));
                }
                state.aqa = value as u32;
            }
            (offset::ASQ, Width::U64) => state.asq = value,
            (offset::ACQ, Width::U64) => state.acq = value,
            _ => state.violation(format!("write of {value:#x}, {width:?}, at {at:#x}")),
        }
    }
}
