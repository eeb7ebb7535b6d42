//! A frame in a line, as `tcpdump` prints it: addresses, ports, flags and lengths of what is known, the type of what is not.

use alloc::format;
use alloc::string::{String, ToString};
use core::net::{Ipv4Addr, Ipv6Addr};

/// Reads big-endian fields without going beyond the end.
fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let pair = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_be_bytes(pair.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_be_bytes(word.try_into().ok()?))
}

/// An Ethernet frame.
pub fn ethernet(frame: &[u8]) -> String {
    let described = u16_at(frame, 12).and_then(|kind| {
        let packet = frame.get(14..)?;
        Some(match kind {
            0x0800 | 0x86dd => ip(packet),
            0x0806 => arp(packet).unwrap_or_else(|| "ARP, truncated".to_string()),
            other => format!("ethertype {other:#06x}, length {}", frame.len()),
        })
    });
    described.unwrap_or_else(|| format!("truncated frame, length {}", frame.len()))
}

/// An IP packet.
pub fn ip(packet: &[u8]) -> String {
    let described = match packet.first().map(|b| b >> 4) {
        Some(4) => ipv4(packet),
        Some(6) => ipv6(packet),
        _ => None,
    };
    described.unwrap_or_else(|| format!("IP, damaged, length {}", packet.len()))
}

fn arp(packet: &[u8]) -> Option<String> {
    let address = |at: usize| {
        let bytes: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
        Some(Ipv4Addr::from(bytes))
    };
    let (sender, target) = (address(14)?, address(24)?);
    Some(match u16_at(packet, 6)? {
        1 => format!("ARP, Request who-has {target} tell {sender}"),
        2 => format!("ARP, Reply {sender} is-at"),
        other => format!("ARP, operation {other}"),
    })
}

fn ipv4(packet: &[u8]) -> Option<String> {
    let header = usize::from(packet.first()? & 15) * 4;
    let total = usize::from(u16_at(packet, 2)?);
    let fragment = u16_at(packet, 6)?;
    let source: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
    let destination: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
    let length = total.checked_sub(header)?;
    let ends = (
        Ipv4Addr::from(source).to_string(),
        Ipv4Addr::from(destination).to_string(),
    );
    if fragment & 0x1fff != 0 {
        let offset = u32::from(fragment & 0x1fff) * 8;
        return Some(format!(
            "IP {} > {}: fragment at {offset}, length {length}",
            ends.0, ends.1
        ));
    }
    let payload = packet.get(header..)?;
    transport("IP", *packet.get(9)?, ends, payload, length)
}

fn ipv6(packet: &[u8]) -> Option<String> {
    let length = usize::from(u16_at(packet, 4)?);
    let source: [u8; 16] = packet.get(8..24)?.try_into().ok()?;
    let destination: [u8; 16] = packet.get(24..40)?.try_into().ok()?;
    let ends = (
        Ipv6Addr::from(source).to_string(),
        Ipv6Addr::from(destination).to_string(),
    );
    transport("IP6", *packet.get(6)?, ends, packet.get(40..)?, length)
}

fn transport(
    version: &str,
    protocol: u8,
    (from, to): (String, String),
    payload: &[u8],
    length: usize,
) -> Option<String> {
    let ports = || Some((u16_at(payload, 0)?, u16_at(payload, 2)?));
    Some(match protocol {
        6 => {
            let (source, destination) = ports()?;
            let (sequence, acknowledgement) = (u32_at(payload, 4)?, u32_at(payload, 8)?);
            let header = usize::from(*payload.get(12)? >> 4) * 4;
            let bits = *payload.get(13)?;
            let window = u16_at(payload, 14)?;
            let mut flags = String::new();
            for (bit, letter) in [(2, 'S'), (1, 'F'), (4, 'R'), (8, 'P'), (32, 'U'), (16, '.')] {
                if bits & bit != 0 {
                    flags.push(letter);
                }
            }
            let data = length.checked_sub(header)?;
            let sequence = if data > 0 || bits & 7 != 0 {
                format!(", seq {sequence}")
            } else {
                String::new()
            };
            let acknowledgement = if bits & 16 != 0 {
                format!(", ack {acknowledgement}")
            } else {
                String::new()
            };
            format!(
                "{version} {from}.{source} > {to}.{destination}: Flags [{flags}]{sequence}{acknowledgement}, \
                 win {window}, length {data}"
            )
        }
        17 => {
            let (source, destination) = ports()?;
            let data = length.checked_sub(8)?;
            format!("{version} {from}.{source} > {to}.{destination}: UDP, length {data}")
        }
        1 | 58 => {
            let kind = *payload.first()?;
            let name = match (protocol, kind) {
                (1, 8) | (58, 128) => "echo request",
                (1, 0) | (58, 129) => "echo reply",
                (1, 3) | (58, 1) => "unreachable",
                (58, 133) => "router solicitation",
                (58, 134) => "router advertisement",
                (58, 135) => "neighbor solicitation",
                (58, 136) => "neighbor advertisement",
                _ => "",
            };
            let name = if name.is_empty() {
                format!("type {kind}")
            } else {
                name.to_string()
            };
            format!("{version} {from} > {to}: ICMP {name}, length {length}")
        }
        other => format!("{version} {from} > {to}: protocol {other}, length {length}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment() {
        let mut packet = alloc::vec![
            0x45, 0, 0, 45, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2
        ];
        packet.extend_from_slice(&[
            0, 80, 1, 0, 0, 0, 0, 7, 0, 0, 0, 9, 0x50, 0x18, 4, 0, 0, 0, 0, 0,
        ]);
        packet.extend_from_slice(b"hello");
        assert_eq!(
            ip(&packet),
            "IP 10.0.0.1.80 > 10.0.0.2.256: Flags [P.], seq 7, ack 9, win 1024, length 5"
        );
    }

    #[test]
    fn any_start_of_a_frame_is_survived() {
        let mut frame = alloc::vec![0u8; 12];
        frame.extend_from_slice(&[8, 0, 0x4f, 0, 0, 3]);
        frame.resize(80, 0xff);
        for kind in [[8, 0], [0x86, 0xdd], [8, 6]] {
            frame[12..14].copy_from_slice(&kind);
            for protocol in [0, 1, 6, 17, 58] {
                frame[20] = protocol;
                frame[23] = protocol;
                for len in 0..frame.len() {
                    let _ = ethernet(&frame[..len]);
                }
            }
        }
    }
}
