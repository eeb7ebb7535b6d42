//! Causes, masks and messages (SDM 13.4.17 to 13.4.21; 82574 7.4, 10.2.4).

use spec_e1000::{cause, ctrl_ext, ivar};

use crate::{E1000Model, Kind, Misbehaviour, State};

/// Interrupt asserted, in ICR (82574 10.2.4.1).
const INT_ASSERTED: u32 = 1 << 31;
/// Units of EITR in nanoseconds (82574 10.2.4.10).
const EITR_UNIT_NS: u64 = 256;
/// Causes of the queues and all others, with their places in IVAR.
const MAPPED: [(u32, u32); 3] = [
    (cause::RXQ0, ivar::RXQ0_SHIFT),
    (cause::TXQ0, ivar::TXQ0_SHIFT),
    (cause::OTHER, ivar::OTHER_SHIFT),
];
/// Vectors of the 82574.
const VECTORS: usize = 5;

#[derive(Default)]
pub(crate) struct Interrupts {
    pub(crate) icr: u32,
    pub(crate) ims: u32,
    pub(crate) eiac: u32,
    pub(crate) iam: u32,
    pub(crate) ivar: u32,
    pub(crate) eitr: [u32; VECTORS],
    /// When each vector's message was sent last.
    sent_ns: [u64; VECTORS],
    /// A message of the vector is under way.
    under_way: [bool; VECTORS],
}

impl Interrupts {
    pub(crate) fn reset(&mut self) {
        *self = Interrupts::default();
    }

    /// Causes that lead to a vector.
    fn causes_of(&self, vector: usize) -> u32 {
        let leads = |shift: u32| {
            let entry = self.ivar >> shift & 0xf;
            entry & ivar::VALID != 0 && (entry & 7) as usize == vector
        };
        let mapped = MAPPED.iter().filter(|(_, shift)| leads(*shift));
        mapped.fold(0, |all, (bit, _)| all | bit)
    }
}

impl E1000Model {
    /// Something happened.
    pub(crate) fn raise(&self, state: &mut State, causes: u32) {
        let queues = cause::RXQ0 | cause::TXQ0;
        // 82574 10.2.4.1: whatever is not a queue's is told with OTHER as well.
        let others = causes & !queues & (cause::LSC | 1 << 6) != 0;
        let all = match state.kind {
            Kind::I82574l if others => causes | cause::OTHER,
            Kind::I82574l => causes,
            Kind::I82540em => causes & !queues,
        };
        let new = all & !state.interrupts.icr;
        state.interrupts.icr |= all;
        self.message(state, new);
    }

    /// Causes that are new or newly allowed become messages.
    pub(crate) fn message(&self, state: &mut State, causes: u32) {
        let told = causes & state.interrupts.icr & state.interrupts.ims;
        for vector in 0..VECTORS.min(self.messages.len()) {
            let interrupts = &mut state.interrupts;
            if told & interrupts.causes_of(vector) == 0 || interrupts.under_way[vector] {
                continue;
            }
            interrupts.under_way[vector] = true;
            // 82574 7.4.4: no sooner than the interval after the one before.
            let interval = u64::from(interrupts.eitr[vector] & 0xffff) * EITR_UNIT_NS;
            let due = interrupts.sent_ns[vector].saturating_add(interval);
            let wait = due.saturating_sub(self.sim.now_ns());
            let (least, most) = (
                *self.timing.interrupt_ns.start(),
                *self.timing.interrupt_ns.end(),
            );
            self.later(state.life, wait + least..=wait + most, move |me, state| {
                me.send_message(state, vector)
            });
        }
    }

    fn send_message(&self, state: &mut State, vector: usize) {
        let interrupts = &mut state.interrupts;
        interrupts.under_way[vector] = false;
        let causes = interrupts.causes_of(vector);
        if interrupts.icr & interrupts.ims & causes == 0 {
            return;
        }
        interrupts.sent_ns[vector] = self.sim.now_ns();
        // 82574 10.2.4.7, and 10.2.2.3 for EIAME.
        interrupts.icr &= !(interrupts.eiac & causes);
        if state.ctrl_ext & ctrl_ext::EIAME != 0 {
            interrupts.ims &= !(interrupts.iam & causes);
        }
        self.messages[vector].fire();
        if state.misbehaviour == Misbehaviour::Spurious {
            self.messages[vector].fire();
        }
    }

    /// A read of ICR.
    pub(crate) fn read_causes(&self, state: &mut State) -> u32 {
        let asserted = state.interrupts.icr & state.interrupts.ims != 0;
        let seen = match asserted {
            true => state.interrupts.icr | INT_ASSERTED,
            false => state.interrupts.icr,
        };
        match state.kind {
            // SDM 13.4.17.
            Kind::I82540em => state.interrupts.icr = 0,
            // 82574 10.2.4.1: it is cleared where everything is masked, or an interrupt is asserted.
            Kind::I82574l => {
                if state.interrupts.ims == 0 || asserted {
                    state.interrupts.icr = 0;
                }
                if asserted {
                    state.interrupts.ims &= !state.interrupts.iam;
                }
            }
        }
        seen
    }
}
