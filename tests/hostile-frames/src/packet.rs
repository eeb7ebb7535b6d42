//! Building frames, and making their checksums and lengths right again.

/// Types of Ethernet frames.
pub const ARP: u16 = 0x0806;
/// IPv4.
pub const IPV4: u16 = 0x0800;
/// IPv6.
pub const IPV6: u16 = 0x86dd;

/// Numbers of IP protocols.
pub const ICMP: u8 = 1;
/// IGMP.
pub const IGMP: u8 = 2;
/// TCP.
pub const TCP: u8 = 6;
/// UDP.
pub const UDP: u8 = 17;
/// ICMPv6.
pub const ICMPV6: u8 = 58;

/// Length of an Ethernet header.
pub const ETHERNET: usize = 14;
const IPV6_HEADER: usize = 40;

/// A frame.
pub fn ethernet(to: [u8; 6], from: [u8; 6], kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(ETHERNET + payload.len());
    frame.extend(to);
    frame.extend(from);
    frame.extend(kind.to_be_bytes());
    frame.extend(payload);
    frame
}

/// An IPv4 packet (RFC 791); `fragment` has flags and offset, `options` whole words.
pub fn ipv4(
    protocol: u8,
    [from, to]: [[u8; 4]; 2],
    (number, fragment): (u16, u16),
    options: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    let header = 20 + options.len();
    let mut packet = vec![0x40 | (header / 4) as u8, 0];
    packet.extend(((header + payload.len()) as u16).to_be_bytes());
    packet.extend(number.to_be_bytes());
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0]);
    packet.extend(from);
    packet.extend(to);
    packet.extend(options);
    let own = !sum(&packet, 0);
    packet[10..12].copy_from_slice(&own.to_be_bytes());
    packet.extend(payload);
    packet
}

/// An IPv6 packet (RFC 8200) with this hop limit.
pub fn ipv6(next: u8, [from, to]: [[u8; 16]; 2], hops: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((payload.len() as u16).to_be_bytes());
    packet.extend([next, hops]);
    packet.extend(from);
    packet.extend(to);
    packet.extend(payload);
    packet
}

/// A UDP datagram without a checksum (RFC 768).
pub fn udp(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    let mut datagram = Vec::new();
    for word in [from, to, (payload.len() + 8) as u16, 0] {
        datagram.extend(word.to_be_bytes());
    }
    datagram.extend(payload);
    datagram
}

/// A TCP segment without a checksum (RFC 9293); `options` are whole words.
pub fn tcp(
    [from, to]: [u16; 2],
    [sequence, acknowledged]: [u32; 2],
    flags: u8,
    options: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    let mut segment = Vec::new();
    segment.extend(from.to_be_bytes());
    segment.extend(to.to_be_bytes());
    segment.extend(sequence.to_be_bytes());
    segment.extend(acknowledged.to_be_bytes());
    segment.extend([(((20 + options.len()) / 4) << 4) as u8, flags]);
    segment.extend(4096u16.to_be_bytes());
    segment.extend([0; 4]);
    segment.extend(options);
    segment.extend(payload);
    segment
}

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

fn word(frame: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*frame.get(at..)?.first_chunk()?))
}

fn put(frame: &mut [u8], at: usize, value: u16) -> Option<()> {
    frame
        .get_mut(at..at + 2)?
        .copy_from_slice(&value.to_be_bytes());
    Some(())
}

/// Where the transport's header is, which protocol it says it is, and where its bytes end.
pub(crate) fn transport(frame: &[u8]) -> Option<(usize, u8, usize)> {
    match word(frame, 12)? {
        IPV4 => {
            let header = usize::from(frame.get(ETHERNET)? & 15) * 4;
            let end = ETHERNET + usize::from(word(frame, ETHERNET + 2)?);
            Some((
                ETHERNET + header,
                *frame.get(ETHERNET + 9)?,
                end.min(frame.len()),
            ))
        }
        IPV6 => {
            let end = ETHERNET + IPV6_HEADER + usize::from(word(frame, ETHERNET + 4)?);
            let (mut next, mut at) = (*frame.get(ETHERNET + 6)?, ETHERNET + IPV6_HEADER);
            // Extension headers whose length is where it always is (RFC 8200, 4).
            while matches!(next, 0 | 43 | 60) {
                next = *frame.get(at)?;
                at += 8 + usize::from(*frame.get(at + 1)?) * 8;
            }
            Some((at, next, end.min(frame.len())))
        }
        _ => None,
    }
}

/// Makes the checksums right, so that what was changed is looked at; `None` where there are none.
pub fn repair(frame: &mut [u8]) -> Option<()> {
    let kind = word(frame, 12)?;
    let (at, protocol, end) = transport(frame)?;
    let addresses = if kind == IPV4 {
        let header = ETHERNET..at;
        put(frame, ETHERNET + 10, 0)?;
        let own = !sum(frame.get(header)?, 0);
        put(frame, ETHERNET + 10, own)?;
        if word(frame, ETHERNET + 6)? & 0x3fff != 0 {
            // A fragment: its checksum is over bytes that are elsewhere.
            return Some(());
        }
        ETHERNET + 12..ETHERNET + 20
    } else {
        ETHERNET + 8..ETHERNET + 40
    };
    let (field, has_pseudo) = match protocol {
        TCP => (16, true),
        UDP => (6, true),
        ICMPV6 if kind == IPV6 => (2, true),
        ICMP | IGMP if kind == IPV4 => (2, false),
        _ => return (kind == IPV4).then_some(()),
    };
    put(frame.get_mut(..end)?, at + field, 0)?;
    let bytes = frame.get(at..end)?;
    let pseudo = if has_pseudo {
        u32::from(sum(frame.get(addresses)?, 0)) + u32::from(protocol) + bytes.len() as u32
    } else {
        0
    };
    let value = match !sum(bytes, pseudo) {
        0 if protocol == UDP => 0xffff,
        value => value,
    };
    put(frame, at + field, value)
}

/// Has a frame's IP header say that all its bytes are the packet's, as far as it can.
pub(crate) fn lengthen(frame: &mut [u8]) -> Option<()> {
    let len = frame.len() - ETHERNET;
    match word(frame, 12)? {
        IPV4 => put(frame, ETHERNET + 2, len.min(0xffff) as u16),
        IPV6 => put(
            frame,
            ETHERNET + 4,
            len.checked_sub(IPV6_HEADER)?.min(0xffff) as u16,
        ),
        _ => None,
    }
}
