//! Retransmissions sooner than smoltcp's own. Its shortest retransmission time is a second (RFC 6298, 2.4), doubled each time, and the time
//! grows until a segment goes through at the first try; over a bad wire, or where a driver was restarted, that is most of the time. Here the
//! shortest time is 200 ms, as with most systems, and any acknowledgement of something new ends the doubling.
//!
//! smoltcp retransmits at once after three acknowledgements of the same number (RFC 5681, 3.2). So what is due is asked for with three more
//! of the peer's last acknowledgement, which only this system sees.

use alloc::boxed::Box;
use alloc::vec::Vec;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{
    EthernetFrame, EthernetRepr, IpAddress, IpProtocol, IpRepr, TcpControl, TcpOption, TcpPacket,
    TcpRepr, TcpSeqNumber,
};

use crate::segment::Transport;

/// Shortest time.
const RTO_MIN: Duration = Duration::from_millis(200);
/// While nothing is known of the round-trip time (RFC 6298, 2.1).
const RTO_FIRST: Duration = Duration::from_millis(1000);
/// Most doublings.
const DOUBLINGS: u32 = 5;
/// How long after a peer's last word it is asked for more of them; then smoltcp's own times count, and its time-out.
const SILENCE: Duration = Duration::from_secs(30);
/// How long a connection without a word keeps its place.
const IDLE: Duration = Duration::from_secs(60);
/// Connections with times. Of two that share a place one has smoltcp's times.
const PLACES: usize = 256;
/// Acknowledgements of the same number that ask for a retransmission.
const DUPLICATES: usize = 3;

/// Who talks to whom.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Key {
    local_port: u16,
    remote_port: u16,
    local: IpAddress,
    remote: IpAddress,
}

/// What is known of a connection.
struct Flow {
    key: Key,
    /// The peer's hardware address, and ours.
    ethernet: EthernetRepr,
    /// The first number that is not acknowledged.
    first: TcpSeqNumber,
    /// The number after the last byte that was sent.
    end: TcpSeqNumber,
    /// What we have said last of what comes next from the peer.
    acknowledged: TcpSeqNumber,
    /// The peer's window, as in its header.
    window: u16,
    /// When the peer was heard last.
    heard: Instant,
    /// When the segment that ends with this number was sent, if only once.
    sample: Option<(TcpSeqNumber, Instant)>,
    /// Smoothed round-trip time and its variation in microseconds (RFC 6298, 2).
    round_trip: Option<(u64, u64)>,
    doublings: u32,
    /// When its first segment is due again; only while something is not acknowledged.
    due: Option<Instant>,
}

impl Flow {
    /// A connection that begins with this frame.
    fn new(key: Key, frame: &[u8], first: TcpSeqNumber, now: Instant) -> Option<Flow> {
        let ethernet = EthernetFrame::new_checked(frame).ok()?;
        Some(Flow {
            key,
            ethernet: EthernetRepr {
                src_addr: ethernet.dst_addr(),
                dst_addr: ethernet.src_addr(),
                ethertype: ethernet.ethertype(),
            },
            first,
            end: first,
            acknowledged: TcpSeqNumber::default(),
            window: 0,
            heard: now,
            sample: None,
            round_trip: None,
            doublings: 0,
            due: None,
        })
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

    /// Whether another connection may have its place: one that never came about, or is not used.
    fn may_go(&self, now: Instant) -> bool {
        self.window == 0 && self.end == self.first || now - self.heard > IDLE
    }

    /// Its time begins now, if anything of it is not acknowledged.
    fn arm(&mut self, now: Instant) {
        self.due = (self.first < self.end).then(|| now + self.time());
    }
}

/// See the module.
pub struct Recovery {
    places: Box<[Option<Flow>]>,
    /// Nothing is due before; it may be later.
    earliest: Option<Instant>,
}

impl Default for Recovery {
    fn default() -> Recovery {
        Recovery {
            places: (0..PLACES).map(|_| None).collect(),
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
    fn place(&mut self, key: &Key) -> Option<&mut Option<Flow>> {
        let hash = usize::from(key.local_port ^ key.remote_port.rotate_left(5));
        self.places.get_mut(hash % PLACES)
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
        let place = self.place(&key)?;
        if tcp.syn() {
            if place.as_ref().is_none_or(|other| other.may_go(now)) {
                *place = Flow::new(key, frame, tcp.seq_number() + 1, now);
            }
            return None;
        }
        if tcp.rst() {
            place.take_if(|flow| flow.key == key);
            return None;
        }
        let flow = place.as_mut().filter(|flow| flow.key == key)?;
        flow.acknowledged = tcp.ack_number();
        let (start, length) = (tcp.seq_number(), tcp.payload().len());
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
            flow.end = flow.end.max(start + length);
        }
        flow.arm(now);
        let due = flow.due;
        self.earliest = earlier(self.earliest, due);
        Some(())
    }

    /// A segment was received in this frame. `None`: it acknowledges nothing new.
    pub fn heard(&mut self, transport: &Transport, frame: &[u8], now: Instant) -> Option<()> {
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
        let flow = self.place(&key)?.as_mut().filter(|flow| flow.key == key)?;
        let number = tcp.ack_number();
        // One more, since its end is a number as well.
        if !tcp.ack() || tcp.rst() || number < flow.first || number > flow.end + 1 {
            return None;
        }
        flow.heard = now;
        flow.window = if tcp.syn() {
            // The only one that is not scaled (RFC 7323, 2.2).
            let scale = window_scale(tcp.options());
            tcp.window_len().checked_shr(scale.into()).unwrap_or(0)
        } else {
            tcp.window_len()
        };
        if number == flow.first {
            return None;
        }
        flow.first = number;
        flow.doublings = 0;
        if let Some((end, sent)) = flow.sample
            && number >= end
        {
            flow.measured((now - sent).total_micros());
            flow.sample = None;
        }
        flow.arm(now);
        let due = flow.due;
        self.earliest = earlier(self.earliest, due);
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
        for flow in self.places.iter_mut().flatten() {
            let Some(due) = flow.due else {
                continue;
            };
            if due <= now {
                if now - flow.heard > SILENCE || flow.window == 0 {
                    flow.due = None;
                    continue;
                }
                frames.extend(request(flow));
                flow.doublings = (flow.doublings + 1).min(DOUBLINGS);
                flow.sample = None;
                flow.arm(now);
            }
            self.earliest = earlier(self.earliest, flow.due);
        }
        frames
    }
}

/// What the options of a SYN say of the windows to come.
fn window_scale(mut options: &[u8]) -> u8 {
    while let Ok((rest, option)) = TcpOption::parse(options) {
        match option {
            TcpOption::WindowScale(scale) => return scale,
            TcpOption::EndOfList => break,
            _ if rest.is_empty() => break,
            _ => options = rest,
        }
    }
    0
}

/// The peer's last acknowledgement, so often that it asks for a retransmission. The first ones change the window and change it back, with
/// which the count begins anew.
fn request(flow: &Flow) -> impl Iterator<Item = Vec<u8>> {
    let first = flow.window.saturating_sub(1);
    let windows = core::iter::once(first).chain([flow.window; 1 + DUPLICATES]);
    windows.map(|window| acknowledgement(flow, window))
}

fn acknowledgement(flow: &Flow, window_len: u16) -> Vec<u8> {
    let tcp = TcpRepr {
        src_port: flow.key.remote_port,
        dst_port: flow.key.local_port,
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
    let ip = IpRepr::new(
        flow.key.remote,
        flow.key.local,
        IpProtocol::Tcp,
        tcp.buffer_len(),
        64,
    );
    let headers = EthernetFrame::<&[u8]>::header_len() + ip.header_len();
    let mut bytes = alloc::vec![0; headers + tcp.buffer_len()];
    let mut ethernet = EthernetFrame::new_unchecked(bytes.as_mut_slice());
    flow.ethernet.emit(&mut ethernet);
    let checksums = ChecksumCapabilities::default();
    ip.emit(ethernet.payload_mut(), &checksums);
    let segment = bytes.get_mut(headers..).unwrap_or_default();
    let mut packet = TcpPacket::new_unchecked(segment);
    tcp.emit(&mut packet, &flow.key.remote, &flow.key.local, &checksums);
    bytes
}
