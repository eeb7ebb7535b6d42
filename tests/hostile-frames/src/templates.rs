//! Valid frames of every kind, and the floods.

use fastrand::Rng;

use crate::packet::{
    ARP, ETHERNET, ICMP, ICMPV6, IGMP, IPV4, IPV6, TCP, UDP, ethernet, ipv4, ipv6, repair, tcp,
    transport as find_transport, udp,
};
use crate::{Flood, Host, Kind, Net};

/// Bytes of a frame that headers and options take, at most.
pub(crate) const HEADERS_MAX: usize = 160;

/// All nodes of a link, its MAC address (RFC 2464, 7) and IPv6's (RFC 4291, 2.7.1).
const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
const ALL_NODES: [u8; 16] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const BROADCAST: [u8; 6] = [0xff; 6];
/// Hop limit that proves a packet to come from the link (RFC 4861, 6.1.2).
const FROM_THE_LINK: u8 = 255;

/// TCP flags (RFC 9293, 3.1).
const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const PSH: u8 = 8;
const ACK: u8 = 16;

/// Where the transport's header is, or where it would be.
pub(crate) fn transport(frame: &[u8]) -> usize {
    find_transport(frame).map_or(ETHERNET, |(at, ..)| at)
}

struct Maker<'a> {
    net: &'a Net,
    random: &'a mut Rng,
}

impl Maker<'_> {
    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.random.u8(..)).collect()
    }

    fn to_guest(&self, kind: u16, payload: &[u8]) -> Vec<u8> {
        let mut frame = ethernet(self.net.guest.mac, self.net.own.mac, kind, payload);
        let _ = repair(&mut frame);
        frame
    }

    fn v4(&mut self, protocol: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
        let Net { own, guest, .. } = *self.net;
        let number = (self.random.u16(..), 0);
        let packet = ipv4(protocol, [own.ip4, guest.ip4], number, options, payload);
        self.to_guest(IPV4, &packet)
    }

    fn v6(&mut self, next: u8, payload: &[u8]) -> Vec<u8> {
        let Net { own, guest, .. } = *self.net;
        let packet = ipv6(next, [own.ip6, guest.ip6], FROM_THE_LINK, payload);
        self.to_guest(IPV6, &packet)
    }

    fn v6_to_all(&mut self, next: u8, from: [u8; 16], payload: &[u8]) -> Vec<u8> {
        let packet = ipv6(next, [from, ALL_NODES], FROM_THE_LINK, payload);
        let mut frame = ethernet(ALL_NODES_MAC, self.net.own.mac, IPV6, &packet);
        let _ = repair(&mut frame);
        frame
    }

    fn tagged(&mut self, tags: &[u16]) -> Vec<u8> {
        let echo = self.echo(32);
        let inner = self.v4(ICMP, &[], &echo);
        let mut frame = inner[..12].to_vec();
        for kind in tags {
            frame.extend(kind.to_be_bytes());
            frame.extend(self.random.u16(..).to_be_bytes());
        }
        frame.extend(&inner[12..]);
        frame
    }

    fn echo(&mut self, len: usize) -> Vec<u8> {
        let mut message = vec![8, 0, 0, 0];
        message.extend(self.bytes(4 + len));
        message
    }

    fn arp(&self, operation: u8, from: Host, to: Host, destination: [u8; 6]) -> Vec<u8> {
        let mut packet = vec![0, 1, 8, 0, 6, 4, 0, operation];
        packet.extend(from.mac);
        packet.extend(from.ip4);
        packet.extend(to.mac);
        packet.extend(to.ip4);
        ethernet(destination, from.mac, ARP, &packet)
    }

    /// An ICMP or ICMPv6 error about a segment of the guest's.
    fn error(&mut self, kind: u8, code: u8, is_v6: bool) -> Vec<u8> {
        let Net { own, guest, port } = *self.net;
        let segment = tcp([port, 40_000], [1, 1], ACK, &[], &[0; 8]);
        let about = if is_v6 {
            ipv6(TCP, [guest.ip6, own.ip6], 64, &segment)
        } else {
            ipv4(TCP, [guest.ip4, own.ip4], (1, 0), &[], &segment)
        };
        let mut message = vec![kind, code, 0, 0];
        // MTU, pointer or gateway.
        message.extend(self.bytes(4));
        message.extend(about);
        message
    }

    /// A router advertisement (RFC 4861, 4.2) with these prefixes.
    fn router(&mut self, lifetime_s: u16, prefixes: &[[u8; 16]]) -> Vec<u8> {
        let mut message = vec![134, 0, 0, 0, 64, 0];
        message.extend(lifetime_s.to_be_bytes());
        message.extend([0; 8]);
        message.extend([1, 1]);
        message.extend(self.net.own.mac);
        message.extend([5, 1, 0, 0]);
        message.extend(1500u32.to_be_bytes());
        for prefix in prefixes {
            message.extend([3, 4, 64, 0xc0]);
            message.extend(3600u32.to_be_bytes());
            message.extend(1800u32.to_be_bytes());
            message.extend([0; 4]);
            message.extend(prefix);
        }
        // A name server (RFC 8106).
        message.extend([25, 3, 0, 0]);
        message.extend(600u32.to_be_bytes());
        message.extend(self.net.own.ip6);
        message
    }

    fn prefix(&mut self) -> [u8; 16] {
        let mut prefix = [0; 16];
        prefix[..8].copy_from_slice(&self.random.u64(..).to_be_bytes());
        prefix[0] = 0x20 | (prefix[0] & 15);
        prefix
    }

    fn neighbour(&self, kind: u8, target: [u8; 16], mac: [u8; 6]) -> Vec<u8> {
        let flags = if kind == 136 { 0x60 } else { 0 };
        let mut message = vec![kind, 0, 0, 0, flags, 0, 0, 0];
        message.extend(target);
        message.extend([if kind == 136 { 2 } else { 1 }, 1]);
        message.extend(mac);
        message
    }

    /// A DHCP answer (RFC 2131) for whom nobody asked.
    fn dhcp(&mut self, message_type: u8) -> Vec<u8> {
        let Net { own, guest, .. } = *self.net;
        let mut message = vec![2, 1, 6, 0];
        message.extend(self.bytes(4));
        message.extend([0; 8]);
        message.extend(guest.ip4);
        message.extend(own.ip4);
        message.extend([0; 4]);
        message.extend(guest.mac);
        message.resize(236, 0);
        message.extend([0x63, 0x82, 0x53, 0x63, 53, 1, message_type, 54, 4]);
        message.extend(own.ip4);
        message.extend([51, 4, 0, 0, 0, 60, 1, 4, 255, 255, 255, 0, 3, 4]);
        message.extend(own.ip4);
        message.extend([6, 8]);
        message.extend(own.ip4);
        message.extend(self.bytes(4));
        message.push(255);
        udp(67, 68, &message)
    }

    /// A DNS answer (RFC 1035) whose names lead back to themselves or to another.
    fn dns(&mut self, port: u16) -> Vec<u8> {
        let mut message = self.bytes(2);
        message.extend([0x81, 0x80, 0, 1, 0, 2, 0, 0, 0, 0]);
        message.extend(b"\x04host\x04test\0\0\x01\0\x01");
        message.extend([0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 60, 0, 2, 0xc0, 39]);
        message.extend([0xc0, 39, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 10, 0, 5, 2]);
        udp(53, port, &message)
    }

    fn segment(&mut self, flags: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
        let from = self.random.u16(1024..);
        let numbers = [self.random.u32(..), self.random.u32(..)];
        tcp([from, self.net.port], numbers, flags, options, payload)
    }
}

/// MSS, SACK permitted, timestamps, window scale (RFC 9293, 7323, 2018).
const TCP_OPTIONS: [u8; 20] = [
    2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7,
];
/// SACK blocks (RFC 2018, 3).
const SACK: [u8; 12] = [1, 1, 5, 10, 0, 0, 0, 1, 0, 0, 0, 9];
/// Record route, timestamp, router alert, end (RFC 791, 3.1; RFC 2113).
const IPV4_OPTIONS: [u8; 24] = [
    7, 7, 4, 0, 0, 0, 0, 68, 8, 5, 0, 0, 0, 0, 0, 148, 4, 0, 0, 1, 1, 1, 1, 0,
];

/// A valid frame of every kind.
pub(crate) fn all(net: &Net, random: &mut Rng) -> Vec<(Kind, Vec<u8>)> {
    let mut make = Maker { net, random };
    let Net { own, guest, port } = *net;
    let mut all = Vec::new();
    let mut add = |kind, frame| all.push((kind, frame));

    for tags in [&[0x8100][..], &[0x88a8, 0x8100], &[0x8100; 6]] {
        add(Kind::Ethernet, make.tagged(tags));
    }
    let payload = make.bytes(46);
    add(Kind::Ethernet, make.to_guest(0x88cc, &payload));
    add(Kind::Ethernet, make.to_guest(46, &payload));
    add(
        Kind::Ethernet,
        ethernet(BROADCAST, own.mac, 0x9000, &payload),
    );

    add(Kind::Arp, make.arp(1, own, guest, BROADCAST));
    add(Kind::Arp, make.arp(2, own, guest, guest.mac));
    add(Kind::Arp, make.arp(1, own, own, BROADCAST));

    let echo = make.echo(32);
    add(Kind::Ipv4, make.v4(ICMP, &IPV4_OPTIONS, &echo));
    add(Kind::Ipv4, make.v4(253, &[], &payload));
    add(
        Kind::Ipv4,
        make.v4(IGMP, &[148, 4, 0, 0], &[0x11, 10, 0, 0, 0, 0, 0, 0]),
    );

    add(Kind::Icmp, make.v4(ICMP, &[], &echo));
    for (kind, code) in [(3, 3), (3, 4), (4, 0), (5, 1), (11, 0), (12, 0), (13, 0)] {
        let error = make.error(kind, code, false);
        add(Kind::Icmp, make.v4(ICMP, &[], &error));
    }

    let datagram = udp(7, 7, b"what");
    let chains: [(u8, Vec<u8>); 7] = [
        (0, [&[UDP, 0, 5, 2, 0, 0, 1, 0][..], &datagram].concat()),
        (60, [&[UDP, 0, 1, 4, 0, 0, 0, 0][..], &datagram].concat()),
        (
            43,
            [&[UDP, 2, 0, 1, 0, 0, 0, 0], &guest.ip6[..], &datagram].concat(),
        ),
        (44, [&[UDP, 0, 0, 1, 1, 2, 3, 4][..], &datagram].concat()),
        (51, [&[UDP, 4, 0, 0], &[1; 20][..], &datagram].concat()),
        (
            0,
            [
                &[60, 0, 0xc2, 4, 0, 1, 0, 0, UDP, 0, 1, 4, 0, 0, 0, 0][..],
                &datagram,
            ]
            .concat(),
        ),
        (59, datagram.clone()),
    ];
    for (next, packet) in chains {
        add(Kind::Ipv6, make.v6(next, &packet));
    }

    let mut echo6 = make.echo(32);
    echo6[0] = 128;
    add(Kind::Icmpv6, make.v6(ICMPV6, &echo6));
    let prefixes = [make.prefix(), make.prefix()];
    let router = make.router(1800, &prefixes);
    add(Kind::Icmpv6, make.v6_to_all(ICMPV6, own.ip6, &router));
    let messages = [
        make.neighbour(135, guest.ip6, own.mac),
        make.neighbour(136, own.ip6, own.mac),
        [&[133, 0, 0, 0, 0, 0, 0, 0, 1, 1][..], &own.mac].concat(),
        [&[137, 0, 0, 0, 0, 0, 0, 0][..], &own.ip6, &guest.ip6].concat(),
        // Queries and reports of groups (RFC 3810).
        [&[130, 0, 0, 0, 39, 16, 0, 0], &[0; 16][..], &[2, 125, 0, 0]].concat(),
        [&[143, 0, 0, 0, 0, 0, 0, 1, 4, 0, 0, 0][..], &ALL_NODES].concat(),
        make.error(1, 4, true),
        make.error(2, 0, true),
        make.error(4, 1, true),
    ];
    for message in messages {
        add(Kind::Icmpv6, make.v6(ICMPV6, &message));
    }

    for to in [port, 7, 0, 546, 5353] {
        let datagram = udp(make.random.u16(..), to, &payload);
        add(Kind::Udp, make.v4(UDP, &[], &datagram));
        add(Kind::Udp, make.v6(UDP, &datagram));
    }

    for (flags, options, data) in [
        (SYN, &TCP_OPTIONS[..], &b""[..]),
        (SYN | ACK, &TCP_OPTIONS, b""),
        (ACK | PSH, &TCP_OPTIONS[4..16], b"GET / HTTP/1.0\r\n\r\n"),
        (ACK, &SACK, b""),
        (FIN | ACK, b"", b""),
        (RST, b"", b""),
        (0, b"", b"nothing"),
        (0xff, b"", b"everything"),
    ] {
        let segment = make.segment(flags, options, data);
        add(Kind::Tcp, make.v4(TCP, &[], &segment));
        add(Kind::Tcp, make.v6(TCP, &segment));
    }

    for message_type in [2, 5, 6] {
        let datagram = make.dhcp(message_type);
        add(Kind::Dhcp, make.v4(UDP, &[], &datagram));
    }
    let dynamic = make.random.u16(49_152..);
    let datagram = make.dns(dynamic);
    add(Kind::Dns, make.v4(UDP, &[], &datagram));
    add(Kind::Dns, make.v6(UDP, &datagram));
    all
}

/// A fragment: of a packet that another one completes, overlaps, exceeds, or that nobody does.
pub(crate) fn fragment(net: &Net, random: &mut Rng) -> Vec<u8> {
    const MORE: u16 = 0x2000;
    let mut make = Maker { net, random };
    let random = &mut *make.random;
    // Few packets, so that fragments meet.
    let number = random.u16(..6);
    let offset = match random.u8(..5) {
        0 => 0,
        1 => random.u16(..4),
        2 => random.u16(..200),
        3 => 0x1fff,
        _ => random.u16(..0x2000),
    };
    let more = if random.u8(..3) == 0 { 0 } else { MORE };
    let len = match random.u8(..4) {
        0 => random.usize(..9),
        1 => 1480,
        2 => random.usize(..1480) & !7,
        _ => random.usize(..1480),
    };
    let is_v6 = random.u8(..4) == 0;
    let protocol = [ICMP, TCP, UDP][random.usize(..3)];
    let mut payload = make.bytes(len);
    let Net { own, guest, .. } = *net;
    if is_v6 {
        let more = u16::from(more != 0);
        let mut packet = vec![protocol, 0];
        packet.extend(((offset << 3) | more).to_be_bytes());
        packet.extend(u32::from(number).to_be_bytes());
        packet.append(&mut payload);
        return make.v6(44, &packet);
    }
    let place = (number, offset | more);
    let packet = ipv4(protocol, [own.ip4, guest.ip4], place, &[], &payload);
    make.to_guest(IPV4, &packet)
}

/// A station that there is not.
fn stranger(net: &Net, random: &mut Rng) -> Host {
    let [a, b, c, _] = net.own.ip4;
    let mut host = net.own;
    host.mac = random.u64(..).to_be_bytes()[..6]
        .try_into()
        .unwrap_or(host.mac);
    host.mac[0] = (host.mac[0] | 2) & 0xfe;
    host.ip4 = [a, b, c, random.u8(16..255)];
    host.ip6[8..].copy_from_slice(&random.u64(..).to_be_bytes());
    host
}

/// The next frame of a flood.
pub(crate) fn flood(net: &Net, random: &mut Rng, flood: Flood) -> Vec<u8> {
    let from = stranger(net, random);
    let others = Net { own: from, ..*net };
    let mut make = Maker {
        net: &others,
        random,
    };
    let guest = net.guest;
    let anywhere = |make: &mut Maker<'_>, protocol, payload: &[u8]| {
        // From outside of the net: nobody is asked for their addresses.
        let mut source = make.random.u32(..).to_be_bytes();
        source[0] = 11 + source[0] % 100;
        let number = (make.random.u16(..), 0);
        let packet = ipv4(protocol, [source, guest.ip4], number, &[], payload);
        make.to_guest(IPV4, &packet)
    };
    match flood {
        Flood::Syn => {
            let segment = make.segment(SYN, &TCP_OPTIONS, &[]);
            anywhere(&mut make, TCP, &segment)
        }
        Flood::Rst => {
            let segment = make.segment(RST, &[], &[]);
            anywhere(&mut make, TCP, &segment)
        }
        Flood::Fin => {
            let segment = make.segment(FIN | ACK, &[], &[]);
            anywhere(&mut make, TCP, &segment)
        }
        Flood::Router => {
            let count = make.random.usize(1..12);
            let prefixes: Vec<_> = (0..count).map(|_| make.prefix()).collect();
            let lifetime_s = make.random.u16(..);
            let message = make.router(lifetime_s, &prefixes);
            make.v6_to_all(ICMPV6, from.ip6, &message)
        }
        Flood::Arp => make.arp(1, from, guest, BROADCAST),
        Flood::Neighbour => {
            let message = make.neighbour(135, guest.ip6, from.mac);
            make.v6(ICMPV6, &message)
        }
        Flood::Fragment => {
            let payload = make.bytes(64);
            let place = (make.random.u16(..), 0x2000);
            let packet = ipv4(UDP, [from.ip4, guest.ip4], place, &[], &payload);
            make.to_guest(IPV4, &packet)
        }
        Flood::Dhcp => {
            let message_type = [2, 5, 6][make.random.usize(..3)];
            let datagram = make.dhcp(message_type);
            make.v4(UDP, &[], &datagram)
        }
        Flood::Udp => {
            let to = make.random.u16(..);
            let datagram = udp(9, to, &[0; 32]);
            make.v4(UDP, &[], &datagram)
        }
        Flood::Echo => {
            let echo = make.echo(1392);
            make.v4(ICMP, &[], &echo)
        }
    }
}
