//! A driver whose calls are noted.

use alloc::format;
use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt::Debug;
use core::sync::atomic::{AtomicU32, Ordering};

use ddk::manifest::Manifest;
use ddk::{
    Described, DeviceContext, Driver, DriverError, EventQueue, PlatformError, SavedState,
    StopReason,
};
use ddk_class_block::{Abort, BlockDevice, BlockQueue, Completed, DiskInfo, PushError, Request};
use ddk_instrument::Trace;

use crate::call::{Call, OfQueue, Pushed};

#[derive(Clone)]
struct Calls {
    trace: Arc<Trace>,
    /// Number of the next queue that the driver gives out.
    next_queue: Arc<AtomicU32>,
}

impl Calls {
    fn call(&self, call: &Call) {
        let bytes = postcard::to_allocvec(call).unwrap_or_default();
        self.trace.call(bytes, format_args!("{call}"));
    }

    fn answer<R: Debug>(&self, answer: &R) {
        self.trace.answer(format!("{answer:?}"));
    }

    fn around<R: Debug>(&self, call: &Call, work: impl FnOnce() -> R) -> R {
        self.call(call);
        let answer = work();
        self.answer(&answer);
        answer
    }

    async fn around_async<R: Debug>(&self, call: &Call, work: impl Future<Output = R>) -> R {
        self.call(call);
        let answer = work.await;
        self.answer(&answer);
        answer
    }

    fn number<Q>(&self, queues: Vec<Q>) -> Vec<TracedQueue<Q>>
    where
        Q: BlockQueue,
    {
        let number = |queue| TracedQueue {
            number: self.next_queue.fetch_add(1, Ordering::Relaxed),
            queue: Some(queue),
            calls: self.clone(),
        };
        queues.into_iter().map(number).collect()
    }
}

/// A driver whose calls go into a trace, with their answers. The trace has to be that of its platform, too.
pub struct Traced<D> {
    device: D,
    calls: Calls,
}

impl<D: BlockDevice> Traced<D> {
    /// Starts the driver.
    ///
    /// # Errors
    /// The driver's.
    pub async fn start_with(
        trace: Arc<Trace>,
        cx: DeviceContext,
    ) -> Result<Traced<D>, DriverError> {
        let calls = Calls {
            trace,
            next_queue: Arc::default(),
        };
        let manifest = D::MANIFEST;
        calls.call(&Call::Start(manifest.name().to_string(), manifest.version));
        let started = D::start(cx).await;
        calls.answer(&started.as_ref().map(|_| ()));
        let device = started?;
        Ok(Traced { device, calls })
    }
}

impl<D: BlockDevice> Described for Traced<D> {
    const MANIFEST: Manifest = D::MANIFEST;
}

impl<D: BlockDevice> Driver for Traced<D> {
    /// Only [`Traced::start_with`] starts one.
    async fn start(_: DeviceContext) -> Result<Traced<D>, DriverError> {
        Err(DriverError::Unsupported {
            what: "a trace for a driver that was given none",
        })
    }

    async fn suspend(&mut self) -> Result<(), DriverError> {
        let work = self.device.suspend();
        self.calls.around_async(&Call::Suspend, work).await
    }

    async fn resume(&mut self) -> Result<(), DriverError> {
        let work = self.device.resume();
        self.calls.around_async(&Call::Resume, work).await
    }

    async fn stop(self, why: StopReason) {
        let work = self.device.stop(why);
        let call = Call::Stop(why.into());
        self.calls.around_async(&call, work).await;
    }

    fn save(&self) -> Option<SavedState> {
        self.calls.around(&Call::Save, || self.device.save())
    }
}

impl<D: BlockDevice> BlockDevice for Traced<D> {
    type Queue = TracedQueue<D::Queue>;

    fn disks(&self) -> Vec<DiskInfo> {
        self.calls.around(&Call::Disks, || self.device.disks())
    }

    fn take_queues(&mut self) -> Vec<Self::Queue> {
        self.calls.call(&Call::TakeQueues);
        let queues = self.device.take_queues();
        self.calls.answer(&queues.len());
        self.calls.number(queues)
    }

    async fn reset(&mut self, old: Vec<Self::Queue>) -> Result<Vec<Self::Queue>, DriverError> {
        let numbers = old.iter().map(|queue| queue.number).collect();
        let old = old.into_iter().filter_map(|mut queue| queue.queue.take());
        self.calls.call(&Call::Reset(numbers));
        let queues = self.device.reset(old.collect()).await;
        self.calls.answer(&queues.as_ref().map(Vec::len));
        Ok(self.calls.number(queues?))
    }

    fn bind_changes(&mut self, events: &dyn EventQueue, key: u64) -> Result<(), PlatformError> {
        let work = || self.device.bind_changes(events, key);
        self.calls.around(&Call::BindChanges(key), work)
    }

    async fn changed(&mut self) -> Result<(), DriverError> {
        let work = self.device.changed();
        self.calls.around_async(&Call::Changed, work).await
    }

    async fn abort(&mut self, queue: usize, token: u32) -> Result<Abort, DriverError> {
        let call = Call::Abort(queue as u32, token);
        let work = self.device.abort(queue, token);
        self.calls.around_async(&call, work).await
    }
}

/// A queue whose calls are noted.
pub struct TracedQueue<Q: BlockQueue> {
    number: u32,
    /// Until it is handed back for a reset.
    queue: Option<Q>,
    calls: Calls,
}

impl<Q: BlockQueue> TracedQueue<Q> {
    /// What a queue that was handed back answers is `none`; nobody asks one.
    fn around<R: Debug>(&mut self, call: OfQueue, none: R, work: impl FnOnce(&mut Q) -> R) -> R {
        let Some(queue) = &mut self.queue else {
            return none;
        };
        let call = Call::Queue(self.number, call);
        self.calls.around(&call, || work(queue))
    }
}

impl<Q: BlockQueue> Drop for TracedQueue<Q> {
    fn drop(&mut self) {
        if let Some(queue) = self.queue.take() {
            let call = Call::Queue(self.number, OfQueue::Drop);
            self.calls.around(&call, || drop(queue));
        }
    }
}

impl<Q: BlockQueue> BlockQueue for TracedQueue<Q> {
    fn depth(&self) -> u16 {
        let call = Call::Queue(self.number, OfQueue::Depth);
        let depth = || self.queue.as_ref().map_or(0, Q::depth);
        self.calls.around(&call, depth)
    }

    fn push(&mut self, request: &Request<'_>) -> Result<(), PushError> {
        let call = OfQueue::Push(Pushed::of(request));
        self.around(call, Err(PushError::Full), |queue| queue.push(request))
    }

    fn kick(&mut self) {
        self.around(OfQueue::Kick, (), Q::kick);
    }

    fn reap(&mut self) -> Result<Option<Completed>, DriverError> {
        self.around(OfQueue::Reap, Ok(None), Q::reap)
    }

    fn arm(&mut self) -> bool {
        self.around(OfQueue::Arm, false, Q::arm)
    }

    fn disarm(&mut self) {
        self.around(OfQueue::Disarm, (), Q::disarm);
    }

    fn bind(&mut self, events: &dyn EventQueue, key: u64) -> Result<(), PlatformError> {
        let none = Err(PlatformError::Closed);
        self.around(OfQueue::Bind(key), none, |queue| queue.bind(events, key))
    }
}
