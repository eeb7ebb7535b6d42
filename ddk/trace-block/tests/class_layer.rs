//! A driver under the real class layer, on several threads, follows what was recorded there.

use std::sync::Arc;

use ddk::{
    DeviceAccess, DeviceContext, EventQueue, PinnedBuffer, Platform, PlatformError, block_on,
};
use ddk_backend_sim::{DeviceMemory, Sim};
use ddk_class_block::{
    BlockDevice, Command, Doorbell, Extent, Operation, Session, Supervisor, Verdict,
};
use ddk_instrument::{Record, Recording, Trace, instrument};
use ddk_trace_block::{Traced, replay};
use model_nvme::{NvmeModel, NvmeOptions};
use model_virtio::VirtioPci;
use model_virtio_blk::{BlockModel, BlockModelOptions};
use nvme::Nvme;
use proto::block::{Completion, Submission};
use ring::{Consumer, HeapMemory, Layout, Producer};
use virtio_blk::VirtioBlk;

const DEPTH: u16 = 8;

struct Silence;

impl Doorbell for Silence {
    fn ring(&self) {}
    fn watch(&self, _: &dyn EventQueue, _: u64) -> Result<(), PlatformError> {
        Ok(())
    }
    fn unwatch(&self, _: &dyn EventQueue, _: u64) {}
}

/// What a client has of a session.
struct Client {
    submissions: Producer<Submission, HeapMemory>,
    completions: Consumer<Completion, HeapMemory>,
    next: u64,
}

impl Client {
    fn new(extent: Extent, id: u32) -> (Client, Box<Session<HeapMemory>>) {
        let entries = u32::from(DEPTH);
        let offset = Layout::of::<Submission>(entries).unwrap().size_bytes();
        let len = offset + Layout::of::<Completion>(entries).unwrap().size_bytes();
        let rings = HeapMemory::new(len);
        let (submitted, completed) = (Box::new(Silence), Box::new(Silence));
        let session = Session::new(
            id,
            extent,
            DEPTH,
            rings.clone(),
            offset,
            submitted,
            completed,
        );
        let client = Client {
            submissions: Producer::new(rings.clone(), 0, entries).unwrap(),
            completions: Consumer::new(rings, offset, entries).unwrap(),
            next: 0,
        };
        (client, Box::new(session.unwrap()))
    }

    /// A few requests, in a ring that nobody looks at yet.
    fn submit(&mut self) {
        for (operation, length) in [
            (Operation::Write, 4096),
            (Operation::Read, 8192),
            (Operation::Flush, 0),
        ] {
            self.next += 1;
            let submission = Submission {
                id: self.next,
                operation: operation as u8,
                length,
                lba: if length > 0 { 8 * self.next } else { 0 },
                ..Default::default()
            };
            self.submissions.push(&submission).unwrap();
        }
        let _ = self.submissions.publish();
    }

    fn answered(&mut self) -> usize {
        let mut count = 0;
        while let Some(completion) = self.completions.pop().unwrap() {
            assert_eq!(completion.status, 0, "request {}", completion.id);
            count += 1;
        }
        count
    }
}

/// Two queues with a thread and a session each, a suspension in between.
fn record<D: BlockDevice + 'static>(
    sim: &Sim,
    platform: Arc<dyn Platform>,
    payload: impl Fn() -> PinnedBuffer,
) -> Recording {
    let trace = Trace::new();
    let platform = instrument(platform, trace.clone());
    let cx = DeviceContext::new(platform).unwrap();
    let driver = block_on(&cx, Traced::<D>::start_with(trace.clone(), cx.clone()));
    let driver = driver.unwrap().unwrap();
    let (mut supervisor, workers) =
        Supervisor::<_, HeapMemory>::new(cx.clone(), driver, Box::new(|| {})).unwrap();
    let queues = supervisor.queues();
    assert_eq!(queues, 2);
    for (index, mut worker) in workers.into_iter().enumerate() {
        // Until the simulator sees that nothing comes any more.
        let serve = move || {
            let _ = worker.run();
        };
        let name = format!("queue {index}");
        cx.spawn(&name, Some(index), Box::new(serve)).unwrap();
    }
    let extent = Extent::whole(&supervisor.disks()[0]);
    let mut clients = Vec::new();
    for queue in 0..queues {
        let (mut client, session) = Client::new(extent, queue as u32);
        client.submit();
        let id = queue as u32;
        let buffer = Command::AddBuffer(id, 0, payload());
        supervisor.send(queue, Command::Open(session)).unwrap();
        supervisor.send(queue, buffer).unwrap();
        clients.push(client);
    }
    let pause = || {
        let until = cx.deadline_in_ms(50);
        block_on(&cx, cx.sleep_until(until)).unwrap();
    };
    pause();
    assert!(clients.iter_mut().all(|client| client.answered() == 3));
    supervisor.suspend();
    pause();
    assert_eq!(supervisor.attend(), [Verdict::Suspended(Ok(()))]);
    clients.iter_mut().for_each(Client::submit);
    supervisor.resume().unwrap();
    pause();
    assert!(clients.iter_mut().all(|client| client.answered() == 3));
    assert_eq!(supervisor.attend(), []);
    // As a process that is killed: nothing is stopped or given back. Threads end when nothing will ever come.
    let recording = Recording {
        open: true,
        ..trace.recording()
    };
    sim.join();
    sim.check();
    core::mem::forget(supervisor);
    recording
}

fn follows<D: BlockDevice>(recording: Recording) {
    for thread in 0..3 {
        let entries = recording.entries.iter().filter(|e| e.thread == thread);
        let calls = entries.filter(|e| matches!(e.record, Record::Call(_)));
        assert!(calls.count() > 5, "thread {thread}");
    }
    let records = recording.entries.len();
    // To wherever it ends.
    for end in (1..records).rev().step_by(7) {
        let mut cut = recording.clone();
        cut.entries.truncate(end);
        match replay::<D>(cut) {
            Ok(followed) => assert_eq!(followed.records, end),
            Err(error) => panic!("{end} of {records} records: {error}"),
        }
    }
}

#[test]
fn virtio_blk_follows_its_threads() {
    let sim = Sim::new(1);
    let options = BlockModelOptions {
        queues: 2,
        ..Default::default()
    };
    let model = VirtioPci::new(&sim, BlockModel::new(options), 3);
    let memory = sim.memory();
    let payload = || memory.payload(4, DeviceAccess::Both).0;
    follows::<VirtioBlk>(record::<VirtioBlk>(&sim, model.platform(2), payload));
}

#[test]
fn nvme_follows_its_threads() {
    let memory = DeviceMemory::default();
    let model = NvmeModel::new(NvmeOptions::default(), memory.clone(), 5);
    let platform = model.platform(2);
    let sim = platform.sim().clone();
    let payload = || memory.payload(4, DeviceAccess::Both).0;
    follows::<Nvme>(record::<Nvme>(&sim, platform, payload));
}
