//! Intel's gigabit Ethernet controllers 82540EM and 82574L, and the wire on them. Section numbers are those of
//! `spec-e1000`: "SDM" for the 8254x manual, "82574" for that controller's datasheet.
//!
//! What the driver sends is kept ([`E1000Model::take_sent`]) as it would be on the wire, after padding, checksums and segmentation;
//! [`E1000Model::deliver`] is what comes from the wire, through filter and packet buffer. The model is strict: a register
//! that it does not know, a write to a read-only one, an access during a reset, a tail outside of its ring or
//! over the head, a ring that changes while it is in use, a unit that is switched on before its ring exists, a
//! descriptor that contradicts its context, memory that was not given: all of them are violations.
//!
//! Not modelled: VLAN tags, jumbo frames, packet split, receive-side scaling, flow control, half duplex, the line interrupt.

mod eeprom;
mod interrupts;
mod receive;
mod registers;
mod transmit;

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, Weak};

use ddk_backend_sim::{Sim, SimInterrupt, SimPlatform, Timing};
use spec_e1000::{PCI_VENDOR, cause, ctrl, rctl, tctl};

use interrupts::Interrupts;
use registers::Ring;
use transmit::Assembly;

/// Which controller.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// 82540EM, on PCI.
    I82540em,
    /// 82574L, on PCI Express, with MSI-X.
    I82574l,
}

impl Kind {
    /// Its PCI device ID.
    pub const fn device_id(self) -> u16 {
        match self {
            Kind::I82540em => spec_e1000::DEVICE_82540EM,
            Kind::I82574l => spec_e1000::DEVICE_82574L,
        }
    }

    /// Bytes of the packet buffer that are for receiving, after a reset (SDM 13.4.11 PBA; 82574 10.2.2.12).
    const fn packet_buffer(self) -> usize {
        match self {
            Kind::I82540em => 48 << 10,
            Kind::I82574l => 20 << 10,
        }
    }
}

/// How the controller departs from the rules, from now on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Misbehaviour {
    /// Not at all.
    #[default]
    None,
    /// Takes frames to be sent and does not finish with them.
    Stuck,
    /// The same, and a reset never ends.
    Dead,
    /// Says that a received frame is longer than its buffer.
    Overlong,
    /// Says that every received frame is damaged.
    Damaged,
    /// Sends messages that have no cause.
    Spurious,
}

/// What a negotiation of the link takes, in nanoseconds: much less than with a real partner.
const NEGOTIATION_NS: RangeInclusive<u64> = 100_000..=20_000_000;
/// What the EEPROM takes to be loaded after a reset (SDM 14.6 has 10 ms as what software waits).
const LOAD_NS: RangeInclusive<u64> = 500_000..=9_000_000;
/// How long nothing may be accessed after a reset was asked for (SDM 13.4.1, CTRL.RST).
const RESET_SILENCE_NS: u64 = 1_000;

struct State {
    kind: Kind,
    mac: [u8; 6],
    misbehaviour: Misbehaviour,
    /// Resets so far: what is left of an earlier life does not happen any more.
    life: u32,
    /// When the reset was asked for that is under way.
    resetting_since: Option<u64>,
    /// The EEPROM is being read.
    loading: bool,
    gone: bool,
    ctrl: u32,
    ctrl_ext: u32,
    eerd: u32,
    eerd_busy: bool,
    rctl: u32,
    tctl: u32,
    txdctl: u32,
    rxcsum: u32,
    /// RDTR: delay of the receive timer in 1.024 µs (SDM 13.4.30).
    rdtr: u32,
    rx: Ring,
    tx: Ring,
    filter: [u32; spec_e1000::MTA_WORDS],
    /// Receive addresses: low and high halves.
    addresses: [(u32, u32); 16],
    interrupts: Interrupts,
    wire_up: bool,
    link: bool,
    /// Negotiations so far: an earlier one that was broken off does not end.
    negotiation: u32,
    /// Frames from the wire that have no place in memory yet, and their bytes.
    fifo: VecDeque<Vec<u8>>,
    fifo_bytes: usize,
    /// A frame is on its way to memory.
    rx_busy: bool,
    /// A frame is on its way from memory.
    tx_busy: bool,
    assembly: Assembly,
    sent: Vec<Vec<u8>>,
    missed: u32,
}

/// The model. [`E1000Model::platform`] puts it into a machine.
pub struct E1000Model {
    /// Itself, for what it schedules.
    me: Weak<E1000Model>,
    sim: Sim,
    timing: Timing,
    messages: Vec<Arc<SimInterrupt>>,
    state: Mutex<State>,
}

impl E1000Model {
    /// Bytes of the BAR.
    pub const BAR_BYTES: usize = 0x2_0000;

    /// A controller at the end of a wire, with this address in its EEPROM and so many MSI-X vectors.
    pub fn new(sim: &Sim, kind: Kind, mac: [u8; 6], vectors: u16) -> Arc<E1000Model> {
        // What a reset leaves undefined is something else each time (SDM 13.5.1).
        let garbage = std::array::from_fn(|_| sim.schedule().choose(1 << 32) as u32);
        let state = State {
            kind,
            mac,
            misbehaviour: Misbehaviour::None,
            life: 0,
            resetting_since: None,
            loading: false,
            gone: false,
            ctrl: 0,
            ctrl_ext: 0,
            eerd: 0,
            eerd_busy: false,
            rctl: 0,
            tctl: 0,
            txdctl: 0,
            rxcsum: 0,
            rdtr: 0,
            rx: Ring::default(),
            tx: Ring::default(),
            filter: garbage,
            addresses: [(0, 0); 16],
            interrupts: Interrupts::default(),
            wire_up: true,
            link: false,
            negotiation: 0,
            fifo: VecDeque::new(),
            fifo_bytes: 0,
            rx_busy: false,
            tx_busy: false,
            assembly: Assembly::default(),
            sent: Vec::new(),
            missed: 0,
        };
        let vectors = if kind == Kind::I82574l { vectors } else { 0 };
        let model = Arc::new_cyclic(|me| E1000Model {
            me: me.clone(),
            sim: sim.clone(),
            timing: Timing::default(),
            messages: (0..vectors).map(|_| Arc::default()).collect(),
            state: Mutex::new(state),
        });
        model.state.lock().unwrap().load_addresses();
        model
    }

    /// A platform with this controller in it.
    pub fn platform(self: &Arc<Self>, cpus: usize) -> Arc<SimPlatform> {
        let mut config = vec![0; 256];
        config[0..2].copy_from_slice(&PCI_VENDOR.to_le_bytes());
        let device_id = self.state.lock().unwrap().kind.device_id();
        config[2..4].copy_from_slice(&device_id.to_le_bytes());
        self.sim
            .platform()
            .bar(0, self.clone(), Self::BAR_BYTES)
            .config(config)
            .interrupts(self.messages.clone())
            .cpus(cpus)
            .build()
    }

    /// The simulation that it is in.
    pub fn sim(&self) -> &Sim {
        &self.sim
    }

    /// Makes it go wrong, or right again.
    pub fn misbehave(&self, how: Misbehaviour) {
        self.state.lock().unwrap().misbehaviour = how;
    }

    /// Plugs the wire in or out.
    pub fn set_wire(&self, up: bool) {
        let state = &mut *self.state.lock().unwrap();
        state.wire_up = up;
        self.negotiate(state);
    }

    /// Whether there is a link.
    pub fn has_link(&self) -> bool {
        self.state.lock().unwrap().link
    }

    /// Every register reads all ones from now on.
    pub fn unplug(&self) {
        self.state.lock().unwrap().gone = true;
    }

    /// Whether both units are off: it uses no memory.
    pub fn is_quiet(&self) -> bool {
        let state = self.state.lock().unwrap();
        state.rctl & rctl::EN == 0 && state.tctl & tctl::EN == 0
    }

    /// Takes what the driver sent, frame by frame, as it was on the wire.
    pub fn take_sent(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.state.lock().unwrap().sent)
    }

    /// Notes that the driver broke a rule.
    fn violation(&self, text: impl Into<String>) {
        self.sim.violation(text);
    }

    /// Lets `event` happen to this life of the device.
    fn later(
        &self,
        life: u32,
        delay_ns: RangeInclusive<u64>,
        event: impl FnOnce(&Self, &mut State) + Send + 'static,
    ) {
        let me = self.me.clone();
        self.sim.schedule().after(delay_ns, move || {
            let Some(me) = me.upgrade() else { return };
            let mut state = me.state.lock().unwrap();
            if state.life == life && !state.gone {
                event(&me, &mut state);
            }
        });
    }

    /// The link follows wire and driver: down at once, up after a negotiation (SDM 13.4.1 SLU, 8.6).
    fn negotiate(&self, state: &mut State) {
        state.negotiation += 1;
        let wanted = state.wire_up && state.ctrl & ctrl::SLU != 0;
        if !wanted {
            if std::mem::replace(&mut state.link, false) {
                self.raise(state, cause::LSC);
            }
            return;
        }
        if state.link {
            return;
        }
        let negotiation = state.negotiation;
        self.later(state.life, NEGOTIATION_NS, move |me, state| {
            if state.negotiation == negotiation {
                state.link = true;
                me.raise(state, cause::LSC);
                me.pump_transmit(state);
            }
        });
    }

    /// A reset is through (SDM 14.5): registers as after power-up, the packet buffer empty, the EEPROM being loaded.
    fn reset(&self, state: &mut State) {
        state.life += 1;
        state.resetting_since = None;
        state.ctrl = 0;
        state.ctrl_ext = 0;
        (state.eerd, state.eerd_busy) = (0, false);
        (
            state.rctl,
            state.tctl,
            state.txdctl,
            state.rxcsum,
            state.rdtr,
        ) = (0, 0, 0, 0, 0);
        (state.rx, state.tx) = (Ring::default(), Ring::default());
        state.interrupts.reset();
        state.link = false;
        state.fifo.clear();
        state.fifo_bytes = 0;
        (state.rx_busy, state.tx_busy) = (false, false);
        state.assembly = Assembly::default();
        state.missed = 0;
        state.loading = true;
        self.later(state.life, LOAD_NS, |_, state| {
            state.loading = false;
            state.load_addresses();
        });
    }
}

impl State {
    /// The EEPROM's address is the first receive address (SDM 13.5.2, 13.5.3); the others do not count.
    fn load_addresses(&mut self) {
        let [a, b, c, d, e, f] = self.mac;
        let high = u32::from_le_bytes([e, f, 0, 0]) | spec_e1000::RAH_VALID;
        self.addresses = [(0, 0); 16];
        self.addresses[0] = (u32::from_le_bytes([a, b, c, d]), high);
    }

    /// The 82574 makes no requests to memory while its driver forbids it (82574 3.1.3.10).
    fn may_reach_memory(&self) -> bool {
        self.ctrl & ctrl::GIO_MASTER_DISABLE == 0
    }
}
