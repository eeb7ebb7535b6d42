//! The EEPROM, which holds the address (SDM 5.6).

use ddk::{DeviceContext, DriverError, alive};
use ddk_class_net::MacAddress;
use spec_e1000::eeprom;

use crate::Family;
use crate::registers::Registers;

/// Time for a word.
const WORD_LIMIT_MS: u32 = 100;

/// Reads a word.
async fn word(
    cx: &DeviceContext,
    registers: &Registers,
    family: Family,
    address: u16,
) -> Result<u16, DriverError> {
    let (shift, done) = match family {
        Family::Pci8254x => (eeprom::ADDRESS_SHIFT_8254X, eeprom::DONE_8254X),
        Family::Pcie82574 => (eeprom::ADDRESS_SHIFT_82574, eeprom::DONE_82574),
    };
    let request = u32::from(address) << shift | eeprom::START;
    registers.eerd().write(request);
    let mut answer = 0;
    let read = || {
        answer = alive("EERD", registers.eerd().read())?;
        Ok(answer & done != 0)
    };
    cx.poll_until("read of the EEPROM", WORD_LIMIT_MS, read)
        .await?;
    Ok((answer >> eeprom::DATA_SHIFT) as u16)
}

/// The address, if the words that are checked add up.
pub(crate) async fn mac(
    cx: &DeviceContext,
    registers: &Registers,
    family: Family,
) -> Result<MacAddress, DriverError> {
    let mut bytes = [0; 6];
    let mut sum: u16 = 0;
    for address in 0..eeprom::CHECKED_WORDS {
        let word = word(cx, registers, family, address).await?;
        sum = sum.wrapping_add(word);
        let places = bytes.chunks_exact_mut(2).nth(address.into());
        if let Some(place) = places {
            place.copy_from_slice(&word.to_le_bytes());
        }
    }
    if sum != eeprom::CHECKSUM {
        return Err(DriverError::Protocol {
            what: "checksum of the EEPROM",
            expected: eeprom::CHECKSUM.into(),
            seen: sum.into(),
        });
    }
    let mac = MacAddress(bytes);
    if !mac.is_unicast() {
        return Err(DriverError::Protocol {
            what: "first byte of the address in the EEPROM, which is a group's",
            expected: 0,
            seen: bytes[0].into(),
        });
    }
    Ok(mac)
}
