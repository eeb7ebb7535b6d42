//! A version of the driver `faulty` for `edu`: after a while in service it makes the device interrupt as fast as it can and
//! takes none of it. Whoever comes after it serves in peace.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;

use ddk::manifest::{Class, Manifest, bar, dma, message_interrupt, pci_device};
use ddk::{DeviceContext, Driver, StopReason, block_on};
use ddk_backend_os::{Control, Order, OsPlatform};
use edu::Edu;
use proto::devmgr::DriverHostClient;
use rt::{Channel, Deadline, startup, time};

struct Storm;

impl ddk::Described for Storm {
    const MANIFEST: Manifest = Manifest::new(
        "faulty",
        Class::OTHER,
        [0, 2, 0],
        &[pci_device(0x1234, 0x11e8)],
        &[bar(0), message_interrupt(), dma(28)],
    )
    // It is asked for by hand.
    .with_priority(-3);
}

ddk_backend_os::driver_program!(Storm, run);

/// Longer than the test lets it be in probation.
const QUIET_MS: u64 = 500;
/// The incarnation that storms: the one before was another program.
const STORMING: u32 = 2;

fn run(_manifest: &Manifest) -> i32 {
    let Some(host) = startup::take::<Channel>("devmgr").map(DriverHostClient::new) else {
        rt::error!("no handle 'devmgr'");
        return 2;
    };
    if let Err(error) = serve(&host) {
        let _ = host.failed(error);
    }
    1
}

fn serve(host: &DriverHostClient) -> Result<(), String> {
    let platform = OsPlatform::from_startup().map_err(|error| format!("grants: {error}"))?;
    let cx = DeviceContext::new(Arc::new(platform)).map_err(|error| error.to_string())?;
    let device = block_on(&cx, Edu::start(cx.clone()))
        .map_err(|error| error.to_string())?
        .map_err(|error| error.to_string())?;
    // Bound, so that there is somebody who could serve.
    let handler = device.handler().map_err(|error| error.to_string())?;
    host.running().map_err(|error| error.to_string())?;
    time::sleep_until(Deadline::after_ms(QUIET_MS));
    let raiser = device.raiser();
    while cx.epoch() == STORMING {
        raiser.raise();
    }
    let control = Control::from_startup();
    loop {
        match control.next().map_err(|error| error.to_string())? {
            Order::Ping(beat) => host.alive(beat).map_err(|error| error.to_string())?,
            Order::Stop(_) => {
                drop(handler);
                let _ = block_on(&cx, device.stop(StopReason::Requested));
                rt::exit(0);
            }
            Order::Suspend | Order::Resume => {}
        }
    }
}
