//! A look at a frame before the stack sees it, and after it made it: is it the first of a new connection, is its checksum right.

use core::net::SocketAddr;
use core::num::NonZeroU16;

use smoltcp::wire::{
    EthernetFrame, EthernetProtocol, IpAddress, IpProtocol, Ipv4Packet, Ipv6Packet, TcpPacket,
};

use crate::link::Medium;

/// Where a TCP header has its checksum.
const TCP_CHECKSUM: u16 = 16;

/// Where a whole packet is in its frame, and what it says of itself.
#[derive(Clone, Copy, Debug)]
pub struct Transport {
    /// Where the packet is from.
    pub source: IpAddress,
    /// Where it goes.
    pub destination: IpAddress,
    /// What its payload is.
    pub protocol: IpProtocol,
    /// Where the packet starts in the frame.
    pub packet: usize,
    /// Where its payload starts.
    pub payload: usize,
    /// Where it ends.
    pub end: usize,
}

impl Transport {
    /// The packet's payload.
    pub fn of<'a>(&self, frame: &'a [u8]) -> &'a [u8] {
        frame.get(self.payload..self.end).unwrap_or_default()
    }

    /// Sum of the pseudo-header of a packet with these addresses and a payload of `length` bytes, not inverted.
    pub fn pseudo_header_sum(&self, length: usize) -> u16 {
        let protocol = self.protocol.into();
        pseudo_header_sum(&self.source, &self.destination, protocol, length as u32)
    }
}

/// The transport header, if the frame holds a whole IP packet.
pub fn transport(medium: Medium, frame: &[u8]) -> Option<Transport> {
    let (version, packet) = match medium {
        Medium::Ip => (frame.first()? >> 4, 0),
        Medium::Ethernet(_) => {
            let ethernet = EthernetFrame::new_checked(frame).ok()?;
            let version = match ethernet.ethertype() {
                EthernetProtocol::Ipv4 => 4,
                EthernetProtocol::Ipv6 => 6,
                _ => return None,
            };
            (version, EthernetFrame::<&[u8]>::header_len())
        }
    };
    let bytes = frame.get(packet..)?;
    let found = match version {
        4 => {
            let ip = Ipv4Packet::new_checked(bytes).ok()?;
            if ip.more_frags() || ip.frag_offset() != 0 {
                return None;
            }
            Transport {
                source: ip.src_addr().into(),
                destination: ip.dst_addr().into(),
                protocol: ip.next_header(),
                packet,
                payload: packet + usize::from(ip.header_len()),
                end: packet + usize::from(ip.total_len()),
            }
        }
        6 => {
            let ip = Ipv6Packet::new_checked(bytes).ok()?;
            let mut payload = packet + ip.header_len();
            let end = payload + usize::from(ip.payload_len());
            let mut protocol = ip.next_header();
            if protocol == IpProtocol::HopByHop {
                // The one extension header that smoltcp goes past (RFC 8200, 4.3).
                let header = frame.get(payload..end)?;
                protocol = IpProtocol::from(*header.first()?);
                payload += 8 + 8 * usize::from(*header.get(1)?);
            }
            Transport {
                source: ip.src_addr().into(),
                destination: ip.dst_addr().into(),
                protocol,
                packet,
                payload,
                end,
            }
        }
        _ => return None,
    };
    (found.payload <= found.end && found.end <= frame.len()).then_some(found)
}

/// If the packet asks for a new connection: where from and where to.
pub fn connection_request(transport: &Transport, frame: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    if transport.protocol != IpProtocol::Tcp {
        return None;
    }
    let tcp = TcpPacket::new_checked(transport.of(frame)).ok()?;
    let request = tcp.syn() && !tcp.ack() && !tcp.rst() && !tcp.fin();
    request.then(|| {
        (
            SocketAddr::new(transport.source.into(), tcp.src_port()),
            SocketAddr::new(transport.destination.into(), tcp.dst_port()),
        )
    })
}

/// Whether a frame may be taken in that nobody has looked at: it has no TCP segment, or one with the right checksum. A segment in
/// fragments may not, since its checksum is for the whole; TCP finds out what fits into a packet and sends none.
pub fn checksum_is_right(medium: Medium, frame: &[u8], transport: Option<&Transport>) -> bool {
    match transport {
        Some(transport) if transport.protocol == IpProtocol::Tcp => {
            let segment = transport.of(frame);
            let start = transport.pseudo_header_sum(segment.len());
            ones_complement_sum(segment, start) == 0xffff
        }
        Some(_) => true,
        None => !is_fragment_of_tcp(medium, frame),
    }
}

/// Computes the checksum of a TCP segment to be sent and puts it into its field, which is zero.
pub fn fill_in_checksum(frame: &mut [u8], transport: &Transport) {
    if transport.protocol != IpProtocol::Tcp {
        return;
    }
    let segment = transport.of(frame);
    let sum = ones_complement_sum(segment, transport.pseudo_header_sum(segment.len()));
    let at = transport.payload + usize::from(TCP_CHECKSUM);
    if let Some(field) = frame.get_mut(at..at + 2) {
        field.copy_from_slice(&(!sum).to_be_bytes());
    }
}

fn is_fragment_of_tcp(medium: Medium, frame: &[u8]) -> bool {
    let packet = match medium {
        Medium::Ip => Some(frame),
        Medium::Ethernet(_) => EthernetFrame::new_checked(frame)
            .ok()
            .filter(|ethernet| ethernet.ethertype() == EthernetProtocol::Ipv4)
            .and_then(|_| frame.get(EthernetFrame::<&[u8]>::header_len()..)),
    };
    let ip = packet.and_then(|packet| Ipv4Packet::new_checked(packet).ok());
    ip.is_some_and(|ip| {
        ip.version() == 4
            && ip.next_header() == IpProtocol::Tcp
            && (ip.more_frags() || ip.frag_offset() != 0)
    })
}

/// Sum of 16-bit words in ones' complement, not inverted; `start` is added. In large pieces, since the sum is the same in any order of bytes
/// (RFC 1071, 2).
pub fn ones_complement_sum(bytes: &[u8], start: u16) -> u16 {
    let mut sum = u128::from(start.to_be());
    let mut carries = 0;
    let mut add = |word: &[u8; 16]| {
        let (next, carry) = sum.overflowing_add(u128::from_ne_bytes(*word));
        sum = next;
        carries += u64::from(carry);
    };
    // Blocks of a known length are summed without a loop.
    let (blocks, rest) = bytes.as_chunks::<64>();
    for block in blocks {
        block.as_chunks().0.iter().for_each(&mut add);
    }
    let (words, rest) = rest.as_chunks();
    words.iter().for_each(&mut add);
    let mut last = [0; 16];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    add(&last);
    // 2^64 and 2^128 are 1 in ones' complement of 16 bits.
    let mut sum = (sum >> 64) + u128::from(sum as u64) + u128::from(carries);
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    u16::from_be(sum as u16)
}

/// What a device needs to know to finish a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Finish {
    /// First byte that the checksum covers.
    pub start: u16,
    /// Where the checksum is, from there.
    pub offset: u16,
    /// Bytes of all headers.
    pub header_length: u16,
    /// Whether it is IPv6.
    pub is_v6: bool,
}

/// Prepares a TCP or UDP frame with an empty checksum for a device that computes it: puts the pseudo-header's sum into the
/// checksum field (with length 0 if it is cut and `sum_with_length` is not set). `None` for other frames, which need nothing.
pub fn prepare(
    transport: &Transport,
    frame: &mut [u8],
    segment_size: Option<NonZeroU16>,
    sum_with_length: bool,
) -> Option<Finish> {
    let payload = transport.of(frame);
    let (offset, header) = match transport.protocol {
        IpProtocol::Tcp => {
            let tcp = TcpPacket::new_checked(payload).ok()?;
            (TCP_CHECKSUM, usize::from(tcp.header_len()))
        }
        IpProtocol::Udp => (6, 8),
        _ => return None,
    };
    let length = if segment_size.is_some() && !sum_with_length {
        0
    } else {
        payload.len()
    };
    let sum = transport.pseudo_header_sum(length);
    let start = u16::try_from(transport.payload).ok()?;
    let header_length = u16::try_from(transport.payload + header).ok()?;
    let is_v6 = matches!(transport.source, IpAddress::Ipv6(_));
    let at = usize::from(start) + usize::from(offset);
    frame
        .get_mut(at..at + 2)?
        .copy_from_slice(&sum.to_be_bytes());
    Some(Finish {
        start,
        offset,
        header_length,
        is_v6,
    })
}

/// Sum of the pseudo-header in ones' complement, not inverted (RFC 9293, 3.1; RFC 8200, 8.1).
fn pseudo_header_sum(
    source: &IpAddress,
    destination: &IpAddress,
    protocol: u8,
    length: u32,
) -> u16 {
    let mut sum = u64::from(protocol) + u64::from(length >> 16) + u64::from(length & 0xffff);
    let mut add = |bytes: &[u8]| {
        for pair in bytes.chunks_exact(2) {
            if let [high, low] = pair {
                sum += u64::from(u16::from_be_bytes([*high, *low]));
            }
        }
    };
    for address in [source, destination] {
        match address {
            IpAddress::Ipv4(v4) => add(&v4.octets()),
            IpAddress::Ipv6(v6) => add(&v6.octets()),
        }
    }
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u16
}

#[cfg(test)]
pub(crate) mod tests {
    use std::vec::Vec;

    use smoltcp::phy::ChecksumCapabilities;
    use smoltcp::wire::{
        IpRepr, Ipv4Address, Ipv4Repr, Ipv6Address, Ipv6Repr, TcpControl, TcpRepr, TcpSeqNumber,
        TcpTimestampGenerator, TcpTimestampRepr,
    };

    use super::*;

    /// A packet with a segment of the stack's, with its checksum, as smoltcp computes it.
    pub(crate) fn segment(v6: bool, control: TcpControl, sequence: i32, payload: &[u8]) -> Vec<u8> {
        let now: TcpTimestampGenerator = || 7;
        let tcp = TcpRepr {
            src_port: 4711,
            dst_port: 80,
            control,
            seq_number: TcpSeqNumber(sequence),
            ack_number: Some(TcpSeqNumber(99)),
            window_len: 4096,
            window_scale: None,
            max_seg_size: None,
            sack_permitted: false,
            sack_ranges: [None; 3],
            timestamp: Some(TcpTimestampRepr::new(now(), 3)),
            payload,
        };
        let (next_header, payload_len) = (IpProtocol::Tcp, tcp.buffer_len());
        let ip = if v6 {
            IpRepr::Ipv6(Ipv6Repr {
                src_addr: Ipv6Address::new(0xfec0, 0, 0, 0, 1, 2, 3, 0xffff),
                dst_addr: Ipv6Address::new(0xfec0, 0, 0, 0, 0, 0, 0, 2),
                next_header,
                payload_len,
                hop_limit: 64,
            })
        } else {
            IpRepr::Ipv4(Ipv4Repr {
                src_addr: Ipv4Address::new(10, 0, 2, 15),
                dst_addr: Ipv4Address::new(255, 1, 2, 3),
                next_header,
                payload_len,
                hop_limit: 64,
            })
        };
        let mut bytes = std::vec![0; ip.buffer_len()];
        let checksums = ChecksumCapabilities::default();
        ip.emit(&mut bytes, &checksums);
        let mut packet = TcpPacket::new_unchecked(&mut bytes[ip.header_len()..]);
        tcp.emit(&mut packet, &ip.src_addr(), &ip.dst_addr(), &checksums);
        bytes
    }

    fn is_right(medium: Medium, frame: &[u8]) -> bool {
        checksum_is_right(medium, frame, transport(medium, frame).as_ref())
    }

    #[test]
    fn checksums_are_those_of_the_stack() {
        for len in (0..70).chain([255, 1447, 1448]) {
            let payload: Vec<u8> = (0..len).map(|n| (n * 37 + len) as u8).collect();
            for (v6, header) in [(false, 20), (true, 40)] {
                let frame = segment(v6, TcpControl::Psh, -5, &payload);
                assert!(is_right(Medium::Ip, &frame), "{len}");
                let mut empty = frame.clone();
                empty[header + 16..header + 18].fill(0);
                let transport = transport(Medium::Ip, &empty).unwrap();
                fill_in_checksum(&mut empty, &transport);
                assert_eq!(empty, frame, "{len}");
                // Every bit counts.
                for at in [header, header + 17, frame.len() - 1] {
                    let mut damaged = frame.clone();
                    damaged[at] ^= 0x40;
                    assert!(!is_right(Medium::Ip, &damaged), "{len} {at}");
                }
            }
        }
    }

    #[test]
    fn what_has_no_checksum_of_tcp_passes_but_its_fragments() {
        let mut frame = segment(false, TcpControl::Psh, -5, b"some bytes");
        // More fragments.
        frame[6] = 0x20;
        let mut packet = Ipv4Packet::new_unchecked(&mut frame);
        packet.fill_checksum();
        assert!(!is_right(Medium::Ip, &frame));
        let mut packet = Ipv4Packet::new_unchecked(&mut frame);
        packet.set_next_header(IpProtocol::Udp);
        assert!(is_right(Medium::Ip, &frame));
        assert!(is_right(Medium::Ip, &[]));
        assert!(is_right(Medium::Ethernet([2; 6]), &[0; 14]));
    }
}
