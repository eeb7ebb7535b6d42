//! Sources: objects whose signals an executor's port delivers.

use alloc::vec::Vec;
use core::future::{Future, poll_fn};
use core::mem::ManuallyDrop;
use core::pin::pin;
use core::task::{Context, Poll, Waker};

use sys::abi::{Packet, RawHandle};
use sys::{AckMode, AsHandle, Deadline, Error, Handle, Interrupt, Result, Signals, Watch};

use crate::run::Executor;

#[derive(Default)]
struct State {
    generation: u32,
    used: bool,
    /// Signals that came since the last look.
    signals: u32,
    /// Edges or interrupts that came since the last look.
    count: u64,
    timestamp_ns: u64,
    waker: Option<Waker>,
}

/// All sources of an executor. A key is the slot and its generation, so that a packet of a source
/// that is gone reaches nobody.
#[derive(Default)]
pub(crate) struct Sources {
    slots: Vec<State>,
    free: Vec<u32>,
}

/// Generations use 31 bits: keys from 2^63 on are not sources.
const GENERATION_MASK: u32 = 0x7fff_ffff;

const fn key_of(slot: u32, generation: u32) -> u64 {
    ((generation & GENERATION_MASK) as u64) << 32 | slot as u64
}

impl Sources {
    fn add(&mut self) -> Result<u64> {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                let slot = u32::try_from(self.slots.len()).map_err(|_| Error::LimitReached)?;
                self.slots.push(State::default());
                slot
            }
        };
        let state = self.slots.get_mut(slot as usize).ok_or(Error::Internal)?;
        *state = State {
            generation: state.generation.wrapping_add(1) & GENERATION_MASK,
            used: true,
            ..State::default()
        };
        Ok(key_of(slot, state.generation))
    }

    fn get(&mut self, key: u64) -> Option<&mut State> {
        let state = self.slots.get_mut((key & 0xffff_ffff) as usize)?;
        (state.used && u64::from(state.generation) == key >> 32).then_some(state)
    }

    fn remove(&mut self, key: u64) {
        if let Some(state) = self.get(key) {
            state.used = false;
            state.waker = None;
            self.free.push((key & 0xffff_ffff) as u32);
        }
    }

    /// A packet came.
    pub(crate) fn deliver(&mut self, packet: &Packet) {
        if let Some(state) = self.get(packet.key) {
            state.signals |= packet.signals;
            state.count = state.count.saturating_add(packet.value.max(1));
            state.timestamp_ns = packet.timestamp_ns;
            if let Some(waker) = state.waker.take() {
                waker.wake();
            }
        }
    }
}

/// What came from a source.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Arrival {
    signals: u32,
    count: u64,
    timestamp_ns: u64,
}

/// A place in the executor's table, given back on drop.
struct Registration {
    executor: Executor,
    key: u64,
}

impl Registration {
    fn new(executor: &Executor) -> Result<Registration> {
        let key = executor.0.sources.borrow_mut().add()?;
        Ok(Registration {
            executor: executor.clone(),
            key,
        })
    }

    fn take(&self) -> Option<Arrival> {
        let mut sources = self.executor.0.sources.borrow_mut();
        let state = sources.get(self.key)?;
        if state.count == 0 {
            return None;
        }
        let arrival = Arrival {
            signals: state.signals,
            count: state.count,
            timestamp_ns: state.timestamp_ns,
        };
        state.signals = 0;
        state.count = 0;
        Some(arrival)
    }

    fn poll(&self, context: &mut Context<'_>) -> Poll<Arrival> {
        if let Some(arrival) = self.take() {
            return Poll::Ready(arrival);
        }
        if let Some(state) = self.executor.0.sources.borrow_mut().get(self.key) {
            match &mut state.waker {
                Some(waker) => waker.clone_from(context.waker()),
                None => state.waker = Some(context.waker().clone()),
            }
        }
        Poll::Pending
    }

    async fn wait(&self, deadline: Deadline) -> Result<Arrival> {
        let mut arrival = pin!(poll_fn(|context| self.poll(context)));
        if deadline == Deadline::FOREVER {
            return Ok(arrival.await);
        }
        let mut sleep = pin!(self.executor.sleep_until(deadline));
        poll_fn(|context| {
            if let Poll::Ready(arrival) = arrival.as_mut().poll(context) {
                return Poll::Ready(Ok(arrival));
            }
            sleep.as_mut().poll(context).map(|()| Err(Error::TimedOut))
        })
        .await
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.executor.0.sources.borrow_mut().remove(self.key);
    }
}

/// Watches signals of an object until it is dropped. One task at a time waits on it.
pub struct Source {
    registration: Registration,
    handle: RawHandle,
}

impl Source {
    /// Waits for an edge since the last look (a signal that was set at the start counts as one); tells
    /// the signals. `TimedOut`.
    pub async fn next(&self, deadline: Deadline) -> Result<Signals> {
        Ok(Signals(self.registration.wait(deadline).await?.signals))
    }

    /// As [`Source::next`]; tells how many edges came since the last look, at least one.
    pub(crate) async fn next_count(&self, deadline: Deadline) -> Result<u64> {
        Ok(self.registration.wait(deadline).await?.count)
    }

    /// What has come since the last look, without waiting.
    pub fn try_next(&self) -> Option<Signals> {
        self.registration
            .take()
            .map(|arrival| Signals(arrival.signals))
    }

    /// For a future of one's own.
    pub fn poll_next(&self, context: &mut Context<'_>) -> Poll<Signals> {
        self.registration
            .poll(context)
            .map(|arrival| Signals(arrival.signals))
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        // The object's owner may have closed the handle; then the watch leads to a slot that is free.
        let handle = ManuallyDrop::new(Handle::from_raw(self.handle));
        let _ = self
            .registration
            .executor
            .port()
            .cancel(&*handle, self.registration.key);
    }
}

/// An interrupt that an executor waits for; unbound on drop.
pub struct InterruptSource {
    registration: Registration,
    interrupt: Interrupt,
    ack: AckMode,
}

impl InterruptSource {
    /// Waits for the interrupt; tells how many came since the last look. With [`AckMode::Explicit`]
    /// call [`InterruptSource::ack`] when the device is served. `TimedOut`.
    pub async fn wait(&self, deadline: Deadline) -> Result<u64> {
        Ok(self.registration.wait(deadline).await?.count)
    }

    /// As [`InterruptSource::wait`]; tells also when the packet was queued, in nanoseconds since boot.
    pub async fn wait_with_time(&self, deadline: Deadline) -> Result<(u64, u64)> {
        let arrival = self.registration.wait(deadline).await?;
        Ok((arrival.count, arrival.timestamp_ns))
    }

    /// For a future of one's own.
    pub fn poll_wait(&self, context: &mut Context<'_>) -> Poll<u64> {
        self.registration.poll(context).map(|arrival| arrival.count)
    }

    /// Allows the next one, with [`AckMode::Explicit`].
    pub fn ack(&self) -> Result<()> {
        match self.ack {
            AckMode::Explicit => self.interrupt.ack(),
            AckMode::OnDequeue => Ok(()),
        }
    }

    /// The interrupt.
    pub fn interrupt(&self) -> &Interrupt {
        &self.interrupt
    }
}

impl Drop for InterruptSource {
    fn drop(&mut self) {
        let _ = self.interrupt.unbind();
    }
}

impl Executor {
    /// Watches signals of an object. The handle stays the caller's, and is to live longer.
    pub fn watch(&self, object: &impl AsHandle, signals: Signals) -> Result<Source> {
        let registration = Registration::new(self)?;
        object.wait_async(self.port(), registration.key, signals, Watch::Persistent)?;
        Ok(Source {
            registration,
            handle: object.as_handle().raw(),
        })
    }

    /// Waits once until one of `signals` is set; tells which. `TimedOut`.
    pub async fn wait_signals(
        &self,
        object: &impl AsHandle,
        signals: Signals,
        deadline: Deadline,
    ) -> Result<Signals> {
        self.watch(object, signals)?.next(deadline).await
    }

    /// Binds an interrupt to this executor.
    pub fn interrupt(&self, interrupt: Interrupt, ack: AckMode) -> Result<InterruptSource> {
        let registration = Registration::new(self)?;
        interrupt.bind(self.port(), registration.key, ack)?;
        Ok(InterruptSource {
            registration,
            interrupt,
            ack,
        })
    }
}
