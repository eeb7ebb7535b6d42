//! The driver under the block class, against a model of the device that checks what it does.

use std::boxed::Box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::vec;
use std::vec::Vec;

use ddk::{
    Deadline, Described, DeviceAccess, DeviceContext, Driver, DriverError, EventQueue,
    PlatformError, StopReason, block_on,
};
use ddk_backend_sim::{Payload, Sim, SimPlatform};
use ddk_class_block::{
    Command, DiskInfo, Doorbell, Extent, Session, Status, Supervisor, Verdict, Worker, flags,
};
use model_media::Durability;
use model_virtio::VirtioPci;
use model_virtio_blk::{BlockModel, BlockModelOptions, Misbehaviour};
use proptest::prelude::*;
use proto::block::{Completion, Operation, Submission};
use ring::{Consumer, HeapMemory, Layout, Producer};
use spec_virtio::block::{feature, request};
use spec_virtio::feature::{RING_EVENT_IDX, RING_INDIRECT_DESC};

use crate::VirtioBlk;
use crate::queue::Queue;

type Model = VirtioPci<BlockModel>;

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
    submissions: Producer<Submission, HeapMemory>,
    completions: Consumer<Completion, HeapMemory>,
    /// Counts wake-ups.
    woken: Bell,
    next_id: u64,
}

impl Client {
    fn submit(
        &mut self,
        operation: Operation,
        lba: u64,
        length: u32,
        offset: u64,
        flags: u8,
    ) -> u64 {
        self.next_id += 1;
        let id = self.next_id;
        let operation = operation as u8;
        let submission = Submission {
            id,
            lba,
            offset,
            length,
            slot: 0,
            operation,
            flags,
        };
        self.submissions.push(&submission).unwrap();
        let _ = self.submissions.publish();
        id
    }

    fn poll(&mut self) -> Option<(u64, Status, u32)> {
        self.completions
            .pop()
            .unwrap()
            .map(|c| (c.id, Status(c.status), c.length))
    }
}

/// Driver, class layer, model.
struct Machine {
    sim: Sim,
    model: Arc<Model>,
    platform: Arc<SimPlatform>,
    supervisor: Supervisor<VirtioBlk, HeapMemory>,
    workers: Vec<Worker<Queue, HeapMemory>>,
    sessions: u32,
}

fn model(sim: &Sim, options: BlockModelOptions, vectors: u16) -> Arc<Model> {
    VirtioPci::new(sim, BlockModel::new(options), vectors)
}

fn start(platform: &Arc<SimPlatform>) -> (DeviceContext, Result<VirtioBlk, DriverError>) {
    let cx = DeviceContext::new(platform.clone()).unwrap();
    let driver = block_on(&cx, VirtioBlk::start(cx.clone())).unwrap();
    (cx, driver)
}

impl Machine {
    fn new(options: BlockModelOptions, vectors: u16, cpus: usize) -> Machine {
        Machine::in_world(Sim::default(), options, vectors, cpus)
    }

    fn in_world(sim: Sim, options: BlockModelOptions, vectors: u16, cpus: usize) -> Machine {
        let model = model(&sim, options, vectors);
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
        Machine::new(BlockModelOptions::default(), 2, 1)
    }

    fn disk(&self) -> &DiskInfo {
        self.supervisor.disk(0).expect("the only disk")
    }

    fn whole(&self) -> Extent {
        Extent::whole(self.disk())
    }

    fn open(&mut self, extent: Extent, depth: u16) -> Client {
        let queue = self.supervisor.choose_queue(None);
        let offset = Layout::of::<Submission>(depth.into()).unwrap().size_bytes();
        let len = offset + Layout::of::<Completion>(depth.into()).unwrap().size_bytes();
        let memory = HeapMemory::new(len);
        let woken = Bell::default();
        self.sessions += 1;
        let bells = (Box::new(Bell::default()), Box::new(woken.clone()));
        let id = self.sessions;
        let session =
            Session::new(id, extent, depth, memory.clone(), offset, bells.0, bells.1).unwrap();
        self.supervisor
            .send(queue, Command::Open(Box::new(session)))
            .unwrap();
        Client {
            id,
            submissions: Producer::new(memory.clone(), 0, depth.into()).unwrap(),
            completions: Consumer::new(memory, offset, depth.into()).unwrap(),
            woken,
            next_id: 0,
        }
    }

    /// Registers a buffer as slot 0 of a session of the first queue.
    fn buffer(&mut self, client: &Client, pages: usize, access: DeviceAccess) -> Payload {
        let (buffer, payload) = self.sim.memory().payload(pages, access);
        self.supervisor
            .send(0, Command::AddBuffer(client.id, 0, buffer))
            .unwrap();
        payload
    }

    /// Lets everybody run until nothing moves.
    fn run(&mut self) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        for _ in 0..8 {
            for worker in &mut self.workers {
                worker.wake_all();
                worker.turn(Deadline::NOW).unwrap();
            }
            verdicts.extend(self.supervisor.attend());
            self.sim.settle();
        }
        self.platform.check();
        verdicts
    }

    fn one(&mut self, client: &mut Client) -> (Status, u32) {
        self.run();
        let (id, status, length) = client.poll().expect("an answer");
        assert_eq!(id, client.next_id);
        assert!(client.poll().is_none(), "one answer");
        (status, length)
    }
}

#[test]
fn the_manifest_matches_both_kinds_of_device() {
    let text = |m: &ddk::manifest::MatchRule| std::format!("{m}");
    let rules: Vec<_> = VirtioBlk::MANIFEST.matches().iter().map(text).collect();
    assert_eq!(rules, ["pci:1af4:1042", "pci:1af4:1001"]);
}

#[test]
fn reads_what_is_there_and_writes_what_is_told() {
    for features in [
        0,
        RING_EVENT_IDX,
        RING_INDIRECT_DESC,
        RING_EVENT_IDX | RING_INDIRECT_DESC,
    ] {
        let base = feature::SEG_MAX | feature::BLK_SIZE | feature::FLUSH;
        let options = BlockModelOptions {
            features: base | features,
            ..Default::default()
        };
        let mut m = Machine::new(options, 2, 1);
        assert_eq!(m.disk().serial, "model-disk-0");
        m.model.with(|disk, _| {
            let contents: Vec<u8> = (0..4096 * 512).map(|n| (n / 512 + n % 7) as u8).collect();
            disk.media.fill(&contents);
        });
        let mut client = m.open(m.whole(), 8);
        let payload = m.buffer(&client, 4, DeviceAccess::Both);
        client.submit(Operation::Read, 5, 4096, 1024, 0);
        assert_eq!(m.one(&mut client), (Status::OK, 4096));
        let expected = m
            .model
            .with(|disk, _| disk.media.contents()[5 * 512..][..4096].to_vec());
        assert_eq!(payload.read(1024, 4096), expected);
        payload.write(0, &[0xaa; 1024]);
        client.submit(Operation::Write, 100, 1024, 0, 0);
        assert_eq!(m.one(&mut client), (Status::OK, 1024));
        m.model.with(|disk, _| {
            let contents = disk.media.contents();
            assert_eq!(contents[100 * 512..][..1024], [0xaa; 1024]);
            assert_ne!(contents[102 * 512], 0xaa);
        });
        client.submit(Operation::Flush, 0, 0, 0, 0);
        assert_eq!(m.one(&mut client), (Status::OK, 0));
    }
}

#[test]
fn a_durable_write_is_flushed() {
    let mut m = Machine::plain();
    let mut client = m.open(m.whole(), 8);
    let _payload = m.buffer(&client, 1, DeviceAccess::Reads);
    client.submit(Operation::Write, 0, 512, 0, flags::FUA);
    assert_eq!(m.one(&mut client), (Status::OK, 512));
    m.model.with(|disk, _| {
        assert_eq!(disk.media.unflushed(), 0);
        assert_eq!(disk.served[1..], [request::OUT, request::FLUSH]);
    });
}

#[test]
fn the_device_may_answer_in_any_order() {
    let mut orders = std::collections::BTreeSet::new();
    for seed in 0..16 {
        let mut m = Machine::in_world(Sim::new(seed), BlockModelOptions::default(), 2, 1);
        let mut client = m.open(m.whole(), 8);
        let payload = m.buffer(&client, 8, DeviceAccess::Both);
        for n in 0..8u64 {
            payload.write(n as usize * 4096, &[n as u8 + 1; 4096]);
            let fua = if n % 2 == 0 { flags::FUA } else { 0 };
            client.submit(Operation::Write, n * 8, 4096, n * 4096, fua);
        }
        m.run();
        let answers: Vec<_> = std::iter::from_fn(|| client.poll()).collect();
        assert!(answers.iter().all(|a| a.1 == Status::OK));
        let order: Vec<u64> = answers.iter().map(|a| a.0).collect();
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (1..=8).collect::<Vec<_>>(), "seed {seed}");
        orders.insert(order);
        m.model.with(|disk, _| {
            for n in (0..8).step_by(2) {
                let block = &disk.media.durable()[n * 4096..][..4096];
                assert_eq!(block, [n as u8 + 1; 4096], "seed {seed}: what was forced");
            }
        });
    }
    assert!(orders.len() > 8, "{orders:?}");
}

#[test]
fn a_bad_block_fails_its_request_alone() {
    let mut m = Machine::plain();
    m.model.with(|disk, _| {
        disk.media.fail_reads(9);
        disk.media.fail_writes(10);
    });
    let mut client = m.open(m.whole(), 8);
    let _payload = m.buffer(&client, 1, DeviceAccess::Both);
    for (operation, lba, expected) in [
        (Operation::Read, 8, Status::OK),
        (Operation::Read, 9, Status::IO_ERROR),
        (Operation::Write, 10, Status::IO_ERROR),
        (Operation::Write, 9, Status::OK),
        (Operation::Read, 9, Status::OK),
    ] {
        client.submit(operation, lba, 512, 0, 0);
        assert_eq!(m.one(&mut client).0, expected, "{operation:?} of {lba}");
    }
}

#[test]
fn discard_and_write_zeroes() {
    let mut m = Machine::plain();
    m.model
        .with(|disk, _| disk.media.fill(&vec![0x55; 4096 * 512]));
    let mut client = m.open(m.whole(), 8);
    client.submit(Operation::WriteZeroes, 8, 8192, 0, flags::MAY_UNMAP);
    assert_eq!(m.one(&mut client), (Status::OK, 8192));
    client.submit(Operation::Discard, 64, 512, 0, 0);
    assert_eq!(m.one(&mut client), (Status::OK, 512));
    m.model.with(|disk, _| {
        let contents = disk.media.contents();
        assert_eq!(contents[8 * 512 - 1], 0x55);
        assert!(contents[8 * 512..24 * 512].iter().all(|b| *b == 0));
        assert_eq!(contents[24 * 512], 0x55);
    });
}

#[test]
fn requests_that_are_wrong_never_reach_the_device() {
    let mut m = Machine::plain();
    let part = m.whole().part(16, 32, true).unwrap();
    let mut client = m.open(part, 16);
    let _payload = m.buffer(&client, 2, DeviceAccess::Writes);
    let served = m.model.with(|disk, _| disk.served.len());
    let (read, write) = (Operation::Read, Operation::Write);
    let cases = [
        (read, 0, 100, 0, 0, Status::INVALID),
        (read, 0, 0, 0, 0, Status::INVALID),
        (read, 32, 512, 0, 0, Status::OUT_OF_RANGE),
        (read, 31, 1024, 0, 0, Status::OUT_OF_RANGE),
        (read, u64::MAX, 512, 0, 0, Status::OUT_OF_RANGE),
        (read, 0, 512, 8192, 0, Status::BAD_BUFFER),
        (read, 0, 512, u64::MAX - 100, 0, Status::BAD_BUFFER),
        (read, 0, 1024, 7680, 0, Status::BAD_BUFFER),
        (read, 0, 512, 2, 0, Status::INVALID),
        (read, 0, 512, 0, 0x80, Status::INVALID),
        (write, 0, 512, 0, 0, Status::BAD_BUFFER),
        (Operation::Flush, 0, 512, 0, 0, Status::INVALID),
        (Operation::Discard, 30, 2048, 0, 0, Status::OUT_OF_RANGE),
    ];
    for (operation, lba, length, offset, flags, expected) in cases {
        client.submit(operation, lba, length, offset, flags);
        let case = (operation, lba, length, offset);
        assert_eq!(m.one(&mut client), (expected, 0), "{case:?}");
    }
    assert_eq!(m.model.with(|disk, _| disk.served.len()), served);
    client.submit(read, 0, 512, 0, 0);
    assert_eq!(m.one(&mut client), (Status::OK, 512));
}

#[test]
fn a_partition_is_where_it_is() {
    let mut m = Machine::plain();
    m.model.with(|disk, _| {
        let marked = [0x42; 512];
        disk.media.write(16, &marked, Durability::Forced).unwrap();
    });
    let part = m
        .whole()
        .part(10, 20, false)
        .unwrap()
        .part(6, 4, true)
        .unwrap();
    assert_eq!(
        part,
        Extent {
            unit: 0,
            first_lba: 16,
            count: 4,
            writable: false
        }
    );
    assert_eq!(m.whole().part(u64::MAX, 2, true), None);
    assert_eq!(m.whole().part(0, 5000, true), None);
    let mut client = m.open(part, 4);
    let payload = m.buffer(&client, 1, DeviceAccess::Both);
    client.submit(Operation::Read, 0, 512, 0, 0);
    assert_eq!(m.one(&mut client), (Status::OK, 512));
    assert_eq!(payload.read(0, 1), [0x42]);
    client.submit(Operation::Write, 0, 512, 0, 0);
    assert_eq!(m.one(&mut client), (Status::READ_ONLY, 0));
}

#[test]
fn a_transfer_of_the_published_length_fits_however_its_pages_lie() {
    for (seg_max, size_max) in [(126, 1 << 20), (3, 1 << 20), (16, 1024), (1, 1 << 20)] {
        let options = BlockModelOptions {
            features: BlockModelOptions::default().features | feature::SIZE_MAX,
            seg_max,
            size_max,
            ..Default::default()
        };
        let mut m = Machine::new(options, 2, 1);
        let max = m.disk().max_transfer;
        let mut client = m.open(m.whole(), 4);
        let _payload = m.buffer(&client, max as usize / 4096 + 2, DeviceAccess::Writes);
        let offset = if seg_max == 1 { 0 } else { 2048 };
        client.submit(Operation::Read, 0, max, offset, 0);
        assert_eq!(
            m.one(&mut client),
            (Status::OK, max),
            "{seg_max} segments of {size_max}"
        );
        client.submit(Operation::Read, 0, max + 512, 0, 0);
        assert_eq!(m.one(&mut client), (Status::TOO_LONG, 0));
    }
}

#[test]
fn a_read_only_device_refuses_changes() {
    let options = BlockModelOptions::default();
    let features = options.features | feature::RO;
    let mut m = Machine::new(
        BlockModelOptions {
            features,
            ..options
        },
        2,
        1,
    );
    let mut client = m.open(m.whole(), 4);
    let _payload = m.buffer(&client, 1, DeviceAccess::Both);
    for operation in [Operation::Write, Operation::Discard, Operation::WriteZeroes] {
        client.submit(operation, 0, 512, 0, 0);
        assert_eq!(m.one(&mut client), (Status::READ_ONLY, 0));
    }
}

#[test]
fn queues_follow_cpus_offer_and_vectors() {
    for (offered, vectors, cpus, expected) in [
        (4, 9, 8, 4),
        (8, 9, 2, 2),
        (8, 4, 8, 3),
        (1, 2, 4, 1),
        (4, 1, 4, 1),
    ] {
        let options = BlockModelOptions {
            queues: offered,
            ..Default::default()
        };
        let m = Machine::new(options, vectors, cpus);
        assert_eq!(
            m.supervisor.queues(),
            expected,
            "{offered} {vectors} {cpus}"
        );
        assert_eq!(m.model.enabled_queues(), expected);
        m.platform.check();
    }
}

#[test]
fn errors_of_the_device_are_reported_and_nothing_else_happens() {
    let mut m = Machine::plain();
    let mut client = m.open(m.whole(), 4);
    let _payload = m.buffer(&client, 1, DeviceAccess::Writes);
    for (fault, expected) in [
        (Misbehaviour::Errors, Status::IO_ERROR),
        (Misbehaviour::OddStatus, Status::IO_ERROR),
        (Misbehaviour::NoStatus, Status::IO_ERROR),
        (Misbehaviour::None, Status::OK),
    ] {
        m.model.with(|disk, _| disk.misbehaviour = fault);
        client.submit(Operation::Read, 0, 512, 0, 0);
        assert_eq!(m.one(&mut client).0, expected, "{fault:?}");
    }
}

#[test]
fn a_device_that_completes_twice_is_reset_and_goes_on() {
    let mut m = Machine::plain();
    let mut client = m.open(m.whole(), 4);
    let _payload = m.buffer(&client, 1, DeviceAccess::Writes);
    m.model
        .with(|disk, _| disk.misbehaviour = Misbehaviour::Twice);
    client.submit(Operation::Read, 0, 512, 0, 0);
    client.submit(Operation::Read, 1, 512, 0, 0);
    m.run();
    let mut answers = 0;
    while client.poll().is_some() {
        answers += 1;
    }
    assert_eq!(answers, 2, "each request is answered once");
    assert!(
        m.platform
            .log_lines()
            .iter()
            .any(|l| l.contains("the device was reset"))
    );
    m.model
        .with(|disk, _| disk.misbehaviour = Misbehaviour::None);
    client.submit(Operation::Read, 0, 512, 0, 0);
    assert_eq!(m.one(&mut client), (Status::OK, 512));
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
fn a_silent_device_is_reset_and_its_requests_fail() {
    let mut m = Machine::plain();
    let mut client = m.open(m.whole(), 4);
    let payload = m.buffer(&client, 1, DeviceAccess::Writes);
    m.model
        .with(|disk, _| disk.misbehaviour = Misbehaviour::Silent);
    client.submit(Operation::Read, 0, 512, 0, 0);
    assert_eq!(let_time_pass(&mut m, 20), []);
    assert_eq!(client.poll(), None, "not before its time");
    let_time_pass(&mut m, 20);
    assert_eq!(client.poll(), Some((1, Status::TIMED_OUT, 0)));
    assert!(payload.is_pinned(), "still registered");
    m.model
        .with(|disk, _| disk.misbehaviour = Misbehaviour::None);
    client.submit(Operation::Read, 0, 512, 0, 0);
    assert_eq!(m.one(&mut client), (Status::OK, 512));
}

#[test]
fn a_device_that_ignores_its_reset_is_given_up_with_its_memory_kept() {
    let mut m = Machine::plain();
    let mut client = m.open(m.whole(), 4);
    let payload = m.buffer(&client, 1, DeviceAccess::Writes);
    m.model
        .with(|disk, _| disk.misbehaviour = Misbehaviour::Dead);
    client.submit(Operation::Read, 0, 512, 0, 0);
    m.run();
    let mapped = m.sim.memory().mapped_pages();
    let verdicts = let_time_pass(&mut m, 40);
    assert!(matches!(
        verdicts[..],
        [Verdict::GiveUp(DriverError::TimedOut { .. })]
    ));
    assert_eq!(
        m.sim.memory().mapped_pages(),
        mapped,
        "the device may still use all of it"
    );
    assert!(payload.is_pinned());
}

#[test]
fn a_device_that_is_unplugged_is_noticed() {
    let mut m = Machine::plain();
    m.model.unplug();
    assert!(matches!(
        m.supervisor.changed(),
        Err(DriverError::DeviceGone { .. })
    ));
    let model = model(&Sim::default(), BlockModelOptions::default(), 2);
    let platform = model.platform(1);
    model.unplug();
    assert!(matches!(
        start(&platform).1,
        Err(DriverError::DeviceGone { .. })
    ));
}

#[test]
fn a_session_that_ends_keeps_its_buffers_until_the_device_is_done() {
    let mut m = Machine::plain();
    let mut client = m.open(m.whole(), 4);
    let payload = m.buffer(&client, 1, DeviceAccess::Writes);
    client.submit(Operation::Read, 0, 512, 0, 0);
    m.run();
    m.model
        .with(|disk, _| disk.misbehaviour = Misbehaviour::Silent);
    client.submit(Operation::Read, 1, 512, 0, 0);
    m.run();
    m.supervisor.send(0, Command::Close(client.id)).unwrap();
    m.run();
    assert!(payload.is_pinned(), "the device has a request for it");
    assert_eq!(m.workers[0].sessions(), 1);
    let heads = m
        .model
        .with(|_, queues| queues[0].as_ref().unwrap().in_flight().to_vec());
    assert_eq!(heads.len(), 1);
    m.model
        .with(|_, queues| queues[0].as_mut().unwrap().complete(heads[0], 1).unwrap());
    m.run();
    assert!(!payload.is_pinned());
    assert_eq!((m.workers[0].sessions(), m.workers[0].in_flight()), (0, 0));
}

#[test]
fn a_buffer_is_removed_when_its_last_request_is_done() {
    let mut m = Machine::plain();
    let mut client = m.open(m.whole(), 4);
    let payload = m.buffer(&client, 1, DeviceAccess::Writes);
    m.run();
    m.model
        .with(|disk, _| disk.misbehaviour = Misbehaviour::Silent);
    client.submit(Operation::Read, 0, 512, 0, 0);
    m.run();
    let removed = Arc::new(AtomicU64::new(0));
    let answers = removed.clone();
    let done = move |ok| {
        answers.fetch_add(if ok { 1 } else { 100 }, Ordering::Relaxed);
    };
    m.supervisor
        .send(
            0,
            Command::RemoveBuffer(client.id, 0, Box::new(done.clone())),
        )
        .unwrap();
    client.submit(Operation::Read, 0, 512, 0, 0);
    m.run();
    assert_eq!(
        client.poll(),
        Some((2, Status::BAD_BUFFER, 0)),
        "no new use of it"
    );
    assert!(payload.is_pinned() && removed.load(Ordering::Relaxed) == 0);
    let heads = m
        .model
        .with(|_, queues| queues[0].as_ref().unwrap().in_flight().to_vec());
    m.model
        .with(|_, queues| queues[0].as_mut().unwrap().complete(heads[0], 1).unwrap());
    m.run();
    assert!(!payload.is_pinned() && removed.load(Ordering::Relaxed) == 1);
    m.supervisor
        .send(0, Command::RemoveBuffer(client.id, 0, Box::new(done)))
        .unwrap();
    m.run();
    assert_eq!(
        removed.load(Ordering::Relaxed),
        101,
        "there is none any more"
    );
}

#[test]
fn the_disk_may_grow_and_shrink() {
    let mut m = Machine::plain();
    let mut client = m.open(m.whole(), 4);
    let _payload = m.buffer(&client, 1, DeviceAccess::Writes);
    m.model.with(|disk, _| disk.resize(64));
    m.model.change_config();
    m.supervisor.changed().unwrap();
    assert_eq!((m.disk().block_count, m.supervisor.generation()), (64, 1));
    client.submit(Operation::Read, 64, 512, 0, 0);
    assert_eq!(m.one(&mut client), (Status::OUT_OF_RANGE, 0));
    client.submit(Operation::Read, 63, 512, 0, 0);
    assert_eq!(m.one(&mut client), (Status::OK, 512));
}

#[test]
fn a_client_with_more_outstanding_than_agreed_loses_its_session() {
    let mut m = Machine::plain();
    let mut honest = m.open(m.whole(), 4);
    let mut client = m.open(m.whole(), 4);
    m.supervisor.leave_queue(0);
    let _payload = m.buffer(&client, 1, DeviceAccess::Writes);
    let mut verdicts = Vec::new();
    for _ in 0..4 {
        for _ in 0..4 {
            // It never takes an answer.
            if client.submissions.room().unwrap() > 0 {
                client.submit(Operation::Read, 0, 512, 0, 0);
            }
        }
        verdicts.extend(m.run());
    }
    assert_eq!(verdicts, [Verdict::CloseSession(client.id)]);
    honest.submit(Operation::Flush, 0, 0, 0, 0);
    assert_eq!(m.one(&mut honest), (Status::OK, 0));
}

#[test]
fn stopping_leaves_the_device_quiet() {
    let sim = Sim::default();
    let model = model(&sim, BlockModelOptions::default(), 2);
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
fn wake_ups_come_once_per_batch() {
    let mut m = Machine::plain();
    let mut client = m.open(m.whole(), 32);
    let _payload = m.buffer(&client, 1, DeviceAccess::Writes);
    m.run();
    assert!(!client.completions.arm().unwrap());
    for n in 0..32 {
        client.submit(Operation::Read, n, 512, 0, 0);
    }
    m.run();
    assert_eq!(client.woken.0.load(Ordering::Relaxed), 1);
    assert_eq!(std::iter::from_fn(|| client.poll()).count(), 32);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Random honest traffic of two sessions: every request is answered once, and the disk is what a plain
    /// array would be.
    #[test]
    fn random_traffic_matches_an_array(
        steps in prop::collection::vec((0u8..5, 0u64..120, 1u32..9, any::<u8>()), 1..120),
        queue_size in prop_oneof![Just(4u16), Just(16), Just(128)],
        features in prop_oneof![Just(0), Just(RING_INDIRECT_DESC), Just(RING_EVENT_IDX | RING_INDIRECT_DESC)],
    ) {
        let base = feature::SEG_MAX | feature::BLK_SIZE | feature::FLUSH | feature::WRITE_ZEROES;
        let options = BlockModelOptions {
            features: base | features, sectors: 128, queue_size, ..Default::default()
        };
        let mut m = Machine::new(options, 2, 1);
        let mut array = vec![0u8; 128 * 512];
        let mut clients = [m.open(m.whole(), 8), m.open(m.whole(), 8)];
        let payloads = [0, 1].map(|n| m.buffer(&clients[n], 2, DeviceAccess::Both));
        for (n, (kind, lba, blocks, byte)) in steps.into_iter().enumerate() {
            let (client, payload) = (&mut clients[n % 2], &payloads[n % 2]);
            let (length, start) = (blocks * 512, lba as usize * 512);
            let end = start + length as usize;
            let inside = end <= array.len();
            let expected = if inside { Status::OK } else { Status::OUT_OF_RANGE };
            match kind {
                0 | 1 => {
                    payload.write(512, &vec![byte; length as usize]);
                    client.submit(Operation::Write, lba, length, 512, byte & flags::FUA);
                    if inside {
                        array[start..end].fill(byte);
                    }
                }
                2 => {
                    client.submit(Operation::WriteZeroes, lba, length, 0, 0);
                    if inside {
                        array[start..end].fill(0);
                    }
                }
                _ => {
                    client.submit(Operation::Read, lba, length, 512, 0);
                }
            }
            let (id, client) = (client.next_id, n % 2);
            m.run();
            let (seen, status, _) = clients[client].poll().expect("an answer");
            prop_assert_eq!((seen, status), (id, expected));
            if kind > 2 && inside {
                prop_assert_eq!(&payloads[client].read(512, length as usize), &array[start..end]);
            }
        }
        prop_assert_eq!(m.model.with(|disk, _| disk.media.contents()), array);
    }

    /// A client that writes anything into its rings breaks nothing but its own session.
    #[test]
    fn hostile_clients_hurt_only_themselves(
        entries in prop::collection::vec(any::<([u64; 3], u32, u16, u8, u8)>(), 1..60),
        small in any::<bool>(),
    ) {
        let mut m = Machine::plain();
        let mut honest = m.open(m.whole(), 4);
        let mut hostile = m.open(m.whole(), 16);
        let _payload = m.buffer(&hostile, 2, DeviceAccess::Both);
        for (numbers, length, slot, operation, flags) in entries {
            let [id, lba, offset] = numbers;
            let (lba, offset, length, slot, operation) = if small {
                (lba % 5000, offset % 9000, length % 8 * 512, slot % 2, operation % 7)
            } else {
                (lba, offset, length, slot, operation)
            };
            let submission = Submission { id, lba, offset, length, slot, operation, flags };
            if hostile.submissions.push(&submission).is_ok() {
                let _ = hostile.submissions.publish();
            }
            m.run();
            if flags % 3 == 0 {
                while hostile.poll().is_some() {}
            }
        }
        honest.submit(Operation::Flush, 0, 0, 0, 0);
        prop_assert_eq!(m.one(&mut honest), (Status::OK, 0));
    }
}
