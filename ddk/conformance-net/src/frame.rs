//! Frames that tests make and look at: Ethernet, IPv4 and IPv6, TCP and UDP, and the checksums over them, computed here and nowhere else.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use proto::net::{MacAddress, Segmentation, SegmentationSum};

use crate::home::{Cut, Sum};

/// Bytes of an Ethernet header.
pub const ETHERNET_BYTES: usize = 14;
/// Shortest frame on a wire, without its check sequence (IEEE 802.3, 3.2.8): shorter ones are padded with zeroes.
pub const WIRE_MIN: usize = 60;
/// Type of the frames that are nobody's (IEEE 802, local experimental).
const EXPERIMENTAL: [u8; 2] = [0x88, 0xb5];
/// Bytes before the pattern of a numbered frame: header, number, length.
const NUMBERED_MIN: usize = ETHERNET_BYTES + 6;
/// The other end of the wire.
pub const PEER: MacAddress = MacAddress([0x02, 0, 0, 0, 0, 0x01]);

/// The one's complement sum of 16-bit words (RFC 1071), folded.
pub fn sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| match *pair {
        [high, low] => u32::from(u16::from_be_bytes([high, low])),
        [high] => u32::from(high) << 8,
        _ => 0,
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Puts a word at its place.
fn put(frame: &mut [u8], at: usize, word: u16) {
    if let Some(field) = frame.get_mut(at..at + 2) {
        field.copy_from_slice(&word.to_be_bytes());
    }
}

/// The word at a place.
fn word(frame: &[u8], at: usize) -> u16 {
    frame.get(at..at + 2).map_or(0, sum)
}

fn pattern(number: u32, n: usize) -> u8 {
    let mixed = (number ^ (n as u32).wrapping_mul(0x9e37)).wrapping_mul(0x85eb_ca6b);
    (mixed >> 24) as u8
}

/// A frame of `len` bytes that tells its number, where there is room: every byte after the header depends on it.
pub fn numbered(to: MacAddress, from: MacAddress, len: usize, number: u32) -> Vec<u8> {
    let mut frame = Vec::with_capacity(len);
    frame.extend(to.0);
    frame.extend(from.0);
    frame.extend(EXPERIMENTAL);
    if len >= NUMBERED_MIN {
        frame.extend(number.to_be_bytes());
        frame.extend((len as u16).to_be_bytes());
    }
    let start = frame.len();
    frame.extend((start..len).map(|n| pattern(number, n)));
    frame
}

/// The number of a frame that is whole, to the last byte and the padding.
///
/// # Errors
/// What is wrong with it.
pub fn number_of(frame: &[u8]) -> Result<u32, String> {
    let torn = |what: &str| {
        let start = frame.get(..NUMBERED_MIN.min(frame.len()));
        Err(format!("{what}: {} bytes, {start:02x?}", frame.len()))
    };
    let (Some(number), Some(len)) = (
        frame.get(ETHERNET_BYTES..ETHERNET_BYTES + 4),
        frame.get(ETHERNET_BYTES + 4..NUMBERED_MIN),
    ) else {
        return torn("a frame that nobody sent");
    };
    let number = number
        .iter()
        .fold(0, |all, byte| all << 8 | u32::from(*byte));
    let len = usize::from(sum(len));
    let address = |at| {
        frame
            .get(at..at + 6)
            .and_then(|bytes| bytes.try_into().ok())
    };
    let (Some(to), Some(from)) = (address(0), address(6)) else {
        return torn("a frame that nobody sent");
    };
    let whole = numbered(MacAddress(to), MacAddress(from), len, number);
    if !is_padded(frame, &whole) {
        return torn("a torn frame");
    }
    Ok(number)
}

/// Whether this is the frame, or the frame with padding up to the shortest that a wire carries.
pub fn is_padded(seen: &[u8], frame: &[u8]) -> bool {
    let padding = seen.strip_prefix(frame);
    padding
        .is_some_and(|p| p.is_empty() || seen.len() <= WIRE_MIN && p.iter().all(|byte| *byte == 0))
}

/// Internet protocol of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ip {
    /// Version 4, with `options` bytes (a multiple of 4) of options.
    V4 {
        /// Bytes of options.
        options: u8,
    },
    /// Version 6.
    V6,
}

/// What a packet carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    /// TCP, with `options` bytes (a multiple of 4) of options.
    Tcp {
        /// Bytes of options.
        options: u8,
    },
    /// UDP.
    Udp,
}

/// A packet to be made.
#[derive(Clone, Debug)]
pub struct Packet {
    /// To whom.
    pub to: MacAddress,
    /// From whom.
    pub from: MacAddress,
    /// The network's protocol.
    pub ip: Ip,
    /// And what is in it.
    pub transport: Transport,
    /// Its payload.
    pub payload: Vec<u8>,
}

/// What the checksum field of the transport header holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Field {
    /// The checksum.
    Right,
    /// A wrong one.
    Wrong,
    /// The pseudo-header's sum, for a device that fills it in.
    Pseudo,
    /// The same for a device that cuts the packet.
    PseudoToCut(SegmentationSum),
}

const TCP_PROTOCOL: u8 = 6;
const UDP_PROTOCOL: u8 = 17;
/// FIN, PSH and ACK.
const TCP_FLAGS: u8 = 0x19;
/// First sequence number: it goes over its end soon.
const SEQUENCE: u32 = 0xffff_f000;

impl Packet {
    /// Bytes of the IP header.
    fn ip_bytes(&self) -> usize {
        match self.ip {
            Ip::V4 { options } => 20 + usize::from(options),
            Ip::V6 => 40,
        }
    }

    /// Bytes of TCP's or UDP's header.
    fn transport_bytes(&self) -> usize {
        match self.transport {
            Transport::Tcp { options } => 20 + usize::from(options),
            Transport::Udp => 8,
        }
    }

    /// Where the transport header begins.
    fn start(&self) -> usize {
        ETHERNET_BYTES + self.ip_bytes()
    }

    /// Bytes of all headers.
    pub fn header_bytes(&self) -> usize {
        self.start() + self.transport_bytes()
    }

    /// The transport header's checksum.
    pub fn sum(&self) -> Sum {
        Sum {
            start: self.start() as u16,
            offset: match self.transport {
                Transport::Tcp { .. } => 16,
                Transport::Udp => 6,
            },
        }
    }

    /// How it is cut into segments of `size` bytes of payload.
    pub fn cut(&self, size: u16) -> Cut {
        Cut {
            kind: match self.ip {
                Ip::V4 { .. } => Segmentation::TCP4,
                Ip::V6 => Segmentation::TCP6,
            },
            size,
            header_length: self.header_bytes() as u16,
        }
    }

    /// The frame.
    pub fn frame(&self, field: Field) -> Vec<u8> {
        let length = self.transport_bytes() + self.payload.len();
        let mut frame = Vec::from(self.to.0);
        frame.extend(self.from.0);
        let protocol = match self.transport {
            Transport::Tcp { .. } => TCP_PROTOCOL,
            Transport::Udp => UDP_PROTOCOL,
        };
        match self.ip {
            Ip::V4 { options } => {
                frame.extend([8, 0, 0x45 + options / 4, 0]);
                frame.extend(((self.ip_bytes() + length) as u16).to_be_bytes());
                frame.extend([0xff, 0xfe, 0x40, 0, 64, protocol, 0, 0]);
                frame.extend([10, 0, 0, 1, 10, 0, 0, 2]);
                // No operation, as often as it takes.
                frame.resize(self.start(), 1);
                let is_cut = matches!(field, Field::PseudoToCut(_));
                let header = frame.get(ETHERNET_BYTES..).map_or(0, |header| !sum(header));
                put(
                    &mut frame,
                    ETHERNET_BYTES + 10,
                    if is_cut { 0 } else { header },
                );
            }
            Ip::V6 => {
                frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                frame.extend((length as u16).to_be_bytes());
                frame.extend([protocol, 64]);
                let address = |last| [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last];
                frame.extend(address(1));
                frame.extend(address(2));
            }
        }
        frame.extend([0x30, 0x39, 0, 80]);
        match self.transport {
            Transport::Tcp { options } => {
                frame.extend(SEQUENCE.to_be_bytes());
                frame.extend([
                    0,
                    0,
                    0,
                    7,
                    0x50 + ((options / 4) << 4),
                    TCP_FLAGS,
                    0x10,
                    0,
                    0,
                    0,
                    0,
                    0,
                ]);
                frame.resize(self.header_bytes(), 1);
            }
            Transport::Udp => frame.extend([(length >> 8) as u8, length as u8, 0, 0]),
        }
        frame.extend(&self.payload);
        let place = self.sum();
        let at = usize::from(place.start + place.offset);
        let addressed = frame.clone();
        let pseudo = |length: usize| sum(&pseudo(&addressed, self.ip, protocol, length));
        let value = match field {
            Field::Pseudo | Field::PseudoToCut(SegmentationSum::WithLength) => pseudo(length),
            Field::PseudoToCut(SegmentationSum::WithoutLength) => pseudo(0),
            Field::Right | Field::Wrong => {
                let partial = pseudo(length);
                put(&mut frame, at, partial);
                let right = !frame.get(self.start()..).map_or(0, sum);
                let right = if right == 0 { 0xffff } else { right };
                if field == Field::Right {
                    right
                } else {
                    right ^ 0x0100
                }
            }
        };
        put(&mut frame, at, value);
        frame
    }
}

/// The pseudo-header of a packet (RFC 9293, 3.1; RFC 8200, 8.1).
fn pseudo(frame: &[u8], ip: Ip, protocol: u8, length: usize) -> Vec<u8> {
    let addresses = match ip {
        Ip::V4 { .. } => ETHERNET_BYTES + 12..ETHERNET_BYTES + 20,
        Ip::V6 => ETHERNET_BYTES + 8..ETHERNET_BYTES + 40,
    };
    let mut bytes = Vec::from(frame.get(addresses).unwrap_or_default());
    bytes.extend((length as u32).to_be_bytes());
    bytes.extend([0, protocol]);
    bytes
}

/// Checks the checksums of a packet on the wire against its bytes.
///
/// # Errors
/// Which one is wrong.
pub fn check_sums(frame: &[u8], like: &Packet) -> Result<(), String> {
    let start = like.start();
    if let Ip::V4 { .. } = like.ip {
        let header = frame.get(ETHERNET_BYTES..start).unwrap_or_default();
        if sum(header) != 0xffff {
            return Err(format!("IPv4 header with a wrong checksum: {header:02x?}"));
        }
    }
    let length = match like.ip {
        Ip::V4 { .. } => usize::from(word(frame, ETHERNET_BYTES + 2)).checked_sub(like.ip_bytes()),
        Ip::V6 => Some(usize::from(word(frame, ETHERNET_BYTES + 4))),
    };
    let body = length.and_then(|length| frame.get(start..start + length));
    let Some(body) = body.filter(|body| body.len() >= like.transport_bytes()) else {
        return Err(format!(
            "length of the packet: {length:?} of {}",
            frame.len()
        ));
    };
    let protocol = match like.transport {
        Transport::Tcp { .. } => TCP_PROTOCOL,
        Transport::Udp => UDP_PROTOCOL,
    };
    let mut all = pseudo(frame, like.ip, protocol, body.len());
    all.extend(body);
    if sum(&all) != 0xffff {
        return Err(format!("wrong checksum: {:02x?}", &frame.get(..start + 20)));
    }
    Ok(())
}

/// Checks a segment number `n` of those that a packet was cut into.
///
/// # Errors
/// What is wrong with it.
pub fn check_segment(seen: &[u8], packet: &Packet, size: usize, n: usize) -> Result<(), String> {
    let count = packet.payload.len().div_ceil(size);
    let piece = packet.payload.chunks(size).nth(n).unwrap_or_default();
    let only = Packet {
        payload: Vec::from(piece),
        ..packet.clone()
    };
    let mut expected = only.frame(Field::Right);
    let start = packet.start();
    let sequence = SEQUENCE.wrapping_add((n * size) as u32);
    if let Some(field) = expected.get_mut(start + 4..start + 8) {
        field.copy_from_slice(&sequence.to_be_bytes());
    }
    if n + 1 < count
        && let Some(flags) = expected.get_mut(start + 13)
    {
        // FIN and PSH are the last one's.
        *flags &= !0x09;
    }
    let length = expected.len();
    if seen.len() != length && !is_padded(seen, seen.get(..length).unwrap_or_default()) {
        return Err(format!(
            "segment {n} of {} bytes, expected {length}",
            seen.len()
        ));
    }
    check_sums(seen, packet).map_err(|what| format!("segment {n}: {what}"))?;
    // The checksums were looked at; the identification counts up from the first one's.
    let mut masked = Vec::from(seen.get(..length).unwrap_or_default());
    if let Ip::V4 { .. } = packet.ip {
        let id = word(&masked, ETHERNET_BYTES + 4);
        if id != word(&expected, ETHERNET_BYTES + 4).wrapping_add(n as u16) {
            return Err(format!("segment {n} has the identification {id:#x}"));
        }
        for frame in [&mut masked, &mut expected] {
            put(frame, ETHERNET_BYTES + 4, 0);
            put(frame, ETHERNET_BYTES + 10, 0);
        }
    }
    for frame in [&mut masked, &mut expected] {
        put(frame, start + 16, 0);
    }
    if masked != expected {
        let at = masked.iter().zip(&expected).position(|(a, b)| a != b);
        return Err(format!("segment {n} differs at {at:?}"));
    }
    Ok(())
}
