//! Names: the 8.3 form, and long names put together from their pieces.

use alloc::{string::String, vec::Vec};

use crate::layout::{RawEntry, RawLongEntry};

/// Characters 0x80 to 0xFF of code page 437.
const CODE_PAGE_437: &str = "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐\
└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{a0}";

/// Characters of a long name in one piece.
const PIECE_CHARACTERS: usize = 13;
/// Longest long name, in UTF-16 units (FATGEN "Long Directory Entries").
const LONG_UNITS_MAX: usize = 255;
/// Bit of the order byte: the piece with the name's end, which comes first.
const LAST_PIECE: u8 = 0x40;
/// Bits of the case byte: name and extension are shown in lower case.
const LOWER_NAME: u8 = 0x08;
const LOWER_EXTENSION: u8 = 0x10;

/// The long name that the pieces seen so far make up.
#[derive(Default)]
pub struct LongName {
    units: Vec<u16>,
    /// Pieces still to come, and the checksum that all must carry.
    expected: Option<(u8, u8)>,
}

impl LongName {
    /// Takes a piece. One that does not fit drops the name: its 8.3 form is
    /// used then, as other systems do.
    pub fn add(&mut self, piece: &RawLongEntry) {
        let order = piece.order & !LAST_PIECE;
        if piece.order & LAST_PIECE != 0 && (1..=20).contains(&order) {
            self.units.clear();
            self.units
                .resize(usize::from(order) * PIECE_CHARACTERS, 0xFFFF);
        } else if self.expected != Some((order, piece.checksum)) || order == 0 {
            return self.drop();
        }
        let start = (usize::from(order) - 1) * PIECE_CHARACTERS;
        let from = piece
            .name_1
            .iter()
            .chain(&piece.name_2)
            .chain(&piece.name_3);
        for (unit, from) in self.units.iter_mut().skip(start).zip(from) {
            *unit = from.get();
        }
        self.expected = Some((order - 1, piece.checksum));
    }

    /// Forgets the pieces.
    pub fn drop(&mut self) {
        self.expected = None;
    }

    /// The name, if all pieces are there and belong to this 8.3 name.
    pub fn take(&mut self, short: &[u8; 11]) -> Option<Vec<u8>> {
        let (0, checksum) = self.expected.take()? else {
            return None;
        };
        if checksum != short_checksum(short) {
            return None;
        }
        let len = self
            .units
            .iter()
            .position(|unit| *unit == 0)
            .unwrap_or(self.units.len());
        let units = self
            .units
            .get(..len)
            .filter(|units| units.len() <= LONG_UNITS_MAX)?;
        let name: String = char::decode_utf16(units.iter().copied())
            .map(|c| c.unwrap_or('\u{FFFD}'))
            .collect();
        let usable = !name.is_empty() && name != "." && name != ".." && !name.contains('/');
        usable.then(|| name.into_bytes())
    }
}

/// Checksum of the 8.3 name that each piece carries (FATGEN, same section).
pub fn short_checksum(name: &[u8; 11]) -> u8 {
    name.iter()
        .fold(0u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte))
}

/// The 8.3 name as it is shown.
pub fn short_name(entry: &RawEntry) -> Vec<u8> {
    let (base, extension) = entry.name.split_at(8);
    let mut name = String::new();
    part(&mut name, base, entry.case & LOWER_NAME != 0);
    let extension = extension.trim_ascii_end();
    if !extension.is_empty() {
        name.push('.');
        part(&mut name, extension, entry.case & LOWER_EXTENSION != 0);
    }
    name.into_bytes()
}

fn part(name: &mut String, bytes: &[u8], lower: bool) {
    for (at, byte) in bytes.trim_ascii_end().iter().enumerate() {
        let character = match byte {
            // 0xE5 would mark a deleted entry.
            0x05 if at == 0 => 'σ',
            0x80.. => CODE_PAGE_437
                .chars()
                .nth(usize::from(byte - 0x80))
                .unwrap_or('_'),
            b'/' | 0..=0x1F => '_',
            byte => char::from(*byte),
        };
        if lower {
            name.extend(character.to_lowercase());
        } else {
            name.push(character);
        }
    }
}

/// The form in which two names are the same.
pub fn fold(name: &[u8]) -> Vec<u8> {
    match core::str::from_utf8(name) {
        Ok(name) if !name.is_ascii() => name.to_lowercase().into_bytes(),
        _ => name.to_ascii_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_page_is_complete() {
        assert_eq!(CODE_PAGE_437.chars().count(), 128);
        assert_eq!(CODE_PAGE_437.chars().nth(0xE5 - 0x80), Some('σ'));
    }
}
