//! The end of the system: output out, outcome told, log flushed, power off.

use alloc::format;
use core::time::Duration;

use proto::bus::FirmwareClient;
use proto::console::ConsoleClient;
use rt::{AsHandle, Channel, IoPorts, Resource, log_flush};

/// How the system ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// With this status.
    PowerOff(i32),
    /// With a reset.
    Reboot,
}

/// What is needed for it; what is missing is left out.
pub struct Handles {
    /// Output that is still on its way.
    pub console: Option<Channel>,
    /// The power switch.
    pub firmware: Option<Channel>,
    /// The log.
    pub log: Option<Resource>,
    /// The outcome port, and the reset port if the firmware fails.
    pub ports: Option<Resource>,
}

/// Port at which a machine that runs us as a test listens for `exit N` (QEMU's isa-debugcon).
const OUTCOME_PORT: u16 = 0xe9;
/// Reset control register of PC chipsets, and the value for a full reset.
const RESET_PORT: u16 = 0xcf9;
const FULL_RESET: u8 = 0x0e;
const DRAIN_LIMIT: Duration = Duration::from_secs(10);
const FIRMWARE_LIMIT: Duration = Duration::from_secs(5);

/// Ends the system. Returns only if nothing of it worked.
pub fn run(handles: &Handles, way: Way) {
    if let Some(console) = handles.console.as_ref().and_then(|c| c.duplicate().ok()) {
        // A console that is gone has nothing to drain.
        let _ = ConsoleClient::new(console)
            .with_timeout(DRAIN_LIMIT)
            .drain();
    }
    match way {
        Way::PowerOff(status) => {
            rt::info!("power off, status {status}");
            flush(handles);
            outcome(handles, status);
        }
        Way::Reboot => {
            rt::info!("reboot");
            flush(handles);
        }
    }
    if let Some(firmware) = handles.firmware.as_ref().and_then(|c| c.duplicate().ok()) {
        let firmware = FirmwareClient::new(firmware).with_timeout(FIRMWARE_LIMIT);
        let result = match way {
            Way::PowerOff(_) => firmware.power_off(),
            Way::Reboot => firmware.reboot(),
        };
        if let Err(error) = result {
            rt::error!("the firmware does not end the system: {error}");
        }
    }
    flush(handles);
    // Without firmware a reset is the best that can be done either way.
    if let Some(ports) = handles
        .ports
        .as_ref()
        .and_then(|p| IoPorts::grant(p, RESET_PORT, 1).ok())
    {
        let _ = ports.write8(0, FULL_RESET);
    }
}

fn flush(handles: &Handles) {
    if let Some(log) = &handles.log {
        // Nowhere to report to.
        let _ = log_flush(log);
    }
}

fn outcome(handles: &Handles, status: i32) {
    let Some(ports) = handles
        .ports
        .as_ref()
        .and_then(|p| IoPorts::grant(p, OUTCOME_PORT, 1).ok())
    else {
        return;
    };
    for byte in format!("exit {status}\n").bytes() {
        let _ = ports.write8(0, byte);
    }
}
