//! From a device's interrupt to a handler in a driver's process.
//!
//! The driver `edu` raises and handles them. Its handler waits at a driver's priority and the thread that
//! raises runs at an application's, so that each write is followed at once by the handler. One operation is:
//! raise, interrupt, wake-up, switch, quiet the device, wait again, switch back.

use proto::devmgr::EndpointsClient;
use proto::interrupt_test::InterruptTestClient;
use rt::{AsHandle, Channel};

use crate::measure::{Failure, Section, measure_plain};
use crate::section;

const IRQ: Section = section!(8);
const INTERRUPTS: u32 = 2_000;
const DRIVER: &str = "edu";

/// The row `irq-to-user`.
///
/// # Errors
///
/// When an interrupt is lost or the driver fails.
pub fn irq_to_user(row: &str) -> Result<bool, Failure> {
    let Some(scheme) = rt::startup::handle::<Channel>("other") else {
        return Ok(false);
    };
    let scheme = scheme
        .duplicate()
        .map_err(|error| Failure::new("scheme other", error))?;
    let endpoints = EndpointsClient::new(scheme);
    let failed = |error| Failure::new("endpoints", error);
    endpoints.wait_settled().map_err(failed)?;
    let list = endpoints.list().map_err(failed)?;
    let Some(entry) = list.iter().find(|entry| entry.driver == DRIVER) else {
        return Ok(false);
    };
    let (_, endpoint, _) = endpoints.open(&entry.name).map_err(failed)?;
    let device = InterruptTestClient::new(endpoint);
    measure_plain(row, IRQ, INTERRUPTS, || {
        device
            .raise(INTERRUPTS)
            .map_err(|error| Failure::new("raise", error))
    })
}
