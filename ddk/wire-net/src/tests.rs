//! A wire before a queue whose device is played by the test.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use ddk::{DeviceAccess, DeviceContext, DriverError, EventQueue, PlatformError, block_on};
use ddk_backend_sim::{DeviceMemory, Sim};
use ddk_class_net::{
    Checksum, Frame, NetQueue, PushError, QueueLimits, Received, Segment, SegmentRequest,
    Segmentation, Wish, rx_flags,
};

use crate::{Counts, Payload, Rates, Wire, WiredQueue};

const DEPTH: u16 = 64;
const BUFFER: usize = 2048;
const IPV4: [u8; 2] = [8, 0];
const ARP: [u8; 2] = [8, 6];

/// What the device has and does.
#[derive(Default)]
struct Nic {
    free: VecDeque<(u32, Vec<Segment>)>,
    arriving: VecDeque<Vec<u8>>,
    on_the_wire: Vec<Vec<u8>>,
    sent: VecDeque<u32>,
    with_device: BTreeSet<u32>,
    is_armed: bool,
    /// Frames to be sent that it takes until they are reaped.
    room: usize,
}

struct Queue {
    memory: DeviceMemory,
    nic: Nic,
}

impl NetQueue for Queue {
    fn limits(&self) -> QueueLimits {
        QueueLimits {
            rx_depth: DEPTH,
            tx_depth: 2 * DEPTH,
            rx_segments: 1,
            tx_segments: 8,
        }
    }

    fn provide(&mut self, token: u32, segments: &[Segment]) -> Result<(), PushError> {
        if self.nic.free.len() >= DEPTH.into() {
            return Err(PushError::Full);
        }
        self.nic.free.push_back((token, segments.to_vec()));
        Ok(())
    }

    fn received(&mut self) -> Result<Option<Received>, DriverError> {
        if self.nic.free.is_empty() {
            return Ok(None);
        }
        let Some(frame) = self.nic.arriving.pop_front() else {
            return Ok(None);
        };
        let (token, segments) = self.nic.free.pop_front().unwrap();
        self.memory.write(segments[0].address, &frame).unwrap();
        Ok(Some(Received {
            token,
            length: frame.len() as u32,
            flags: rx_flags::CHECKSUM_VALID,
            ..Received::default()
        }))
    }

    fn transmit(&mut self, frame: &Frame<'_>) -> Result<(), PushError> {
        if self.nic.with_device.len() >= self.nic.room {
            return Err(PushError::Full);
        }
        assert!(frame.segmentation.is_none());
        assert!(self.nic.with_device.insert(frame.token), "a token twice");
        let mut bytes = Vec::new();
        for segment in frame.segments {
            let mut part = vec![0; segment.len as usize];
            self.memory.read(segment.address, &mut part).unwrap();
            bytes.extend(part);
        }
        assert_eq!(bytes.len(), frame.length as usize);
        if let Some(Checksum { start, offset }) = frame.checksum {
            let at = usize::from(start + offset);
            bytes[at..at + 2].copy_from_slice(&[0xc5, 0xc5]);
        }
        self.nic.on_the_wire.push(bytes);
        self.nic.sent.push_back(frame.token);
        Ok(())
    }

    fn sent(&mut self) -> Result<Option<u32>, DriverError> {
        let token = self.nic.sent.pop_front();
        if let Some(token) = token {
            self.nic.with_device.remove(&token);
        }
        Ok(token)
    }

    fn kick(&mut self) {}

    fn arm(&mut self, wish: Wish) -> bool {
        self.nic.is_armed = true;
        wish == Wish::Any && !self.nic.sent.is_empty()
            || !(self.nic.arriving.is_empty() || self.nic.free.is_empty())
    }

    fn disarm(&mut self) {
        self.nic.is_armed = false;
    }

    fn bind(&mut self, _: &dyn EventQueue, _: u64) -> Result<(), PlatformError> {
        Ok(())
    }
}

struct Memory(DeviceMemory);

impl Payload for Memory {
    fn read(&self, address: u64, into: &mut [u8]) -> Option<()> {
        self.0.read(address, into).ok()
    }
    fn write(&self, address: u64, bytes: &[u8]) -> Option<()> {
        self.0.write(address, bytes).ok()
    }
}

/// A client's buffers at the wire.
struct Bench {
    sim: Sim,
    cx: DeviceContext,
    queue: WiredQueue<Queue>,
    counts: Arc<Counts>,
    buffers: ddk::PinnedBuffer,
}

impl Bench {
    fn new(rates: Rates) -> Bench {
        let sim = Sim::default();
        let platform = sim.platform().build();
        let cx = DeviceContext::new(platform).unwrap();
        let wire = Wire {
            receive: rates,
            transmit: rates,
            seed: 7,
        };
        let pages = usize::from(DEPTH) * 2;
        let (buffers, _) = sim.memory().payload(pages, DeviceAccess::Both);
        let queue = Queue {
            memory: sim.memory().clone(),
            nic: Nic {
                room: 2 * usize::from(DEPTH),
                ..Nic::default()
            },
        };
        let counts = Arc::<Counts>::default();
        let payload = Arc::new(Memory(sim.memory().clone()));
        let queue = WiredQueue::new(&cx, queue, (wire, 0), payload, counts.clone()).unwrap();
        Bench {
            sim,
            cx,
            queue,
            counts,
            buffers,
        }
    }

    fn nic(&mut self) -> &mut Nic {
        &mut self.queue.inner().nic
    }

    /// The place of receive buffer or frame `index`.
    fn place(&self, index: usize, len: usize) -> Vec<Segment> {
        let segments = self
            .buffers
            .segments((index * BUFFER) as u64, len as u32, 0);
        segments.unwrap().collect()
    }

    fn provide(&mut self, token: u32) {
        let place = self.place(token as usize, BUFFER);
        self.queue.provide(token, &place).unwrap();
    }

    fn bytes(&self, token: u32, len: u32) -> Vec<u8> {
        let mut bytes = vec![0; len as usize];
        let place = self.place(token as usize, len as usize);
        self.sim
            .memory()
            .read(place[0].address, &mut bytes)
            .unwrap();
        bytes
    }

    /// Lets frames arrive, gives each buffer back at once; what came.
    fn receive(&mut self, frames: &[Vec<u8>]) -> Vec<(Vec<u8>, u16)> {
        let mut came = Vec::new();
        for frame in frames {
            self.nic().arriving.push_back(frame.clone());
            while let Some(received) = self.queue.received().unwrap() {
                came.push((self.bytes(received.token, received.length), received.flags));
                self.provide(received.token);
            }
            assert!(self.nic().arriving.is_empty(), "no buffers");
        }
        came
    }

    fn send(&mut self, token: u32, bytes: &[u8], like: &Frame<'_>) -> Result<(), PushError> {
        let place = self.place(usize::from(DEPTH) + token as usize % 32, bytes.len());
        let mut at = 0;
        for segment in &place {
            let part = &bytes[at..at + segment.len as usize];
            self.sim.memory().write(segment.address, part).unwrap();
            at += part.len();
        }
        self.queue.transmit(&Frame {
            token,
            segments: &place,
            length: bytes.len() as u32,
            ..*like
        })
    }

    fn wait(&self, ms: u32) {
        let deadline = self.cx.deadline_in_ms(ms);
        block_on(&self.cx, self.cx.sleep_until(deadline)).unwrap();
    }
}

const PLAIN: Frame<'static> = Frame {
    token: 0,
    segments: &[],
    length: 0,
    checksum: None,
    segmentation: None,
};

/// A frame with its number, twice: a bit of it is no other frame's.
fn frame(kind: [u8; 2], number: u32) -> Vec<u8> {
    let mut frame = vec![0xee; 60];
    frame[12..14].copy_from_slice(&kind);
    frame[20..24].copy_from_slice(&number.to_be_bytes());
    frame[30..34].copy_from_slice(&number.to_be_bytes());
    frame
}

fn number(frame: &[u8]) -> u32 {
    u32::from_be_bytes(frame[20..24].try_into().unwrap())
}

fn frames(kind: [u8; 2], count: u32) -> Vec<Vec<u8>> {
    (0..count).map(|n| frame(kind, n)).collect()
}

/// How often each came.
fn census(frames: &[Vec<u8>]) -> BTreeMap<u32, usize> {
    let mut census = BTreeMap::new();
    for frame in frames {
        *census.entry(number(frame)).or_default() += 1;
    }
    census
}

const ALL: Rates = Rates {
    loss: 10,
    duplicate: 10,
    reorder: 10,
    corrupt: 10,
};

/// One fault alone, at 10 %, with its place among the counts.
fn alone() -> [(Rates, usize); 4] {
    let none = Rates::default();
    [
        (Rates { loss: 10, ..none }, 1),
        (
            Rates {
                duplicate: 10,
                ..none
            },
            2,
        ),
        (
            Rates {
                reorder: 10,
                ..none
            },
            3,
        ),
        (
            Rates {
                corrupt: 10,
                ..none
            },
            4,
        ),
    ]
}

const COUNT: u32 = 10_000;

/// Looks at what became of frames that were sent in order: as counted, and at the rate that was asked for.
fn judge(sent: &[Vec<u8>], came: &[Vec<u8>], counts: [u64; 5], rates: Rates) {
    let [total, lost, doubled, delayed, damaged] = counts;
    assert_eq!(total, sent.len() as u64);
    let asked = [rates.loss, rates.duplicate, rates.reorder, rates.corrupt];
    for (asked, made) in asked.into_iter().zip([lost, doubled, delayed, damaged]) {
        let expected = total * u64::from(asked) / 100;
        // Six deviations of a binomial distribution.
        let slack = 6 * (expected as f64).sqrt() as u64;
        assert!(made.abs_diff(expected) <= slack, "{made} of {expected}");
    }
    let known: BTreeSet<_> = sent.iter().collect();
    let changed: Vec<_> = came.iter().filter(|f| !known.contains(f)).collect();
    assert_eq!(changed.len() as u64, damaged);
    for frame in &changed {
        let one_bit = |at: usize| {
            let number = u32::from_be_bytes(frame[at..at + 4].try_into().unwrap());
            let pairs = sent.get(number as usize).into_iter().flatten().zip(*frame);
            pairs.map(|(a, b)| (a ^ b).count_ones()).sum::<u32>() == 1
        };
        assert!(one_bit(20) || one_bit(30), "{frame:x?}");
        assert_eq!(frame[..14], sent[0][..14]);
    }
    let whole = came.iter().filter(|f| known.contains(f));
    let whole: Vec<_> = whole.cloned().collect();
    let census = census(&whole);
    let twice = census.values().filter(|n| **n == 2).count() as u64;
    assert!(census.values().all(|n| *n <= 2));
    assert_eq!(twice, doubled);
    assert_eq!(came.len() as u64, total - lost + doubled);
    let late = whole.windows(2).filter(|w| number(&w[1]) < number(&w[0]));
    let late = late.count() as u64;
    // Two that were delayed together may come one after the other.
    assert!(
        late <= delayed && late >= delayed / 2,
        "{late} of {delayed}"
    );
}

#[test]
fn received_frames_have_the_faults_that_were_asked_for() {
    let all = (ALL, 0);
    for (rates, _) in alone().into_iter().chain([all]) {
        let mut bench = Bench::new(rates);
        (0..DEPTH.into()).for_each(|token| bench.provide(token));
        let sent = frames(IPV4, 2_000);
        let mut came = bench.receive(&sent);
        bench.wait(25);
        came.extend(bench.receive(&[]));
        while let Some(received) = bench.queue.received().unwrap() {
            came.push((bench.bytes(received.token, received.length), received.flags));
            bench.provide(received.token);
        }
        let counts = bench.counts.receive.get();
        let known: BTreeSet<_> = sent.iter().collect();
        for (frame, flags) in &came {
            let valid = flags & rx_flags::CHECKSUM_VALID != 0;
            assert_eq!(valid, known.contains(frame), "the mark of a damaged frame");
        }
        let came: Vec<_> = came.into_iter().map(|(frame, _)| frame).collect();
        judge(&sent, &came, counts, rates);
        // Every buffer is with the device, or kept for a second copy.
        bench.queue.kick();
        let free = bench.nic().free.len();
        let kept = if rates.duplicate > 0 { 8 } else { 0 };
        assert_eq!(free + kept, usize::from(DEPTH));
    }
}

#[test]
fn frames_that_are_sent_have_the_faults_that_were_asked_for() {
    let all = (ALL, 0);
    for (rates, _) in alone().into_iter().chain([all]) {
        let mut bench = Bench::new(rates);
        let sent = frames(IPV4, 2_000);
        let mut back = Vec::new();
        for (index, frame) in sent.iter().enumerate() {
            bench.send(index as u32 % 32, frame, &PLAIN).unwrap();
            bench.queue.kick();
            while let Some(token) = bench.queue.sent().unwrap() {
                back.push(token);
            }
            // The delayed ones: a token is of one frame at a time.
            while back.len() + 16 < index {
                bench.wait(1);
                back.extend(bench.queue.sent().unwrap());
            }
        }
        bench.wait(25);
        while let Some(token) = bench.queue.sent().unwrap() {
            back.push(token);
        }
        assert_eq!(back.len(), sent.len(), "each comes back once");
        let came = core::mem::take(&mut bench.nic().on_the_wire);
        judge(&sent, &came, bench.counts.transmit.get(), rates);
    }
}

#[test]
fn rates_are_those_of_the_seed() {
    for (rates, place) in alone() {
        let run = || {
            let mut bench = Bench::new(rates);
            (0..DEPTH.into()).for_each(|token| bench.provide(token));
            bench.receive(&frames(IPV4, COUNT));
            bench.counts.receive.get()
        };
        let counts = run();
        assert_eq!(counts, run());
        assert!(
            counts[place].abs_diff(u64::from(COUNT) / 10) < 200,
            "{counts:?}"
        );
    }
}

#[test]
fn a_wire_without_faults_changes_nothing() {
    let mut bench = Bench::new(Rates::default());
    (0..DEPTH.into()).for_each(|token| bench.provide(token));
    let sent = frames(IPV4, 500);
    let came = bench.receive(&sent);
    let expected = sent.iter().map(|f| (f.clone(), rx_flags::CHECKSUM_VALID));
    assert!(came.into_iter().eq(expected));
    assert_eq!(bench.queue.poll_ns(), None);
    bench.send(3, &sent[0], &PLAIN).unwrap();
    assert_eq!(bench.queue.sent().unwrap(), Some(3));
    assert_eq!(bench.nic().on_the_wire, [sent[0].clone()]);
}

#[test]
fn what_has_no_checksum_is_not_damaged() {
    let mut bench = Bench::new(Rates {
        corrupt: 100,
        ..Rates::default()
    });
    (0..DEPTH.into()).for_each(|token| bench.provide(token));
    let sent = frames(ARP, 100);
    let came = bench.receive(&sent);
    assert!(came.iter().map(|(frame, _)| frame).eq(&sent));
    for (index, frame) in sent.iter().enumerate() {
        bench.send(index as u32 % 32, frame, &PLAIN).unwrap();
        while bench.queue.sent().unwrap().is_some() {}
    }
    assert_eq!(bench.nic().on_the_wire, sent);
}

#[test]
fn the_last_frame_does_not_wait_for_another() {
    let rates = Rates {
        reorder: 100,
        ..Rates::default()
    };
    let mut bench = Bench::new(rates);
    bench.provide(0);
    bench.nic().arriving.push_back(frame(IPV4, 1));
    assert_eq!(bench.queue.received().unwrap(), None);
    assert!(bench.queue.poll_ns().is_some());
    bench.wait(25);
    assert!(bench.queue.received().unwrap().is_some());
    assert_eq!(bench.queue.poll_ns(), None);
    bench.send(0, &frame(IPV4, 2), &PLAIN).unwrap();
    assert_eq!(bench.queue.sent().unwrap(), None);
    bench.wait(25);
    assert_eq!(bench.queue.sent().unwrap(), Some(0));
}

#[test]
fn the_interrupt_is_asked_for_when_all_was_lost() {
    let rates = Rates {
        loss: 100,
        ..Rates::default()
    };
    let mut bench = Bench::new(rates);
    bench.provide(0);
    for n in 0..5 {
        bench.nic().is_armed = false;
        bench.nic().arriving.push_back(frame(IPV4, n));
        assert_eq!(bench.queue.received().unwrap(), None);
        assert!(bench.nic().is_armed && bench.nic().free.len() == 1);
    }
}

#[test]
fn a_full_device_loses_nothing() {
    let rates = Rates {
        duplicate: 50,
        reorder: 50,
        ..Rates::default()
    };
    let mut bench = Bench::new(rates);
    bench.nic().room = 2;
    let (mut refused, mut back) = (0, 0);
    for n in 0..500u32 {
        let bytes = frame(IPV4, n);
        while let Err(error) = bench.send(n % 32, &bytes, &PLAIN) {
            assert_eq!(error, PushError::Full);
            refused += 1;
            while bench.queue.sent().unwrap().is_some() {
                back += 1;
            }
        }
        while n >= 16 && back + 16 < n {
            bench.wait(1);
            back += u32::from(bench.queue.sent().unwrap().is_some());
        }
    }
    for _ in 0..100 {
        bench.wait(1);
        while bench.queue.sent().unwrap().is_some() {
            back += 1;
        }
    }
    assert!(refused > 0);
    assert_eq!(back, 500);
    assert_eq!(census(&bench.nic().on_the_wire).len(), 500);
}

#[test]
fn a_long_frame_is_cut_and_its_pieces_have_fates() {
    let header = 54;
    let mut long = vec![0u8; header];
    long[12..14].copy_from_slice(&IPV4);
    long[14] = 0x45;
    long[23] = 6;
    long[46] = 0x50;
    long.extend((0..1_900u32).map(|n| n as u8));
    let like = Frame {
        checksum: Some(Checksum {
            start: 34,
            offset: 16,
        }),
        segmentation: Some(SegmentRequest {
            kind: Segmentation::TCP4,
            size: 100,
            header_length: header as u16,
        }),
        ..PLAIN
    };
    let mut bench = Bench::new(Rates::default());
    bench.send(1, &long, &like).unwrap();
    assert_eq!(bench.queue.sent().unwrap(), Some(1));
    let pieces = &bench.nic().on_the_wire;
    assert_eq!(pieces.len(), 19);
    let bytes: Vec<u8> = pieces.iter().flat_map(|p| p[header..].to_vec()).collect();
    assert_eq!(bytes, long[header..]);

    let mut bench = Bench::new(Rates {
        loss: 100,
        ..Rates::default()
    });
    bench.send(1, &long, &like).unwrap();
    assert_eq!(bench.queue.sent().unwrap(), Some(1));
    assert!(bench.nic().on_the_wire.is_empty());
    assert_eq!(bench.counts.transmit.get()[1], 19);
}
