//! Router advertisements that are not passed on (RFC 4861, 6.1.2 and 6.3.4; RFC 4862, 5.5.3): smoltcp ends the process over a prefix
//! longer than an address and over one of multicast addresses, and takes in as many routers as its table of routes has places.

use alloc::vec::Vec;

use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{
    EthernetFrame, EthernetProtocol, Icmpv6Message, Icmpv6Packet, IpProtocol, Ipv6Address,
    Ipv6ExtHeader, Ipv6Packet, NdiscOption, NdiscOptionType,
};

/// Routers that are known at a time.
pub const ROUTERS_MAX: usize = 4;

/// An advertisement, as far as it matters here.
struct Advertisement {
    router: Ipv6Address,
    lifetime: Duration,
    has_nonsense: bool,
}

fn read(frame: &[u8]) -> Option<Advertisement> {
    let frame = EthernetFrame::new_checked(frame).ok()?;
    if frame.ethertype() != EthernetProtocol::Ipv6 {
        return None;
    }
    let packet = Ipv6Packet::new_checked(frame.payload()).ok()?;
    let mut message = packet.payload();
    let mut next = packet.next_header();
    // The only extension header that smoltcp looks behind.
    if next == IpProtocol::HopByHop {
        let header = Ipv6ExtHeader::new_checked(message).ok()?;
        next = header.next_header();
        let length = (usize::from(header.header_len()) + 1) * 8;
        message = message.get(length..)?;
    }
    if next != IpProtocol::Icmpv6 {
        return None;
    }
    let message = Icmpv6Packet::new_checked(message).ok()?;
    if message.msg_type() != Icmpv6Message::RouterAdvert {
        return None;
    }
    Some(Advertisement {
        router: packet.src_addr(),
        lifetime: message.router_lifetime(),
        has_nonsense: has_nonsense(message.payload()),
    })
}

/// Whether there is a prefix that cannot be one.
fn has_nonsense(mut options: &[u8]) -> bool {
    while let Ok(option) = NdiscOption::new_checked(options) {
        if option.option_type() == NdiscOptionType::PrefixInformation
            && option.data_len() == 4
            && (option.prefix_len() > 128 || option.prefix().is_multicast())
        {
            return true;
        }
        let length = usize::from(option.data_len()) * 8;
        match options.get(length..) {
            Some(rest) if length > 0 => options = rest,
            _ => return false,
        }
    }
    false
}

/// The routers that are known, with the ends of their lifetimes.
#[derive(Default)]
pub struct Routers(Vec<(Ipv6Address, Instant)>);

impl Routers {
    /// Whether a frame may pass: anything but an advertisement that says what cannot be, or is of one router too many.
    pub fn admit(&mut self, frame: &[u8], now: Instant) -> bool {
        let Some(advertisement) = read(frame) else {
            return true;
        };
        if advertisement.has_nonsense {
            return false;
        }
        let Advertisement {
            router, lifetime, ..
        } = advertisement;
        let until = now + lifetime;
        if let Some((_, known)) = self.0.iter_mut().find(|(known, _)| *known == router) {
            *known = until;
            return true;
        }
        if lifetime == Duration::ZERO {
            // It offers no way, but may have prefixes.
            return true;
        }
        self.0.retain(|(_, until)| *until > now);
        if self.0.len() >= ROUTERS_MAX {
            return false;
        }
        self.0.push((router, until));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    /// An advertisement of router `last` with a prefix.
    fn frame(last: u8, lifetime_s: u16, prefix_length: u8, prefix_start: u8) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 48, 58, 255]);
        frame.extend([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
        frame.extend([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        frame.extend([134, 0, 0, 0, 64, 0]);
        frame.extend(lifetime_s.to_be_bytes());
        frame.extend([0; 8]);
        frame.extend([3, 4, prefix_length, 0xc0]);
        frame.extend([0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, prefix_start, 1]);
        frame.extend([0; 14]);
        frame
    }

    #[test]
    fn prefixes_that_cannot_be() {
        let now = Instant::ZERO;
        let mut routers = Routers::default();
        assert!(routers.admit(&frame(1, 60, 64, 0x20), now));
        assert!(routers.admit(&frame(1, 60, 128, 0x20), now));
        assert!(!routers.admit(&frame(1, 60, 129, 0x20), now));
        assert!(!routers.admit(&frame(1, 60, 255, 0x20), now));
        assert!(!routers.admit(&frame(1, 60, 64, 0xff), now));
        // Behind a hop-by-hop header as well.
        let mut hidden = frame(1, 60, 129, 0x20);
        hidden[20] = 0;
        hidden[19] += 8;
        hidden.splice(54..54, [58, 0, 1, 4, 0, 0, 0, 0]);
        assert!(!routers.admit(&hidden, now));
        // Cut short anywhere, it is nobody's business here.
        let whole = frame(1, 60, 64, 0x20);
        for length in 0..whole.len() {
            assert!(routers.admit(&whole[..length], now));
        }
    }

    #[test]
    fn so_many_routers_and_no_more() {
        let mut routers = Routers::default();
        for last in 0..ROUTERS_MAX as u8 {
            assert!(routers.admit(&frame(last, 60, 64, 0x20), Instant::ZERO));
        }
        assert!(!routers.admit(&frame(100, 60, 64, 0x20), Instant::ZERO));
        assert!(routers.admit(&frame(100, 0, 64, 0x20), Instant::ZERO));
        assert!(routers.admit(&frame(2, 60, 64, 0x20), Instant::ZERO));
        assert!(routers.admit(&frame(100, 60, 64, 0x20), Instant::from_secs(61)));
    }
}
