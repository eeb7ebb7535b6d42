//! A block driver in use, one request at a time, and an image to compare with.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ddk::{
    Deadline, DeviceContext, DriverError, Event, EventQueue, PinnedBuffer, Platform, StopReason,
    block_on,
};
use ddk_backend_qtest::{QtestMachine, QtestMachineBuilder, StartError};
use ddk_class_block::{BlockDevice, BlockQueue, DiskInfo, Operation, Request, Status};

/// An answer may take that long; a test that waits for it in vain has failed.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);
/// Key of the interrupt for changes; queues have their index.
const CHANGES: u64 = 1000;

/// The machine, or `None` after saying that nothing was run.
pub fn machine(builder: QtestMachineBuilder) -> Option<QtestMachine> {
    match builder.start() {
        Ok(machine) => Some(machine),
        Err(error @ StartError::NoQemu) => {
            eprintln!("not run: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// A raw image in a temporary file.
pub struct Image(tempfile::NamedTempFile);

impl Image {
    pub fn new(contents: &[u8]) -> Image {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(contents).unwrap();
        Image(file)
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn bytes(&self, offset: usize, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let file: &File = self.0.as_file();
        file.read_exact_at(&mut bytes, offset as u64).unwrap();
        bytes
    }
}

/// A driver with its queues.
pub struct InUse<D: BlockDevice> {
    cx: DeviceContext,
    pub driver: D,
    pub queues: Vec<D::Queue>,
    events: Box<dyn EventQueue>,
    token: u32,
}

impl<D: BlockDevice> InUse<D> {
    pub fn start(platform: Arc<dyn Platform>) -> Result<InUse<D>, DriverError> {
        let cx = DeviceContext::new(platform).unwrap();
        let mut driver = block_on(&cx, D::start(cx.clone())).unwrap()?;
        let events = cx.event_queue()?;
        let queues = driver.take_queues();
        driver.bind_changes(&*events, CHANGES).unwrap();
        let mut this = InUse {
            cx,
            driver,
            queues,
            events,
            token: 0,
        };
        this.bind();
        Ok(this)
    }

    fn bind(&mut self) {
        for (index, queue) in self.queues.iter_mut().enumerate() {
            queue.bind(&*self.events, index as u64).unwrap();
        }
    }

    /// The first disk.
    pub fn info(&self) -> DiskInfo {
        self.driver.disks().remove(0)
    }

    pub fn look_for_changes(&mut self) -> Result<(), DriverError> {
        block_on(&self.cx, self.driver.changed()).unwrap()
    }

    pub fn push(
        &mut self,
        queue: usize,
        operation: Operation,
        lba: u64,
        length: u32,
        data: Option<(&PinnedBuffer, u64)>,
    ) {
        self.token += 1;
        let disk = self.info();
        let request = Request {
            token: self.token,
            unit: disk.unit,
            operation,
            durable: false,
            may_unmap: false,
            lba,
            blocks: length >> disk.block_shift,
            length,
            data: data.map(|(buffer, _)| buffer),
            offset: data.map_or(0, |(_, offset)| offset),
        };
        self.queues[queue].push(&request).unwrap();
        self.queues[queue].kick();
    }

    /// The answer to the last request, found because the device's interrupt said so.
    pub fn wait(&mut self, queue: usize, limit: Duration) -> Option<Status> {
        let end = Deadline::at_ns(self.cx.now_ns() + limit.as_nanos() as u64);
        loop {
            if let Some(done) = self.queues[queue].reap().unwrap() {
                assert_eq!(done.token, self.token);
                return Some(done.status);
            }
            if self.queues[queue].arm() {
                continue;
            }
            let mut events = [Event::default(); 4];
            if self.events.wait(&mut events, end).unwrap() == 0 {
                return None;
            }
        }
    }

    pub fn on(
        &mut self,
        queue: usize,
        operation: Operation,
        lba: u64,
        length: u32,
        data: Option<(&PinnedBuffer, u64)>,
    ) -> Status {
        self.push(queue, operation, lba, length, data);
        self.wait(queue, ANSWER_LIMIT).expect("an answer")
    }

    pub fn one(
        &mut self,
        operation: Operation,
        lba: u64,
        length: u32,
        data: Option<(&PinnedBuffer, u64)>,
    ) -> Status {
        self.on(0, operation, lba, length, data)
    }

    pub fn wait_for_change(&mut self, limit: Duration) {
        let end = Deadline::at_ns(self.cx.now_ns() + limit.as_nanos() as u64);
        let mut events = [Event::default(); 4];
        loop {
            let taken = self.events.wait(&mut events, end).unwrap();
            assert!(taken > 0, "the device announces nothing");
            if events[..taken].iter().any(|event| event.key == CHANGES) {
                return;
            }
        }
    }

    pub fn reset(&mut self) -> Result<(), DriverError> {
        let old = std::mem::take(&mut self.queues);
        self.queues = block_on(&self.cx, self.driver.reset(old)).unwrap()?;
        self.bind();
        Ok(())
    }

    pub fn stop(self) {
        drop(self.queues);
        block_on(&self.cx, self.driver.stop(StopReason::Requested)).unwrap();
    }
}
