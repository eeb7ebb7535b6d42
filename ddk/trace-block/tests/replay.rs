//! Drivers over their models are recorded through the wrapper, and follow what was recorded without a device.

use std::fmt;
use std::sync::{Arc, Mutex};

use ddk::{DeviceAccess, DeviceContext, PinnedBuffer, Platform, block_on};
use ddk_backend_sim::{DeviceMemory, Sim};
use ddk_class_block::{Access, BlockDevice, DirectDisks, Operation, Status, flags};
use ddk_instrument::{Entry, Record, Recording, Sink, Trace, instrument};
use ddk_trace_block::{NotFollowed, Traced, driver_of, replay};
use model_nvme::{NvmeModel, NvmeOptions};
use model_virtio::VirtioPci;
use model_virtio_blk::{BlockModel, BlockModelOptions};
use nvme::Nvme;
use virtio_blk::VirtioBlk;

fn virtio() -> (Arc<dyn Platform>, PinnedBuffer) {
    let sim = Sim::new(1);
    let (buffer, _) = sim.memory().payload(8, DeviceAccess::Both);
    let options = BlockModelOptions {
        queue_size: 16,
        ..Default::default()
    };
    let model = VirtioPci::new(&sim, BlockModel::new(options), 2);
    (model.platform(1), buffer)
}

fn nvme() -> (Arc<dyn Platform>, PinnedBuffer) {
    let memory = DeviceMemory::default();
    let (buffer, _) = memory.payload(8, DeviceAccess::Both);
    let model = NvmeModel::new(NvmeOptions::default(), memory, 5);
    (model.platform(1), buffer)
}

/// Requests of each kind, then a reset in the middle of some, an abort, more, stop.
fn exercise<D: BlockDevice>(disks: &mut DirectDisks<D>, buffer: &PinnedBuffer) {
    let access = |operation, lba, length, offset| Access {
        operation,
        lba,
        length,
        data: (length > 0).then_some((buffer, offset)),
        flags: 0,
    };
    for (operation, lba, length, offset) in [
        (Operation::Write, 8, 512, 512),
        (Operation::Read, 8, 8192, 1024),
        (Operation::Flush, 0, 0, 0),
        (Operation::Write, 0, 32768, 0),
    ] {
        let deadline = disks.deadline_in_ms(100);
        let done = disks.run(0, access(operation, lba, length, offset), deadline);
        assert_eq!(done, Ok(Some(Status::OK)), "{operation:?}");
    }
    let tokens: Vec<u32> = (0..4)
        .map(|n| disks.push(0, 0, access(Operation::Read, 8 * n, 4096, 0)))
        .collect::<Result<_, _>>()
        .unwrap();
    disks.abort(0, tokens[0]).unwrap();
    disks.reset().unwrap();
    let mut durable = access(Operation::Write, 24, 4096, 4096);
    if disks.disks()[0].durable_writes {
        durable.flags = flags::FUA;
    }
    let deadline = disks.deadline_in_ms(100);
    assert_eq!(disks.run(0, durable, deadline), Ok(Some(Status::OK)));
}

fn trace_through<D: BlockDevice>(
    (platform, buffer): (Arc<dyn Platform>, PinnedBuffer),
    trace: Arc<Trace>,
) {
    let cx = DeviceContext::new(instrument(platform, trace.clone())).unwrap();
    let driver = block_on(&cx, Traced::<D>::start_with(trace, cx.clone()));
    let mut disks = DirectDisks::with(cx, driver.unwrap().unwrap()).unwrap();
    exercise(&mut disks, &buffer);
    disks.stop().unwrap();
}

fn record<D: BlockDevice>(machine: (Arc<dyn Platform>, PinnedBuffer)) -> Recording {
    let trace = Trace::new();
    trace_through::<D>(machine, trace.clone());
    trace.recording()
}

fn follows<D: BlockDevice>(recording: Recording) {
    let (records, bytes) = (recording.entries.len(), recording.to_bytes());
    assert!(records > 200, "{records}");
    let followed = match replay::<D>(recording) {
        Ok(followed) => followed,
        Err(error) => panic!("{error}"),
    };
    assert_eq!((followed.records, followed.open), (records, false));
    assert!(followed.calls > 30, "{}", followed.calls);
    let again = replay::<D>(Recording::from_bytes(&bytes).unwrap());
    assert_eq!(again, Ok(followed));
}

#[test]
fn virtio_blk_follows_what_it_did() {
    let recording = record::<VirtioBlk>(virtio());
    assert_eq!(driver_of(&recording).as_deref(), Some("virtio-blk"));
    follows::<VirtioBlk>(recording);
}

#[test]
fn nvme_follows_what_it_did() {
    let recording = record::<Nvme>(nvme());
    assert_eq!(driver_of(&recording).as_deref(), Some("nvme"));
    follows::<Nvme>(recording);
}

#[test]
fn a_recording_that_ends_in_the_middle_is_followed_that_far() {
    fn all_ends<D: BlockDevice>(recording: &Recording) {
        for end in 1..recording.entries.len() {
            let cut = Recording {
                skipped: 0,
                open: true,
                entries: recording.entries[..end].to_vec(),
            };
            match replay::<D>(cut) {
                Ok(followed) => assert_eq!((followed.records, followed.open), (end, true)),
                Err(error) => panic!("{end} records: {error}"),
            }
        }
    }
    all_ends::<VirtioBlk>(&record::<VirtioBlk>(virtio()));
    all_ends::<Nvme>(&record::<Nvme>(nvme()));
}

/// Changes one record, and expects that the replay stops there or at what follows of it.
fn changed(recording: &Recording, change: impl Fn(&mut Record) -> bool) -> (usize, String) {
    let mut other = recording.clone();
    let mut entries = other.entries.iter_mut().enumerate();
    let at = entries.find_map(|(at, entry)| change(&mut entry.record).then_some(at));
    let at = at.expect("there is such a record");
    match replay::<VirtioBlk>(other) {
        Err(NotFollowed::Deviated(deviation)) => {
            assert!(deviation.record >= at as u64, "{at}: {deviation}");
            (deviation.record as usize - at, deviation.to_string())
        }
        other => panic!("record {at} was changed: {other:?}"),
    }
}

#[test]
fn whatever_differs_is_told() {
    let recording = record::<VirtioBlk>(virtio());
    let (after, text) = changed(&recording, |record| match record {
        Record::Answer(answer) if answer.contains("Completed") => {
            *answer = answer.replace("Status(0)", "Status(5)");
            true
        }
        _ => false,
    });
    assert!(
        after == 0 && text.contains("Status(5)") && text.contains("Status(0)"),
        "{text}"
    );
    // Another block is another descriptor, soon after the call. The call is Queue, its number, Push, then the request,
    // whose sixth field is the block.
    let mut pushes = 0;
    for entry in &recording.entries {
        let Record::Call(call) = &entry.record else {
            continue;
        };
        if !matches!(call[..], [11, 0, 1, _, _, _, _, _, 8, ..]) {
            continue;
        }
        pushes += 1;
        let (after, text) = changed(&recording, |record| match record {
            Record::Call(c) if c == call => {
                c[8] = 9;
                true
            }
            _ => false,
        });
        assert!(
            after > 0 && text.contains("saw store region"),
            "{after}: {text}"
        );
    }
    assert!(pushes > 0, "no push was changed");
    let (after, text) = changed(&recording, |record| match record {
        Record::Bind { key, .. } => {
            *key += 1;
            true
        }
        _ => false,
    });
    assert!(after == 0 && text.contains("bind interrupt"), "{text}");
}

#[test]
fn a_damaged_recording_comes_to_an_end() {
    let bytes = record::<VirtioBlk>(virtio()).to_bytes();
    let (mut damaged, mut deviated) = (0, 0);
    for at in (6..bytes.len()).step_by(3) {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1 << (at % 8);
        match Recording::from_bytes(&bytes) {
            Err(_) => damaged += 1,
            Ok(recording) => deviated += usize::from(replay::<VirtioBlk>(recording).is_err()),
        }
    }
    assert!(damaged > 100 && deviated > 1000, "{damaged} and {deviated}");
}

#[test]
fn another_driver_is_told_at_its_first_access() {
    let recording = record::<VirtioBlk>(virtio());
    let Err(NotFollowed::Deviated(deviation)) = replay::<Nvme>(recording) else {
        panic!("NVMe followed virtio-blk");
    };
    assert!(deviation.record < 40, "{deviation}");
}

#[test]
fn without_its_beginning_it_cannot_be_followed() {
    let mut recording = record::<VirtioBlk>(virtio());
    recording.entries.drain(..10);
    recording.skipped = 10;
    assert_eq!(
        replay::<VirtioBlk>(recording),
        Err(NotFollowed::NoBeginning(10))
    );
}

#[derive(Clone, Default)]
struct Kept(Arc<Mutex<(Vec<u8>, Vec<String>)>>);

impl Sink for Kept {
    fn record(&mut self, entry: &[u8], text: fmt::Arguments<'_>) {
        let mut kept = self.0.lock().unwrap();
        kept.0.extend_from_slice(entry);
        kept.1.push(text.to_string());
    }
}

#[test]
fn what_a_sink_gets_is_the_same_recording() {
    let kept = Kept::default();
    trace_through::<VirtioBlk>(virtio(), Trace::to(kept.clone(), || 0));
    let kept = kept.0.lock().unwrap();
    let bytes: Vec<u8> = [&Recording::OPEN_HEAD[..], &kept.0].concat();
    let recording = Recording::from_bytes(&bytes).unwrap();
    let in_memory = record::<VirtioBlk>(virtio());
    let expected = Recording {
        open: true,
        ..in_memory
    };
    assert!(recording == expected, "{recording}");
    assert_eq!(kept.1.len(), recording.entries.len());
    let told = |wanted: &str| kept.1.iter().any(|line| line == wanted);
    assert!(told("0: call queue 0: Kick"));
    let entry = |record| Entry { thread: 0, record };
    assert!(
        recording
            .entries
            .contains(&entry(Record::Answer("()".into())))
    );
    let push = "0: call queue 0: Push Write block 8, 512 bytes, token";
    assert!(kept.1.iter().any(|line| line.starts_with(push)));
}
