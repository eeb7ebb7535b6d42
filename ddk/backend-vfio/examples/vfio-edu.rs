//! Interrupts of QEMU's device `edu` in a Linux process: messages by its driver, then its line.
//!
//! `vfio-edu ADDRESS`, for instance `vfio-edu 0000:00:10.0`. `vfio-pci` has to have the function.

use std::error::Error;
use std::process::ExitCode;

use ddk::manifest::{Class, Manifest, bar};
use ddk::{Deadline, Described, DeviceContext, Driver, Event, EventQueue, StopReason, block_on};
use ddk_backend_vfio::VfioDevice;
use edu::Edu;

type Fallible<T> = Result<T, Box<dyn Error>>;

/// Long enough for an interrupt that comes, and what has to pass for one that does not.
const LIMIT_MS: u32 = 20_000;
const SILENCE_MS: u32 = 200;
const KEY: u64 = 7;

/// Registers (QEMU, docs/specs/edu.rst).
const RAISE: usize = 0x60;
const ACKNOWLEDGE: usize = 0x64;

fn main() -> ExitCode {
    let Some(address) = std::env::args().nth(1) else {
        eprintln!("usage: vfio-edu ADDRESS");
        return ExitCode::from(2);
    };
    match drive(&address) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vfio-edu: {address}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn drive(address: &str) -> Fallible<()> {
    let device = VfioDevice::open(address)?;
    messages(&device)?;
    println!("{address} messages done");
    line(&device)?;
    println!("{address} line done");
    Ok(())
}

/// By MSI, under the driver.
fn messages(device: &VfioDevice) -> Fallible<()> {
    let cx = DeviceContext::new(device.platform_for(&Edu::MANIFEST)?)?;
    let edu = block_on(&cx, Edu::start(cx.clone()))??;
    let (handler, raiser) = (edu.handler()?, edu.raiser());
    for _ in 0..3 {
        raiser.raise();
        handler.serve()?;
    }
    drop(handler);
    block_on(&cx, edu.stop(StopReason::Requested))?;
    Ok(())
}

/// By INTx: once until it is acknowledged, and again while the device asserts it.
fn line(device: &VfioDevice) -> Fallible<()> {
    let manifest = Manifest::new("by-line", Class::OTHER, [0; 3], &[], &[bar(0)]);
    let platform = device.platform_by_line(&manifest)?;
    let cx = DeviceContext::new(platform.clone())?;
    let registers = cx.pci().bar(0, 0, 0x100)?;
    let queue = platform.event_queue()?;
    platform.enable_device()?;
    let interrupt = platform.interrupt(0)?;
    interrupt.bind(&*queue, KEY)?;
    registers.write::<u32>(RAISE, 1);
    expect(&*queue, cx.deadline_in_ms(LIMIT_MS), 1, "raised")?;
    expect(
        &*queue,
        cx.deadline_in_ms(SILENCE_MS),
        0,
        "not acknowledged",
    )?;
    interrupt.acknowledge();
    expect(&*queue, cx.deadline_in_ms(LIMIT_MS), 1, "still asserted")?;
    registers.write::<u32>(ACKNOWLEDGE, 1);
    interrupt.acknowledge();
    expect(&*queue, cx.deadline_in_ms(SILENCE_MS), 0, "released")?;
    Ok(())
}

fn expect(queue: &dyn EventQueue, limit: Deadline, count: usize, when: &str) -> Fallible<()> {
    let mut events = [Event::default(); 2];
    let taken = queue.wait(&mut events, limit)?;
    if taken == count {
        return Ok(());
    }
    Err(format!("{when}: {taken} events, expected {count}").into())
}
