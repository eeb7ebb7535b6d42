//! Event queues on the kernel's ports.

use alloc::sync::Arc;
use core::any::Any;

use ddk::{Deadline, Event, EventQueue, PlatformError};
use rt::{Packet, Port};

/// A port as an event queue. Clones are the same queue.
#[derive(Clone, Debug)]
pub struct OsQueue(Arc<Port>);

impl OsQueue {
    /// A queue of its own.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn new() -> Result<OsQueue, PlatformError> {
        Ok(OsQueue(Arc::new(Port::create().map_err(refused)?)))
    }

    /// The port, to wait for other objects with it.
    pub fn port(&self) -> &Port {
        &self.0
    }

    /// The queue behind the DDK's interface.
    ///
    /// # Errors
    /// When it is another backend's.
    pub(crate) fn of(events: &dyn EventQueue) -> Result<&OsQueue, PlatformError> {
        events.as_any().downcast_ref().ok_or(PlatformError::Invalid)
    }
}

impl EventQueue for OsQueue {
    #[inline]
    fn wait(&self, events: &mut [Event], deadline: Deadline) -> Result<usize, PlatformError> {
        let mut packets = [Packet::default(); 4];
        let room = events.len().min(packets.len());
        let packets = packets.get_mut(..room).unwrap_or_default();
        let taken = match self
            .0
            .wait(packets, rt::Deadline::from_ns(deadline.as_ns()))
        {
            Ok(taken) => taken,
            Err(rt::Error::TimedOut) => return Ok(0),
            Err(error) => return Err(refused(error)),
        };
        for (event, packet) in events.iter_mut().zip(packets.iter().take(taken)) {
            *event = Event {
                key: packet.key,
                count: packet.value,
            };
        }
        Ok(taken)
    }

    fn post(&self, key: u64) -> Result<(), PlatformError> {
        self.0.queue(key, 1).map_err(refused)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The kernel's errors in the DDK's terms.
pub(crate) fn refused(error: rt::Error) -> PlatformError {
    match error {
        rt::Error::AccessDenied | rt::Error::NotFound | rt::Error::BadHandle => {
            PlatformError::NotGranted
        }
        rt::Error::NoMemory | rt::Error::LimitReached => PlatformError::NoMemory,
        rt::Error::NotSupported => PlatformError::Unsupported,
        rt::Error::InvalidArgument | rt::Error::OutOfRange => PlatformError::Invalid,
        rt::Error::TimedOut => PlatformError::TimedOut,
        rt::Error::PeerClosed => PlatformError::Closed,
        other => PlatformError::Code(other as i32),
    }
}
