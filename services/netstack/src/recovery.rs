//! What TCP's connections have on their way: how much that may be, and when it is sent again. smoltcp does both in its own way, which is not enough:
//!
//! * Its shortest retransmission time is a second (RFC 6298, 2.4), doubled each time, and the time grows until a segment goes through at the
//!   first try; over a bad wire, or where a driver was restarted, that is most of the time. Here the shortest time is 200 ms, as with most
//!   systems, and any acknowledgement of something new ends the doubling. smoltcp retransmits at once after three acknowledgements of the
//!   same number (RFC 5681, 3.2). So what is due is asked for with three more of the peer's last acknowledgement, which only this system sees.
//! * Its CUBIC needs the standard library's floating point. So its sockets have no congestion control, and the peer's window is made smaller
//!   where [`Cubic`] says so before smoltcp sees it.

use alloc::boxed::Box;
use alloc::vec::Vec;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{
    EthernetFrame, EthernetRepr, IpAddress, IpProtocol, IpRepr, TcpControl, TcpOption, TcpPacket,
    TcpRepr, TcpSeqNumber,
};

use crate::congestion::Cubic;
use crate::segment::Transport;

/// Shortest time.
const RTO_MIN: Duration = Duration::from_millis(200);
/// While nothing is known of the round-trip time (RFC 6298, 2.1).
const RTO_FIRST: Duration = Duration::from_millis(1000);
/// Most doublings.
const DOUBLINGS: u32 = 5;
/// How long after a peer's last word it is asked for more of them; then smoltcp's own times count, and its time-out.
const SILENCE: Duration = Duration::from_secs(30);
/// Acknowledgements of the same number that ask for a retransmission.
const DUPLICATES: usize = 3;
/// Places of connections.
const PLACES: usize = 256;
/// Segment size of a peer that says none (RFC 9293, 3.7.1).
const SEGMENT_DEFAULT: u16 = 536;
/// Where TCP's header has its window.
const WINDOW: usize = 14;

/// Who talks to whom.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Key {
    /// Port here.
    pub local_port: u16,
    /// Port there.
    pub remote_port: u16,
    /// Address here.
    pub local: IpAddress,
    /// Address there.
    pub remote: IpAddress,
}

/// What is known of a connection.
struct Flow {
    /// The peer's hardware address, and ours.
    ethernet: Option<EthernetRepr>,
    /// The first number that is not acknowledged.
    first: TcpSeqNumber,
    /// The number after the last byte that was sent.
    end: TcpSeqNumber,
    /// What we have said last of what comes next from the peer.
    acknowledged: TcpSeqNumber,
    /// The peer's window as in its header, and what was made of it.
    offered: u16,
    window: u16,
    /// Bits by which the peer's windows are shifted.
    scale: u8,
    cubic: Cubic,
    /// What was on its way at the last loss ends here.
    loss: Option<TcpSeqNumber>,
    /// When the peer was heard last.
    heard: Instant,
    /// When the segment that ends with this number was sent, if only once.
    sample: Option<(TcpSeqNumber, Instant)>,
    /// Smoothed round-trip time and its variation in microseconds (RFC 6298, 2).
    round_trip: Option<(u64, u64)>,
    doublings: u32,
    /// When its first segment is due again; only while something is not acknowledged.
    due: Option<Instant>,
    /// It is due because what follows it was lost with others (RFC 6582, 3.2), not because it took long.
    at_once: bool,
    /// The peer has said more than its SYN.
    stands: bool,
}

impl Flow {
    fn new(now: Instant) -> Flow {
        Flow {
            ethernet: None,
            first: TcpSeqNumber::default(),
            end: TcpSeqNumber::default(),
            acknowledged: TcpSeqNumber::default(),
            offered: 0,
            window: 0,
            scale: 0,
            cubic: Cubic::new(SEGMENT_DEFAULT),
            loss: None,
            heard: now,
            sample: None,
            round_trip: None,
            doublings: 0,
            due: None,
            at_once: false,
            stands: false,
        }
    }

    /// The retransmission time.
    fn time(&self) -> Duration {
        let time = match self.round_trip {
            Some((smoothed, variation)) => {
                Duration::from_micros(smoothed + 4 * variation).max(RTO_MIN)
            }
            None => RTO_FIRST,
        };
        time * (1 << self.doublings)
    }

    fn measured(&mut self, micros: u64) {
        self.round_trip = Some(match self.round_trip {
            None => (micros, micros / 2),
            Some((smoothed, variation)) => (
                (7 * smoothed + micros) / 8,
                (3 * variation + smoothed.abs_diff(micros)) / 4,
            ),
        });
    }

    /// Its time begins now, if anything of it is not acknowledged.
    fn arm(&mut self, now: Instant) {
        self.at_once = false;
        self.due = (self.first < self.end).then(|| now + self.time());
    }

    /// What a SYN of the peer says: of its segments, and of windows to come.
    fn agree(&mut self, mut options: &[u8]) {
        let mut segment = SEGMENT_DEFAULT;
        while let Ok((rest, option)) = TcpOption::parse(options) {
            match option {
                TcpOption::WindowScale(scale) => self.scale = scale.min(14),
                TcpOption::MaxSegmentSize(size) => segment = size,
                _ => {}
            }
            if rest.is_empty() || option == TcpOption::EndOfList {
                break;
            }
            options = rest;
        }
        self.cubic = Cubic::new(segment);
    }

    /// So many bytes more are acknowledged.
    fn advance(&mut self, number: TcpSeqNumber, now: Instant) {
        let (flight, bytes) = (self.end - self.first, number - self.first);
        self.first = number;
        self.doublings = 0;
        if let Some((end, sent)) = self.sample
            && number >= end
        {
            self.measured((now - sent).total_micros());
            self.sample = None;
        }
        if self.loss.is_some_and(|end| number >= end) {
            self.loss = None;
        } else if self.loss.is_none() && 2 * flight >= self.cubic.window() as usize {
            // Only a window that is used says what there is room for (RFC 9438, 5.8).
            let (smoothed, _) = self.round_trip.unwrap_or_default();
            let round_trip = Duration::from_micros(smoothed);
            self.cubic.acknowledged(bytes as u32, round_trip, now);
        }
        self.arm(now);
        if self.loss.is_some() && self.due.is_some() {
            (self.due, self.at_once) = (Some(now), true);
        }
    }

    /// What the peer's window is for smoltcp.
    fn limit(&self, offered: u16, scale: u8) -> u16 {
        let room = u32::from(offered) << scale;
        let limit = (self.cubic.window() >> scale).max(1);
        if room <= self.cubic.window() {
            offered
        } else {
            limit as u16
        }
    }
}

/// Connections of an interface.
pub struct Recovery {
    /// By their ports: each segment asks for its connection.
    places: Box<[Vec<(Key, Flow)>]>,
    count: usize,
    /// Nothing is due before; it may be later.
    earliest: Option<Instant>,
}

impl Default for Recovery {
    fn default() -> Recovery {
        Recovery {
            places: (0..PLACES).map(|_| Vec::new()).collect(),
            count: 0,
            earliest: None,
        }
    }
}

fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

impl Recovery {
    /// A connection begins: nothing of it was sent, and at most its request was received.
    pub fn open(&mut self, key: Key, now: Instant) {
        self.close(&key);
        if let Some(place) = self.place(&key) {
            place.push((key, Flow::new(now)));
            self.count += 1;
        }
    }

    fn close(&mut self, key: &Key) {
        if let Some(place) = self.place(key)
            && let Some(at) = place.iter().position(|(other, _)| other == key)
        {
            place.swap_remove(at);
            self.count -= 1;
        }
    }

    /// Connections that are known.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Forgets all connections but these.
    pub fn retain(&mut self, wanted: impl Fn(&Key) -> bool) {
        for place in &mut self.places {
            place.retain(|(key, _)| wanted(key));
        }
        self.count = self.places.iter().map(Vec::len).sum();
    }

    fn place(&mut self, key: &Key) -> Option<&mut Vec<(Key, Flow)>> {
        let hash = key.local_port ^ key.remote_port.rotate_left(5);
        self.places.get_mut(usize::from(hash) % PLACES)
    }

    fn flow(&mut self, key: &Key) -> Option<&mut Flow> {
        let place = self.place(key)?;
        let found = place.iter_mut().find(|(other, _)| other == key)?;
        Some(&mut found.1)
    }

    /// A segment is sent in this frame. `None`: nothing of it is to be acknowledged to us.
    pub fn sent(&mut self, transport: &Transport, frame: &[u8], now: Instant) -> Option<()> {
        if transport.protocol != IpProtocol::Tcp {
            return None;
        }
        let tcp = TcpPacket::new_checked(transport.of(frame)).ok()?;
        let key = Key {
            local_port: tcp.src_port(),
            remote_port: tcp.dst_port(),
            local: transport.source,
            remote: transport.destination,
        };
        if tcp.rst() {
            self.close(&key);
            return None;
        }
        let flow = self.flow(&key)?;
        let (start, length) = (tcp.seq_number(), tcp.payload().len());
        flow.acknowledged = tcp.ack_number();
        if tcp.syn() {
            let ethernet = EthernetFrame::new_checked(frame).ok()?;
            flow.ethernet = Some(EthernetRepr {
                src_addr: ethernet.dst_addr(),
                dst_addr: ethernet.src_addr(),
                ethertype: ethernet.ethertype(),
            });
            (flow.first, flow.end) = (start + 1, start + 1);
            return None;
        }
        if length == 0 {
            return None;
        }
        if start >= flow.end {
            flow.end = start + length;
            flow.sample.get_or_insert((flow.end, now));
            if flow.due.is_some() {
                return Some(());
            }
        } else {
            // Nobody can tell which one is acknowledged (RFC 6298, 3).
            flow.sample = None;
            if start == flow.first && flow.loss.is_none() {
                flow.loss = Some(flow.end);
                flow.cubic.lost();
            }
            flow.end = flow.end.max(start + length);
        }
        flow.arm(now);
        let due = flow.due;
        self.earliest = earlier(self.earliest, due);
        Some(())
    }

    /// A segment was received in this frame. `None`: it is of no connection that is known, or of no use for it.
    pub fn heard(&mut self, transport: &Transport, frame: &mut [u8], now: Instant) -> Option<()> {
        if transport.protocol != IpProtocol::Tcp {
            return None;
        }
        let tcp = TcpPacket::new_checked(transport.of(frame)).ok()?;
        let key = Key {
            local_port: tcp.dst_port(),
            remote_port: tcp.src_port(),
            local: transport.destination,
            remote: transport.source,
        };
        let flow = self.flow(&key)?;
        let (number, offered) = (tcp.ack_number(), tcp.window_len());
        if tcp.rst() {
            return None;
        }
        let mut due = None;
        let limited = if tcp.syn() {
            if flow.stands {
                return None;
            }
            flow.agree(tcp.options());
            // The only window that is not scaled (RFC 7323, 2.2).
            let limited = flow.limit(offered, 0);
            flow.offered = offered >> flow.scale;
            flow.window = limited >> flow.scale;
            limited
        } else {
            // One more, since its end is a number as well.
            if !tcp.ack() || number > flow.end + 1 {
                return None;
            }
            flow.stands = true;
            let limited = flow.limit(offered, flow.scale);
            if number < flow.first {
                // Others overtook it.
                limited
            } else {
                if number > flow.first {
                    flow.advance(number, now);
                    due = flow.due;
                    flow.window = flow.limit(offered, flow.scale);
                } else if offered != flow.offered {
                    flow.window = limited;
                }
                // Else as before: an acknowledgement with another window is no sign of a loss.
                flow.offered = offered;
                flow.window
            }
        };
        flow.heard = now;
        self.earliest = earlier(self.earliest, due);
        let at = transport.payload + WINDOW;
        frame
            .get_mut(at..at + 2)?
            .copy_from_slice(&limited.to_be_bytes());
        Some(())
    }

    /// When something may be due.
    pub fn next_time(&self) -> Option<Instant> {
        self.earliest
    }

    /// Frames that ask for what is due now.
    pub fn due(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        if self.earliest.is_none_or(|earliest| earliest > now) {
            return frames;
        }
        self.earliest = None;
        for (key, flow) in self.places.iter_mut().flatten() {
            let Some(due) = flow.due else {
                continue;
            };
            if due <= now {
                if now - flow.heard > SILENCE || flow.window == 0 {
                    flow.due = None;
                    continue;
                }
                frames.extend(request(key, flow));
                if !flow.at_once {
                    if flow.doublings > 0 {
                        flow.cubic.lost_again();
                    }
                    flow.doublings = (flow.doublings + 1).min(DOUBLINGS);
                }
                flow.sample = None;
                flow.arm(now);
            }
            self.earliest = earlier(self.earliest, flow.due);
        }
        frames
    }
}

/// The peer's last acknowledgement, so often that it asks for a retransmission. The first ones change the window and change it back, with
/// which the count begins anew.
fn request(key: &Key, flow: &Flow) -> impl Iterator<Item = Vec<u8>> {
    let other = match flow.window {
        1 => 2,
        window => window - 1,
    };
    let windows = core::iter::once(other).chain([flow.window; 1 + DUPLICATES]);
    windows.filter_map(|window| acknowledgement(key, flow, window))
}

fn acknowledgement(key: &Key, flow: &Flow, window_len: u16) -> Option<Vec<u8>> {
    let tcp = TcpRepr {
        src_port: key.remote_port,
        dst_port: key.local_port,
        control: TcpControl::None,
        seq_number: flow.acknowledged,
        ack_number: Some(flow.first),
        window_len,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    };
    let ip = IpRepr::new(key.remote, key.local, IpProtocol::Tcp, tcp.buffer_len(), 64);
    let headers = EthernetFrame::<&[u8]>::header_len() + ip.header_len();
    let mut bytes = alloc::vec![0; headers + tcp.buffer_len()];
    let mut ethernet = EthernetFrame::new_unchecked(bytes.as_mut_slice());
    flow.ethernet?.emit(&mut ethernet);
    let checksums = ChecksumCapabilities::default();
    ip.emit(ethernet.payload_mut(), &checksums);
    let segment = bytes.get_mut(headers..).unwrap_or_default();
    let mut packet = TcpPacket::new_unchecked(segment);
    tcp.emit(&mut packet, &key.remote, &key.local, &checksums);
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use smoltcp::wire::{EthernetAddress, EthernetProtocol, Ipv4Address};

    use super::*;
    use crate::link::Medium;
    use crate::segment;

    const MEDIUM: Medium = Medium::Ethernet([2; 6]);
    const KEY: Key = Key {
        local_port: 80,
        remote_port: 4711,
        local: IpAddress::Ipv4(Ipv4Address::new(10, 0, 0, 1)),
        remote: IpAddress::Ipv4(Ipv4Address::new(10, 0, 0, 2)),
    };

    /// A connection, seen from where it is kept account of.
    struct Wire {
        recovery: Recovery,
        now: Instant,
    }

    fn blank() -> TcpRepr<'static> {
        TcpRepr {
            src_port: 0,
            dst_port: 0,
            control: TcpControl::None,
            seq_number: TcpSeqNumber(0),
            ack_number: Some(TcpSeqNumber(501)),
            window_len: 0,
            window_scale: None,
            max_seg_size: None,
            sack_permitted: false,
            sack_ranges: [None; 3],
            timestamp: None,
            payload: &[],
        }
    }

    fn frame(from: (IpAddress, u16), to: (IpAddress, u16), mut tcp: TcpRepr<'_>) -> Vec<u8> {
        (tcp.src_port, tcp.dst_port) = (from.1, to.1);
        let ip = IpRepr::new(from.0, to.0, IpProtocol::Tcp, tcp.buffer_len(), 64);
        let mut bytes = alloc::vec![0; 14 + ip.header_len() + tcp.buffer_len()];
        let mut ethernet = EthernetFrame::new_unchecked(bytes.as_mut_slice());
        ethernet.set_src_addr(EthernetAddress([2, 0, 0, 0, 0, from.1 as u8]));
        ethernet.set_dst_addr(EthernetAddress([2, 0, 0, 0, 0, to.1 as u8]));
        ethernet.set_ethertype(EthernetProtocol::Ipv4);
        let checksums = ChecksumCapabilities::default();
        ip.emit(ethernet.payload_mut(), &checksums);
        let mut packet = TcpPacket::new_unchecked(&mut bytes[14 + ip.header_len()..]);
        tcp.emit(&mut packet, &from.0, &to.0, &checksums);
        bytes
    }

    impl Wire {
        fn send(&mut self, tcp: TcpRepr<'_>) {
            let bytes = frame((KEY.local, 80), (KEY.remote, 4711), tcp);
            let transport = segment::transport(MEDIUM, &bytes).unwrap();
            self.recovery.sent(&transport, &bytes, self.now);
        }

        /// Data from this number on.
        fn data(&mut self, sequence: i32, length: usize) {
            self.send(TcpRepr {
                seq_number: TcpSeqNumber(sequence),
                payload: &alloc::vec![7; length],
                ..blank()
            });
        }

        /// What smoltcp hears of the peer's window.
        fn hear(&mut self, tcp: TcpRepr<'_>) -> u16 {
            let mut bytes = frame((KEY.remote, 4711), (KEY.local, 80), tcp);
            let transport = segment::transport(MEDIUM, &bytes).unwrap();
            self.recovery.heard(&transport, &mut bytes, self.now);
            TcpPacket::new_unchecked(transport.of(&bytes)).window_len()
        }

        fn acknowledge(&mut self, number: i32, window: u16) -> u16 {
            self.hear(TcpRepr {
                ack_number: Some(TcpSeqNumber(number)),
                window_len: window,
                ..blank()
            })
        }

        fn pass(&mut self, ms: u64) {
            self.now += Duration::from_millis(ms);
        }

        /// A connection whose first byte is number 1000, to a peer with segments of 1000 bytes and windows in units of 4 bytes.
        fn connected() -> Wire {
            let mut wire = Wire {
                recovery: Recovery::default(),
                now: Instant::from_secs(5),
            };
            wire.recovery.open(KEY, wire.now);
            let limited = wire.hear(TcpRepr {
                control: TcpControl::Syn,
                ack_number: None,
                window_len: 60_000,
                window_scale: Some(2),
                max_seg_size: Some(1000),
                ..blank()
            });
            assert_eq!(limited, 10_000, "ten segments, not scaled");
            wire.send(TcpRepr {
                control: TcpControl::Syn,
                seq_number: TcpSeqNumber(999),
                ..blank()
            });
            assert_eq!(wire.acknowledge(1000, 50_000), 2_500);
            wire
        }
    }

    #[test]
    fn windows_are_those_of_congestion_control_or_of_the_peer() {
        let mut wire = Wire::connected();
        assert_eq!(wire.acknowledge(1000, 2_000), 2_000, "the peer has less");
        wire.data(1000, 10_000);
        // What was on its way says that there is room for as much again.
        assert_eq!(wire.acknowledge(11_000, 50_000), 5_000);
        wire.data(11_000, 100);
        // A window that was not used says nothing.
        assert_eq!(wire.acknowledge(11_100, 50_000), 5_000);
        assert_eq!(wire.acknowledge(11_100, 0), 0);
    }

    #[test]
    fn a_loss_makes_the_window_smaller_when_something_new_is_acknowledged() {
        let mut wire = Wire::connected();
        wire.data(1000, 10_000);
        wire.pass(10);
        for _ in 0..3 {
            assert_eq!(
                wire.acknowledge(1000, 50_000),
                2_500,
                "the same: a sign of loss"
            );
        }
        // smoltcp's retransmission, and one more.
        wire.data(1000, 1000);
        wire.data(1000, 1000);
        assert_eq!(wire.acknowledge(1000, 50_000), 2_500);
        assert_eq!(wire.acknowledge(6000, 50_000), 1_750, "0.7 of it, once");
        wire.data(6000, 1000);
        assert_eq!(wire.acknowledge(11_000, 50_000), 1_750, "of the same loss");
    }

    #[test]
    fn what_is_not_acknowledged_is_asked_for_again_and_again() {
        let mut wire = Wire::connected();
        wire.data(1000, 1000);
        wire.pass(20);
        wire.acknowledge(2000, 50_000);
        // A round trip of 20 ms is known.
        wire.data(2000, 1000);
        wire.pass(199);
        assert!(wire.recovery.due(wire.now).is_empty());
        for wait in [1, 400, 800, 1600] {
            wire.pass(wait);
            let frames = wire.recovery.due(wire.now);
            let seen = frames.iter().map(|bytes| {
                let transport = segment::transport(MEDIUM, bytes).unwrap();
                assert!(segment::checksum_is_right(MEDIUM, bytes, Some(&transport)));
                assert_eq!(
                    (transport.source, transport.destination),
                    (KEY.remote, KEY.local)
                );
                let tcp = TcpPacket::new_unchecked(transport.of(bytes));
                assert_eq!(
                    (tcp.ack_number(), tcp.seq_number(), tcp.payload().len()),
                    (TcpSeqNumber(2000), TcpSeqNumber(501), 0)
                );
                tcp.window_len()
            });
            assert_eq!(seen.collect::<Vec<_>>(), [2499, 2500, 2500, 2500, 2500]);
            wire.data(2000, 1000);
            assert!(wire.recovery.due(wire.now).is_empty());
        }
        // What gets lost more than once leaves room for a segment.
        assert_eq!(wire.acknowledge(3000, 50_000), 250);
        wire.pass(10_000);
        assert!(wire.recovery.due(wire.now).is_empty(), "all is there");
        wire.data(3000, 1000);
        wire.pass(200);
        assert_eq!(wire.recovery.due(wire.now).len(), 5, "without its doubling");
    }

    #[test]
    fn of_many_that_were_lost_each_is_asked_for_when_the_one_before_is_there() {
        let mut wire = Wire::connected();
        for n in 0..10 {
            wire.data(1000 + n * 1000, 1000);
        }
        wire.pass(1000);
        for n in 0..10 {
            assert_eq!(wire.recovery.due(wire.now).len(), 5, "{n}");
            wire.data(1000 + n * 1000, 1000);
            assert!(wire.recovery.due(wire.now).is_empty());
            wire.pass(20);
            wire.acknowledge(2000 + n * 1000, 50_000);
        }
        assert!(wire.recovery.due(wire.now).is_empty());
        // One loss, and it is over.
        assert_eq!(wire.acknowledge(11_000, 50_000), 1_750);
        wire.pass(10_000);
        assert!(wire.recovery.due(wire.now).is_empty());
    }

    #[test]
    fn a_connection_that_stands_does_not_begin_again() {
        let mut wire = Wire::connected();
        let window = wire.hear(TcpRepr {
            control: TcpControl::Syn,
            window_len: 60_000,
            ..blank()
        });
        assert_eq!(window, 60_000, "smoltcp's to judge");
        assert_eq!(wire.acknowledge(1000, 50_000), 2_500);
        // An old one.
        assert_eq!(wire.acknowledge(-5, 50_000), 2_500);
    }

    #[test]
    fn who_says_nothing_is_left_to_smoltcp() {
        let mut wire = Wire::connected();
        wire.data(1000, 1000);
        let mut asked = 0;
        for _ in 0..600 {
            wire.pass(100);
            asked += wire.recovery.due(wire.now).len() / 5;
        }
        // After 1, 3, 7 and 15 s; at 31 s it was too long.
        assert_eq!(asked, 4);
        assert_eq!(wire.recovery.next_time(), None);
    }

    #[test]
    fn a_reset_ends_it_and_others_do_not() {
        let mut wire = Wire::connected();
        wire.data(1000, 1000);
        let reset = TcpRepr {
            control: TcpControl::Rst,
            ..blank()
        };
        // The peer's is smoltcp's to judge.
        wire.hear(reset);
        assert_eq!(wire.recovery.count(), 1);
        wire.send(reset);
        assert_eq!(wire.recovery.count(), 0);
        wire.pass(10_000);
        assert!(wire.recovery.due(wire.now).is_empty());
    }
}
