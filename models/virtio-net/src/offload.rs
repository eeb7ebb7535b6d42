//! What the device does with a frame before it is on the wire: checksums and segmentation (virtio 1.2, 5.1.6.2).

use spec_virtio::net::{Header, header_flags, segmentation};

/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;

/// The one's complement sum of 16-bit words (RFC 1071), folded.
pub fn sum(bytes: &[u8]) -> u16 {
    let mut sum: u64 = 0;
    for pair in bytes.chunks(2) {
        let low = pair.get(1).copied().unwrap_or(0);
        sum += u64::from(u16::from_be_bytes([pair[0], low]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn put(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

fn get(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// Puts the checksum in; its field holds the sum of the pseudo-header.
fn insert(frame: &mut [u8], start: usize, offset: usize) {
    let checksum = !sum(&frame[start..]);
    // RFC 768: a sum of zero is sent as ones; for TCP both are the same.
    put(
        frame,
        start + offset,
        if checksum == 0 { 0xffff } else { checksum },
    );
}

/// The frames that a frame of the driver becomes.
///
/// # Errors
/// Which rule the driver broke.
pub fn frames(header: &Header, frame: Vec<u8>) -> Result<Vec<Vec<u8>>, String> {
    if frame.len() < ETHERNET {
        return Err(format!("frame of {} bytes", frame.len()));
    }
    let (start, offset) = (
        usize::from(header.csum_start),
        usize::from(header.csum_offset),
    );
    let checksums = header.flags & header_flags::NEEDS_CSUM != 0;
    if header.flags & !header_flags::NEEDS_CSUM != 0 {
        return Err(format!("flags {:#x} of a frame to be sent", header.flags));
    }
    if checksums && start + offset + 2 > frame.len() {
        return Err(format!(
            "checksum at {start} + {offset} of {} bytes",
            frame.len()
        ));
    }
    match header.gso_type {
        segmentation::NONE if !checksums => Ok(vec![frame]),
        segmentation::NONE => {
            let mut frame = frame;
            insert(&mut frame, start, offset);
            Ok(vec![frame])
        }
        kind @ (segmentation::TCPV4 | segmentation::TCPV6) if checksums => {
            segments(header, kind, &frame)
        }
        kind => Err(format!(
            "segmentation {kind} with flags {:#x}",
            header.flags
        )),
    }
}

fn segments(header: &Header, kind: u8, frame: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    const TCP_CHECKSUM: usize = 16;
    let (start, size) = (usize::from(header.csum_start), usize::from(header.gso_size));
    let headers = usize::from(header.hdr_len);
    let inside = start + 20 <= headers && headers < frame.len();
    if size == 0 || usize::from(header.csum_offset) != TCP_CHECKSUM || !inside {
        return Err(format!("segmentation {header:?} of {} bytes", frame.len()));
    }
    let payload = &frame[headers..];
    let first = u32::from_be_bytes([
        frame[start + 4],
        frame[start + 5],
        frame[start + 6],
        frame[start + 7],
    ]);
    let whole = (frame.len() - start) as u16;
    let count = payload.len().div_ceil(size);
    let mut out = Vec::new();
    for (n, piece) in payload.chunks(size).enumerate() {
        let mut segment = frame[..headers].to_vec();
        segment.extend(piece);
        let sequence = first.wrapping_add((n * size) as u32);
        segment[start + 4..start + 8].copy_from_slice(&sequence.to_be_bytes());
        if n + 1 < count {
            // FIN and PSH belong to the last one.
            segment[start + 13] &= !0x09;
        }
        if kind == segmentation::TCPV4 {
            let length = (segment.len() - ETHERNET) as u16;
            put(&mut segment, ETHERNET + 2, length);
            let id = get(frame, ETHERNET + 4).wrapping_add(n as u16);
            put(&mut segment, ETHERNET + 4, id);
            put(&mut segment, ETHERNET + 10, 0);
            let checksum = !sum(&segment[ETHERNET..start]);
            put(&mut segment, ETHERNET + 10, checksum);
        } else {
            let length = (segment.len() - ETHERNET - 40) as u16;
            put(&mut segment, ETHERNET + 4, length);
        }
        // The pseudo-header's sum was made with the length of the whole.
        let length = (segment.len() - start) as u16;
        let was = get(&segment, start + TCP_CHECKSUM);
        let words = [was, !whole, length].map(u16::to_be_bytes).concat();
        put(&mut segment, start + TCP_CHECKSUM, sum(&words));
        insert(&mut segment, start, TCP_CHECKSUM);
        out.push(segment);
    }
    Ok(out)
}
