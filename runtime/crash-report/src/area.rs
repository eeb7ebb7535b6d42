//! A disk or partition for crash reports, without a file system: a report is written where nothing else is needed, and read
//! on the host from the image or the device.
//!
//! The area is cut into slots of [`SLOT_BYTES`]. A slot begins with a head of [`HEAD_BYTES`]: magic (8 bytes), sequence number
//! (8), length of the body (4), CRC-32 (ISO-HDLC) of sequence, length and body (4), zeroes; little-endian. The body is
//! a report as JSON. The highest sequence number is the newest; the next one goes into the slot after it, around the end. A slot that a
//! power failure cut has a wrong checksum, and is none.

use alloc::vec::Vec;

use crc::{CRC_32_ISO_HDLC, Crc};

/// Bytes of a slot.
pub const SLOT_BYTES: usize = 256 * 1024;
/// Most slots that are used of an area.
pub const SLOTS_MAX: u64 = 64;
/// Bytes of the head.
pub const HEAD_BYTES: usize = 32;
/// What is written is a multiple of this: no disk has larger blocks here.
pub const BLOCK_BYTES: usize = 4096;

const MAGIC: [u8; 8] = *b"BHCRASH\x01";

/// How many slots an area of so many bytes has.
pub const fn slots(len_bytes: u64) -> u64 {
    let slots = len_bytes / SLOT_BYTES as u64;
    if slots < SLOTS_MAX { slots } else { SLOTS_MAX }
}

/// The head of a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Head {
    /// Counts reports over all runs of the system, from 1.
    pub sequence: u64,
    len: u32,
    crc32: u32,
}

fn checksum(sequence: u64, body: &[u8]) -> u32 {
    let crc = Crc::<u32>::new(&CRC_32_ISO_HDLC);
    let mut digest = crc.digest();
    digest.update(&sequence.to_le_bytes());
    digest.update(&(body.len() as u32).to_le_bytes());
    digest.update(body);
    digest.finalize()
}

/// Whether an area that begins with these bytes may be written: it holds reports, or nothing.
pub fn is_ours(start: &[u8]) -> bool {
    start.starts_with(&MAGIC) || start.iter().all(|byte| *byte == 0)
}

/// What is written to a slot, whole blocks; `None` if it is too long.
pub fn encode(sequence: u64, body: &[u8]) -> Option<Vec<u8>> {
    let len = HEAD_BYTES.checked_add(body.len())?;
    if len > SLOT_BYTES {
        return None;
    }
    let mut slot = Vec::with_capacity(len.next_multiple_of(BLOCK_BYTES));
    slot.extend_from_slice(&MAGIC);
    slot.extend_from_slice(&sequence.to_le_bytes());
    slot.extend_from_slice(&(body.len() as u32).to_le_bytes());
    slot.extend_from_slice(&checksum(sequence, body).to_le_bytes());
    slot.resize(HEAD_BYTES, 0);
    slot.extend_from_slice(body);
    slot.resize(len.next_multiple_of(BLOCK_BYTES), 0);
    Some(slot)
}

/// The head that a slot begins with, if it is one.
pub fn head(slot: &[u8]) -> Option<Head> {
    let rest = slot.strip_prefix(&MAGIC)?;
    let (sequence, rest) = rest.split_first_chunk()?;
    let (len, rest) = rest.split_first_chunk()?;
    let (crc32, _) = rest.split_first_chunk()?;
    Some(Head {
        sequence: u64::from_le_bytes(*sequence),
        len: u32::from_le_bytes(*len),
        crc32: u32::from_le_bytes(*crc32),
    })
}

/// The sequence number and body of a whole slot, if it holds one undamaged.
pub fn decode(slot: &[u8]) -> Option<(u64, &[u8])> {
    let head = head(slot)?;
    let end = HEAD_BYTES.checked_add(usize::try_from(head.len).ok()?)?;
    let body = slot.get(HEAD_BYTES..end)?;
    (checksum(head.sequence, body) == head.crc32).then_some((head.sequence, body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn a_slot_gives_what_was_put_in() {
        let slot = encode(7, b"{\"a\":1}").unwrap();
        assert_eq!(slot.len(), BLOCK_BYTES);
        assert_eq!(head(&slot).unwrap().sequence, 7);
        assert_eq!(decode(&slot), Some((7, &b"{\"a\":1}"[..])));
        assert!(is_ours(&slot) && is_ours(&[0; 512]) && !is_ours(b"\xebx"));
        assert_eq!(encode(1, &vec![0; SLOT_BYTES]), None);
        assert_eq!(
            (slots(0), slots(1 << 20), slots(1 << 40)),
            (0, 4, SLOTS_MAX)
        );
    }

    #[test]
    fn a_damaged_slot_is_none() {
        let slot = encode(7, &[5; 100]).unwrap();
        for place in 0..HEAD_BYTES - 8 + 100 {
            let place = if place < 24 { place } else { place + 8 };
            let mut damaged = slot.clone();
            damaged[place] ^= 1;
            assert_eq!(decode(&damaged), None, "byte {place}");
        }
        for len in 0..132 {
            assert_eq!(decode(&slot[..len]), None);
        }
    }
}
