//! Frames that a hostile station sends, from a seed: valid ones of every kind ([`Generator::templates`]), those with a field changed or cut
//! short ([`Generator::sweep`]), ones by chance ([`Generator::any`]), and floods ([`Generator::flood`]).
//!
//! It makes bytes and nothing else: who sends them, and who judges what becomes of it, is elsewhere.
#![forbid(unsafe_code)]

mod packet;
mod templates;

use fastrand::Rng;

pub use packet::{IPV4, IPV6, UDP, ethernet, ipv4, repair, udp};

/// Longest frame: what QEMU takes of a datagram.
pub const FRAME_MAX: usize = 64 * 1024;

/// Addresses of a station.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Host {
    /// Ethernet.
    pub mac: [u8; 6],
    /// IPv4.
    pub ip4: [u8; 4],
    /// IPv6.
    pub ip6: [u8; 16],
}

/// Who sends to whom.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Net {
    /// The station that the frames say they come from.
    pub own: Host,
    /// Their receiver.
    pub guest: Host,
    /// A TCP port at which it listens.
    pub port: u16,
}

/// What a frame is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    /// Ethernet headers, VLAN tags, types that nobody knows.
    Ethernet,
    /// ARP.
    Arp,
    /// IPv4 headers and options.
    Ipv4,
    /// Fragments of IPv4 packets: lost, overlapping, without an end.
    Fragment,
    /// ICMP.
    Icmp,
    /// IPv6 headers and extension headers.
    Ipv6,
    /// ICMPv6: neighbours, routers, groups, errors.
    Icmpv6,
    /// UDP.
    Udp,
    /// TCP and its options.
    Tcp,
    /// DHCP answers.
    Dhcp,
    /// DNS answers.
    Dns,
    /// Any of these, cut short.
    Truncated,
    /// Any of these, too long.
    Oversized,
    /// Any of these with a wrong checksum.
    Checksum,
    /// From the receiver's own addresses.
    Land,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Kind; 15] = [
        Kind::Ethernet,
        Kind::Arp,
        Kind::Ipv4,
        Kind::Fragment,
        Kind::Icmp,
        Kind::Ipv6,
        Kind::Icmpv6,
        Kind::Udp,
        Kind::Tcp,
        Kind::Dhcp,
        Kind::Dns,
        Kind::Truncated,
        Kind::Oversized,
        Kind::Checksum,
        Kind::Land,
    ];

    /// As reports say it.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Ethernet => "ethernet",
            Kind::Arp => "arp",
            Kind::Ipv4 => "ipv4",
            Kind::Fragment => "fragment",
            Kind::Icmp => "icmp",
            Kind::Ipv6 => "ipv6",
            Kind::Icmpv6 => "icmpv6",
            Kind::Udp => "udp",
            Kind::Tcp => "tcp",
            Kind::Dhcp => "dhcp",
            Kind::Dns => "dns",
            Kind::Truncated => "truncated",
            Kind::Oversized => "oversized",
            Kind::Checksum => "checksum",
            Kind::Land => "land",
        }
    }
}

/// Many frames of one sort, each valid.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flood {
    /// Connection requests to the open port, from many stations.
    Syn,
    /// Resets of connections that are not there.
    Rst,
    /// Ends and acknowledgements of connections that are not there.
    Fin,
    /// Router advertisements of many routers with many prefixes.
    Router,
    /// ARP requests of many stations for the receiver.
    Arp,
    /// Neighbour solicitations of many stations for the receiver.
    Neighbour,
    /// First fragments of packets that never end.
    Fragment,
    /// DHCP answers that nobody asked for.
    Dhcp,
    /// Datagrams to ports at which nobody listens.
    Udp,
    /// Echo requests of 1400 bytes.
    Echo,
}

impl Flood {
    /// All floods.
    pub const ALL: [Flood; 10] = [
        Flood::Syn,
        Flood::Rst,
        Flood::Fin,
        Flood::Router,
        Flood::Arp,
        Flood::Neighbour,
        Flood::Fragment,
        Flood::Dhcp,
        Flood::Udp,
        Flood::Echo,
    ];

    /// As reports say it.
    pub const fn name(self) -> &'static str {
        match self {
            Flood::Syn => "SYN flood",
            Flood::Rst => "RST storm",
            Flood::Fin => "FIN storm",
            Flood::Router => "router advertisements",
            Flood::Arp => "ARP flood",
            Flood::Neighbour => "neighbour flood",
            Flood::Fragment => "fragment flood",
            Flood::Dhcp => "DHCP flood",
            Flood::Udp => "UDP flood",
            Flood::Echo => "echo flood",
        }
    }
}

/// Makes frames from a seed.
pub struct Generator {
    net: Net,
    random: Rng,
}

impl Generator {
    /// A generator for a net.
    pub fn new(net: Net, seed: u64) -> Generator {
        Generator {
            net,
            random: Rng::with_seed(seed),
        }
    }

    /// A valid frame of every kind that there is.
    pub fn templates(&mut self) -> Vec<(Kind, Vec<u8>)> {
        templates::all(&self.net, &mut self.random)
    }

    /// Every template with each byte of its headers changed in several ways, checksums repaired and not, and cut to every length.
    pub fn sweep(&mut self) -> Vec<(Kind, Vec<u8>)> {
        let mut all = Vec::new();
        for (kind, frame) in self.templates() {
            for at in 0..frame.len().min(templates::HEADERS_MAX) {
                let chance = self.random.u8(..);
                let was = frame[at];
                for value in [0, 0xff, was ^ 1, was ^ 0x80, was.wrapping_add(1), chance] {
                    if value == was {
                        continue;
                    }
                    let mut changed = frame.clone();
                    changed[at] = value;
                    all.push((Kind::Checksum, changed.clone()));
                    if repair(&mut changed).is_some() {
                        all.push((kind, changed));
                    }
                }
            }
            for len in 0..frame.len() {
                all.push((Kind::Truncated, frame[..len].to_vec()));
            }
        }
        all
    }

    /// A frame by chance.
    pub fn any(&mut self) -> (Kind, Vec<u8>) {
        let kind = Kind::ALL[self.random.usize(..Kind::ALL.len())];
        match kind {
            Kind::Truncated => {
                let (_, mut frame) = self.fuzzed();
                frame.truncate(self.random.usize(..=frame.len()));
                (kind, frame)
            }
            Kind::Oversized => (kind, self.oversized()),
            Kind::Checksum => {
                let (_, mut frame) = self.template();
                self.spoil(&mut frame, 14);
                (kind, frame)
            }
            Kind::Land => (kind, self.land()),
            Kind::Fragment => (kind, templates::fragment(&self.net, &mut self.random)),
            _ => self.fuzzed_of(kind),
        }
    }

    /// The next frame of a flood.
    pub fn flood(&mut self, flood: Flood) -> Vec<u8> {
        templates::flood(&self.net, &mut self.random, flood)
    }

    fn template(&mut self) -> (Kind, Vec<u8>) {
        let mut all = self.templates();
        let chosen = self.random.usize(..all.len());
        all.swap_remove(chosen)
    }

    fn fuzzed(&mut self) -> (Kind, Vec<u8>) {
        let kind = Kind::ALL[self.random.usize(..Kind::ALL.len())];
        self.fuzzed_of(kind)
    }

    fn fuzzed_of(&mut self, kind: Kind) -> (Kind, Vec<u8>) {
        let mut of_kind = self.templates();
        of_kind.retain(|(found, _)| *found == kind);
        let (kind, mut frame) = if of_kind.is_empty() {
            self.template()
        } else {
            let chosen = self.random.usize(..of_kind.len());
            of_kind.swap_remove(chosen)
        };
        // Mostly the header that the frame is about.
        let start = match kind {
            Kind::Ethernet => 0,
            Kind::Arp | Kind::Ipv4 | Kind::Ipv6 => 14,
            _ if self.random.u8(..4) == 0 => 14,
            _ => templates::transport(&frame),
        };
        self.spoil(&mut frame, start);
        if self.random.u8(..8) == 0 {
            let more = self.random.usize(..200);
            frame.extend((0..more).map(|_| self.random.u8(..)));
        }
        if self.random.u8(..4) != 0 {
            // What has no checksum that can be found goes as it is.
            let _ = repair(&mut frame);
        }
        (kind, frame)
    }

    /// Changes some bytes from `start` on.
    fn spoil(&mut self, frame: &mut [u8], start: usize) {
        let end = frame.len().min(start + templates::HEADERS_MAX);
        if start >= end {
            return;
        }
        for _ in 0..self.random.usize(1..6) {
            let at = self.random.usize(start..end);
            frame[at] = match self.random.u8(..6) {
                0 => 0,
                1 => 0xff,
                2 => frame[at].wrapping_add(1),
                3 => frame[at].wrapping_sub(1),
                4 => frame[at] ^ (1 << self.random.u8(..8)),
                _ => self.random.u8(..),
            };
        }
    }

    fn oversized(&mut self) -> Vec<u8> {
        let (_, mut frame) = self.template();
        let longest = [1600, 2049, 4096, 9018, 16_384, FRAME_MAX];
        let len = longest[self.random.usize(..longest.len())];
        let len = self.random.usize(len / 2..=len).max(frame.len());
        frame.resize(len, self.random.u8(..));
        if self.random.bool() {
            let _ = packet::lengthen(&mut frame);
            let _ = repair(&mut frame);
        }
        frame
    }

    /// From the receiver to itself, or from what no sender can be.
    fn land(&mut self) -> Vec<u8> {
        let Net { own, guest, .. } = self.net;
        let net = match self.random.u8(..6) {
            0 | 1 => Net {
                own: guest,
                ..self.net
            },
            2 => Net {
                own: Host {
                    mac: own.mac,
                    ..guest
                },
                ..self.net
            },
            3 => Net {
                own: Host {
                    ip4: [255; 4],
                    ip6: [0xff; 16],
                    mac: [0xff; 6],
                },
                ..self.net
            },
            4 => Net {
                own: Host {
                    ip4: [127, 0, 0, 1],
                    ip6: std::array::from_fn(|n| u8::from(n == 15)),
                    ..own
                },
                ..self.net
            },
            _ => Net {
                own: Host {
                    ip4: [0; 4],
                    ip6: [0; 16],
                    mac: [0; 6],
                },
                ..self.net
            },
        };
        let mut all = templates::all(&net, &mut self.random);
        let chosen = self.random.usize(..all.len());
        let mut frame = all.swap_remove(chosen).1;
        if net.own == guest && frame.len() >= 38 && self.random.bool() {
            // The same port at both ends.
            let transport = templates::transport(&frame);
            if let Some(ports) = frame.get_mut(transport..transport + 4) {
                ports[..2].copy_from_slice(&self.net.port.to_be_bytes());
                ports[2..].copy_from_slice(&self.net.port.to_be_bytes());
                let _ = repair(&mut frame);
            }
        }
        frame
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    pub(crate) const NET: Net = Net {
        own: Host {
            mac: [2, 0, 0, 0, 0, 1],
            ip4: [10, 0, 5, 2],
            ip6: [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
        },
        guest: Host {
            mac: [0x52, 0x54, 0, 0x12, 0x34, 0x56],
            ip4: [10, 0, 5, 15],
            ip6: [
                0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0x50, 0x54, 0, 0xff, 0xfe, 0x12, 0x34, 0x56,
            ],
        },
        port: 80,
    };

    #[test]
    fn the_same_seed_makes_the_same_frames() {
        let make = |seed| {
            let mut generator = Generator::new(NET, seed);
            let any: Vec<_> = (0..500).map(|_| generator.any()).collect();
            let floods = Flood::ALL.map(|flood| generator.flood(flood));
            (any, floods)
        };
        assert_eq!(make(7), make(7));
        assert_ne!(make(7).0, make(8).0);
    }

    #[test]
    fn every_kind_comes_and_no_frame_is_too_long() {
        let mut generator = Generator::new(NET, 1);
        let mut kinds = BTreeSet::new();
        let mut longest = 0;
        for _ in 0..5_000 {
            let (kind, frame) = generator.any();
            kinds.insert(kind);
            longest = longest.max(frame.len());
        }
        assert_eq!(kinds.len(), Kind::ALL.len());
        assert!(longest > 60_000 && longest <= FRAME_MAX, "{longest}");
        let swept = generator.sweep();
        assert!(swept.len() > 5_000, "{}", swept.len());
    }

    #[test]
    fn repair_leaves_a_valid_frame_as_it_is() {
        let mut generator = Generator::new(NET, 1);
        let floods = Flood::ALL.map(|flood| generator.flood(flood));
        let templates = generator.templates();
        let all = templates.into_iter().map(|(_, frame)| frame).chain(floods);
        let mut repaired = 0;
        for frame in all {
            let mut again = frame.clone();
            if repair(&mut again).is_some() {
                assert_eq!(again, frame);
                repaired += 1;
            }
        }
        assert!(repaired > 20, "{repaired}");
    }
}
