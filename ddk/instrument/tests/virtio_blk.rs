//! The wrappers around a real driver: virtio-blk over its model.

use std::sync::Arc;

use ddk::{DeviceAccess, DeviceContext, DriverError, Event, PinnedBuffer, Platform, Width};
use ddk_backend_sim::Sim;
use ddk_class_block::{Access, DirectDisks, Operation, Status};
use ddk_instrument::{
    Change, Deadlines, Faults, Finding, Place, Record, Recording, Replay, Rule, Trace, When,
    instrument,
};
use model_virtio::VirtioPci;
use model_virtio_blk::{BlockModel, BlockModelOptions};
use virtio_blk::VirtioBlk;

/// The recording that is replayed. Where the driver's ways change on purpose, record it again:
/// `BULKHEAD_RECORD=1 cargo test -p ddk-instrument`.
const RECORDING: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/data/virtio-blk.recording"
);

/// A machine with the device, and a client's buffer: the same addresses each time.
fn machine(seed: u64) -> (Arc<VirtioPci<BlockModel>>, Arc<dyn Platform>, PinnedBuffer) {
    let sim = Sim::new(seed);
    let (buffer, _) = sim.memory().payload(4, DeviceAccess::Both);
    let options = BlockModelOptions {
        queue_size: 16,
        ..Default::default()
    };
    let model = VirtioPci::new(&sim, BlockModel::new(options), 2);
    let platform = model.platform(1);
    (model, platform, buffer)
}

/// Statuses of the requests; `None` for one that was not answered in time.
type Answers = Result<Vec<Option<Status>>, DriverError>;

/// Bring-up, a write, a read, a flush, stop. `lba` is where.
fn exercise(platform: Arc<dyn Platform>, buffer: &PinnedBuffer, lba: u64) -> Answers {
    let mut disks = DirectDisks::<VirtioBlk>::start(platform)?;
    let mut answers = Vec::new();
    for (operation, length) in [
        (Operation::Write, 512),
        (Operation::Read, 8192),
        (Operation::Flush, 0),
    ] {
        let data = (length > 0).then_some((buffer, 512));
        let access = Access {
            operation,
            lba: if length > 0 { lba } else { 0 },
            length,
            data,
            flags: 0,
        };
        let deadline = disks.deadline_in_ms(100);
        answers.push(disks.run(0, access, deadline)?);
    }
    disks.stop()?;
    Ok(answers)
}

const GOOD: [Option<Status>; 3] = [Some(Status::OK); 3];

fn record(seed: u64) -> Recording {
    let (model, platform, buffer) = machine(seed);
    let trace = Trace::new();
    let answers = exercise(instrument(platform, trace.clone()), &buffer, 8).unwrap();
    assert_eq!(answers, GOOD);
    model.sim().check();
    trace.recording()
}

#[test]
fn the_driver_does_today_what_was_recorded() {
    if std::env::var_os("BULKHEAD_RECORD").is_some() {
        std::fs::write(RECORDING, record(1).to_bytes()).unwrap();
    }
    let recording = Recording::from_bytes(&std::fs::read(RECORDING).unwrap()).unwrap();
    assert!(recording.entries.len() > 100);
    let (_, _, buffer) = machine(1);
    let replay = Replay::new(recording);
    let answers = exercise(replay.clone(), &buffer, 8);
    if let Err(deviation) = replay.finish() {
        panic!("{deviation}");
    }
    assert_eq!(answers.unwrap(), GOOD);
}

#[test]
fn every_seed_replays_and_seeds_differ() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..8 {
        let recording = record(seed);
        assert_eq!(record(seed), recording, "seed {seed} repeats");
        let bytes = recording.to_bytes();
        assert_eq!(Recording::from_bytes(&bytes), Ok(recording.clone()));
        let replay = Replay::new(recording);
        let (_, _, buffer) = machine(seed);
        assert_eq!(exercise(replay.clone(), &buffer, 8).unwrap(), GOOD);
        replay.finish().unwrap();
        seen.insert(bytes);
    }
    assert!(seen.len() > 4, "{} of 8", seen.len());
}

#[test]
fn a_driver_that_does_something_else_is_told_where() {
    let recording = record(1);
    let replay = Replay::new(recording.clone());
    let (_, _, buffer) = machine(1);
    let outcome = exercise(replay.clone(), &buffer, 9);
    assert!(!matches!(outcome, Ok(answers) if answers == GOOD));
    let deviation = replay.finish().unwrap_err();
    let at = deviation.record as usize;
    assert_eq!(
        Some(&recording.entries[at].record),
        deviation.expected.as_ref()
    );
    // The header of the write: type 1, then sector 8 instead of 9.
    let text = deviation.to_string();
    assert!(text.contains("= 01 00 00 00 00 00 00 00 08 00"), "{text}");
    assert!(text.contains("saw store region"), "{text}");
    assert!(text.contains("= 01 00 00 00 00 00 00 00 09 00"), "{text}");
    assert!(text.ends_with(&format!("at record {at}")), "{text}");
}

#[test]
fn a_driver_that_stops_early_is_told_what_it_left_out() {
    let recording = record(1);
    let replay = Replay::new(recording);
    let cx = DeviceContext::new(replay.clone()).unwrap();
    cx.pci().enable().unwrap();
    let deviation = replay.finish().unwrap_err();
    assert_eq!(deviation.seen, None);
    assert!(deviation.to_string().contains("saw the end"));
}

#[test]
fn damaged_recordings_are_refused() {
    let bytes = record(1).to_bytes();
    assert!(Recording::from_bytes(&[]).is_err());
    assert!(Recording::from_bytes(&bytes[1..]).is_err());
    assert!(Recording::from_bytes(&bytes[..bytes.len() - 1]).is_err());
    let mut odd = bytes;
    odd[3] += 1;
    assert!(Recording::from_bytes(&odd).is_err());
}

#[test]
fn the_last_records_are_kept_with_their_numbers() {
    let (_, platform, buffer) = machine(1);
    let trace = Trace::last(10);
    exercise(instrument(platform, trace.clone()), &buffer, 8).unwrap();
    let (all, last) = (record(1), trace.recording());
    assert_eq!(last.entries.len(), 10);
    assert_eq!(last.skipped + 10, all.entries.len() as u64);
    assert_eq!(last.entries[..], all.entries[last.skipped as usize..]);
    let first = format!("{}: ", last.skipped);
    assert!(last.to_string().starts_with(&first));
}

#[test]
fn interrupts_and_their_waits_are_in_the_trace() {
    let recording = record(1);
    let count = |wanted: fn(&Record) -> bool| {
        let entries = recording.entries.iter();
        entries.filter(|entry| wanted(&entry.record)).count()
    };
    assert!(count(|r| matches!(r, Record::Bind { queue: Some(_), .. })) >= 2);
    assert!(count(|r| matches!(r, Record::Wait { outcome: Ok(e), .. } if !e.is_empty())) >= 3);
    let (made, freed) = (
        count(|r| matches!(r, Record::Region { .. })),
        count(|r| matches!(r, Record::Free(_))),
    );
    assert!(made > 0 && made == freed, "{made} regions, {freed} freed");
    let text = recording.to_string();
    assert!(text.contains("write8 bar4+0x14 = 0x0"), "the reset");
    assert!(text.contains("write16 bar4+0x3000 = 0x0"), "the doorbell");
}

/// Runs the driver with faults, its deadlines checked.
fn disturb(seed: u64, rules: &[Rule]) -> (Answers, Arc<Faults>, Vec<String>) {
    let (model, platform, buffer) = machine(seed);
    let faults = Faults::new(seed, rules.iter().copied());
    let deadlines = Deadlines::new(0, 100_000);
    deadlines.forbid_endless_waits();
    let platform = instrument(instrument(platform, faults.clone()), deadlines.clone());
    let outcome = exercise(platform, &buffer, 8);
    deadlines.check();
    (outcome, faults, model.sim().take_violations())
}

#[test]
fn without_faults_nothing_changes() {
    let (outcome, faults, violations) = disturb(1, &[]);
    assert_eq!((outcome, violations), (Ok(GOOD.to_vec()), vec![]));
    assert_eq!(faults.injected(), [""; 0]);
}

#[test]
fn a_device_may_go_at_any_access() {
    let (_, faults, _) = disturb(1, &[]);
    let total = faults.accesses();
    assert!(total > 40);
    for access in 0..total {
        let (outcome, faults, _) = disturb(1, &[Rule::Gone { access }]);
        assert_eq!(faults.injected().len(), 1);
        // What the driver needs of the device it may have got before; it never makes an answer up.
        if let Ok(answers) = outcome {
            let known = [Some(Status::OK), None];
            assert!(
                answers.iter().all(|a| known.contains(a)),
                "{access}: {answers:?}"
            );
        }
    }
}

#[test]
fn an_interrupt_that_is_lost_costs_a_deadline_and_nothing_else() {
    let mut timed_out = 0;
    for nth in 0..4 {
        let when = When::Nth(nth);
        let (outcome, faults, violations) = disturb(1, &[Rule::LostInterrupt { when }]);
        assert_eq!(faults.injected().len(), 1, "{nth}");
        assert!(violations.is_empty(), "{violations:?}");
        timed_out += usize::from(outcome != Ok(GOOD.to_vec()));
    }
    assert!(timed_out > 0, "the driver never needed its interrupts");
}

#[test]
fn interrupts_that_nobody_raised_change_nothing() {
    let when = When::Always;
    let (outcome, faults, violations) = disturb(1, &[Rule::ExtraInterrupt { when }]);
    assert_eq!(outcome, Ok(GOOD.to_vec()));
    assert!(violations.is_empty(), "{violations:?}");
    assert!(!faults.injected().is_empty());
}

#[test]
fn a_device_that_is_sent_astray_is_noticed_by_its_home() {
    // The simulator's addresses begin at 4 GiB.
    let astray = Rule::Astray {
        below: 1 << 33,
        when: When::Always,
    };
    let (outcome, faults, violations) = disturb(1, &[astray]);
    assert_ne!(outcome, Ok(GOOD.to_vec()));
    assert!(!faults.injected().is_empty());
    assert!(
        violations.iter().any(|v| v.ends_with("is not mapped")),
        "{violations:?}"
    );
}

#[test]
fn a_slow_device_is_waited_for() {
    let slow = Rule::Slow {
        access_ns: 1_000_000,
    };
    let (outcome, _, violations) = disturb(1, &[slow]);
    assert_eq!(outcome, Ok(GOOD.to_vec()));
    assert!(violations.is_empty(), "{violations:?}");
}

#[test]
fn wrong_values_end_in_errors_and_never_in_a_hang() {
    let mut injected = 0;
    for seed in 0..60 {
        let when = When::OneIn(40);
        let rules = [
            Rule::Register {
                place: None,
                offset: None,
                change: Change::FlipOne,
                when,
            },
            Rule::Memory { region: None, when },
        ];
        let (_, faults, _) = disturb(seed, &rules);
        injected += faults.injected().len();
        assert_eq!(disturb(seed, &rules).1.injected(), faults.injected());
    }
    assert!(injected > 60, "{injected}");
}

#[test]
fn a_register_can_be_made_to_lie() {
    let bar4 = Place::Bar {
        index: 4,
        window: 0,
    };
    let no_queues = Rule::Register {
        place: Some(bar4),
        offset: Some(0x18),
        change: Change::To(0),
        when: When::Always,
    };
    let (outcome, faults, _) = disturb(1, &[no_queues]);
    assert!(outcome.is_err());
    assert!(faults.injected()[0].ends_with("read16 bar4+0x18: 0x10 became 0x0"));
}

#[test]
fn a_loop_that_never_waits_is_found() {
    let deadlines = Deadlines::new(0, 50);
    let config = vec![0; 64];
    let platform = instrument(
        Sim::new(1).platform().config(config).build(),
        deadlines.clone(),
    );
    let mut reads = 0;
    while platform.config_read(4, Width::U16) == Ok(0) {
        reads += 1;
    }
    assert_eq!(reads, 50, "then the device is gone");
    let found = deadlines.findings();
    assert!(
        matches!(&found[..], [Finding::Busy { reads: 51, last }] if last == "read16 config+0x4")
    );
    let queue = platform.event_queue().unwrap();
    let soon = ddk::Deadline::at_ns(100);
    assert_eq!(queue.wait(&mut [Event::default()], soon), Ok(0));
    assert_eq!(
        platform.config_read(4, Width::U16),
        Ok(0),
        "a wait begins anew"
    );
}

#[test]
fn a_wait_that_comes_back_late_is_found() {
    let sim = Sim::new(1);
    let machine = sim.platform().build();
    let late = sim.clone();
    machine.on_idle(move || late.schedule().pass(5_000));
    let deadlines = Deadlines::new(1_000, 10);
    let platform = instrument(machine, deadlines.clone());
    let queue = platform.event_queue().unwrap();
    let soon = ddk::Deadline::at_ns(100);
    assert_eq!(queue.wait(&mut [Event::default()], soon), Ok(0));
    let expected = Finding::Overrun {
        queue: 0,
        deadline_ns: 100,
        ended_ns: 5_000,
    };
    assert_eq!(deadlines.findings(), [expected]);
}

#[test]
fn each_thread_replays_its_own_records() {
    fn work(platform: &Arc<dyn Platform>) {
        for n in 0..2 {
            let own = platform.clone();
            let body = move || {
                assert_eq!(own.config_read(4 * n, Width::U16), Ok(u32::from(n)));
            };
            platform.spawn("worker", None, Box::new(body)).unwrap();
        }
    }
    let sim = Sim::new(1);
    let machine = sim.platform().config(vec![0, 0, 0, 0, 1, 0, 0, 0]).build();
    let trace = Trace::new();
    work(&instrument(machine, trace.clone()));
    sim.join();
    sim.check();
    let replay = Replay::new(trace.recording());
    let platform: Arc<dyn Platform> = replay.clone();
    work(&platform);
    // The threads hold the platform until their end.
    let alone = || Arc::strong_count(&replay) == 2;
    for _ in 0..10_000 {
        if alone() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    replay.finish().unwrap();
}
