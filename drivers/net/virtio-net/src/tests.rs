//! The driver under the network class, against a model of the device that checks what it does.

use std::boxed::Box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::vec::Vec;

use ddk::{
    Deadline, Described, DeviceAccess, DeviceContext, Driver, DriverError, EventQueue,
    PlatformError, StopReason, block_on,
};
use ddk_backend_sim::{Payload, Sim, SimPlatform};
use ddk_class_net::{
    Command, Doorbell, MacAddress, Offloads, ReceiveMode, RingOffsets, Segmentation, Session,
    Status, Supervisor, Verdict, Worker, rx_flags,
};
use model_virtio::VirtioPci;
use model_virtio_net::{Misbehaviour, NetModel, NetModelOptions, deliver, sum};
use proptest::prelude::*;
use proto::net::{Received, RxBuffer, Sent, Transmit, tx_flags};
use ring::{Consumer, HeapMemory, Producer};
use spec_virtio::feature::{RING_EVENT_IDX, RING_INDIRECT_DESC};
use spec_virtio::net::{Header, feature, header_flags, segmentation};

use crate::VirtioNet;
use crate::queue::Queue;

type Model = VirtioPci<NetModel>;

/// Where frames to be sent begin in the client's buffer, and pages of it.
const TX_AT: u32 = 64 * 4096;
const PAGES: usize = 96;
/// Bytes of a receive buffer of the tests.
const RX_BYTES: u32 = 2048;

#[derive(Clone, Default)]
struct Bell(Arc<AtomicU64>);

impl Doorbell for Bell {
    fn ring(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
    fn watch(&self, _: &dyn EventQueue, _: u64) -> Result<(), PlatformError> {
        Ok(())
    }
    fn unwatch(&self, _: &dyn EventQueue, _: u64) {}
}

/// A client, in place of the one on the other side of a channel.
struct Client {
    id: u32,
    queue: usize,
    free: Producer<RxBuffer, HeapMemory>,
    received: Consumer<Received, HeapMemory>,
    transmit: Producer<Transmit, HeapMemory>,
    sent: Consumer<Sent, HeapMemory>,
    payload: Payload,
    bytes: u32,
}

impl Client {
    /// Gives buffer `id`, which lies at its place.
    fn provide(&mut self, id: u32) {
        let buffer = RxBuffer {
            id,
            offset: id * self.bytes,
            length: self.bytes,
            slot: 0,
            reserved: 0,
        };
        self.free.push(&buffer).unwrap();
        let _ = self.free.publish();
    }

    /// The next whole frame, with the first entry that spoke of it.
    fn receive(&mut self) -> Option<(Received, Vec<u8>)> {
        let first = self.received.pop().unwrap()?;
        let (mut entry, mut bytes) = (first, Vec::new());
        loop {
            bytes.extend(&entry.prefix[..entry.prefix_length.into()]);
            let at = (entry.id * self.bytes) as usize;
            bytes.extend(self.payload.read(at, entry.length as usize));
            if entry.flags & rx_flags::MORE == 0 {
                return Some((first, bytes));
            }
            entry = self.received.pop().unwrap().expect("the frame goes on");
        }
    }

    /// Sends bytes in pieces of at most `piece`.
    fn send(&mut self, id: u32, bytes: &[u8], piece: usize, like: Transmit) {
        self.payload.write(TX_AT as usize, bytes);
        let count = bytes.chunks(piece).count();
        for (n, part) in bytes.chunks(piece).enumerate() {
            let more = if n + 1 < count { tx_flags::MORE } else { 0 };
            let entry = Transmit {
                id,
                offset: TX_AT + (n * piece) as u32,
                length: part.len() as u32,
                flags: like.flags | more,
                ..like
            };
            self.transmit.push(&entry).unwrap();
        }
        let _ = self.transmit.publish();
    }

    fn sent(&mut self) -> Option<(u32, Status)> {
        let sent = self.sent.pop().unwrap()?;
        Some((sent.id, Status(sent.status)))
    }
}

/// Driver, class layer, model.
struct Machine {
    sim: Sim,
    model: Arc<Model>,
    platform: Arc<SimPlatform>,
    supervisor: Supervisor<VirtioNet, HeapMemory>,
    workers: Vec<Worker<Queue, HeapMemory>>,
    sessions: u32,
}

fn start(platform: &Arc<SimPlatform>) -> (DeviceContext, Result<VirtioNet, DriverError>) {
    let cx = DeviceContext::new(platform.clone()).unwrap();
    let driver = block_on(&cx, VirtioNet::start(cx.clone())).unwrap();
    (cx, driver)
}

impl Machine {
    fn new(options: NetModelOptions, vectors: u16, cpus: usize) -> Machine {
        let sim = Sim::default();
        let model = VirtioPci::new(&sim, NetModel::new(options), vectors);
        let platform = model.platform(cpus);
        let (cx, driver) = start(&platform);
        let (supervisor, workers) = Supervisor::new(cx, driver.unwrap(), Box::new(|| {})).unwrap();
        Machine {
            sim,
            model,
            platform,
            supervisor,
            workers,
            sessions: 0,
        }
    }

    fn plain() -> Machine {
        Machine::new(NetModelOptions::default(), 2, 1)
    }

    fn open(&mut self, queue: usize, depth: u16) -> Client {
        self.open_with(queue, depth, RX_BYTES)
    }

    /// A session with a buffer in slot 0 and no receive buffers given.
    fn open_with(&mut self, queue: usize, depth: u16, bytes: u32) -> Client {
        let at = RingOffsets::of(depth, depth).unwrap();
        let memory = HeapMemory::new(at.len);
        self.sessions += 1;
        let id = self.sessions;
        let bells = (Box::new(Bell::default()), Box::new(Bell::default()));
        let session = Session::new(id, (depth, depth), memory.clone(), bells.0, bells.1).unwrap();
        self.supervisor.open(queue, Box::new(session)).unwrap();
        let (buffer, payload) = self.sim.memory().payload(PAGES, DeviceAccess::Both);
        let add = Command::AddBuffer(id, 0, buffer);
        self.supervisor.send(queue, add).unwrap();
        let depth = depth.into();
        Client {
            id,
            queue,
            free: Producer::new(memory.clone(), 0, depth).unwrap(),
            received: Consumer::new(memory.clone(), at.received, depth).unwrap(),
            transmit: Producer::new(memory.clone(), at.transmit, depth).unwrap(),
            sent: Consumer::new(memory, at.sent, depth).unwrap(),
            payload,
            bytes,
        }
    }

    /// The same with so many receive buffers given.
    fn client(&mut self, buffers: u32) -> Client {
        let mut client = self.open(0, 64);
        (0..buffers).for_each(|id| client.provide(id));
        self.run();
        client
    }

    /// Lets everybody run until nothing moves.
    fn run(&mut self) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        for _ in 0..12 {
            for worker in &mut self.workers {
                worker.turn(Deadline::NOW).unwrap();
            }
            verdicts.extend(self.supervisor.attend());
            self.sim.settle();
        }
        self.platform.check();
        verdicts
    }

    fn wire(&mut self) -> Vec<Vec<u8>> {
        let take = |model: &mut NetModel| core::mem::take(&mut model.sent);
        let sent = self.model.with(|model, _| take(model));
        sent.into_iter().map(|sent| sent.bytes).collect()
    }

    fn misbehave(&mut self, how: Misbehaviour) {
        self.model.with(|model, _| model.misbehaviour = how);
    }

    /// A frame of each kind of path goes through.
    fn works(&mut self, client: &mut Client, id: u32) {
        let frame = to_us(200, id as u8);
        assert!(deliver(&self.model, &frame, Header::default()));
        client.send(id, &frame, 90, Transmit::default());
        self.run();
        assert_eq!(
            client.receive().map(|(_, bytes)| bytes),
            Some(frame.clone())
        );
        assert_eq!(client.sent(), Some((id, Status::OK)));
        assert_eq!(self.wire(), [frame]);
    }
}

const OWN: [u8; 6] = [0x52, 0x54, 0, 1, 2, 3];

/// A frame to the interface, with a pattern.
fn to_us(len: usize, seed: u8) -> Vec<u8> {
    frame_to(OWN, len, seed)
}

fn frame_to(to: [u8; 6], len: usize, seed: u8) -> Vec<u8> {
    let mut frame = Vec::from(to);
    frame.extend([2, 0, 0, 0, 0, 0, 0x88, 0xb5]);
    frame.extend((frame.len()..len).map(|n| (n as u8).wrapping_mul(7) ^ seed));
    frame
}

fn options(features: u64) -> NetModelOptions {
    NetModelOptions {
        features,
        ..NetModelOptions::default()
    }
}

#[test]
fn the_manifest_matches_both_kinds_of_device() {
    let text = |m: &ddk::manifest::MatchRule| std::format!("{m}");
    let rules: Vec<_> = VirtioNet::MANIFEST.matches().iter().map(text).collect();
    assert_eq!(rules, ["pci:1af4:1041", "pci:1af4:1000"]);
}

#[test]
fn what_the_device_offers_is_published() {
    let m = Machine::plain();
    let info = m.supervisor.info();
    assert_eq!((info.mac.0, info.mtu, info.frame_max), (OWN, 1500, 1518));
    let all = Offloads::all();
    assert_eq!(
        (info.offloads, info.receive_offloads),
        (all, Offloads::RX_CHECKSUM)
    );
    assert!(info.link.is_up());
    // Nothing but the bare minimum.
    let m = Machine::new(options(0), 1, 1);
    let info = m.supervisor.info();
    assert_eq!((info.offloads, info.segmented_max), (Offloads::empty(), 0));
    assert_eq!(info.rx_buffer_min, info.frame_max);
    assert!(info.mac.is_unicast());
}

#[test]
fn every_set_of_features_carries_frames() {
    let base = NetModelOptions::default().features;
    let rings = RING_EVENT_IDX | RING_INDIRECT_DESC;
    for features in [
        0,
        feature::MAC,
        RING_EVENT_IDX,
        RING_INDIRECT_DESC,
        rings,
        feature::MRG_RXBUF,
        feature::MRG_RXBUF | rings,
        base & !feature::CTRL_VQ,
        base & !feature::MRG_RXBUF,
        base & !feature::CTRL_GUEST_OFFLOADS,
        base & !RING_INDIRECT_DESC,
        base,
    ] {
        let mut m = Machine::new(options(features | feature::MAC), 2, 1);
        let mut client = m.client(8);
        for id in 0..5 {
            m.works(&mut client, id);
        }
    }
}

#[test]
fn a_frame_over_several_buffers_arrives_in_order() {
    let mut m = Machine::plain();
    let mut client = m.open_with(0, 64, 256);
    (0..16).for_each(|id| client.provide(id));
    m.run();
    for len in [256, 257, 500, 1514] {
        let frame = to_us(len, len as u8);
        assert!(deliver(&m.model, &frame, Header::default()), "{len}");
        m.run();
        let (first, bytes) = client.receive().expect("the frame");
        assert_eq!(bytes, frame, "{len}");
        assert_eq!(first.flags & rx_flags::MORE != 0, len > 256);
        assert_eq!(first.prefix_length, 0, "the first has a header");
        client = {
            let mut all = client;
            // The buffers that were used come back.
            let missing = 16 - m.model.with(|model, _| model.buffers(0)) as u32;
            let used: Vec<u32> = (0..missing).map(|n| (first.id + n) % 16).collect();
            used.into_iter().for_each(|id| all.provide(id));
            all
        };
        m.run();
    }
}

#[test]
fn what_the_device_says_of_checksums_is_passed_on() {
    let mut m = Machine::plain();
    let mut client = m.client(8);
    let valid = Header {
        flags: header_flags::DATA_VALID,
        ..Header::default()
    };
    let partial = Header {
        flags: header_flags::NEEDS_CSUM,
        csum_start: 34,
        csum_offset: 16,
        ..Header::default()
    };
    for header in [Header::default(), valid, partial] {
        assert!(deliver(&m.model, &to_us(100, 1), header));
    }
    m.run();
    let mut flags = || {
        client
            .receive()
            .map(|(first, _)| (first.flags, first.checksum_start))
    };
    assert_eq!(flags(), Some((0, 0)));
    assert_eq!(flags(), Some((rx_flags::CHECKSUM_VALID, 0)));
    assert_eq!(flags(), Some((rx_flags::CHECKSUM_PARTIAL, 34)));
}

/// A TCP segment over IPv4 whose checksum field holds the pseudo-header's sum.
fn tcp(payload: usize) -> Vec<u8> {
    let mut frame = to_us(14, 0);
    frame[12..14].copy_from_slice(&[8, 0]);
    let total = (40 + payload) as u16;
    frame.extend([0x45, 0]);
    frame.extend(total.to_be_bytes());
    frame.extend([0x12, 0x34, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    let pseudo = [
        &frame[26..34],
        &[0, 6][..],
        &(20 + payload as u16).to_be_bytes()[..],
    ]
    .concat();
    let pseudo = sum(&pseudo).to_be_bytes();
    frame.extend([0, 80, 1, 0]);
    frame.extend(1000u32.to_be_bytes());
    frame.extend([0, 0, 0, 0, 0x50, 0x19, 1, 0]);
    frame.extend(pseudo);
    frame.extend([0, 0]);
    frame.extend((0..payload).map(|n| n as u8));
    frame
}

/// Whether a TCP segment's checksum is right.
fn tcp_is_right(frame: &[u8]) -> bool {
    let length = ((frame.len() - 34) as u16).to_be_bytes();
    let pseudo = [&frame[26..34], &[0, 6][..], &length[..], &frame[34..]].concat();
    sum(&pseudo) == 0xffff
}

const TCP: Transmit = Transmit {
    id: 0,
    offset: 0,
    length: 0,
    slot: 0,
    flags: tx_flags::CHECKSUM,
    checksum_start: 34,
    checksum_offset: 16,
    segment_size: 0,
    header_length: 0,
    segmentation: 0,
    reserved: [0; 7],
};

#[test]
fn checksums_and_segments_are_the_devices_work() {
    let mut m = Machine::plain();
    let mut client = m.client(1);
    client.send(1, &tcp(100), 54, TCP);
    m.run();
    assert_eq!(client.sent(), Some((1, Status::OK)));
    let wire = m.wire();
    assert!(wire.len() == 1 && tcp_is_right(&wire[0]));
    let like = Transmit {
        segmentation: Segmentation::TCP4.0,
        segment_size: 1400,
        header_length: 54,
        ..TCP
    };
    let long = tcp(10_000);
    client.send(2, &long, 2048, like);
    m.run();
    assert_eq!(client.sent(), Some((2, Status::OK)));
    let wire = m.wire();
    assert_eq!(wire.len(), 8);
    assert!(
        wire.iter()
            .all(|frame| tcp_is_right(frame) && sum(&frame[14..34]) == 0xffff)
    );
    let payload: Vec<u8> = wire.iter().flat_map(|frame| frame[54..].to_vec()).collect();
    assert_eq!(payload, long[54..]);
    let fin: Vec<bool> = wire.iter().map(|frame| frame[47] & 1 != 0).collect();
    assert_eq!(fin.iter().position(|fin| *fin), Some(7));
}

#[test]
fn what_a_client_asks_wrongly_costs_a_status() {
    let mut m = Machine::plain();
    let mut client = m.client(1);
    let segments = Transmit {
        segmentation: Segmentation::TCP4.0,
        segment_size: 1400,
        header_length: 54,
        ..TCP
    };
    let plain = Transmit::default();
    let cases: [(usize, Transmit, Status); 12] = [
        (13, plain, Status::INVALID),
        (1519, plain, Status::TOO_LONG),
        (100, Transmit { slot: 1, ..plain }, Status::BAD_BUFFER),
        (100, Transmit { flags: 8, ..plain }, Status::INVALID),
        (
            100,
            Transmit {
                reserved: [1; 7],
                ..plain
            },
            Status::INVALID,
        ),
        (
            100,
            Transmit {
                checksum_start: 13,
                ..TCP
            },
            Status::INVALID,
        ),
        (51, TCP, Status::INVALID),
        (
            3000,
            Transmit {
                flags: 0,
                ..segments
            },
            Status::INVALID,
        ),
        (
            3000,
            Transmit {
                segment_size: 0,
                ..segments
            },
            Status::INVALID,
        ),
        (
            3000,
            Transmit {
                segment_size: 1465,
                ..segments
            },
            Status::TOO_LONG,
        ),
        (
            3000,
            Transmit {
                header_length: 53,
                ..segments
            },
            Status::INVALID,
        ),
        (
            3000,
            Transmit {
                segmentation: 3,
                ..segments
            },
            Status::INVALID,
        ),
    ];
    for (n, (len, like, status)) in cases.into_iter().enumerate() {
        let id = n as u32 + 1;
        client.send(id, &to_us(len.max(14), 1)[..len], len, like);
        m.run();
        assert_eq!(client.sent(), Some((id, status)), "{n}");
    }
    assert_eq!(m.wire(), [[0u8; 0]; 0]);
    m.works(&mut client, 0);
    assert_eq!(m.supervisor.counters().tx_errors, 12);
    // A buffer beyond the memory, and one that is too short.
    for (offset, length, status) in [(0, 255, Status::INVALID), (0, 1 << 20, Status::BAD_BUFFER)] {
        let buffer = RxBuffer {
            id: 9,
            offset,
            length,
            slot: 0,
            reserved: 0,
        };
        client.free.push(&buffer).unwrap();
        let _ = client.free.publish();
        m.run();
        let back = client.received.pop().unwrap().expect("an answer");
        assert_eq!((back.id, Status(back.status)), (9, status));
    }
}

#[test]
fn filters_are_set_and_survive_a_reset() {
    let mut m = Machine::plain();
    let mut client = m.client(32);
    let group = [1, 0, 0x5e, 0, 0, 1];
    let other = [1, 0, 0x5e, 0, 0, 2];
    let stranger = [0x52, 0x54, 0, 9, 9, 9];
    let passes = |m: &Machine| {
        let passed = |to| deliver(&m.model, &frame_to(to, 60, 1), Header::default());
        [OWN, [0xff; 6], group, other, stranger].map(passed)
    };
    assert_eq!(passes(&m), [true, true, false, false, false]);
    let groups = [MacAddress(group)];
    for round in 0..2 {
        m.supervisor
            .set_receive_mode(ReceiveMode::Filtered, &groups)
            .unwrap();
        if round == 1 {
            m.supervisor.reset_device();
            m.run();
        }
        assert_eq!(passes(&m), [true, true, true, false, false]);
        while client.receive().is_some() {}
        m.supervisor
            .set_receive_mode(ReceiveMode::AllMulticast, &[])
            .unwrap();
        assert_eq!(passes(&m), [true, true, true, true, false]);
        m.run();
        m.supervisor
            .set_receive_mode(ReceiveMode::Promiscuous, &[])
            .unwrap();
        assert_eq!(passes(&m), [true; 5]);
        m.run();
        let got: Vec<u32> = std::iter::from_fn(|| client.receive())
            .map(|(first, _)| first.id)
            .collect();
        assert!(!got.is_empty());
        got.into_iter().for_each(|id| client.provide(id));
        m.run();
    }
    m.supervisor.set_mac(MacAddress(stranger)).unwrap();
    assert_eq!(m.supervisor.info().mac.0, stranger);
    m.supervisor.reset_device();
    m.supervisor
        .set_receive_mode(ReceiveMode::Filtered, &[])
        .unwrap();
    m.run();
    assert_eq!(passes(&m), [false, true, false, false, true]);
}

#[test]
fn receive_offloads_are_switched_and_survive_a_reset() {
    let mut m = Machine::plain();
    let on = |m: &Machine| m.model.with(|model, _| model.offloads);
    assert_eq!(
        on(&m),
        feature::GUEST_CSUM,
        "long frames are for those who want them"
    );
    m.supervisor.set_receive_offloads(Offloads::all()).unwrap();
    let all = feature::GUEST_CSUM | feature::GUEST_TSO4 | feature::GUEST_TSO6;
    m.supervisor.reset_device();
    m.run();
    assert_eq!(on(&m), all);
    // A frame that was put together arrives whole.
    let mut client = m.client(32);
    let frame = to_us(20_000, 3);
    let header = Header {
        flags: header_flags::NEEDS_CSUM,
        gso_type: segmentation::TCPV4,
        gso_size: 1400,
        csum_start: 34,
        csum_offset: 16,
        ..Header::default()
    };
    assert!(deliver(&m.model, &frame, header));
    m.run();
    let (first, bytes) = client.receive().expect("the frame");
    assert_eq!(
        (first.segmentation, first.segment_size),
        (Segmentation::TCP4.0, 1400)
    );
    assert_eq!(bytes, frame);
}

#[test]
fn a_device_without_a_control_queue_says_so() {
    let features = NetModelOptions::default().features & !feature::CTRL_VQ;
    let mut m = Machine::new(options(features), 2, 1);
    assert!(matches!(
        m.supervisor.set_mac(MacAddress([2, 0, 0, 0, 0, 1])),
        Err(DriverError::Unsupported { .. })
    ));
    m.supervisor
        .set_receive_mode(ReceiveMode::Promiscuous, &[])
        .unwrap();
}

#[test]
fn a_control_queue_that_does_not_answer_is_noticed() {
    for how in [Misbehaviour::Mute, Misbehaviour::Refuses] {
        let mut m = Machine::plain();
        m.misbehave(how);
        let outcome = m.supervisor.set_receive_mode(ReceiveMode::Promiscuous, &[]);
        match how {
            Misbehaviour::Mute => assert!(matches!(outcome, Err(DriverError::TimedOut { .. }))),
            _ => assert!(matches!(outcome, Err(DriverError::Unsupported { .. }))),
        }
    }
}

#[test]
fn queues_follow_cpus_offer_and_vectors() {
    for (pairs, vectors, cpus, expected) in [(4, 9, 8, 4), (8, 9, 2, 2), (8, 4, 8, 3), (1, 1, 4, 1)]
    {
        let options = NetModelOptions {
            pairs,
            ..Default::default()
        };
        let m = Machine::new(options, vectors, cpus);
        assert_eq!(m.supervisor.queues(), expected, "{pairs} {vectors} {cpus}");
        assert_eq!(m.model.enabled_queues(), 2 * expected + 1);
        m.platform.check();
    }
}

#[test]
fn flows_go_to_the_queues_that_are_open() {
    let options = NetModelOptions {
        pairs: 4,
        ..Default::default()
    };
    let mut m = Machine::new(options, 9, 4);
    let active = |m: &Machine| m.model.with(|model, _| model.active);
    let mut clients: Vec<Client> = (0..4).map(|queue| m.open(queue, 16)).collect();
    for client in &mut clients {
        (0..8).for_each(|id| client.provide(id));
    }
    m.run();
    assert_eq!(active(&m), 4);
    for seed in 0..4 {
        let mut frame = to_us(100, seed);
        frame[11] = seed;
        assert!(deliver(&m.model, &frame, Header::default()));
        m.run();
        for (n, client) in clients.iter_mut().enumerate() {
            let got = client.receive().map(|(_, bytes)| bytes);
            assert_eq!(got.is_some(), n == usize::from(seed));
        }
    }
    // The last two go: flows go to the first two, also after the reset that this takes.
    for client in clients.drain(2..) {
        m.supervisor
            .send(client.queue, Command::Close(client.id))
            .unwrap();
    }
    let verdicts = m.run();
    assert_eq!(
        verdicts
            .iter()
            .filter(|v| matches!(v, Verdict::SessionEnded(_)))
            .count(),
        2
    );
    assert_eq!(active(&m), 2);
    m.works(&mut clients[0], 7);
}

#[test]
fn the_link_is_followed() {
    let mut m = Machine::plain();
    m.model.with(|model, _| model.link_up = false);
    m.model.change_config();
    m.supervisor.changed().unwrap();
    assert!(!m.supervisor.info().link.is_up());
    assert_eq!(m.supervisor.generation(), 1);
    m.model.with(|model, _| model.link_up = true);
    m.supervisor.changed().unwrap();
    assert!(m.supervisor.info().link.is_up());
}

#[test]
fn a_device_that_breaks_the_rules_is_reset_and_goes_on() {
    use Misbehaviour::{ManyBuffers, NoBuffers, NoHeader, Twice};
    for how in [ManyBuffers, NoBuffers, NoHeader, Twice] {
        let mut m = Machine::plain();
        let mut client = m.client(8);
        m.misbehave(how);
        deliver(&m.model, &to_us(100, 1), Header::default());
        client.send(1, &to_us(100, 1), 100, Transmit::default());
        m.run();
        m.misbehave(Misbehaviour::None);
        m.run();
        while client.sent().is_some() {}
        let lost: Vec<u32> = std::iter::from_fn(|| client.received.pop().unwrap())
            .map(|entry| entry.id)
            .collect();
        assert!(m.supervisor.counters().resets > 0, "{how:?}");
        lost.into_iter().for_each(|id| client.provide(id));
        m.run();
        m.wire();
        m.works(&mut client, 2);
    }
}

fn let_time_pass(m: &mut Machine, seconds: u64) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for _ in 0..seconds {
        m.supervisor.tick();
        m.platform.advance_ms(1001);
        m.supervisor.tick();
        verdicts.extend(m.run());
    }
    verdicts
}

#[test]
fn frames_that_do_not_leave_are_lost_with_a_reset() {
    let mut m = Machine::plain();
    let mut client = m.client(8);
    m.misbehave(Misbehaviour::Stuck);
    client.send(1, &to_us(100, 1), 100, Transmit::default());
    m.run();
    assert_eq!(let_time_pass(&mut m, 3), []);
    assert_eq!(client.sent(), None, "not before its time");
    m.misbehave(Misbehaviour::None);
    let_time_pass(&mut m, 6);
    assert_eq!(client.sent(), Some((1, Status::LOST)));
    let counters = m.supervisor.counters();
    assert_eq!((counters.tx_lost, counters.resets), (1, 1));
    m.wire();
    // The receive buffers were given again.
    assert_eq!(m.model.with(|model, _| model.buffers(0)), 8);
    m.works(&mut client, 2);
}

#[test]
fn a_device_that_ignores_its_reset_is_given_up_with_its_memory_kept() {
    let mut m = Machine::plain();
    let mut client = m.client(4);
    m.misbehave(Misbehaviour::Dead);
    client.send(1, &to_us(100, 1), 100, Transmit::default());
    m.run();
    let mapped = m.sim.memory().mapped_pages();
    let verdicts = let_time_pass(&mut m, 12);
    assert!(matches!(
        verdicts[..],
        [Verdict::GiveUp(DriverError::TimedOut { .. })]
    ));
    assert_eq!(m.sim.memory().mapped_pages(), mapped);
    assert!(client.payload.is_pinned());
}

#[test]
fn a_session_that_ends_gets_its_buffers_back_from_the_device() {
    let mut m = Machine::plain();
    let client = m.client(8);
    assert_eq!(m.supervisor.session_of(0), Some(client.id));
    m.supervisor.send(0, Command::Close(client.id)).unwrap();
    let verdicts = m.run();
    assert_eq!(verdicts, [Verdict::SessionEnded(client.id)]);
    assert!(!client.payload.is_pinned());
    assert_eq!(m.workers[0].in_flight(), (0, 0));
    assert_eq!(m.model.with(|model, _| model.buffers(0)), 0);
    let mut next = m.client(8);
    m.works(&mut next, 1);
}

#[test]
fn a_buffer_is_removed_when_the_device_has_nothing_of_it() {
    let mut m = Machine::plain();
    let mut client = m.client(4);
    let removed = Arc::new(AtomicU64::new(0));
    let answers = removed.clone();
    let done = move |ok| {
        answers.fetch_add(if ok { 1 } else { 100 }, Ordering::Relaxed);
    };
    let remove = || Command::RemoveBuffer(client.id, 0, Box::new(done.clone()));
    m.supervisor.send(0, remove()).unwrap();
    m.run();
    assert!(!client.payload.is_pinned() && removed.load(Ordering::Relaxed) == 1);
    let back: Vec<Status> = std::iter::from_fn(|| client.received.pop().unwrap())
        .map(|entry| Status(entry.status))
        .collect();
    assert_eq!(back, [Status::BAD_BUFFER; 4]);
    m.supervisor.send(0, remove()).unwrap();
    m.run();
    assert_eq!(removed.load(Ordering::Relaxed), 101);
}

#[test]
fn a_client_with_more_outstanding_than_agreed_loses_its_session() {
    let mut m = Machine::plain();
    let mut client = m.open(0, 4);
    let mut verdicts = Vec::new();
    for round in 0..3 {
        for id in 0..4 {
            if client.free.room().unwrap() > 0 {
                client.provide(round * 4 + id);
            }
        }
        verdicts.extend(m.run());
    }
    assert_eq!(
        verdicts,
        [
            Verdict::CloseSession(client.id),
            Verdict::SessionEnded(client.id)
        ]
    );
    let mut next = m.client(8);
    m.works(&mut next, 1);
}

#[test]
fn stopping_leaves_the_device_quiet() {
    let sim = Sim::default();
    let model = VirtioPci::new(&sim, NetModel::new(NetModelOptions::default()), 2);
    let platform = model.platform(1);
    let (cx, driver) = start(&platform);
    assert!(platform.is_enabled());
    block_on(&cx, driver.unwrap().stop(StopReason::Requested)).unwrap();
    assert_eq!((model.status(), model.enabled_queues()), (0, 0));
    assert!(!platform.is_enabled());
    drop(cx);
    assert_eq!(sim.memory().mapped_pages(), 0);
    platform.check();
}

#[test]
fn a_device_that_is_unplugged_is_noticed() {
    let mut m = Machine::plain();
    m.model.unplug();
    assert!(matches!(
        m.supervisor.changed(),
        Err(DriverError::DeviceGone { .. })
    ));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    /// Random honest traffic: every frame goes through once, whole and in order, whatever the features.
    #[test]
    fn random_traffic_goes_through(
        steps in prop::collection::vec((any::<bool>(), 14usize..1515, any::<u8>(), 1usize..4), 1..60),
        features in prop_oneof![
            Just(0), Just(RING_INDIRECT_DESC), Just(RING_EVENT_IDX),
            Just(feature::MRG_RXBUF), Just(feature::MRG_RXBUF | RING_EVENT_IDX | RING_INDIRECT_DESC),
        ],
        queue_size in prop_oneof![Just(32u16), Just(64), Just(256)],
    ) {
        let options = NetModelOptions { features: features | feature::MAC, queue_size, ..Default::default() };
        let mut m = Machine::new(options, 2, 1);
        let mut client = m.client(16);
        let (mut out, mut back) = (Vec::new(), Vec::new());
        for (n, (outward, len, seed, pieces)) in steps.into_iter().enumerate() {
            let frame = to_us(len, seed);
            if outward {
                client.send(n as u32, &frame, len.div_ceil(pieces), Transmit::default());
                out.push(frame);
                m.run();
                prop_assert_eq!(client.sent(), Some((n as u32, Status::OK)));
            } else {
                prop_assert!(deliver(&m.model, &frame, Header::default()));
                back.push(frame);
                m.run();
                let (first, bytes) = client.receive().expect("a frame");
                prop_assert_eq!(&bytes, back.last().unwrap());
                client.provide(first.id);
            }
        }
        prop_assert_eq!(m.wire(), out);
    }

    /// A client that writes anything into its rings breaks nothing but its own session.
    #[test]
    fn hostile_clients_hurt_only_themselves(
        entries in prop::collection::vec(any::<([u32; 3], [u16; 5], [u8; 9], bool)>(), 1..60),
        small in any::<bool>(),
    ) {
        let mut m = Machine::plain();
        let mut hostile = m.open(0, 16);
        for ([id, offset, length], [slot, flags, start, at, size], bytes, receive) in entries {
            let (offset, length, slot) = if small {
                (offset % (PAGES as u32 * 4096), length % 3000, slot % 2)
            } else {
                (offset, length, slot)
            };
            if receive {
                let entry = RxBuffer { id, offset: offset & !3, length, slot, reserved: flags & 1 };
                let _ = hostile.free.push(&entry);
                let _ = hostile.free.publish();
            } else {
                let reserved = if small { [0; 7] } else { bytes[2..].try_into().unwrap() };
                let flags = if small { flags & tx_flags::ALL } else { flags };
                let entry = Transmit {
                    id, offset, length, slot, flags,
                    checksum_start: start % 200, checksum_offset: at % 40,
                    segment_size: size % 1500, header_length: start % 120,
                    segmentation: bytes[0] % 4, reserved,
                };
                let _ = hostile.transmit.push(&entry);
                let _ = hostile.transmit.publish();
            }
            if m.run().iter().any(|v| matches!(v, Verdict::SessionEnded(_))) {
                break;
            }
            if bytes[1] % 2 == 0 {
                while hostile.sent.pop().unwrap().is_some() {}
                while hostile.received.pop().unwrap().is_some() {}
            }
        }
        // Whatever the model noted of the frames is the client's doing, not the driver's.
        if m.supervisor.session_of(0).is_some() {
            m.supervisor.send(0, Command::Close(hostile.id)).unwrap();
            m.run();
        }
        prop_assert!(!hostile.payload.is_pinned());
        let mut next = m.client(8);
        m.wire();
        m.works(&mut next, 1);
    }
}

#[test]
fn wake_ups_are_asked_for_where_there_is_something_to_come() {
    let mut m = Machine::plain();
    assert_eq!(m.workers[0].in_flight(), (0, 0));
    let mut client = m.client(4);
    // A frame that comes while the worker sleeps wakes it by its interrupt.
    let before = m.supervisor.counters().interrupts;
    assert!(deliver(&m.model, &to_us(64, 1), Header::default()));
    m.run();
    assert!(client.receive().is_some());
    assert!(m.supervisor.counters().interrupts > before);
}

#[test]
fn a_frame_that_nobody_waits_for_takes_no_interrupt() {
    let mut m = Machine::plain();
    let mut client = m.client(8);
    // A new ring asks for one with its first entry (2.7.7.1).
    m.works(&mut client, 0);
    let lazy = Transmit {
        flags: tx_flags::LAZY,
        ..Transmit::default()
    };
    let before = m.supervisor.counters().interrupts;
    client.send(1, &to_us(100, 1), 100, lazy);
    m.run();
    assert_eq!(m.wire().len(), 1);
    assert_eq!(m.supervisor.counters().interrupts, before);
    // One that somebody waits for has its interrupt, and tells of both.
    client.send(2, &to_us(100, 2), 100, Transmit::default());
    m.run();
    assert_eq!(m.supervisor.counters().interrupts, before + 1);
    assert_eq!(client.sent(), Some((1, Status::OK)));
    assert_eq!(client.sent(), Some((2, Status::OK)));
}
