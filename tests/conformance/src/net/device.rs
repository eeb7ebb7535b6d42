//! What a home on the host has to bring for a network interface: what it brings for any device, and the wire.

use std::sync::Arc;

use ddk::{DeviceAccess, PinnedBuffer, Platform};
use ddk_conformance_net::{Cut, Fault, Problem, Promise, Sum, Wired};

use crate::device::{Ended, Payload};

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

    /// See [`Nic::promise`](ddk_conformance_net::Nic::promise).
    fn promise(&self) -> Promise;

    /// A frame goes on the wire, towards the interface.
    ///
    /// # Errors
    /// When the wire breaks.
    fn wire_send(&mut self, frame: &[u8]) -> Result<(), Problem>;

    /// The wire carries what it can.
    ///
    /// # Errors
    /// When it breaks.
    fn carry(&mut self) -> Result<(), Problem> {
        Ok(())
    }

    /// See [`Nic::wire_send_joined`](ddk_conformance_net::Nic::wire_send_joined).
    ///
    /// # Errors
    /// When it is not offered.
    fn wire_send_joined(&mut self, _: &[u8], _: &Cut, _: &Sum) -> Result<(), Problem> {
        Err(Problem::not_offered("a wire carries no frames of 64 KiB"))
    }

    /// The next frame that is on the wire now.
    ///
    /// # Errors
    /// When the wire breaks.
    fn wire_next(&mut self) -> Result<Option<Vec<u8>>, Problem>;

    /// Plugs the wire in or out.
    ///
    /// # Errors
    /// When it is not offered.
    fn set_link(&mut self, link: Wired) -> Result<(), Problem>;

    /// Makes the device go wrong, or right again.
    ///
    /// # Errors
    /// When it is not offered.
    fn fault(&mut self, fault: Fault) -> Result<(), Problem>;

    /// See [`Nic::lies`](ddk_conformance_net::Nic::lies).
    fn lies(&self) -> &'static [&'static str] {
        &[]
    }

    /// Whether time passes only while somebody waits, so that it says what the driver waited for, and the wire waits for nobody.
    fn has_virtual_time(&self) -> bool {
        false
    }

    /// After the driver stopped and everything of it was dropped; or, with [`Ended::GivenUp`], after it gave
    /// the device up.
    ///
    /// # Errors
    /// What the driver did wrong, or left behind.
    fn finish(&mut self, ended: Ended) -> Result<(), Problem>;
}
