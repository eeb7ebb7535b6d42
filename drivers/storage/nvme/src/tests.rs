//! The driver against a model of the controller that checks what it does. What every disk driver has to do is
//! tested by the conformance suite; here is what is NVMe's own.

use std::boxed::Box;
use std::string::ToString;
use std::sync::Arc;
use std::vec;
use std::vec::Vec;

use ddk::{Deadline, Described, DeviceAccess, DeviceContext, Driver, DriverError, block_on};
use ddk_backend_sim::{DeviceMemory, Payload, SimPlatform};
use ddk_class_block::{
    ABORT_LIMIT_TICKS, Abort, Access, Command, DirectDisks, Doorbell, Extent, Operation, PushError,
    REQUEST_LIMIT_TICKS, Session, Status, Supervisor, Verdict, flags,
};
use model_nvme::{Misbehaviour, NamespaceOptions, NvmeModel, NvmeOptions};
use proptest::prelude::*;
use spec_nvme::command::{DEALLOCATE, FORCE_UNIT_ACCESS, nvm};

use crate::Nvme;

struct Machine {
    model: Arc<NvmeModel>,
    platform: Arc<SimPlatform>,
    memory: DeviceMemory,
    disks: DirectDisks<Nvme>,
}

fn sim(
    options: NvmeOptions,
    vectors: u16,
    cpus: usize,
) -> (Arc<NvmeModel>, Arc<SimPlatform>, DeviceMemory) {
    let memory = DeviceMemory::default();
    let model = NvmeModel::new(options, memory.clone(), vectors);
    let platform = model.platform(cpus);
    (model, platform, memory)
}

impl Machine {
    fn new(options: NvmeOptions) -> Machine {
        Machine::with(options, 5, 1)
    }

    fn with(options: NvmeOptions, vectors: u16, cpus: usize) -> Machine {
        let (model, platform, memory) = sim(options, vectors, cpus);
        let disks = DirectDisks::start(platform.clone()).unwrap();
        platform.check();
        Machine {
            model,
            platform,
            memory,
            disks,
        }
    }

    fn plain() -> Machine {
        Machine::new(NvmeOptions::default())
    }

    /// A request of the first queue, and how it ended; `None` without an answer.
    fn run(&mut self, disk: usize, access: Access<'_>) -> Option<Status> {
        let deadline = self.disks.deadline_in_ms(1000);
        let status = self.disks.run(disk, access, deadline).unwrap();
        self.platform.check();
        status
    }

    /// Writes bytes by the driver and reads them back by it.
    fn round_trip(&mut self, disk: usize, lba: u64, len: u32, offset: u64) {
        let pages = (offset as usize + len as usize).div_ceil(4096);
        let (buffer, payload) = self.memory.payload(pages, DeviceAccess::Both);
        let bytes: Vec<u8> = (0..len)
            .map(|n| (n / 7 + n / 4096 + lba as u32) as u8)
            .collect();
        payload.write(offset as usize, &bytes);
        let access = |operation| Access {
            operation,
            lba,
            length: len,
            data: Some((&buffer, offset)),
            flags: 0,
        };
        assert_eq!(self.run(disk, access(Operation::Write)), Some(Status::OK));
        payload.write(offset as usize, &vec![0; len as usize]);
        assert_eq!(self.run(disk, access(Operation::Read)), Some(Status::OK));
        assert!(
            payload.read(offset as usize, len as usize) == bytes,
            "{len} bytes at {offset}"
        );
        let unit = self.disks.disks()[disk].unit;
        self.model.with(|m| {
            let media = &m.namespaces[&unit].media;
            let blocks = u64::from(len) / media.block_bytes() as u64;
            assert!(media.read(lba, blocks).unwrap() == bytes, "on the medium");
        });
    }

    fn plain_access(operation: Operation, lba: u64, length: u32) -> Access<'static> {
        Access {
            operation,
            lba,
            length,
            data: None,
            flags: 0,
        }
    }

    fn payload(&self, pages: usize) -> (ddk::PinnedBuffer, Payload) {
        self.memory.payload(pages, DeviceAccess::Both)
    }
}

fn namespaces(sizes: &[(u32, u64)]) -> Vec<NamespaceOptions> {
    let options = |&(block_bytes, blocks)| NamespaceOptions {
        block_bytes,
        blocks,
        ..NamespaceOptions::default()
    };
    sizes.iter().map(options).collect()
}

#[test]
fn the_manifest_matches_the_class() {
    let rules: Vec<_> = Nvme::MANIFEST
        .matches()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(rules, ["pci-class:01/08/02"]);
}

#[test]
fn every_namespace_is_a_disk() {
    let options = NvmeOptions {
        namespaces: namespaces(&[(512, 1000), (4096, 300), (512, 77)]),
        ..NvmeOptions::default()
    };
    let mut m = Machine::new(options);
    let disks = m.disks.disks();
    let told: Vec<_> = disks
        .iter()
        .map(|d| (d.unit, d.suffix.as_str(), d.block_shift, d.block_count))
        .collect();
    assert_eq!(
        told,
        [(1, "n1", 9, 1000), (2, "n2", 12, 300), (3, "n3", 9, 77)]
    );
    assert!(
        disks
            .iter()
            .all(|d| d.serial == "MODEL-0001" && d.max_transfer == 32 * 4096)
    );
    m.round_trip(0, 3, 512, 0);
    m.round_trip(1, 3, 4096, 0);
    m.round_trip(2, 3, 1024, 0);
    m.model.with(|m| {
        assert_eq!(m.namespaces[&1].media.read(4, 1).unwrap(), [0; 512]);
    });
}

#[test]
fn transfers_of_every_shape_arrive() {
    for (mdts, doorbell_stride) in [(1, 0), (4, 2), (0, 0)] {
        let options = NvmeOptions {
            namespaces: namespaces(&[(512, 4200)]),
            mdts,
            doorbell_stride,
            ..NvmeOptions::default()
        };
        let mut m = Machine::new(options);
        let max = m.disks.disks()[0].max_transfer;
        let pages = if mdts == 0 { 512 } else { 1 << mdts };
        assert_eq!(max, pages * 4096);
        for offset in [0, 4, 4092] {
            for len in [512, 4096, 4608, 8192, 12288] {
                m.round_trip(0, 1, len.min(max), offset);
            }
        }
        for offset in [0, 2048] {
            m.round_trip(0, 1, max, offset);
        }
    }
}

#[test]
fn a_transfer_of_more_than_was_published_is_refused() {
    let mut m = Machine::new(NvmeOptions {
        mdts: 0,
        ..NvmeOptions::default()
    });
    let max = m.disks.disks()[0].max_transfer;
    let (buffer, _payload) = m.payload(1024);
    let access = Access {
        operation: Operation::Read,
        lba: 0,
        length: max + 4096,
        data: Some((&buffer, 0)),
        flags: 0,
    };
    assert_eq!(
        m.disks.push(0, 0, access),
        Err(PushError::Rejected(Status::TOO_LONG))
    );
}

#[test]
fn pairs_follow_cpus_offer_and_vectors() {
    for (offered, vectors, cpus, expected) in [
        (4, 9, 8, 4),
        (8, 9, 2, 2),
        (8, 4, 8, 3),
        (1, 2, 4, 1),
        (4, 1, 4, 1),
    ] {
        let options = NvmeOptions {
            pairs: offered,
            ..NvmeOptions::default()
        };
        let mut m = Machine::with(options, vectors, cpus);
        assert_eq!(
            m.disks.queue_count(),
            expected,
            "{offered} {vectors} {cpus}"
        );
        assert_eq!(m.model.io_queues(), expected);
        for queue in 0..expected {
            let access = Machine::plain_access(Operation::Flush, 0, 0);
            let token = m.disks.push(queue, 0, access).unwrap();
            let vector = queue as u16 + u16::from(vectors > 1);
            let before = m.model.fired(vector);
            let deadline = m.disks.deadline_in_ms(100);
            assert_eq!(
                m.disks.wait(queue, deadline).unwrap(),
                Some((token, Status::OK))
            );
            assert!(m.model.fired(vector) > before, "vector {vector}");
        }
        m.platform.check();
    }
}

#[test]
fn durability_is_what_was_asked_for() {
    let mut m = Machine::plain();
    assert!(m.disks.disks()[0].volatile_cache && m.disks.disks()[0].durable_writes);
    let (buffer, payload) = m.payload(1);
    payload.write(0, &[9; 4096]);
    let write = |lba, flags| Access {
        operation: Operation::Write,
        lba,
        length: 512,
        data: Some((&buffer, 0)),
        flags,
    };
    m.run(0, write(0, 0)).unwrap();
    m.run(0, write(1, flags::FUA)).unwrap();
    let durable = |m: &Machine, lba: usize| {
        m.model
            .with(|m| m.namespaces[&1].media.durable()[lba * 512])
    };
    assert_eq!((durable(&m, 0), durable(&m, 1)), (0, 9));
    m.run(0, Machine::plain_access(Operation::Flush, 0, 0))
        .unwrap();
    assert_eq!((durable(&m, 0), durable(&m, 1)), (9, 9));
    m.model.with(|m| {
        let fua = m
            .served
            .iter()
            .map(|(opcode, dword)| (*opcode, dword & FORCE_UNIT_ACCESS != 0));
        let expected = [(nvm::WRITE, false), (nvm::WRITE, true), (nvm::FLUSH, false)];
        assert_eq!(fua.collect::<Vec<_>>(), expected);
    });
}

#[test]
fn discard_and_write_zeroes() {
    let mut m = Machine::plain();
    m.model.with(|m| {
        m.namespaces
            .get_mut(&1)
            .unwrap()
            .media
            .fill(&[0x55; 4096 * 512])
    });
    let zeroes = Machine::plain_access(Operation::WriteZeroes, 8, 8192);
    assert_eq!(m.run(0, zeroes), Some(Status::OK));
    let unmap = Access {
        flags: flags::MAY_UNMAP,
        ..Machine::plain_access(Operation::WriteZeroes, 100, 512)
    };
    assert_eq!(m.run(0, unmap), Some(Status::OK));
    assert_eq!(
        m.run(0, Machine::plain_access(Operation::Discard, 200, 1024)),
        Some(Status::OK)
    );
    m.model.with(|m| {
        let bytes = m.namespaces[&1].media.contents();
        let zeroed: Vec<_> = (0..4096)
            .filter(|b| bytes[b * 512..][..512] == [0; 512])
            .collect();
        let expected: Vec<_> = (8..24).chain([100]).chain(200..202).collect();
        assert_eq!(zeroed, expected);
        let deallocate: Vec<_> = m.served.iter().map(|s| s.1 & DEALLOCATE != 0).collect();
        assert_eq!(deallocate, [false, true, false]);
    });
    let limits = m.disks.disks()[0].clone();
    assert_eq!(
        (limits.max_discard, limits.max_write_zeroes),
        (1 << 30, 1 << 25)
    );
    let m = Machine::new(NvmeOptions {
        optional_commands: false,
        ..NvmeOptions::default()
    });
    let limits = m.disks.disks()[0].clone();
    assert_eq!((limits.max_discard, limits.max_write_zeroes), (0, 0));
}

#[test]
fn namespaces_that_cannot_be_served_are_told() {
    let mut odd = namespaces(&[(512, 10), (256, 10), (131072, 10), (512, 10)]);
    odd[0].metadata_bytes = 8;
    let m = Machine::new(NvmeOptions {
        namespaces: odd,
        mdts: 4,
        ..NvmeOptions::default()
    });
    let units: Vec<_> = m.disks.disks().iter().map(|d| d.unit).collect();
    assert_eq!(units, [4]);
    let log = m.platform.log_lines().join("\n");
    for words in ["8 bytes of metadata", "2^8 bytes", "2^17 bytes"] {
        assert!(log.contains(words), "{log}");
    }
    let m = Machine::new(NvmeOptions {
        namespaces: Vec::new(),
        ..NvmeOptions::default()
    });
    assert!(m.disks.disks().is_empty());
}

#[test]
fn version_1_0_has_no_list_of_namespaces() {
    let options = NvmeOptions {
        version: spec_nvme::register::version(1, 0),
        namespaces: namespaces(&[(512, 10), (512, 20)]),
        ..NvmeOptions::default()
    };
    let m = Machine::new(options);
    assert_eq!(m.disks.disks().len(), 2);
}

#[test]
fn namespaces_come_go_and_grow() {
    let mut m = Machine::plain();
    let units = |m: &Machine| -> Vec<_> {
        let disks = m.disks.disks();
        disks.iter().map(|d| (d.unit, d.block_count)).collect()
    };
    let wait = |m: &mut Machine| {
        let deadline = m.disks.deadline_in_ms(1000);
        m.disks.wait_for_change(deadline).unwrap()
    };
    // Several rounds: each event has to be asked for anew.
    for round in 0..3 {
        m.model.with(|m| {
            m.attach(
                7,
                NamespaceOptions {
                    blocks: 50 + round,
                    ..NamespaceOptions::default()
                },
            )
        });
        while units(&m).len() < 2 {
            assert!(wait(&mut m), "round {round}");
        }
        assert_eq!(units(&m), [(1, 4096), (7, 50 + round)]);
        m.round_trip(1, 2, 1024, 0);
        m.model.with(|m| m.resize(7, 20));
        while units(&m) != [(1, 4096), (7, 20)] {
            assert!(wait(&mut m), "round {round}");
        }
        m.model.with(|m| m.detach(7));
        while units(&m).len() > 1 {
            assert!(wait(&mut m), "round {round}");
        }
    }
    m.model.with(|m| m.event(1, 2, 2));
    while !m
        .platform
        .log_lines()
        .iter()
        .any(|l| l.contains("health log"))
    {
        assert!(wait(&mut m), "the health event");
    }
    m.platform.check();
}

#[test]
fn errors_come_back_as_what_they_are() {
    let mut m = Machine::new(NvmeOptions {
        namespaces: vec![
            NamespaceOptions::default(),
            NamespaceOptions {
                read_only: true,
                ..NamespaceOptions::default()
            },
        ],
        ..NvmeOptions::default()
    });
    let disks = m.disks.disks();
    assert_eq!((disks[0].read_only, disks[1].read_only), (false, true));
    let (buffer, _payload) = m.payload(1);
    let access = |operation, lba| Access {
        operation,
        lba,
        length: 512,
        data: Some((&buffer, 0)),
        flags: 0,
    };
    m.model.with(|m| {
        let media = &mut m.namespaces.get_mut(&1).unwrap().media;
        media.fail_reads(5);
        media.fail_writes(6);
    });
    let cases = [
        (0, access(Operation::Read, 5), Status::IO_ERROR),
        (0, access(Operation::Write, 6), Status::IO_ERROR),
        (0, access(Operation::Read, 6), Status::OK),
        (0, access(Operation::Read, 4096), Status::OUT_OF_RANGE),
        (1, access(Operation::Write, 0), Status::READ_ONLY),
    ];
    for (disk, access, expected) in cases {
        assert_eq!(m.run(disk, access), Some(expected), "{access:?}");
    }
    m.model.with(|m| m.namespaces.remove(&2));
    assert_eq!(m.run(1, access(Operation::Read, 0)), Some(Status::GONE));
}

#[test]
fn answers_that_cannot_be_are_found_out() {
    for lie in [
        Misbehaviour::WrongId,
        Misbehaviour::WrongQueue,
        Misbehaviour::WrongHead,
        Misbehaviour::Twice,
    ] {
        let mut m = Machine::plain();
        m.model.with(|m| m.misbehaviour = lie);
        let flush = Machine::plain_access(Operation::Flush, 0, 0);
        let deadline = m.disks.deadline_in_ms(100);
        let first = m.disks.run(0, flush, deadline);
        let seen = if lie == Misbehaviour::Twice {
            assert_eq!(first, Ok(Some(Status::OK)));
            m.disks.wait(0, deadline).map(drop)
        } else {
            first.map(drop)
        };
        assert!(
            matches!(seen, Err(DriverError::Protocol { .. })),
            "{lie:?}: {seen:?}"
        );
        m.model.with(|m| m.misbehaviour = Misbehaviour::None);
        m.disks.reset().unwrap();
        m.round_trip(0, 0, 4096, 0);
    }
    // An entry of the round before is none.
    let mut m = Machine::plain();
    m.model.with(|m| m.misbehaviour = Misbehaviour::StalePhase);
    assert_eq!(
        m.run(0, Machine::plain_access(Operation::Flush, 0, 0)),
        None
    );
}

#[test]
fn queues_go_round_many_times() {
    for seed in [None, Some(1), Some(2)] {
        let mut m = Machine::new(NvmeOptions {
            entries: 8,
            seed,
            ..NvmeOptions::default()
        });
        let (buffer, _payload) = m.payload(1);
        let read = Access {
            operation: Operation::Read,
            lba: 0,
            length: 512,
            data: Some((&buffer, 0)),
            flags: 0,
        };
        for round in 0..50 {
            let mut waiting: Vec<u32> = Vec::new();
            while let Ok(token) = m.disks.push(0, 0, read) {
                waiting.push(token);
            }
            assert_eq!(waiting.len(), 7, "one less than entries");
            while !waiting.is_empty() {
                let deadline = m.disks.deadline_in_ms(100);
                let (token, status) = m.disks.wait(0, deadline).unwrap().expect("an answer");
                assert_eq!(status, Status::OK, "round {round}");
                waiting.retain(|t| *t != token);
            }
        }
        m.platform.check();
    }
}

#[test]
fn a_controller_that_is_not_quiet_is_reset_first() {
    // A predecessor that crashed leaves the controller enabled, with queues in memory that is gone later.
    let (model, platform, memory) = sim(NvmeOptions::default(), 3, 2);
    let old: DirectDisks<Nvme> = DirectDisks::start(platform.clone()).unwrap();
    let mut new: DirectDisks<Nvme> = DirectDisks::start(platform.clone()).unwrap();
    core::mem::forget(old);
    let deadline = new.deadline_in_ms(100);
    let flush = Machine::plain_access(Operation::Flush, 0, 0);
    assert_eq!(new.run(0, flush, deadline), Ok(Some(Status::OK)));
    new.stop().unwrap();
    assert!(model.is_disabled() && memory.mapped_pages() > 0);
    platform.check();
}

#[test]
fn stopping_empties_the_cache_and_leaves_the_controller_quiet() {
    let m = Machine::with(NvmeOptions::default(), 5, 4);
    m.disks.stop().unwrap();
    assert_eq!(m.model.with(|m| m.shutdowns), 1);
    assert!(m.model.is_disabled() && !m.platform.is_enabled());
    assert_eq!((m.model.io_queues(), m.memory.mapped_pages()), (0, 0));
    m.platform.check();
}

#[test]
fn a_controller_that_does_not_start_is_given_up_in_time() {
    for misbehaviour in [Misbehaviour::Dead, Misbehaviour::Mute] {
        let (model, platform, memory) = sim(NvmeOptions::default(), 3, 1);
        model.with(|m| m.misbehaviour = misbehaviour);
        let started = DirectDisks::<Nvme>::start(platform.clone());
        let error = started.err().expect("it cannot start");
        assert!(matches!(error, DriverError::TimedOut { .. }), "{error}");
        platform.check();
        // It was found disabled at the end, so nothing of the host's is in use.
        assert_eq!(memory.mapped_pages(), 0);
    }
    // One that stays ready although it was disabled keeps what it was given.
    let (model, platform, memory) = sim(NvmeOptions::default(), 3, 1);
    let mut disks = DirectDisks::<Nvme>::start(platform.clone()).unwrap();
    let pages = memory.mapped_pages();
    model.with(|m| m.misbehaviour = Misbehaviour::Dead);
    let error = disks.reset().expect_err("it cannot be reset");
    assert!(matches!(error, DriverError::TimedOut { .. }), "{error}");
    assert_eq!(memory.mapped_pages(), pages);
    let (model, platform, _) = sim(NvmeOptions::default(), 3, 1);
    model.remove();
    let error = DirectDisks::<Nvme>::start(platform)
        .err()
        .expect("it is gone");
    assert!(matches!(error, DriverError::DeviceGone { .. }), "{error}");
}

#[test]
fn a_request_can_be_aborted() {
    for aborts in [true, false] {
        let mut m = Machine::new(NvmeOptions {
            aborts,
            ..NvmeOptions::default()
        });
        m.model.with(|m| m.misbehaviour = Misbehaviour::Silent);
        let token = m
            .disks
            .push(0, 0, Machine::plain_access(Operation::Flush, 0, 0))
            .unwrap();
        let deadline = m.disks.deadline_in_ms(50);
        assert_eq!(m.disks.wait(0, deadline).unwrap(), None);
        let expected = if aborts {
            Abort::Underway
        } else {
            Abort::Refused
        };
        assert_eq!(m.disks.abort(0, token), Ok(expected));
        let answer = aborts.then_some((token, Status::IO_ERROR));
        let deadline = m.disks.deadline_in_ms(50);
        assert_eq!(m.disks.wait(0, deadline).unwrap(), answer);
        m.platform.check();
    }
}

struct Silence;

impl Doorbell for Silence {
    fn ring(&self) {}
    fn watch(&self, _: &dyn ddk::EventQueue, _: u64) -> Result<(), ddk::PlatformError> {
        Ok(())
    }
    fn unwatch(&self, _: &dyn ddk::EventQueue, _: u64) {}
}

/// The class layer's watchdog: abort, and reset when that does not help.
#[test]
fn late_requests_are_aborted_and_then_the_controller_is_reset() {
    use ddk_class_block::Worker;
    use ring::{Consumer, HeapMemory, Layout, Producer};

    for (misbehaviour, aborts, words) in [
        (Misbehaviour::Silent, true, "aborted"),
        (Misbehaviour::Silent, false, "the device was reset"),
        (Misbehaviour::Mute, true, "the device was reset"),
        (Misbehaviour::Fatal, true, "the device was reset"),
    ] {
        let options = NvmeOptions {
            aborts,
            ..NvmeOptions::default()
        };
        let (model, platform, _memory) = sim(options, 3, 1);
        let cx = DeviceContext::new(platform.clone()).unwrap();
        let driver = block_on(&cx, Nvme::start(cx.clone())).unwrap().unwrap();
        let (mut supervisor, workers) = Supervisor::new(cx, driver, Box::new(|| {})).unwrap();
        let mut worker: Worker<_, HeapMemory> = workers.into_iter().next().unwrap();
        let offset = Layout::of::<proto::block::Submission>(8)
            .unwrap()
            .size_bytes();
        let len = offset
            + Layout::of::<proto::block::Completion>(8)
                .unwrap()
                .size_bytes();
        let rings = HeapMemory::new(len);
        let extent = Extent::whole(&supervisor.disks()[0]);
        let session = Session::new(
            1,
            extent,
            8,
            rings.clone(),
            offset,
            Box::new(Silence),
            Box::new(Silence),
        );
        supervisor
            .send(0, Command::Open(Box::new(session.unwrap())))
            .unwrap();
        let mut submissions =
            Producer::<proto::block::Submission, _>::new(rings.clone(), 0, 8).unwrap();
        let mut completions =
            Consumer::<proto::block::Completion, _>::new(rings, offset, 8).unwrap();
        let flush = |id| proto::block::Submission {
            id,
            operation: Operation::Flush as u8,
            ..Default::default()
        };
        model.with(|m| m.misbehaviour = misbehaviour);
        submissions.push(&flush(1)).unwrap();
        let _ = submissions.publish();
        let mut verdicts: Vec<Verdict> = Vec::new();
        let mut answer = None;
        for _ in 0..u32::from(REQUEST_LIMIT_TICKS) + u32::from(ABORT_LIMIT_TICKS) + 2 {
            for _ in 0..4 {
                worker.wake_all();
                worker.turn(Deadline::NOW).unwrap();
                verdicts.extend(supervisor.attend());
            }
            if let Some(completion) = completions.pop().unwrap() {
                answer = Some((completion.id, Status(completion.status)));
                break;
            }
            supervisor.tick();
            platform.advance_ms(1001);
            supervisor.tick();
        }
        let case = (misbehaviour, aborts);
        assert_eq!(answer, Some((1, Status::TIMED_OUT)), "{case:?}");
        assert_eq!(verdicts, [], "{case:?}");
        let log = platform.log_lines().join("\n");
        assert!(log.contains(words), "{case:?}: {log}");
        model.with(|m| m.misbehaviour = Misbehaviour::None);
        submissions.push(&flush(2)).unwrap();
        let _ = submissions.publish();
        for _ in 0..4 {
            worker.wake_all();
            worker.turn(Deadline::NOW).unwrap();
        }
        assert_eq!(
            completions.pop().unwrap().map(|c| (c.id, c.status)),
            Some((2, 0)),
            "{case:?}"
        );
        platform.check();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    /// Random traffic, completed in any order, leaves the disk as a plain array would be.
    #[test]
    fn random_traffic_matches_an_array(
        steps in prop::collection::vec((0u8..6, 0u64..100, 1u32..28, any::<u8>(), 0u64..16), 1..80),
        seed: u64,
        mdts in 2u8..6,
    ) {
        let blocks = 128;
        let options = NvmeOptions {
            namespaces: namespaces(&[(512, blocks)]), seed: Some(seed), mdts, ..NvmeOptions::default()
        };
        let mut m = Machine::new(options);
        let max = m.disks.disks()[0].max_transfer;
        let mut array = vec![0u8; blocks as usize * 512];
        for (kind, lba, count, byte, skip) in steps {
            let length = (count * 512).min(max);
            let offset = skip * 256;
            let (buffer, payload) = m.payload(8);
            let data = Some((&buffer, offset));
            let at = lba as usize * 512..lba as usize * 512 + length as usize;
            let access = |operation, data| Access { operation, lba, length, data, flags: byte & flags::ALL };
            let seen = match kind {
                0..=2 => {
                    payload.write(offset as usize, &vec![byte; length as usize]);
                    array[at].fill(byte);
                    m.run(0, access(Operation::Write, data))
                }
                3 => {
                    array[at].fill(0);
                    m.run(0, access(Operation::WriteZeroes, None))
                }
                _ => {
                    let seen = m.run(0, access(Operation::Read, data));
                    prop_assert!(payload.read(offset as usize, length as usize) == array[at]);
                    seen
                }
            };
            prop_assert_eq!(seen, Some(Status::OK));
        }
        prop_assert!(m.model.with(|m| m.namespaces[&1].media.contents()) == array);
    }
}
