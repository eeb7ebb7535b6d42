//! The few frames that the tests send, and what they look for in those they get (RFC 826, 791, 792).

use alloc::vec::Vec;

use net_client::MacAddress;

/// An IPv4 address.
pub type Address = [u8; 4];

/// Our address, as QEMU's user network has it.
pub const OWN: Address = [10, 0, 2, 15];
/// The gateway's there.
pub const GATEWAY: Address = [10, 0, 2, 2];

/// What is wrong with an echo.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Damage {
    /// Its checksum tells, so whoever gets it drops it.
    Told,
    /// Its checksum is right, and its content is not what was sent.
    Hidden,
}

const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
const PROTOCOL_ICMP: u8 = 1;
const ECHO_REQUEST: u8 = 8;
const ECHO_REPLY: u8 = 0;
/// Identifier of our echoes.
const IDENTIFIER: [u8; 2] = *b"Bk";
const ETHERNET: usize = 14;
const IPV4: usize = 20;
const ICMP: usize = 8;

/// The internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let mut sum: u32 = 0;
    for pair in bytes.chunks(2) {
        let low = pair.get(1).copied().unwrap_or(0);
        sum += u32::from(u16::from_be_bytes([pair[0], low]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

fn ethernet(to: MacAddress, from: MacAddress, kind: [u8; 2]) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend(to.0);
    frame.extend(from.0);
    frame.extend(kind);
    frame
}

/// Who has `target`?
pub fn arp_request(own: MacAddress, own_ip: Address, target: Address) -> Vec<u8> {
    let mut frame = ethernet(MacAddress::BROADCAST, own, ETHERTYPE_ARP);
    frame.extend([0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(own.0);
    frame.extend(own_ip);
    frame.extend([0; 6]);
    frame.extend(target);
    frame
}

/// The address that an ARP reply tells of `of`.
pub fn arp_reply(frame: &[u8], of: Address) -> Option<MacAddress> {
    let body = frame.get(ETHERNET..ETHERNET + 28)?;
    let is_reply = frame.get(12..14)? == ETHERTYPE_ARP && body.get(6..8)? == [0, 2];
    let sender = body.get(14..18)? == of;
    let mac = body.get(8..14)?.try_into().ok()?;
    (is_reply && sender).then_some(MacAddress(mac))
}

/// An echo request with a payload that follows from its number.
pub fn echo_request(
    (own, own_ip): (MacAddress, Address),
    (to, to_ip): (MacAddress, Address),
    number: u16,
    payload: usize,
) -> Vec<u8> {
    let mut frame = ethernet(to, own, ETHERTYPE_IPV4);
    let total = (IPV4 + ICMP + payload) as u16;
    let mut ip = Vec::from([0x45, 0]);
    ip.extend(total.to_be_bytes());
    ip.extend(number.to_be_bytes());
    ip.extend([0, 0, 64, PROTOCOL_ICMP, 0, 0]);
    ip.extend(own_ip);
    ip.extend(to_ip);
    let sum = checksum(&ip);
    ip[10..12].copy_from_slice(&sum);
    frame.extend(ip);
    let mut icmp = Vec::from([ECHO_REQUEST, 0, 0, 0]);
    icmp.extend(IDENTIFIER);
    icmp.extend(number.to_be_bytes());
    icmp.extend((0..payload).map(|at| pattern(number, at)));
    let sum = checksum(&icmp);
    icmp[2..4].copy_from_slice(&sum);
    frame.extend(icmp);
    frame
}

/// The number of an echo reply of ours. `payload` tells how many bytes of content the one of a number should have; those for which it
/// does not are not ours.
pub fn echo_reply(
    frame: &[u8],
    payload: impl FnOnce(u16) -> Option<usize>,
) -> Option<Result<u16, Damage>> {
    let is_echo =
        frame.get(12..14)? == ETHERTYPE_IPV4 && *frame.get(ETHERNET + 9)? == PROTOCOL_ICMP;
    // A short frame is padded, so that the IP header tells where it ends.
    let total = frame.get(ETHERNET + 2..ETHERNET + 4)?;
    let total = usize::from(u16::from_be_bytes([total[0], total[1]]));
    let icmp = frame.get(ETHERNET + IPV4..ETHERNET + total)?;
    if !is_echo || *icmp.first()? != ECHO_REPLY || icmp.get(4..6)? != IDENTIFIER {
        return None;
    }
    let number = icmp.get(6..8)?;
    let number = u16::from_be_bytes([number[0], number[1]]);
    let body = icmp.get(ICMP..)?;
    if checksum(icmp) != [0, 0] {
        return Some(Err(Damage::Told));
    }
    let length = payload(number)?;
    let mut content = body.iter().enumerate();
    let right = body.len() == length && content.all(|(at, b)| *b == pattern(number, at));
    Some(if right {
        Ok(number)
    } else {
        Err(Damage::Hidden)
    })
}

fn pattern(number: u16, at: usize) -> u8 {
    (usize::from(number).wrapping_mul(31) ^ at.wrapping_mul(7) ^ (at >> 8)) as u8
}
