//! Block drivers under the class layer, with a client whose requests are the fuzzer's too.

use ddk::{Deadline, DeviceAccess, DeviceContext, EventQueue, PlatformError, StopReason, block_on};
use ddk_backend_sim::{DeviceMemory, Payload, Sim};
use ddk_class_block::{
    BlockDevice, Command, Doorbell, Extent, Session, Supervisor, Verdict, Worker,
};
use model_virtio::VirtioPci;
use model_virtio_blk::{BlockModel, BlockModelOptions};
use proto::block::{Completion, Submission};
use ring::{Consumer, HeapMemory, Layout, Producer};

use crate::input::Input;

/// Nobody is woken: everybody gets turns.
pub struct Bell;

impl Doorbell for Bell {
    fn ring(&self) {}
    fn watch(&self, _: &dyn EventQueue, _: u64) -> Result<(), PlatformError> {
        Ok(())
    }
    fn unwatch(&self, _: &dyn EventQueue, _: u64) {}
}

const DEPTH: u16 = 8;

/// A disk in service, and a client.
pub struct Served<D: BlockDevice> {
    supervisor: Supervisor<D, HeapMemory>,
    workers: Vec<Worker<D::Queue, HeapMemory>>,
    submissions: Producer<Submission, HeapMemory>,
    completions: Consumer<Completion, HeapMemory>,
    payload: Payload,
    /// The device cannot be stopped: its process would end now.
    given_up: bool,
}

impl<D: BlockDevice + 'static> Served<D> {
    /// `None` if there is nothing to serve.
    pub fn new(cx: DeviceContext, driver: D, memory: &DeviceMemory) -> Option<Self> {
        let (mut supervisor, workers) = Supervisor::new(cx, driver, Box::new(|| {})).ok()?;
        let extent = supervisor.disks().first().map(Extent::whole)?;
        let at = Layout::of::<Submission>(DEPTH.into()).ok()?.size_bytes();
        let len = at + Layout::of::<Completion>(DEPTH.into()).ok()?.size_bytes();
        let rings = HeapMemory::new(len);
        let session = Session::new(
            1,
            extent,
            DEPTH,
            rings.clone(),
            at,
            Box::new(Bell),
            Box::new(Bell),
        );
        let queue = supervisor.choose_queue(None);
        let (buffer, payload) = memory.payload(4, DeviceAccess::Both);
        supervisor
            .send(queue, Command::Open(Box::new(session.ok()?)))
            .ok()?;
        supervisor
            .send(queue, Command::AddBuffer(1, 0, buffer))
            .ok()?;
        Some(Served {
            supervisor,
            workers,
            submissions: Producer::new(rings.clone(), 0, DEPTH.into()).ok()?,
            completions: Consumer::new(rings, at, DEPTH.into()).ok()?,
            payload,
            given_up: false,
        })
    }

    /// A request: half of the time one that can be right.
    pub fn submit(&mut self, input: &mut Input) {
        let choice = input.byte();
        let mut submission = Submission {
            id: input.number(1),
            lba: input.number(1),
            offset: 0,
            length: 512 * (input.number(1) as u32 % 33),
            slot: 0,
            operation: choice & 7,
            flags: choice >> 3 & 3,
        };
        if choice & 0x80 != 0 {
            submission.lba = input.number(8);
            submission.offset = input.number(8);
            submission.length = input.number(4) as u32;
            submission.slot = input.number(2) as u16;
            submission.operation = input.byte();
            submission.flags = input.byte();
        }
        if self.submissions.push(&submission).is_ok() {
            let _ = self.submissions.publish();
        }
    }

    /// A round of everybody.
    pub fn turn(&mut self) {
        for worker in &mut self.workers {
            worker.wake_all();
            if worker.turn(Deadline::NOW).is_err() {
                self.given_up = true;
            }
        }
        self.supervisor.tick();
        let verdicts = self.supervisor.attend();
        self.given_up |= verdicts.iter().any(|v| matches!(v, Verdict::GiveUp(_)));
        while let Ok(Some(completion)) = self.completions.pop() {
            assert!(completion.length as usize <= 4 * ddk::PAGE || completion.status != 0);
        }
    }

    /// Whether the driver's process would have ended.
    pub fn is_given_up(&self) -> bool {
        self.given_up
    }

    /// Stops the device and ends.
    pub fn end(mut self) {
        let _ = &self.payload;
        if !self.given_up {
            self.supervisor.stop(StopReason::Requested);
        }
    }
}

/// The client's bytes against a driver whose device is honest: nothing that a client does may make the driver
/// break the device's rules.
pub fn virtio_blk_client(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let sim = Sim::new(1);
    let model = VirtioPci::new(&sim, BlockModel::new(BlockModelOptions::default()), 2);
    let platform = model.platform(1);
    let cx = DeviceContext::new(platform.clone()).expect("a queue");
    let driver = block_on(
        &cx,
        <virtio_blk::VirtioBlk as ddk::Driver>::start(cx.clone()),
    );
    let driver = driver.expect("events").expect("the model is in order");
    let Some(mut served) = Served::new(cx, driver, sim.memory()) else {
        panic!("the model has a disk");
    };
    while !input.is_over() {
        for _ in 0..=input.byte() & 7 {
            served.submit(&mut input);
        }
        served.turn();
        sim.settle();
        sim.check();
    }
    served.turn();
    assert!(!served.is_given_up(), "an honest device was given up");
    served.end();
    sim.check();
}
