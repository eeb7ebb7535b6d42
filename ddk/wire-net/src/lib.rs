//! A bad wire for network drivers: [`Wired`] stands between the network class and a driver and loses, doubles, delays and damages frames, by
//! chance from a seed, in each direction at rates of its own ([`Wire`]).
//!
//! It is for tests of what lies above: a stack has to get everything through all the same. The driver and its device know nothing of it, and
//! what it is not asked to change passes as it is. A frame that the device is to cut is cut here, so that rates are those of frames on a wire.
//!
//! A damaged frame has one bit wrong behind its Ethernet header, and nobody's word that its checksum is right; any Internet checksum finds
//! that. Frames that have none (ARP) are not damaged: on a real wire Ethernet's own checksum guards them, which is not seen here.
//!
//! Drivers do not reach payload; to double and to damage, the wire has to. Its home gives it the way there ([`Payload`]), and only when a
//! wire is asked for.
#![cfg_attr(target_os = "none", no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod chance;
mod device;
mod packet;
mod queue;
mod receive;
#[cfg(test)]
mod tests;
mod transmit;

pub use chance::{Counts, Faults};
pub use device::Wired;
pub use proto::wire::{Rates, Wire};
pub use queue::WiredQueue;

/// The way to the clients' buffers, by device address. A range lies within a page.
pub trait Payload: Send + Sync {
    /// Reads bytes; `None` when that cannot be done.
    fn read(&self, address: u64, into: &mut [u8]) -> Option<()>;

    /// Writes bytes; `None` when that cannot be done.
    fn write(&self, address: u64, bytes: &[u8]) -> Option<()>;
}
