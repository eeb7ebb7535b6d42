//! What a home on the host has to bring for a disk: the platform that its driver runs on, memory for payload,
//! and whatever it can do to the device.

use std::sync::Arc;

use ddk::{DeviceAccess, PinnedBuffer, Platform};
use ddk_conformance_block::{Fault, Problem, Promise};

/// A client's view of its payload.
pub trait Payload {
    /// Copies bytes out.
    fn read(&self, offset: usize, into: &mut [u8]);

    /// Copies bytes in.
    fn write(&self, offset: usize, bytes: &[u8]);

    /// Whether a driver still holds the buffer.
    fn is_pinned(&self) -> bool;
}

/// A device, with everything around it.
pub trait Device {
    /// The platform for its driver; `None` after [`Device::finish`].
    fn platform(&self) -> Option<Arc<dyn Platform>>;

    /// Zeroed memory of whole pages for a client: the driver's view of it, and the client's.
    ///
    /// # Errors
    /// When there is none.
    fn payload(
        &mut self,
        pages: usize,
        access: DeviceAccess,
    ) -> Result<(PinnedBuffer, Box<dyn Payload>), Problem>;

    /// See [`Disk::promise`](ddk_conformance_block::Disk::promise).
    fn promise(&self) -> Promise;

    /// See [`Disk::fault`](ddk_conformance_block::Disk::fault).
    ///
    /// # Errors
    /// When it is not offered.
    fn fault(&mut self, fault: Fault) -> Result<(), Problem>;

    /// See [`Disk::lies`](ddk_conformance_block::Disk::lies).
    fn lies(&self) -> &'static [&'static str] {
        &[]
    }

    /// Whether time passes only while somebody waits, so that it says what the driver waited for.
    fn has_virtual_time(&self) -> bool {
        false
    }

    /// See [`Disk::medium`](ddk_conformance_block::Disk::medium).
    ///
    /// # Errors
    /// When it is not offered.
    fn medium(&mut self, _lba: u64, _into: &mut [u8]) -> Result<(), Problem> {
        Err(Problem::not_offered("no view of the medium"))
    }

    /// See [`Disk::durable`](ddk_conformance_block::Disk::durable).
    ///
    /// # Errors
    /// When it is not offered.
    fn durable(&mut self, _lba: u64, _into: &mut [u8]) -> Result<(), Problem> {
        Err(Problem::not_offered("no view of what a power cut leaves"))
    }

    /// After the driver stopped and everything of it was dropped; or, with [`Ended::GivenUp`], after it gave
    /// the device up.
    ///
    /// # Errors
    /// What the driver did wrong, or left behind.
    fn finish(&mut self, ended: Ended) -> Result<(), Problem>;
}

/// How a driver ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// It left the device quiet.
    Stopped,
    /// It gave the device up.
    GivenUp,
}
