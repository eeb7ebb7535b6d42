//! Drivers without a class: nothing is published, and only the device manager talks to them.

use ddk::manifest::Manifest;
use ddk::{Driver, DriverError};

use crate::control::{Control, Order};
use crate::entry::{Host, start, stop, wait};
use crate::queue::refused;

/// The life of such a driver's process: starts the driver, answers the device manager, stops when it asks.
pub fn run_raw<D: Driver>(manifest: &'static Manifest) -> i32 {
    let host = Host::from_startup();
    let (_, cx, mut device) = start::<D>(&host, manifest);
    let control = Control::from_startup();
    host.running();
    loop {
        match control.next() {
            Ok(Order::Ping(beat)) => host.alive(beat),
            Ok(Order::Stop(why)) => stop(&host, &cx, device, why),
            Ok(Order::Suspend) => host.suspended(wait(&cx, device.suspend())),
            Ok(Order::Resume) => host.resumed(wait(&cx, device.resume())),
            // Without its manager nobody could ask for anything any more.
            Err(error) => {
                host.give_up(&DriverError::platform("control channel", refused(error)));
            }
        }
    }
}
