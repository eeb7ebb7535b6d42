//! The EEPROM and its read register (SDM 5.6, 13.4.4; 82574 10.2.2.5).

use spec_e1000::eeprom;

use crate::{E1000Model, Kind, State};

/// What a read takes, in nanoseconds.
const READ_NS: std::ops::RangeInclusive<u64> = 5_000..=100_000;

impl State {
    /// A word: the address, words that mean nothing here, and the one that makes the sum right.
    fn eeprom_word(&self, address: u16) -> u16 {
        let word = |at: u16| match at {
            0..=2 => {
                let pair = self.mac.chunks_exact(2).nth(at.into());
                pair.map_or(0, |pair| u16::from_le_bytes([pair[0], pair[1]]))
            }
            at => at.wrapping_mul(0x1234),
        };
        let last = eeprom::CHECKED_WORDS - 1;
        if address == last {
            let sum = (0..last).fold(0u16, |sum, at| sum.wrapping_add(word(at)));
            return eeprom::CHECKSUM.wrapping_sub(sum);
        }
        word(address)
    }
}

impl E1000Model {
    /// A write to EERD.
    pub(crate) fn start_eeprom_read(&self, state: &mut State, value: u32) {
        let (shift, done) = match state.kind {
            Kind::I82540em => (eeprom::ADDRESS_SHIFT_8254X, eeprom::DONE_8254X),
            Kind::I82574l => (eeprom::ADDRESS_SHIFT_82574, eeprom::DONE_82574),
        };
        let address = (value & 0xffff) >> shift;
        if value & eeprom::START == 0 || address >= u32::from(eeprom::CHECKED_WORDS) {
            return self.violation(format!("EERD written with {value:#x}"));
        }
        if state.loading || std::mem::replace(&mut state.eerd_busy, true) {
            return self.violation("read of the EEPROM while it is being read");
        }
        state.eerd = value & !done;
        self.later(state.life, READ_NS, move |_, state| {
            state.eerd_busy = false;
            let word = u32::from(state.eeprom_word(address as u16));
            state.eerd = word << eeprom::DATA_SHIFT | address << shift | done;
        });
    }
}
