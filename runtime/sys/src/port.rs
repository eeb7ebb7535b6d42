//! Ports: one place to wait for many things.

use crate::abi::{Result, Syscall};
use crate::handle::{AsHandle, handle_type, new_handle};
use crate::raw::syscall;
use crate::time::Deadline;

pub use crate::abi::Packet;

/// How long a watch lasts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Watch {
    /// It ends with its first packet.
    Once,
    /// Until it is cancelled; a packet per edge, at most one queued at a time.
    Persistent,
}

handle_type! {
    /// A queue of [`Packet`]s.
    Port
}

impl Port {
    /// An empty port.
    pub fn create() -> Result<Port> {
        // SAFETY: no memory is passed.
        let raw = unsafe { syscall(Syscall::PortCreate, []) };
        Ok(new_handle(raw.result()?))
    }

    /// Queues a `USER` packet with this key and value.
    pub fn queue(&self, key: u64, value: u64) -> Result<()> {
        let packet = Packet {
            key,
            value,
            kind: Packet::USER,
            ..Packet::default()
        };
        // SAFETY: the kernel reads a packet that is borrowed for the call.
        unsafe {
            syscall(
                Syscall::PortQueue,
                [self.arg(), (&raw const packet) as usize],
            )
        }
        .unit()
    }

    /// Takes up to `packets.len()` packets, waiting for the first. Tells how many; `TimedOut` if
    /// there was none, `ShouldWait` with `Deadline::NOW`, which does not wait.
    #[inline]
    pub fn wait(&self, packets: &mut [Packet], deadline: Deadline) -> Result<usize> {
        // SAFETY: the kernel writes at most `packets.len()` packets, plain data, into a slice that is
        // borrowed exclusively.
        let count = unsafe {
            syscall(
                Syscall::PortWait,
                [
                    self.arg(),
                    packets.as_mut_ptr() as usize,
                    packets.len(),
                    deadline.as_ns() as usize,
                ],
            )
        }
        .result()?;
        Ok(count.min(packets.len()))
    }

    /// Ends the watches of an object with this key and drops their packet.
    pub fn cancel(&self, object: &impl AsHandle, key: u64) -> Result<()> {
        let handle = object.as_handle().raw().0 as usize;
        // SAFETY: no memory is passed.
        unsafe { syscall(Syscall::PortCancel, [self.arg(), handle, key as usize]) }.unit()
    }
}
