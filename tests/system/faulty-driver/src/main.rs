//! A driver that goes wrong, each device in its own way. All of them hold pinned pages and have bus mastering
//! on when it happens, so that what they leave behind can be counted.
//!
//! | device | what happens |
//! |---|---|
//! | `pci-testdev` | serves until somebody kills it |
//! | `edu` | where an IOMMU contains it, has the device read memory that it did not pin, over and over; else it panics in service |
//! | `bochs-display` | says that it cannot serve, and exits |
//! | `virtio-balloon-pci` | serves, and then never lets go of its CPU again |
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::string::ToString;
use core::sync::atomic::Ordering::Relaxed;
use core::time::Duration;

use ddk::manifest::{Class, Manifest, RestartPolicy, dma, memory_bars, pci_device};
use proto::bus::PciDeviceClient;
use proto::devmgr::DriverHostClient;
use rt::{Channel, Deadline, DmaDomain, MapAccess, Mapping, PinAccess, Vmo, startup, time};

struct Faulty;

const TESTDEV: u16 = 0x0005;
const DISPLAY: u16 = 0x1111;
const BALLOON: u16 = 0x1045;
const PAGES: usize = 16;

impl ddk::Described for Faulty {
    const MANIFEST: Manifest = Manifest::new(
        "faulty",
        Class::OTHER,
        [0, 1, 0],
        &[
            pci_device(0x1b36, TESTDEV),
            pci_device(0x1234, DISPLAY),
            pci_device(0x1234, 0x11e8),
            pci_device(0x1af4, BALLOON),
        ],
        &[memory_bars(), dma(32)],
    )
    // Behind every driver that is meant for the device.
    .with_priority(-2)
    .with_restart(RestartPolicy::NEVER);
}

ddk_backend_os::driver_program!(Faulty, run);

/// Has the device read the first page of the memory, which nobody pins, over and over: an IOMMU that is just telling of
/// another device loses what it has no record for.
///
/// Registers as in QEMU's `docs/specs/edu.rst`.
fn reads_what_is_not_pinned() -> rt::Result<()> {
    let Some(bar) = startup::take::<Vmo>("bar0") else {
        return Err(rt::Error::NotFound);
    };
    let registers = Mapping::map(&bar, 0, 4096, MapAccess::ReadWrite)?;
    loop {
        read_first_page(&registers)?;
        time::sleep(Duration::from_millis(20));
    }
}

fn read_first_page(registers: &Mapping) -> rt::Result<()> {
    let (source, destination, count, command) = (0x80, 0x88, 0x90, 0x98);
    registers.atomic_u32(source)?.store(0, Relaxed);
    registers.atomic_u32(destination)?.store(0x4_0000, Relaxed);
    registers.atomic_u32(count)?.store(64, Relaxed);
    registers.atomic_u32(command)?.store(1, Relaxed);
    while registers.atomic_u32(command)?.load(Relaxed) & 1 != 0 {
        time::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Ends up in the backtrace, by name.
#[inline(never)]
fn lose_its_head(value: u32) -> ! {
    panic!("out of order at {value}");
}

fn run(_manifest: &Manifest) -> i32 {
    let host = startup::take("devmgr").map(DriverHostClient::new);
    let device = startup::take::<Channel>("device").map(PciDeviceClient::new);
    let domain = startup::take::<DmaDomain>("dma");
    let (Some(host), Some(device), Some(domain)) = (host, device, domain) else {
        rt::error!("something that the manifest needs is missing");
        return 2;
    };
    let prepared = Vmo::create(PAGES * 4096).and_then(|vmo| {
        let mut addresses = [0; PAGES];
        let access = PinAccess::DeviceReadsAndWrites;
        domain.pin(&vmo, 0, PAGES * 4096, access, &mut addresses)
    });
    let Ok(_pin) = prepared else {
        rt::error!("cannot pin");
        return 2;
    };
    let kind = match (device.enable(), device.info()) {
        (Ok(()), Ok(info)) => info.device,
        other => {
            rt::error!("device: {other:?}");
            return 2;
        }
    };
    let contained = domain.dma_info().is_ok_and(|info| info.translated != 0);
    if kind == DISPLAY {
        let _ = host.failed("the device smells of smoke".to_string());
        return 1;
    }
    if host.running().is_err() {
        return 2;
    }
    match kind {
        TESTDEV => loop {
            time::sleep_until(Deadline::after_secs(3600));
        },
        BALLOON => loop {
            core::hint::spin_loop();
        },
        _ if contained => {
            if let Err(error) = reads_what_is_not_pinned() {
                rt::error!("the device's registers: {error}");
            }
            2
        }
        other => lose_its_head(u32::from(other)),
    }
}
