//! What sessions of all classes have: doorbells on events, rings that a client maps, buffers that it registers.

use alloc::boxed::Box;
use alloc::format;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use ddk::{
    DeviceAccess, DeviceContext, DriverError, EventQueue, PAGE, PinnedBuffer, PlatformError,
};
use ddk_class_core::Doorbell;
use proto::block::{BUFFERS_MAX, BufferAccess};
use rt::{AsHandle, Error, Mapping, Rights, SharedMapping, Signals, Vmo, Watch};

use crate::dma;
use crate::platform::OsPlatform;
use crate::queue::{OsQueue, refused};

const _: () = assert!(BUFFERS_MAX == proto::net::BUFFERS_MAX);

/// Longest buffer that can be registered, in bytes.
const BUFFER_BYTES_MAX: u64 = 1 << 32;

/// An event as a doorbell.
pub(crate) struct EventDoorbell(rt::Event);

impl Doorbell for EventDoorbell {
    #[inline]
    fn ring(&self) {
        let _ = self.0.ring();
    }

    fn watch(&self, events: &dyn EventQueue, key: u64) -> Result<(), PlatformError> {
        let port = OsQueue::of(events)?.port();
        self.0
            .wait_async(port, key, Signals::SIGNALED, Watch::Persistent)
            .map_err(refused)
    }

    fn unwatch(&self, events: &dyn EventQueue, key: u64) {
        if let Ok(queue) = OsQueue::of(events) {
            let _ = queue.port().cancel(&self.0, key);
        }
    }
}

/// What goes with every handle of a client.
fn pass() -> Rights {
    Rights::TRANSFER | Rights::DUPLICATE | Rights::INSPECT
}

/// Memory for rings, and the client's handle to it: it can map the rings and neither resize nor name them.
pub(crate) fn rings(len: usize) -> Result<(SharedMapping, Vmo), Error> {
    let (vmo, mapping) = Mapping::create(len)?;
    let client = vmo.duplicate_with(pass() | Rights::READ | Rights::WRITE | Rights::MAP)?;
    Ok((SharedMapping::new(mapping), client))
}

/// A doorbell that the client rings, and its handle.
pub(crate) fn doorbell_of_client() -> Result<(EventDoorbell, rt::Event), Error> {
    doorbell(Rights::SIGNAL)
}

/// A doorbell that the client waits for, and its handle.
pub(crate) fn doorbell_of_driver() -> Result<(EventDoorbell, rt::Event), Error> {
    doorbell(Rights::WAIT)
}

fn doorbell(right: Rights) -> Result<(EventDoorbell, rt::Event), Error> {
    let event = rt::Event::create()?;
    let client = event.duplicate_with(pass() | right)?;
    Ok((EventDoorbell(event), client))
}

/// Gives each worker a thread. One queue serves whatever CPU its clients are on; of several each has a CPU of its own.
pub(crate) fn spawn_workers<W: Send + 'static>(
    cx: &DeviceContext,
    workers: Vec<W>,
    run: fn(&mut W) -> Result<(), PlatformError>,
) -> Result<(), DriverError> {
    let pinned = workers.len() > 1;
    for (index, mut worker) in workers.into_iter().enumerate() {
        let cpu = pinned.then(|| index % cx.cpu_count());
        let serve = move || {
            if let Err(error) = run(&mut worker) {
                panic!("events of a queue: {error}");
            }
        };
        cx.spawn(&format!("queue {index}"), cpu, Box::new(serve))?;
    }
    Ok(())
}

/// Why a buffer is not registered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum RegisterError {
    /// Not whole pages, too long, or a slot that does not exist.
    Invalid,
    /// The slot is taken.
    BadSlot,
    /// The VMO cannot be pinned so.
    BadBuffer,
    /// No memory.
    LimitReached,
    /// There is no DMA domain.
    Gone,
}

/// Slots in use, cleared by the worker when a buffer is gone.
pub(crate) struct Slots([AtomicU64; BUFFERS_MAX as usize / 64]);

impl Slots {
    pub(crate) fn new() -> Slots {
        Slots([const { AtomicU64::new(0) }; BUFFERS_MAX as usize / 64])
    }

    fn bit(&self, slot: u16) -> Option<(&AtomicU64, u64)> {
        Some((self.0.get(usize::from(slot / 64))?, 1 << (slot % 64)))
    }

    /// The buffer of a slot is gone.
    pub(crate) fn free(&self, slot: u16) {
        if let Some((word, bit)) = self.bit(slot) {
            word.fetch_and(!bit, Ordering::Release);
        }
    }

    /// Takes a free slot and pins a client's buffer.
    pub(crate) fn register(
        &self,
        platform: &OsPlatform,
        slot: u16,
        access: BufferAccess,
        (offset, length): (u64, u64),
        vmo: &Vmo,
    ) -> Result<PinnedBuffer, RegisterError> {
        let page = PAGE as u64;
        if offset % page != 0 || length % page != 0 || length == 0 || length > BUFFER_BYTES_MAX {
            return Err(RegisterError::Invalid);
        }
        let (word, bit) = self.bit(slot).ok_or(RegisterError::Invalid)?;
        if word.load(Ordering::Acquire) & bit != 0 {
            return Err(RegisterError::BadSlot);
        }
        let access = match access {
            BufferAccess::DeviceReads => DeviceAccess::Reads,
            BufferAccess::DeviceWrites => DeviceAccess::Writes,
            BufferAccess::Both => DeviceAccess::Both,
        };
        let domain = platform.domain().ok_or(RegisterError::Gone)?;
        let buffer = dma::payload(domain, vmo, offset, length as usize, access);
        let buffer = buffer.map_err(|error| match error {
            PlatformError::NoMemory => RegisterError::LimitReached,
            _ => RegisterError::BadBuffer,
        })?;
        word.fetch_or(bit, Ordering::Relaxed);
        Ok(buffer)
    }
}
