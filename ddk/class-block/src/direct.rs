//! A driver's disks without sessions: requests one after the other, on the caller's thread.
//!
//! For tests, tools, and kernels that have a way of their own to serve clients. There is no watchdog: who
//! waits says for how long, and resets the device when nothing comes.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use ddk::{
    Deadline, DeviceContext, DriverError, Event, EventQueue, PinnedBuffer, Platform, PlatformError,
    StopReason, block_on,
};
use proto::block::{Operation, Status};

use crate::{Abort, BlockDevice, BlockQueue, DiskInfo, PushError, Request, flags};

/// What a request is about.
#[derive(Clone, Copy, Debug)]
pub struct Access<'a> {
    /// Which operation.
    pub operation: Operation,
    /// First logical block.
    pub lba: u64,
    /// Bytes, whole logical blocks.
    pub length: u32,
    /// The data and where it starts in it, for reads and writes.
    pub data: Option<(&'a PinnedBuffer, u64)>,
    /// [`flags`], as far as the disk has them ([`DiskInfo::durable_writes`]).
    pub flags: u8,
}

/// Key of the interrupt for changes; queues have their index.
const CHANGES: u64 = u64::MAX;

/// A driver that was started, with its queues.
pub struct DirectDisks<D: BlockDevice> {
    cx: DeviceContext,
    driver: D,
    queues: Vec<Slots<D::Queue>>,
    events: Box<dyn EventQueue>,
    changed: bool,
}

/// A queue, and the tokens that are not under way: drivers count on numbers below the depth.
struct Slots<Q> {
    queue: Q,
    free: Vec<u32>,
}

fn with_tokens<Q: BlockQueue>(queues: Vec<Q>) -> Vec<Slots<Q>> {
    let with_tokens = |queue: Q| Slots {
        free: (0..u32::from(queue.depth())).rev().collect(),
        queue,
    };
    queues.into_iter().map(with_tokens).collect()
}

fn of_platform(error: PlatformError) -> DriverError {
    DriverError::platform("events", error)
}

impl<D: BlockDevice> DirectDisks<D> {
    /// Starts the driver.
    ///
    /// # Errors
    /// The driver's.
    pub fn start(platform: Arc<dyn Platform>) -> Result<DirectDisks<D>, DriverError> {
        let cx = DeviceContext::new(platform).map_err(of_platform)?;
        let driver = block_on(&cx, D::start(cx.clone())).map_err(of_platform)??;
        DirectDisks::with(cx, driver)
    }

    /// Takes a driver that was started with this context.
    ///
    /// # Errors
    /// When its interrupts cannot be bound.
    pub fn with(cx: DeviceContext, mut driver: D) -> Result<DirectDisks<D>, DriverError> {
        let events = cx.event_queue()?;
        let queues = with_tokens(driver.take_queues());
        driver
            .bind_changes(&*events, CHANGES)
            .map_err(of_platform)?;
        let mut disks = DirectDisks {
            cx,
            driver,
            queues,
            events,
            changed: false,
        };
        disks.bind()?;
        Ok(disks)
    }

    fn bind(&mut self) -> Result<(), DriverError> {
        for (index, queue) in self.queues.iter_mut().enumerate() {
            queue
                .queue
                .bind(&*self.events, index as u64)
                .map_err(of_platform)?;
        }
        Ok(())
    }

    /// The disks.
    pub fn disks(&self) -> Vec<DiskInfo> {
        self.driver.disks()
    }

    /// Queues of the device; each serves all disks.
    pub fn queue_count(&self) -> usize {
        self.queues.len()
    }

    /// The point in time `ms` milliseconds from now.
    pub fn deadline_in_ms(&self, ms: u32) -> Deadline {
        self.cx.deadline_in_ms(ms)
    }

    /// Queues a request for the disk at `disk` in the list and shows it to the device; gives its token.
    ///
    /// # Errors
    /// [`PushError`], also when there is no such disk or queue.
    pub fn push(
        &mut self,
        queue: usize,
        disk: usize,
        access: Access<'_>,
    ) -> Result<u32, PushError> {
        let refused = PushError::Rejected(Status::OUT_OF_RANGE);
        let info = self.driver.disks().into_iter().nth(disk).ok_or(refused)?;
        let Slots { queue, free } = self.queues.get_mut(queue).ok_or(refused)?;
        let token = *free.last().ok_or(PushError::Full)?;
        let (data, offset) = access.data.unzip();
        queue.push(&Request {
            token,
            unit: info.unit,
            operation: access.operation,
            durable: access.flags & flags::FUA != 0,
            may_unmap: access.flags & flags::MAY_UNMAP != 0,
            lba: access.lba,
            blocks: access.length >> info.block_shift,
            length: access.length,
            data,
            offset: offset.unwrap_or(0),
        })?;
        free.pop();
        queue.kick();
        Ok(token)
    }

    /// The next completion of a queue: token and status. `None` when the device said nothing until the
    /// deadline.
    ///
    /// # Errors
    /// When the device broke the rules or is gone, or there is no such queue.
    pub fn wait(
        &mut self,
        queue: usize,
        deadline: Deadline,
    ) -> Result<Option<(u32, Status)>, DriverError> {
        loop {
            let no_queue = DriverError::Unsupported {
                what: "so many queues",
            };
            let Slots { queue, free } = self.queues.get_mut(queue).ok_or(no_queue)?;
            if let Some(done) = queue.reap()? {
                free.push(done.token);
                return Ok(Some((done.token, done.status)));
            }
            if !queue.arm() && !self.sleep(deadline)? {
                return Ok(None);
            }
        }
    }

    /// Waits for anything; false at the deadline.
    fn sleep(&mut self, deadline: Deadline) -> Result<bool, DriverError> {
        let mut events = [Event::default(); 4];
        let taken = self.events.wait(&mut events, deadline);
        let taken = taken.map_err(of_platform)?;
        self.changed |= events.iter().take(taken).any(|e| e.key == CHANGES);
        Ok(taken > 0)
    }

    /// A request from start to end, by the first queue; `None` as with [`DirectDisks::wait`].
    ///
    /// # Errors
    /// See [`DirectDisks::wait`], and when the queue is full. A request that is refused has a status.
    pub fn run(
        &mut self,
        disk: usize,
        access: Access<'_>,
        deadline: Deadline,
    ) -> Result<Option<Status>, DriverError> {
        let token = match self.push(0, disk, access) {
            Ok(token) => token,
            Err(PushError::Full) => {
                return Err(DriverError::Unsupported {
                    what: "room for one more request",
                });
            }
            Err(PushError::Rejected(status)) => return Ok(Some(status)),
        };
        while let Some((done, status)) = self.wait(0, deadline)? {
            // Others may be under way that were pushed before.
            if done == token {
                return Ok(Some(status));
            }
        }
        Ok(None)
    }

    /// Waits until the device announces a change, and looks what it is; false when it does not until the
    /// deadline.
    ///
    /// # Errors
    /// See [`BlockDevice::changed`].
    pub fn wait_for_change(&mut self, deadline: Deadline) -> Result<bool, DriverError> {
        while !self.changed {
            if !self.sleep(deadline)? {
                return Ok(false);
            }
        }
        self.changed = false;
        let looked = block_on(&self.cx, self.driver.changed());
        looked.map_err(of_platform)??;
        Ok(true)
    }

    /// See [`BlockDevice::abort`].
    ///
    /// # Errors
    /// When the device does not answer.
    pub fn abort(&mut self, queue: usize, token: u32) -> Result<Abort, DriverError> {
        block_on(&self.cx, self.driver.abort(queue, token)).map_err(of_platform)?
    }

    /// Resets the device; requests under way are not answered any more.
    ///
    /// # Errors
    /// When the device does not come back.
    pub fn reset(&mut self) -> Result<(), DriverError> {
        let old = core::mem::take(&mut self.queues);
        let old = old.into_iter().map(|slots| slots.queue).collect();
        let reset = block_on(&self.cx, self.driver.reset(old));
        self.queues = with_tokens(reset.map_err(of_platform)??);
        self.bind()
    }

    /// Stops the driver.
    ///
    /// # Errors
    /// When the system's events are broken.
    pub fn stop(self) -> Result<(), DriverError> {
        // The queues' memory goes after the reset that stopping is: until then the device may use it.
        let stopped = block_on(&self.cx, self.driver.stop(StopReason::Requested));
        drop(self.queues);
        stopped.map_err(of_platform)
    }
}
