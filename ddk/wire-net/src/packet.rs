//! The bytes of frames: checksums that the device was to compute, frames that it was to cut, the bit that is flipped.

use ddk_class_net::{Checksum, SegmentRequest};

/// Length of an Ethernet header; the type stands before its end.
const ETHERNET: usize = 14;
const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];
/// Numbers of TCP flags (RFC 9293, 3.1; RFC 3168, 6.1).
const FIN_PSH: u8 = 0x09;
const CWR: u8 = 0x80;
/// TCP as IP numbers it.
const TCP: u16 = 6;

/// Sum of 16-bit words (RFC 1071), folded.
fn sum(bytes: &[u8], start: u32) -> u16 {
    let (pairs, rest) = bytes.as_chunks::<2>();
    let mut sum = u64::from(start);
    for pair in pairs {
        sum += u64::from(u16::from_be_bytes(*pair));
    }
    if let [last] = rest {
        sum += u64::from(*last) << 8;
    }
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u16
}

fn put(frame: &mut [u8], at: usize, value: u16) -> Option<()> {
    frame
        .get_mut(at..at + 2)?
        .copy_from_slice(&value.to_be_bytes());
    Some(())
}

fn word(frame: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*frame.get(at..)?.first_chunk()?))
}

/// Computes the checksum that was left to the device: the field has the pseudo-header's sum.
pub(crate) fn complete(frame: &mut [u8], checksum: Checksum) -> Option<()> {
    let start = usize::from(checksum.start);
    let value = match !sum(frame.get(start..)?, 0) {
        // Zero says that there is none (RFC 768).
        0 => 0xffff,
        value => value,
    };
    put(frame, start + usize::from(checksum.offset), value)
}

/// Flips a bit behind the Ethernet header of a frame whose checksums show that; `None` for one that has none.
pub(crate) fn bit_to_flip(kind: [u8; 2], length: usize, choice: u64) -> Option<(usize, u8)> {
    if kind != IPV4 && kind != IPV6 {
        return None;
    }
    let bytes = length.checked_sub(ETHERNET).filter(|n| *n > 0)? as u64;
    let at = ETHERNET + (choice / 8 % bytes) as usize;
    Some((at, 1 << (choice % 8)))
}

/// Type of the frame.
pub(crate) fn kind(frame: &[u8]) -> Option<[u8; 2]> {
    frame.get(ETHERNET - 2..)?.first_chunk().copied()
}

/// Damages a whole frame.
pub(crate) fn damage(frame: &mut [u8], choice: u64) -> Option<()> {
    let (at, bit) = bit_to_flip(kind(frame)?, frame.len(), choice)?;
    *frame.get_mut(at)? ^= bit;
    Some(())
}

/// How many frames a long one is cut into; `None` when it cannot be cut so.
pub(crate) fn pieces(length: usize, request: &SegmentRequest) -> Option<usize> {
    let payload = length.checked_sub(request.header_length.into())?;
    (request.size > 0 && payload > 0).then(|| payload.div_ceil(request.size.into()))
}

/// Piece `index` of a frame that was to be cut, whole and with its checksums, put into `into`; its length.
pub(crate) fn piece(
    frame: &[u8],
    request: &SegmentRequest,
    transport: usize,
    index: usize,
    into: &mut [u8],
) -> Option<usize> {
    let (header, size) = (
        usize::from(request.header_length),
        usize::from(request.size),
    );
    let count = pieces(frame.len(), request)?;
    let start = header + index * size;
    let part = frame.get(start..(start + size).min(frame.len()))?;
    let length = header + part.len();
    let into = into.get_mut(..length)?;
    into.get_mut(..header)?
        .copy_from_slice(frame.get(..header)?);
    into.get_mut(header..)?.copy_from_slice(part);

    let ip_length = (length - ETHERNET) as u16;
    let segment = length.checked_sub(transport)?;
    let addresses = if kind(into)? == IPV4 {
        put(into, ETHERNET + 2, ip_length)?;
        let number = word(into, ETHERNET + 4)?;
        put(into, ETHERNET + 4, number.wrapping_add(index as u16))?;
        put(into, ETHERNET + 10, 0)?;
        let own = !sum(into.get(ETHERNET..transport)?, 0);
        put(into, ETHERNET + 10, own)?;
        ETHERNET + 12..ETHERNET + 20
    } else {
        put(into, ETHERNET + 4, ip_length - 40)?;
        ETHERNET + 8..ETHERNET + 40
    };
    let sequence: [u8; 4] = *into.get(transport + 4..)?.first_chunk()?;
    let sequence = u32::from_be_bytes(sequence).wrapping_add((index * size) as u32);
    into.get_mut(transport + 4..transport + 8)?
        .copy_from_slice(&sequence.to_be_bytes());
    let flags = into.get_mut(transport + 13)?;
    if index + 1 < count {
        *flags &= !FIN_PSH;
    }
    if index > 0 {
        *flags &= !CWR;
    }
    put(into, transport + 16, 0)?;
    let pseudo = u32::from(sum(into.get(addresses)?, 0)) + u32::from(TCP) + segment as u32;
    let checksum = !sum(into.get(transport..)?, pseudo);
    put(into, transport + 16, checksum)?;
    Some(length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;
    use ddk_class_net::Segmentation;

    #[test]
    fn a_flipped_bit_shows() {
        let mut frame: Vec<u8> = (0..200).map(|n| n as u8).collect();
        frame[12..14].copy_from_slice(&IPV4);
        // The sum of a pseudo-header that is nothing.
        frame[50..52].fill(0);
        let checksum = Checksum {
            start: 34,
            offset: 16,
        };
        complete(&mut frame, checksum).unwrap();
        assert_eq!(sum(&frame[34..], 0), 0xffff);
        for choice in [34 * 8, 1_000, 1_001, u64::MAX] {
            let mut damaged = frame.clone();
            damage(&mut damaged, choice).unwrap();
            let changed: Vec<_> = (0..200).filter(|n| frame[*n] != damaged[*n]).collect();
            assert!(changed.len() == 1 && changed[0] >= ETHERNET);
            assert!(changed[0] < 34 || sum(&damaged[34..], 0) != 0xffff);
        }
        frame[12..14].copy_from_slice(&[8, 6]);
        assert_eq!(damage(&mut frame, 5), None);
    }

    #[test]
    fn pieces_are_frames() {
        for (kind, network) in [(IPV4, 20), (IPV6, 40)] {
            let transport = ETHERNET + network;
            let header = transport + 20;
            let mut frame = vec![0; header];
            frame[12..14].copy_from_slice(&kind);
            frame[ETHERNET] = if network == 20 { 0x45 } else { 0x60 };
            frame[transport + 4..transport + 8].copy_from_slice(&[0xff; 4]);
            frame[transport + 12] = 0x50;
            frame[transport + 13] = 0x19;
            frame.extend((0..2_500u32).map(|n| n as u8));
            let request = SegmentRequest {
                kind: Segmentation::TCP4,
                size: 1_000,
                header_length: header as u16,
            };
            let (mut bytes, mut piece_bytes) = (Vec::<u8>::new(), [0; 2048]);
            for index in 0..pieces(frame.len(), &request).unwrap() {
                let length = piece(&frame, &request, transport, index, &mut piece_bytes).unwrap();
                let made = &piece_bytes[..length];
                bytes.extend(&made[header..]);
                let addresses = if network == 20 { 26..34 } else { 22..54 };
                let pseudo = sum(&made[addresses], 0) as u32 + 6 + (length - transport) as u32;
                assert_eq!(sum(&made[transport..], pseudo), 0xffff);
                assert_eq!(made[transport + 13], if index == 2 { 0x19 } else { 0x10 });
                let sequence = made[transport + 4..transport + 8].try_into().unwrap();
                let expected = u32::MAX.wrapping_add(index as u32 * 1_000);
                assert_eq!(u32::from_be_bytes(sequence), expected);
                if network == 20 {
                    assert_eq!(sum(&made[ETHERNET..transport], 0), 0xffff);
                }
            }
            assert_eq!(bytes, frame[header..]);
        }
    }
}
