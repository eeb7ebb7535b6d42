//! What network interfaces do to frames between their driver and the wire: internet checksums (RFC 1071) both ways, and the
//! segmentation of TCP. How a driver asks for it is each device's own.

/// Bytes of an Ethernet header, after which the IP header begins.
pub const ETHERNET: usize = 14;
/// Where a TCP header has its checksum.
pub const TCP_CHECKSUM: usize = 16;
/// Bytes of a TCP header without options.
const TCP_HEADER: usize = 20;
const TCP: u8 = 6;
const UDP: u8 = 17;

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

/// Puts the checksum of what goes from `start` to the end of the frame in, `offset` bytes after the start; its field holds the sum of the
/// pseudo-header.
///
/// # Panics
/// When the field is not inside of the frame.
pub fn insert(frame: &mut [u8], start: usize, offset: usize) {
    let checksum = !sum(&frame[start..]);
    // RFC 768: a sum of zero is sent as ones; for TCP both are the same.
    put(
        frame,
        start + offset,
        if checksum == 0 { 0xffff } else { checksum },
    );
}

/// Which protocol a frame to be cut has below TCP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ip {
    /// Version 4.
    V4,
    /// Version 6.
    V6,
}

/// What the checksum field of a frame to be cut holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pseudo {
    /// The pseudo-header's sum with the length of the whole.
    WithLength,
    /// The same with a length of 0.
    WithoutLength,
}

/// How a frame is cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cut {
    /// Where TCP's header begins.
    pub start: usize,
    /// Bytes of all headers.
    pub headers: usize,
    /// Bytes of payload of each segment.
    pub size: usize,
    /// Protocol below.
    pub ip: Ip,
    /// What the checksum field holds.
    pub pseudo: Pseudo,
}

/// The segments that a frame is cut into, with their checksums.
///
/// # Errors
/// Why it cannot be cut so.
pub fn segments(frame: &[u8], cut: &Cut) -> Result<Vec<Vec<u8>>, String> {
    let &Cut {
        start,
        headers,
        size,
        ip,
        pseudo,
    } = cut;
    let inside = start + TCP_HEADER <= headers && headers < frame.len();
    if size == 0 || !inside {
        return Err(format!("{cut:?} of {} bytes", frame.len()));
    }
    let payload = &frame[headers..];
    let sequence = &frame[start + 4..start + 8];
    let first = u32::from_be_bytes(sequence.try_into().expect("four bytes"));
    let whole = match pseudo {
        Pseudo::WithLength => (frame.len() - start) as u16,
        Pseudo::WithoutLength => 0,
    };
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
        match ip {
            Ip::V4 => {
                let length = (segment.len() - ETHERNET) as u16;
                put(&mut segment, ETHERNET + 2, length);
                let id = get(frame, ETHERNET + 4).wrapping_add(n as u16);
                put(&mut segment, ETHERNET + 4, id);
                put(&mut segment, ETHERNET + 10, 0);
                let checksum = !sum(&segment[ETHERNET..start]);
                put(&mut segment, ETHERNET + 10, checksum);
            }
            Ip::V6 => {
                let length = (segment.len() - ETHERNET - 40) as u16;
                put(&mut segment, ETHERNET + 4, length);
            }
        }
        // The pseudo-header's sum was made with another length.
        let length = (segment.len() - start) as u16;
        let was = get(&segment, start + TCP_CHECKSUM);
        let words = [was, !whole, length].map(u16::to_be_bytes).concat();
        put(&mut segment, start + TCP_CHECKSUM, sum(&words));
        insert(&mut segment, start, TCP_CHECKSUM);
        out.push(segment);
    }
    Ok(out)
}

/// What a device finds out about the checksums of a received IPv4 packet; `None` where there is none to look at.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sums {
    /// Whether the IPv4 header's is right.
    pub header: Option<bool>,
    /// Whether that of TCP or UDP is right.
    pub transport: Option<bool>,
}

/// Looks at the checksums of a frame from the wire: IPv4 with TCP or UDP, not in fragments.
pub fn received(frame: &[u8]) -> Sums {
    let mut sums = Sums::default();
    let is_ipv4 = frame.len() >= ETHERNET + 20 && get(frame, 12) == 0x0800;
    if !is_ipv4 || frame[ETHERNET] >> 4 != 4 {
        return sums;
    }
    let header = usize::from(frame[ETHERNET] & 0xf) * 4;
    let length = usize::from(get(frame, ETHERNET + 2));
    let packet = &frame[ETHERNET..];
    if header < 20 || length < header || packet.len() < length {
        return sums;
    }
    sums.header = Some(sum(&packet[..header]) == 0xffff);
    let is_fragment = get(packet, 6) & 0x3fff != 0;
    let (protocol, body) = (packet[9], &packet[header..length]);
    let least = match protocol {
        TCP => TCP_HEADER,
        UDP => 8,
        _ => usize::MAX,
    };
    // RFC 768: a UDP checksum of zero is none.
    if is_fragment || body.len() < least || protocol == UDP && get(body, 6) == 0 {
        return sums;
    }
    let length = (body.len() as u16).to_be_bytes();
    let all = [&packet[12..20], &[0, protocol], &length, body].concat();
    sums.transport = Some(sum(&all) == 0xffff);
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_words() {
        // RFC 1071, 3.
        assert_eq!(
            sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]),
            0xddf2
        );
        assert_eq!(sum(&[0xff]), 0xff00);
    }

    #[test]
    fn what_is_inserted_is_found_right() {
        let mut frame = vec![0; ETHERNET];
        frame[12] = 8;
        frame.extend([0x45, 0, 0, 44, 0, 1, 0, 0, 64, TCP, 0, 0]);
        frame.extend([10, 0, 0, 1, 10, 0, 0, 2]);
        frame.resize(34 + 24, 7);
        let header = !sum(&frame[14..34]);
        put(&mut frame, 24, header);
        let pseudo = sum(&[10, 0, 0, 1, 10, 0, 0, 2, 0, TCP, 0, 24]);
        put(&mut frame, 34 + TCP_CHECKSUM, pseudo);
        insert(&mut frame, 34, TCP_CHECKSUM);
        let right = Sums {
            header: Some(true),
            transport: Some(true),
        };
        assert_eq!(received(&frame), right);
        assert_eq!(received(&frame[..57]), Sums::default());
        frame[57] ^= 1;
        assert_eq!(received(&frame).transport, Some(false));
    }
}
