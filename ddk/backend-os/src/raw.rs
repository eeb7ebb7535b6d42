//! Drivers without a class: nothing is published, and only the device manager talks to them.

use ddk::manifest::Manifest;
use ddk::{Driver, DriverError, StopReason, block_on};
use proto::devmgr::DriverControlRequest;
use rt::Deadline;

use crate::entry::{Host, start};
use crate::queue::refused;

/// The life of such a driver's process: starts the driver, answers the device manager, stops when it asks.
pub fn run_raw<D: Driver>(manifest: &'static Manifest) -> i32 {
    let host = Host::from_startup();
    let (_, cx, device) = start::<D>(&host, manifest);
    let Some(control) = Host::control() else {
        host.give_up(&DriverError::Unsupported {
            what: "a control channel",
        });
    };
    host.running();
    loop {
        match control.next(Deadline::FOREVER) {
            Ok(DriverControlRequest::Ping { beat }) => host.alive(beat),
            Ok(DriverControlRequest::Stop {}) => {
                let _ = block_on(&cx, device.stop(StopReason::Requested));
                rt::exit(0);
            }
            // Without its manager nobody could ask for anything any more.
            Err(error) => {
                host.give_up(&DriverError::platform("control channel", refused(error)));
            }
        }
    }
}
