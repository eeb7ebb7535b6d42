//! A disk or partition for crash reports, without a file system: a report is written where nothing else is needed, and read
//! on the host from the image or the device.
//!
//! The area is cut into slots of [`SLOT_BYTES`]. A slot begins with a head of [`HEAD_BYTES`]: magic (8 bytes), sequence number
//! (8), length of the body (4), CRC-32 (ISO-HDLC) of sequence, length and body (4), zeroes; little-endian. The body is
//! a report as JSON, or a part of a trace ([`part`]): a trace stands in the slots before its report. The highest sequence number is the newest; the next one goes into the slot after it, around the end. A slot that a
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

/// What the body of a slot with a part of a trace begins with; no JSON does.
const PART: [u8; 4] = *b"BHTP";
const PART_HEAD_BYTES: usize = 12;
/// Most bytes of a trace in one slot.
pub const PART_BYTES: usize = SLOT_BYTES - HEAD_BYTES - PART_HEAD_BYTES;

/// Most bytes of a trace in an area of so many slots: it takes no more than half of them.
pub const fn trace_bytes_max(slots: u64) -> u64 {
    slots / 2 * PART_BYTES as u64
}

/// The body of a slot with part `number` of `parts` (from 0 on) of a trace. The report to which it belongs
/// comes into the slot after the last part.
pub fn part(number: u32, parts: u32, bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::with_capacity(PART_HEAD_BYTES.saturating_add(bytes.len()));
    body.extend_from_slice(&PART);
    body.extend_from_slice(&number.to_le_bytes());
    body.extend_from_slice(&parts.to_le_bytes());
    body.extend_from_slice(bytes);
    body
}

/// Number, count and contents of a part; `None` for the body of a report.
pub fn as_part(body: &[u8]) -> Option<(u32, u32, &[u8])> {
    let rest = body.strip_prefix(&PART)?;
    let (number, rest) = rest.split_first_chunk()?;
    let (parts, bytes) = rest.split_first_chunk()?;
    Some((
        u32::from_le_bytes(*number),
        u32::from_le_bytes(*parts),
        bytes,
    ))
}

/// The reports of an area, oldest first, each with the trace that stands before it: whole or none.
pub fn reports(area: &[u8]) -> Vec<(&[u8], Option<Vec<u8>>)> {
    let slots = area.chunks(SLOT_BYTES).take(SLOTS_MAX as usize);
    let mut found: Vec<(u64, &[u8])> = slots.filter_map(decode).collect();
    found.sort_unstable();
    let mut reports = Vec::new();
    // Sequence number of the last part, parts to come, bytes.
    let mut trace: Option<(u64, u32, Vec<u8>)> = None;
    for (sequence, body) in found {
        let before = trace
            .take()
            .filter(|(last, ..)| last.checked_add(1) == Some(sequence));
        match (as_part(body), before) {
            (None, Some((_, 0, bytes))) => reports.push((body, Some(bytes))),
            (None, _) => reports.push((body, None)),
            (Some((0, parts, bytes)), _) => {
                trace = Some((sequence, parts.saturating_sub(1), bytes.to_vec()));
            }
            (Some((number, parts, bytes)), Some((_, left, mut before)))
                if left > 0 && number.checked_add(left) == Some(parts) =>
            {
                before.extend_from_slice(bytes);
                trace = Some((sequence, left - 1, before));
            }
            (Some(_), _) => {}
        }
    }
    reports
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
    fn a_trace_goes_with_the_report_after_it() {
        let bodies = [
            part(1, 2, b"its beginning is gone"),
            b"{1}".to_vec(),
            part(0, 2, b"abc"),
            part(1, 2, b"def"),
            b"{2}".to_vec(),
            part(0, 2, b"its end was never written"),
            b"{3}".to_vec(),
            part(0, 1, b"ghi"),
            b"{4}".to_vec(),
        ];
        let area = |bodies: &[Vec<u8>]| {
            // Around the end: the oldest is not in the first slot.
            let mut area = vec![0; SLOT_BYTES * bodies.len()];
            for (n, body) in bodies.iter().enumerate() {
                let slot = encode(n as u64 + 1, body).unwrap();
                let at = (n + 3) % bodies.len() * SLOT_BYTES;
                area[at..at + slot.len()].copy_from_slice(&slot);
            }
            area
        };
        let whole = area(&bodies);
        let expected: [(&[u8], Option<Vec<u8>>); 4] = [
            (b"{1}", None),
            (b"{2}", Some(b"abcdef".to_vec())),
            (b"{3}", None),
            (b"{4}", Some(b"ghi".to_vec())),
        ];
        assert_eq!(reports(&whole), expected);
        // A part that is damaged costs the trace.
        let mut damaged = whole.clone();
        damaged[(2 + 3) * SLOT_BYTES + HEAD_BYTES + 14] ^= 1;
        assert_eq!(reports(&damaged)[1], (&b"{2}"[..], None));
        assert_eq!(as_part(b"{}"), None);
        assert!(encode(1, &part(0, 1, &vec![1; PART_BYTES])).is_some());
        assert_eq!(trace_bytes_max(5), 2 * PART_BYTES as u64);
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
