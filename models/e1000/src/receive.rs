//! From the wire to memory (SDM 3.2).

use spec_e1000::{DESCRIPTOR_BYTES, cause, rctl, rx};

use crate::{E1000Model, Misbehaviour, State};

/// Receiver overrun, in ICR (SDM 13.4.17).
const CAUSE_RXO: u32 = 1 << 6;
/// Receiver timer, in ICR.
const CAUSE_RXT0: u32 = 1 << 7;
/// Units of RDTR in nanoseconds (SDM 13.4.30).
const RDTR_UNIT_NS: u64 = 1024;
/// Shortest and longest frames that are received, without check sequence and with a VLAN tag (SDM 13.4.22 LPE, 3.2.1).
const FRAME_MIN: usize = 60;
const FRAME_MAX: usize = 1518;
/// IPv4 checksum offload and TCP/UDP checksum offload, in RXCSUM (SDM 13.4.26).
const IPOFL: u32 = 1 << 8;
const TUOFL: u32 = 1 << 9;

impl State {
    /// Bytes of a receive buffer (SDM 13.4.22: BSIZE, BSEX).
    fn buffer_bytes(&self) -> usize {
        let size = 2048 >> (self.rctl >> 16 & 3);
        if self.rctl & 1 << 25 != 0 {
            size * 16
        } else {
            size
        }
    }

    /// The filter (SDM 3.2.1, 13.5.1).
    fn accepts(&self, to: &[u8; 6]) -> bool {
        let on = |bit| self.rctl & bit != 0;
        if *to == [0xff; 6] {
            return on(rctl::BAM) || on(rctl::MPE);
        }
        let [a, b, c, d, e, f] = *to;
        let low = u32::from_le_bytes([a, b, c, d]);
        let high = u32::from_le_bytes([e, f, 0, 0]) | spec_e1000::RAH_VALID;
        if self.addresses.contains(&(low, high)) {
            return true;
        }
        if a & 1 == 0 {
            return on(rctl::UPE);
        }
        let (word, bit) = spec_e1000::multicast_hash(*to);
        on(rctl::MPE) || self.filter[word] & 1 << bit != 0
    }
}

impl E1000Model {
    /// A frame comes from the wire. `false`: it was filtered, or had no room.
    ///
    /// # Panics
    /// With less than an address.
    pub fn deliver(&self, frame: &[u8]) -> bool {
        let state = &mut *self.state.lock().unwrap();
        if state.gone || !state.link || state.rctl & rctl::EN == 0 {
            return false;
        }
        // Short and long ones are counted in registers that no driver here reads.
        if !(FRAME_MIN..=FRAME_MAX).contains(&frame.len()) {
            return false;
        }
        if !state.accepts(frame[..6].try_into().expect("six bytes")) {
            return false;
        }
        if state.fifo_bytes + frame.len() > state.kind.packet_buffer() {
            state.missed += 1;
            self.raise(state, CAUSE_RXO);
            return false;
        }
        state.fifo_bytes += frame.len();
        state.fifo.push_back(frame.to_vec());
        self.pump_receive(state);
        true
    }

    /// Takes up the next frame, if there is one and a buffer for it.
    pub(crate) fn pump_receive(&self, state: &mut State) {
        let Some(frame) = state.fifo.front() else {
            return;
        };
        let needed = frame.len().div_ceil(state.buffer_bytes());
        let ready = state.rctl & rctl::EN != 0
            && state.may_reach_memory()
            && usize::from(state.rx.available()) >= needed;
        if ready && !std::mem::replace(&mut state.rx_busy, true) {
            let delay = self.timing.fetch_ns.clone();
            self.later(state.life, delay, |me, state| me.place(state));
        }
    }

    /// Puts a frame into memory.
    fn place(&self, state: &mut State) {
        let Some(frame) = state.fifo.pop_front() else {
            return;
        };
        state.fifo_bytes -= frame.len();
        let size = state.buffer_bytes();
        let mut index = state.rx.head;
        for piece in frame.chunks(size) {
            let mut descriptor = [0; DESCRIPTOR_BYTES];
            if let Err(error) = self.sim.memory().read(state.rx.at(index), &mut descriptor) {
                return self.violation(format!("receive descriptor {index}: {error:?}"));
            }
            let address = u64::from_le_bytes(descriptor[..8].try_into().expect("eight bytes"));
            if let Err(error) = self.sim.memory().write(address, piece) {
                self.violation(format!("receive buffer of {address:#x}: {error:?}"));
            }
            index = state.rx.after(index);
        }
        let delay = self.timing.publish_ns.clone();
        self.later(state.life, delay, move |me, state| {
            me.write_back(state, &frame)
        });
    }

    /// Shows the driver a frame that is in memory (SDM 3.2.3).
    fn write_back(&self, state: &mut State, frame: &[u8]) {
        let size = state.buffer_bytes();
        let count = frame.len().div_ceil(size);
        let sums = model_offload::received(frame);
        let (mut status, mut errors) = (rx::STATUS_DD, 0);
        if state.rxcsum & IPOFL != 0
            && let Some(right) = sums.header
        {
            status |= rx::STATUS_IPCS;
            errors |= if right { 0 } else { rx::ERROR_IPE };
        }
        if state.rxcsum & TUOFL != 0
            && let Some(right) = sums.transport
        {
            status |= rx::STATUS_TCPCS;
            errors |= if right { 0 } else { rx::ERROR_TCPE };
        }
        if status & (rx::STATUS_IPCS | rx::STATUS_TCPCS) == 0 {
            status |= rx::STATUS_IXSM;
        }
        if state.misbehaviour == Misbehaviour::Damaged {
            errors |= rx::ERROR_FRAME & 1;
        }
        for (n, piece) in frame.chunks(size).enumerate() {
            let length = match state.misbehaviour {
                Misbehaviour::Overlong => u16::MAX,
                _ => piece.len() as u16,
            };
            let end = if n + 1 == count { rx::STATUS_EOP } else { 0 };
            let mut words = [0; 8];
            words[..2].copy_from_slice(&length.to_le_bytes());
            words[rx::STATUS - 8] = status | end;
            words[rx::ERRORS - 8] = errors;
            let place = state.rx.at(state.rx.head) + rx::LENGTH as u64;
            if let Err(error) = self.sim.memory().write(place, &words) {
                self.violation(format!("receive descriptor: {error:?}"));
            }
            state.rx.head = state.rx.after(state.rx.head);
        }
        state.rx_busy = false;
        let delay_ns = u64::from(state.rdtr & 0xffff) * RDTR_UNIT_NS;
        if delay_ns == 0 {
            self.raise(state, CAUSE_RXT0 | cause::RXQ0);
        } else {
            self.later(state.life, delay_ns..=delay_ns, |me, state| {
                me.raise(state, CAUSE_RXT0 | cause::RXQ0);
            });
        }
        self.pump_receive(state);
    }
}
