//! The guest's side of a fault campaign: a verified load, and a record of what each fault did.
//!
//! `test-campaign DISK SEED BLOCKS PATIENCE_MS` keeps a load on the first BLOCKS blocks of 4 KiB while the host injects
//! faults, one after the other; see `mailbox.rs` for how the two agree, and `trial.rs` for the course of one.
//! What must be on the disk at the end it prints as `test-endurance` does; the host compares the image.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

mod mailbox;
mod trial;

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use core::sync::atomic::Ordering;
use core::time::Duration;

use block_client::Disk;
use proto::devmgr::EndpointsClient;
use rt::{AsHandle, Channel, Deadline, println, startup};

use mailbox::Mailbox;
use test_endurance::load::Load;
use trial::{Injector, Shared};

rt::entry!(main);

const USAGE: i32 = 2;
/// Generations on a line of the journal.
const LINE: usize = 64;
/// How often a session that failed for good is opened again before the run is given up.
const REOPENS_MAX: u32 = 20_000;

struct Options {
    disk: String,
    seed: u64,
    blocks: usize,
    patience: Duration,
}

fn options() -> Option<Options> {
    let args = startup::args();
    let number = |index: usize| args.get(index)?.parse::<u64>().ok();
    Some(Options {
        disk: args.get(1)?.to_string(),
        seed: number(2)?,
        blocks: number(3).filter(|n| (64..=1 << 20).contains(n))? as usize,
        patience: Duration::from_millis(number(4)?),
    })
}

fn main() -> i32 {
    let Some(options) = options() else {
        println!("usage: test-campaign DISK SEED BLOCKS PATIENCE_MS");
        return USAGE;
    };
    match run(&options) {
        Ok(()) => 0,
        Err(why) => {
            println!("FAILED {why}");
            1
        }
    }
}

fn client(name: &str) -> Result<Channel, String> {
    let channel = startup::handle::<Channel>(name).ok_or(format!("no access to {name:?}"))?;
    channel.duplicate().map_err(|e| format!("{name}: {e}"))
}

/// Opens the disk and puts a load on it; `written` as in [`Load::counting_errors`].
fn open(options: &Options, disks: &EndpointsClient, written: Option<u64>) -> Result<Load, String> {
    let what = |e: &dyn core::fmt::Display| format!("{}: {e}", options.disk);
    let (_, endpoint, name) = disks.open(options.disk.as_str()).map_err(|e| what(&e))?;
    let disk = Disk::named(endpoint, name).map_err(|e| what(&e))?;
    let load = Load::new(&disk, options.blocks, options.seed)?;
    Ok(load.counting_errors(options.patience, written))
}

fn run(options: &Options) -> Result<(), String> {
    let disks = EndpointsClient::new(client("disk")?);
    disks.wait_settled().map_err(|e| format!("disks: {e}"))?;
    let (info, ..) = disks
        .open(options.disk.as_str())
        .map_err(|e| format!("{e}"))?;
    let mut load = open(options, &disks, None)?;
    let shared = Arc::new(Shared::default());
    let injector = Injector {
        tree: client("dev")?.into(),
        admin: client("drv")?.into(),
        processes: client("proc")?.into(),
        mailbox: Mailbox::open()?,
        node: info.node,
        shared: shared.clone(),
    };
    let mut thread = rt::thread::builder("injector")
        .spawn(move || injector.run())
        .map_err(|e| format!("thread: {e}"))?;
    let mut reopens = 0;
    loop {
        match step(&mut load, &shared) {
            Ok(true) => {}
            Ok(false) => break,
            // As far as the load is concerned the disk failed for good; what an application does is open it
            // again.
            Err(why) => {
                rt::warn!("load: {why}");
                shared.lost.fetch_add(1, Ordering::Relaxed);
                load = loop {
                    reopens += 1;
                    if reopens > REOPENS_MAX {
                        return Err(format!("the disk cannot be opened again: {why}"));
                    }
                    match open(options, &disks, Some(load.written())) {
                        Ok(again) => break again,
                        Err(_) => rt::time::sleep(Duration::from_millis(10)),
                    }
                    if shared.over.load(Ordering::Acquire) {
                        return Err(format!("the disk was not opened again: {why}"));
                    }
                };
            }
        }
    }
    thread
        .join(Deadline::after_secs(1))
        .map_err(|e| format!("thread: {e}"))??;
    load.repair()?;
    load.verify()?;
    tell(&load);
    Ok(())
}

/// Keeps the load up until the injector wants something; `false` when it wants no more.
fn step(load: &mut Load, shared: &Shared) -> Result<bool, String> {
    let (failed, wrong) = (load.totals.failed, load.totals.wrong);
    let mut told = (failed, wrong);
    // A load that was opened anew has counted nothing yet, so differences are told.
    let mut tell = |load: &Load| {
        shared.completed.fetch_add(1, Ordering::Relaxed);
        let now = (load.totals.failed, load.totals.wrong);
        shared.failed.fetch_add(now.0 - told.0, Ordering::Relaxed);
        shared.wrong.fetch_add(now.1 - told.1, Ordering::Relaxed);
        told = now;
    };
    let result = load.run_watched(|load| {
        tell(load);
        !shared.over.load(Ordering::Acquire) && !shared.check.load(Ordering::Acquire)
    });
    let result = result.and_then(|()| {
        if shared.check.load(Ordering::Acquire) {
            load.verify()?;
            load.repair()?;
        }
        Ok(())
    });
    tell(load);
    result?;
    shared.check.store(false, Ordering::Release);
    Ok(!shared.over.load(Ordering::Acquire))
}

fn tell(load: &Load) {
    let totals = &load.totals;
    println!(
        "load reads={} writes={} flushes={} recoveries={}",
        totals.reads, totals.writes, totals.flushes, totals.recoveries,
    );
    for (line, generations) in load.generations().chunks(LINE).enumerate() {
        let mut text = format!("journal {}", line * LINE);
        for generation in generations {
            text.push(' ');
            text.push_str(&generation.to_string());
        }
        println!("{text}");
    }
    println!("journal-end {}", load.generations().len());
}
