//! Received TCP segments that follow each other become one, so that the stack is asked once for a run of them (as "generic receive
//! offload" does elsewhere). A segment is appended only if it says in all of its headers what the first one says, with the sequence number
//! that is next; nothing else is lost but where one ended and the next began.

use alloc::vec::Vec;

use net_client::RxChecksum;
use smoltcp::wire::{IpAddress, IpProtocol};

use crate::segment::{Transport, ones_complement_sum};

/// Where TCP's header has its fields (RFC 9293, 3.1).
mod tcp {
    pub const PORTS: usize = 0;
    pub const SEQUENCE: usize = 4;
    /// In its upper half.
    pub const LENGTH: usize = 12;
    pub const FLAGS: usize = 13;
    pub const CHECKSUM: usize = 16;
    pub const ACK: u8 = 0x10;
    pub const PSH: u8 = 0x08;
}

/// Length of IPv6's header, which its field for the payload's length leaves out.
const IPV6_HEADER: usize = 40;
/// Longest packet that IP's field can say.
const LONGEST: usize = 65_535;
/// Words of the longest headers of a run: Ethernet's, IP's with options, TCP's with options.
const HEADER_WORDS: usize = (14usize + 60 + 60).div_ceil(8);

/// Segments of a connection in a row, without a gap, before runs are made again: a window's worth. Whoever has sent what was lost waits for
/// three acknowledgements of what follows (RFC 5681, 3.2), so there has to be one for each segment.
const CALM: u8 = 64;
/// Connections that are kept in mind. Two that share a place make no runs.
const PLACES: usize = 64;

/// What came last of a connection.
#[derive(Clone, Copy, Default)]
struct Last {
    ports: u32,
    /// The sequence number after it.
    next: u32,
    /// Segments to come without a gap until runs are made.
    excited: u8,
}

/// What became of a frame that came behind a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Taken {
    /// It is part of the run.
    Appended,
    /// It is not; what is known of its checksum.
    Apart(RxChecksum),
}

/// Makes runs: one at a time.
pub struct Coalescer {
    places: [Last; PLACES],
    /// The headers of the run's first segment.
    headers: [u64; HEADER_WORDS],
    /// Their bits that those of the following ones have as well.
    common: [u64; HEADER_WORDS],
    /// Words of headers.
    words: usize,
    /// Where the run's packet starts in the frame, TCP's header, and its data.
    packet: usize,
    tcp: usize,
    data: usize,
    is_v6: bool,
    /// Sum of IPv4's header fields that differ: it is the same when each header's own sum is right.
    ipv4_sum: u16,
    /// Sum of TCP's pseudo-header, without the length.
    addresses: u16,
    ports: u32,
    /// The sequence number that is next.
    next: u32,
    count: usize,
    /// The last one said that its sender has no more.
    pushed: bool,
    /// Bytes of the run that make room for headers for a moment.
    kept: Vec<u8>,
}

fn long(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_be_bytes(*bytes))
}

fn short(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u16::from_be_bytes(*bytes))
}

/// Sum of IPv4's fields that differ among the segments of a run: length, identification, checksum (RFC 791, 3.1).
fn ipv4_sum(frame: &[u8], packet: usize) -> Option<u16> {
    let field = |at| short(frame, packet + at).map(u32::from);
    let sum = field(2)? + field(4)? + field(10)?;
    Some((sum % 0xffff) as u16)
}

impl Default for Coalescer {
    fn default() -> Coalescer {
        Coalescer {
            places: [Last::default(); PLACES],
            headers: [0; HEADER_WORDS],
            common: [0; HEADER_WORDS],
            words: 0,
            packet: 0,
            tcp: 0,
            data: 0,
            is_v6: false,
            ipv4_sum: 0,
            addresses: 0,
            ports: 0,
            next: 0,
            count: 0,
            pushed: false,
            kept: Vec::new(),
        }
    }
}

impl Coalescer {
    fn place(&mut self, ports: u32) -> Option<&mut Last> {
        let hash = (ports ^ ports >> 16) as usize;
        self.places.get_mut(hash % PLACES)
    }

    /// Takes note of a segment; whether those that follow it may be appended.
    fn note(&mut self, ports: u32, sequence: u32, next: u32) -> bool {
        let Some(last) = self.place(ports) else {
            return false;
        };
        let excited = if last.ports != ports {
            0
        } else if last.next == sequence {
            last.excited.saturating_sub(1)
        } else {
            CALM
        };
        *last = Last {
            ports,
            next,
            excited,
        };
        excited == 0
    }

    /// Begins a run with the segment of this frame, if more may follow it; then the frame loses what is behind its packet.
    pub fn begin(&mut self, frame: &mut Vec<u8>, transport: &Transport) -> bool {
        if transport.protocol != IpProtocol::Tcp {
            return false;
        }
        let begun = self.try_begin(frame, transport).is_some();
        if begun {
            frame.truncate(transport.end);
        }
        begun
    }

    fn try_begin(&mut self, frame: &[u8], transport: &Transport) -> Option<()> {
        let segment = transport.of(frame);
        let flags = *segment.get(tcp::FLAGS)?;
        let headers = transport.payload + usize::from(*segment.get(tcp::LENGTH)? >> 4) * 4;
        let length = transport.end.checked_sub(headers).filter(|n| *n > 0)?;
        let (ports, sequence) = (long(segment, tcp::PORTS)?, long(segment, tcp::SEQUENCE)?);
        let next = sequence.wrapping_add(length as u32);
        if !self.note(ports, sequence, next) || flags != tcp::ACK {
            return None;
        }
        let (packet, tcp) = (transport.packet, transport.payload);
        self.is_v6 = matches!(transport.source, IpAddress::Ipv6(_));
        self.words = headers.div_ceil(8);
        let words = frame.as_chunks().0.get(..self.words)?;
        let (own, common) = (&mut self.headers, &mut self.common);
        for ((own, common), word) in own.iter_mut().zip(common.iter_mut()).zip(words) {
            (*own, *common) = (u64::from_ne_bytes(*word), u64::MAX);
        }
        let mut differs = |at: usize, bytes: usize| {
            for n in at..at + bytes {
                if let Some(word) = self.common.get_mut(n / 8) {
                    let mut bytes = word.to_ne_bytes();
                    if let Some(byte) = bytes.get_mut(n % 8) {
                        *byte = 0;
                    }
                    *word = u64::from_ne_bytes(bytes);
                }
            }
        };
        if self.is_v6 {
            differs(packet + 4, 2);
        } else {
            differs(packet + 2, 4);
            differs(packet + 10, 2);
            // As a sum that is wrong would not be seen any more.
            let is_right = ones_complement_sum(frame.get(packet..tcp)?, 0) == 0xffff;
            self.ipv4_sum = is_right.then(|| ipv4_sum(frame, packet))??;
        }
        differs(tcp + tcp::SEQUENCE, 4);
        differs(tcp + tcp::FLAGS, 1);
        differs(tcp + tcp::CHECKSUM, 2);
        // What is behind the headers in the last word.
        differs(headers, self.words * 8 - headers);
        self.addresses = transport.pseudo_header_sum(0);
        (self.packet, self.tcp, self.data) = (packet, tcp, headers);
        (self.ports, self.next) = (ports, next);
        (self.count, self.pushed) = (1, false);
        Some(())
    }

    /// Takes in the next frame, which `receive` writes to the end of what it is given: its data go to the end of `run` if it is the run's
    /// next segment, else it goes to `behind` as it is. `None`: there is none.
    pub fn take(
        &mut self,
        run: &mut Vec<u8>,
        behind: &mut Vec<u8>,
        receive: impl FnOnce(&mut Vec<u8>) -> Option<RxChecksum>,
    ) -> Option<Taken> {
        // Its headers take the place of the run's last bytes for a moment, so that its data need not be moved.
        let (end, at) = (run.len(), run.len().checked_sub(self.data)?);
        self.kept.clear();
        self.kept.extend_from_slice(run.get(at..)?);
        run.truncate(at);
        let taken = receive(run).map(|checksum| {
            let frame = run.get(at..).unwrap_or_default();
            match self.continued(end, frame, checksum) {
                Some(length) => (Taken::Appended, length),
                None => {
                    behind.clear();
                    behind.extend_from_slice(frame);
                    (Taken::Apart(checksum), 0)
                }
            }
        });
        run.resize(end + taken.map_or(0, |(_, length)| length), 0);
        run.get_mut(at..end)?.copy_from_slice(&self.kept);
        taken.map(|(taken, _)| taken)
    }

    /// Bytes of data in `frame` if it continues the run of `so_far` bytes, which is one longer from now on.
    fn continued(&mut self, so_far: usize, frame: &[u8], checksum: RxChecksum) -> Option<usize> {
        let (packet, start) = (self.packet, self.tcp);
        let words = frame.as_chunks().0.get(..self.words)?;
        let own = self.headers.iter().zip(&self.common);
        let differs = own.zip(words).fold(0, |differs, ((own, common), word)| {
            differs | (own ^ u64::from_ne_bytes(*word)) & common
        });
        if differs != 0 || long(frame, start + tcp::SEQUENCE)? != self.next {
            return None;
        }
        let pushed = match *frame.get(start + tcp::FLAGS)? {
            tcp::ACK => false,
            flags if flags == tcp::ACK | tcp::PSH => true,
            _ => return None,
        };
        let end = if self.is_v6 {
            packet + IPV6_HEADER + usize::from(short(frame, packet + 4)?)
        } else if ipv4_sum(frame, packet)? == self.ipv4_sum {
            packet + usize::from(short(frame, packet + 2)?)
        } else {
            return None;
        };
        let length = end.checked_sub(self.data).filter(|length| *length > 0)?;
        if so_far - packet + length > LONGEST {
            return None;
        }
        let segment = frame.get(start..end)?;
        if checksum == RxChecksum::Unchecked {
            let sum = u32::from(self.addresses) + segment.len() as u32;
            let sum = (sum >> 16) + (sum & 0xffff);
            (ones_complement_sum(segment, sum as u16) == 0xffff).then_some(())?;
        }
        self.next = self.next.wrapping_add(length as u32);
        self.count += 1;
        self.pushed = pushed;
        Some(length)
    }

    /// Whether nothing is to be appended any more: the run's sender has no more for now.
    pub fn is_complete(&self) -> bool {
        self.pushed
    }

    /// Makes one packet of the run. Its TCP checksum is not that of the whole.
    pub fn finish(&mut self, frame: &mut [u8]) {
        if self.count == 1 {
            return;
        }
        let next = self.next;
        if let Some(last) = self.place(self.ports) {
            last.next = next;
        }
        if self.pushed
            && let Some(flags) = frame.get_mut(self.tcp + tcp::FLAGS)
        {
            *flags |= tcp::PSH;
        }
        let length = frame.len() - self.packet;
        let Some(packet) = frame.get_mut(self.packet..) else {
            return;
        };
        if self.is_v6 {
            put(packet, 4, length.saturating_sub(IPV6_HEADER));
            return;
        }
        put(packet, 2, length);
        put(packet, 10, 0);
        let header = self.tcp - self.packet;
        let sum = !ones_complement_sum(packet.get(..header).unwrap_or_default(), 0);
        put(packet, 10, sum.into());
    }
}

/// Writes a 16-bit field.
fn put(bytes: &mut [u8], at: usize, value: usize) {
    if let Some(field) = bytes.get_mut(at..at + 2) {
        field.copy_from_slice(&(value as u16).to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use std::boxed::Box;
    use std::collections::VecDeque;
    use std::vec;

    use smoltcp::wire::TcpControl;

    use super::*;
    use crate::device::Device;
    use crate::link::{About, Link, Medium, Offloads, Properties};
    use crate::segment::tests::segment;

    /// Frames that were received already.
    struct Received(VecDeque<(Vec<u8>, RxChecksum)>);

    impl Link for Received {
        fn properties(&self) -> Properties {
            Properties {
                medium: Medium::Ethernet([2; 6]),
                mtu: 1500,
                offloads: Offloads::default(),
            }
        }

        fn is_up(&self) -> bool {
            true
        }

        fn receive(&mut self, frame: &mut Vec<u8>) -> Option<RxChecksum> {
            let (next, checksum) = self.0.pop_front()?;
            frame.extend(next);
            Some(checksum)
        }

        fn can_send(&mut self) -> bool {
            false
        }

        fn send(&mut self, _: &mut [u8], _: About<'_>) -> bool {
            false
        }
    }

    /// What the stack gets of these frames.
    fn staged(frames: impl IntoIterator<Item = (Vec<u8>, RxChecksum)>) -> Vec<Vec<u8>> {
        let frames: VecDeque<_> = frames.into_iter().collect();
        let count = frames.len() as u64;
        let mut device = Device::new(Box::new(Received(frames)));
        let mut all = Vec::new();
        // A run that met the end of the link is staged before the link is asked again.
        for _ in 0..2 {
            while device.stage() {
                all.push(device.received.clone());
                device.staged = false;
            }
        }
        assert_eq!(device.counters().rx_frames, count);
        all
    }

    fn frame(v6: bool, control: TcpControl, sequence: i32, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![2; 12];
        frame.extend(if v6 { [0x86, 0xdd] } else { [8, 0] });
        frame.extend(segment(v6, control, sequence, payload));
        frame
    }

    const LEN: i32 = 100;

    fn payload(n: i32) -> Vec<u8> {
        (0..LEN).map(|byte| (n * 31 + byte) as u8).collect()
    }

    /// The n-th segment of a stream that goes past the end of the sequence numbers.
    fn nth(v6: bool, control: TcpControl, n: i32) -> Vec<u8> {
        frame(v6, control, -250 + n * LEN, &payload(n))
    }

    fn plain(v6: bool, n: i32) -> (Vec<u8>, RxChecksum) {
        (nth(v6, TcpControl::None, n), RxChecksum::Unchecked)
    }

    /// Without the TCP checksum, which a run does not have.
    fn without_checksum(mut frame: Vec<u8>, v6: bool) -> Vec<u8> {
        let at = if v6 { 14 + 40 } else { 14 + 20 } + tcp::CHECKSUM;
        frame[at..at + 2].fill(0);
        frame
    }

    #[test]
    fn a_run_is_the_segment_that_it_was() {
        for v6 in [false, true] {
            for count in [2, 7] {
                let mut frames: Vec<_> = (0..count).map(|n| plain(v6, n)).collect();
                let last = frames.last_mut().unwrap();
                last.0 = nth(v6, TcpControl::Psh, count - 1);
                // A device may leave what filled a short frame up.
                last.0.extend([0; 9]);
                let data: Vec<u8> = (0..count).flat_map(payload).collect();
                let whole = frame(v6, TcpControl::Psh, -250, &data);
                let all = staged(frames);
                assert_eq!(all.len(), 1, "{v6} {count}");
                let made = without_checksum(all[0].clone(), v6);
                assert_eq!(made, without_checksum(whole, v6), "{v6} {count}");
            }
        }
    }

    #[test]
    fn a_push_ends_a_run_and_other_flags_have_segments_of_their_own() {
        let controls = [
            TcpControl::None,
            TcpControl::Psh,
            TcpControl::None,
            TcpControl::None,
            TcpControl::Fin,
        ];
        let frames = controls.iter().zip(0..).map(|(control, n)| {
            let frame = nth(false, *control, n);
            (frame, RxChecksum::Valid)
        });
        let lengths: Vec<usize> = staged(frames).iter().map(Vec::len).collect();
        let headers = nth(false, TcpControl::None, 0).len() - LEN as usize;
        let len = LEN as usize;
        assert_eq!(
            lengths,
            [headers + 2 * len, headers + 2 * len, headers + len]
        );
    }

    #[test]
    fn every_bit_of_the_headers_counts() {
        for v6 in [false, true] {
            let tcp = if v6 { 14 + 40 } else { 14 + 20 };
            let headers = nth(v6, TcpControl::None, 0).len() - LEN as usize;
            for bit in 0..8 * headers {
                let (at, mask) = (bit / 8, 1 << (bit % 8));
                for checksum in [RxChecksum::Unchecked, RxChecksum::Valid] {
                    let mut frames = [plain(v6, 0), plain(v6, 1)];
                    frames[1].0[at] ^= mask;
                    frames[1].1 = checksum;
                    let other = frames[1].0.clone();
                    let all = staged(frames);
                    // Of a checksum that was found right only the finding counts, and a packet may be shorter.
                    let own = at == tcp + tcp::FLAGS && mask == tcp::PSH
                        || (tcp + tcp::CHECKSUM..tcp + tcp::CHECKSUM + 2).contains(&at)
                        || v6 && (14 + 4..14 + 6).contains(&at) && all.len() == 1;
                    if own && checksum == RxChecksum::Valid {
                        assert_eq!(all.len(), 1, "byte {at}, {mask:#x}");
                        continue;
                    }
                    let first = plain(v6, 0).0;
                    assert_eq!(all.first(), Some(&first), "byte {at}, {mask:#x}");
                    // As it came, or dropped.
                    let rest = all.get(1).unwrap_or(&other);
                    assert!(other.starts_with(rest), "byte {at}, {mask:#x}");
                }
            }
        }
    }

    #[test]
    fn data_that_are_damaged_are_not_appended() {
        let mut frames = [plain(false, 0), plain(false, 1), plain(false, 2)];
        *frames[1].0.last_mut().unwrap() ^= 1;
        let all = staged(frames);
        assert_eq!(all, [plain(false, 0).0, plain(false, 2).0]);
    }

    #[test]
    fn after_a_gap_each_segment_is_acknowledged_for_a_window() {
        let calm = i32::from(CALM);
        let lost = 2;
        let frames = (0..lost)
            .chain(lost + 1..lost + 1 + 2 * calm)
            .map(|n| plain(false, n));
        let all = staged(frames);
        // Two in a run, the one that shows the gap and those that follow it, and all the rest.
        assert_eq!(all.len() as i32, 1 + 1 + calm - 1 + 1);
    }

    #[test]
    fn a_run_is_no_longer_than_a_packet() {
        let data = [7; 1400];
        let frames = (0..100).map(|n| {
            let frame = frame(true, TcpControl::None, n * 1400, &data);
            (frame, RxChecksum::Valid)
        });
        let all = staged(frames);
        assert!(all.iter().all(|frame| frame.len() - 14 <= LONGEST));
        assert_eq!(all.len(), 3);
    }
}
