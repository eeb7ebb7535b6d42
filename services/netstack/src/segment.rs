//! A look at a frame before the stack sees it: is it the first of a new connection, and is its checksum right.

use core::net::SocketAddr;
use core::num::NonZeroU16;

use smoltcp::wire::{
    EthernetFrame, EthernetProtocol, IpAddress, IpProtocol, Ipv4Packet, Ipv6Packet, TcpPacket,
    UdpPacket,
};

use crate::link::Medium;

/// Transport header of a whole packet, with the packet's addresses.
struct Transport<'a> {
    source: IpAddress,
    destination: IpAddress,
    protocol: IpProtocol,
    payload: &'a [u8],
    /// Where the payload starts in the frame.
    offset: usize,
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

/// Whether the transport checksum is right, or there is none.
pub fn checksum_is_right(medium: Medium, frame: &[u8]) -> bool {
    let Some(transport) = transport(medium, frame) else {
        return true;
    };
    let (source, destination) = (&transport.source, &transport.destination);
    match transport.protocol {
        IpProtocol::Tcp => TcpPacket::new_checked(transport.payload)
            .is_ok_and(|tcp| tcp.verify_checksum(source, destination)),
        IpProtocol::Udp => UdpPacket::new_checked(transport.payload)
            .is_ok_and(|udp| udp.verify_checksum(source, destination)),
        _ => true,
    }
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
                (16u16, usize::from(tcp.header_len()))
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
