//! Runs the conformance suite of the block class over the disks of the running system, as their client.
//!
//! `test-conformance DRIVER SEED SHAPE=BLOCKS[:DAMAGED]...` takes the disks of a driver whose serial numbers
//! are `cf-SHAPE` and that were made with so many blocks, stamped (see `ddk_conformance_block::stamp`). Each
//! case prints a line; the status is 0 if none failed.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

mod disk;

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cell::Cell;

use ddk_conformance_block::{Disk, Home, Options, Outcome, Problem, Shape};
use proto::devmgr::EndpointsClient;
use rt::{AsHandle, Channel, println};

use disk::SystemDisk;

rt::entry!(main);

/// A disk as it was made.
struct Made {
    shape: Shape,
    blocks: u64,
    damaged: Option<u64>,
    /// Nobody wrote to it yet.
    untouched: Cell<bool>,
}

/// The running system.
struct System {
    driver: String,
    disks: EndpointsClient,
    made: Vec<Made>,
}

impl Home for System {
    fn open(&mut self, shape: Shape, _: u64) -> Result<Box<dyn Disk + '_>, Problem> {
        let made = self.made.iter().find(|made| made.shape == shape);
        let made = made.ok_or_else(|| Problem::not_offered("the machine has no such disk"))?;
        let serial = format!("cf-{shape}");
        let failed = |error: &dyn core::fmt::Display| Problem::Failed(format!("disks: {error}"));
        let list = self
            .disks
            .list()
            .map_err(|error| failed(&format!("{error:?}")))?;
        for entry in list.iter().filter(|entry| entry.parent.is_none()) {
            let (_, endpoint, _) = self
                .disks
                .open(&entry.name)
                .map_err(|error| failed(&format!("{}: {error:?}", entry.name)))?;
            let disk = block_client::Disk::new(endpoint).map_err(|error| failed(&error))?;
            if disk.info().serial == serial && disk.info().driver == self.driver {
                return Ok(Box::new(SystemDisk::new(disk, made, serial)));
            }
        }
        Err(Problem::Failed(format!(
            "there is no disk {serial} of driver {}",
            self.driver
        )))
    }
}

/// Reads `SHAPE=BLOCKS[:DAMAGED]`.
fn made(text: &str) -> Option<Made> {
    let (shape, numbers) = text.split_once('=')?;
    let (blocks, damaged) = match numbers.split_once(':') {
        Some((blocks, damaged)) => (blocks, Some(damaged.parse().ok()?)),
        None => (numbers, None),
    };
    Some(Made {
        shape: Shape::from_name(shape)?,
        blocks: blocks.parse().ok()?,
        damaged,
        untouched: Cell::new(true),
    })
}

fn main() -> i32 {
    const USAGE: i32 = 2;
    let args: Vec<String> = rt::startup::args()
        .iter()
        .skip(1)
        .map(|a| a.to_string())
        .collect();
    let [driver, seed, disks @ ..] = args.as_slice() else {
        println!("usage: test-conformance DRIVER SEED SHAPE=BLOCKS[:DAMAGED]...");
        return USAGE;
    };
    let (Ok(seed), Some(made)) = (seed.parse(), disks.iter().map(|d| made(d)).collect()) else {
        println!("test-conformance: a seed or a disk that is no number");
        return USAGE;
    };
    let scheme = rt::startup::handle::<Channel>("disk").map(AsHandle::duplicate);
    let Some(Ok(scheme)) = scheme else {
        println!("test-conformance: no access to the service 'disk'");
        return USAGE;
    };
    let disks = EndpointsClient::new(scheme);
    if let Err(error) = disks.wait_settled() {
        println!("test-conformance: disks: {error:?}");
        return USAGE;
    }
    let mut system = System {
        driver: driver.clone(),
        disks,
        made,
    };
    let options = Options { seed, filter: None };
    let (mut ran, mut failed) = (0, 0);
    ddk_conformance_block::run(&mut system, &options, &mut |case, outcome| match outcome {
        Outcome::Passed => {
            ran += 1;
            println!("passed {case}");
        }
        Outcome::Failed(what) => {
            ran += 1;
            failed += 1;
            println!("FAILED {case}: {what}");
        }
        Outcome::NotRun(reason) => println!("not run {case}: {reason}"),
    });
    i32::from(failed > 0 || ran == 0)
}
