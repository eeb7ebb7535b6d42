//! A look at a frame before the stack sees it: is it the first of a new connection, and is its checksum right.

use core::net::SocketAddr;
use core::num::NonZeroU16;

use smoltcp::wire::{
    EthernetFrame, EthernetProtocol, IpAddress, IpProtocol, Ipv4Packet, Ipv6Packet, TcpPacket,
};

use crate::link::Medium;

/// Where a TCP header has its checksum.
const TCP_CHECKSUM: u16 = 16;

/// Transport header of a whole packet, with the packet's addresses.
struct Transport<'a> {
    source: IpAddress,
    destination: IpAddress,
    protocol: IpProtocol,
    payload: &'a [u8],
    /// Where the payload starts in the frame.
    offset: usize,
}

impl Transport<'_> {
    fn pseudo_header_sum(&self) -> u16 {
        let length = self.payload.len() as u32;
        let protocol = self.protocol.into();
        pseudo_header_sum(&self.source, &self.destination, protocol, length)
    }
}

/// The transport payload, if the frame holds a whole IP packet without extension headers.
fn transport(medium: Medium, frame: &[u8]) -> Option<Transport<'_>> {
    let (version, packet, offset) = match medium {
        Medium::Ip => (frame.first()? >> 4, frame, 0),
        Medium::Ethernet(_) => {
            let ethernet = EthernetFrame::new_checked(frame).ok()?;
            let version = match ethernet.ethertype() {
                EthernetProtocol::Ipv4 => 4,
                EthernetProtocol::Ipv6 => 6,
                _ => return None,
            };
            let header = EthernetFrame::<&[u8]>::header_len();
            (version, frame.get(header..)?, header)
        }
    };
    match version {
        4 => {
            let ip = Ipv4Packet::new_checked(packet).ok()?;
            if ip.more_frags() || ip.frag_offset() != 0 {
                return None;
            }
            Some(Transport {
                source: ip.src_addr().into(),
                destination: ip.dst_addr().into(),
                protocol: ip.next_header(),
                offset: offset + usize::from(ip.header_len()),
                payload: packet.get(usize::from(ip.header_len())..usize::from(ip.total_len()))?,
            })
        }
        6 => {
            let ip = Ipv6Packet::new_checked(packet).ok()?;
            let header = ip.header_len();
            Some(Transport {
                source: ip.src_addr().into(),
                destination: ip.dst_addr().into(),
                protocol: ip.next_header(),
                offset: offset + header,
                payload: packet.get(header..header + usize::from(ip.payload_len()))?,
            })
        }
        _ => None,
    }
}

/// If the frame asks for a new connection: where from and where to.
pub fn connection_request(medium: Medium, frame: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let transport = transport(medium, frame)?;
    if transport.protocol != IpProtocol::Tcp {
        return None;
    }
    let tcp = TcpPacket::new_checked(transport.payload).ok()?;
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
pub fn checksum_is_right(medium: Medium, frame: &[u8]) -> bool {
    match transport(medium, frame) {
        Some(transport) if transport.protocol == IpProtocol::Tcp => {
            ones_complement_sum(transport.payload, transport.pseudo_header_sum()) == 0xffff
        }
        Some(_) => true,
        None => !is_fragment_of_tcp(medium, frame),
    }
}

/// Computes the checksum of a TCP segment to be sent and puts it into its field, which is zero.
pub fn fill_in_checksum(medium: Medium, frame: &mut [u8]) {
    let Some(transport) = transport(medium, frame) else {
        return;
    };
    if transport.protocol != IpProtocol::Tcp {
        return;
    }
    let sum = ones_complement_sum(transport.payload, transport.pseudo_header_sum());
    let at = transport.offset + usize::from(TCP_CHECKSUM);
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

/// Sum of 16-bit words in ones' complement, not inverted; `start` is added. Eight bytes at a time, since the sum is the same in any order
/// of bytes (RFC 1071, 2).
fn ones_complement_sum(bytes: &[u8], start: u16) -> u16 {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut sum = u64::from(start.to_be());
    let mut add = |word: u64| {
        let (next, carry) = sum.overflowing_add(word);
        sum = next + u64::from(carry);
    };
    for word in words {
        add(u64::from_ne_bytes(*word));
    }
    let mut last = [0; 8];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    add(u64::from_ne_bytes(last));
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
    medium: Medium,
    frame: &mut [u8],
    segment_size: Option<NonZeroU16>,
    sum_with_length: bool,
) -> Option<Finish> {
    let (start, offset, header_length, sum, is_v6) = {
        let transport = transport(medium, frame)?;
        let length = u32::try_from(transport.payload.len()).ok()?;
        let length = if segment_size.is_some() && !sum_with_length {
            0
        } else {
            length
        };
        let (offset, header) = match transport.protocol {
            IpProtocol::Tcp => {
                let tcp = TcpPacket::new_checked(transport.payload).ok()?;
                (TCP_CHECKSUM, usize::from(tcp.header_len()))
            }
            IpProtocol::Udp => (6, 8),
            _ => return None,
        };
        let sum = pseudo_header_sum(
            &transport.source,
            &transport.destination,
            transport.protocol.into(),
            length,
        );
        let start = u16::try_from(transport.offset).ok()?;
        let headers = u16::try_from(transport.offset + header).ok()?;
        let is_v6 = matches!(transport.source, IpAddress::Ipv6(_));
        (start, offset, headers, sum, is_v6)
    };
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
mod tests {
    use std::vec::Vec;

    use smoltcp::phy::ChecksumCapabilities;
    use smoltcp::wire::{
        IpRepr, Ipv4Address, Ipv4Repr, Ipv6Address, Ipv6Repr, TcpControl, TcpRepr, TcpSeqNumber,
        TcpTimestampGenerator, TcpTimestampRepr,
    };

    use super::*;

    /// A segment of the stack's, with its checksum, as smoltcp computes it.
    fn segment(v6: bool, payload: &[u8]) -> Vec<u8> {
        let now: TcpTimestampGenerator = || 7;
        let tcp = TcpRepr {
            src_port: 4711,
            dst_port: 80,
            control: TcpControl::Psh,
            seq_number: TcpSeqNumber(-5),
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

    #[test]
    fn checksums_are_those_of_the_stack() {
        for len in (0..70).chain([255, 1447, 1448]) {
            let payload: Vec<u8> = (0..len).map(|n| (n * 37 + len) as u8).collect();
            for (v6, header) in [(false, 20), (true, 40)] {
                let frame = segment(v6, &payload);
                assert!(checksum_is_right(Medium::Ip, &frame), "{len}");
                let mut empty = frame.clone();
                empty[header + 16..header + 18].fill(0);
                fill_in_checksum(Medium::Ip, &mut empty);
                assert_eq!(empty, frame, "{len}");
                // Every bit counts.
                for at in [header, header + 17, frame.len() - 1] {
                    let mut damaged = frame.clone();
                    damaged[at] ^= 0x40;
                    assert!(!checksum_is_right(Medium::Ip, &damaged), "{len} {at}");
                }
            }
        }
    }

    #[test]
    fn what_has_no_checksum_of_tcp_passes_but_its_fragments() {
        let mut frame = segment(false, b"some bytes");
        // More fragments.
        frame[6] = 0x20;
        let mut packet = Ipv4Packet::new_unchecked(&mut frame);
        packet.fill_checksum();
        assert!(!checksum_is_right(Medium::Ip, &frame));
        let mut packet = Ipv4Packet::new_unchecked(&mut frame);
        packet.set_next_header(IpProtocol::Udp);
        assert!(checksum_is_right(Medium::Ip, &frame));
        assert!(checksum_is_right(Medium::Ip, &[]));
        assert!(checksum_is_right(Medium::Ethernet([2; 6]), &[0; 14]));
    }
}
