//! The guest's side of a fault campaign: a verified load, and a record of what each fault did.
//!
//! `test-campaign disk:NAME SEED BLOCKS PATIENCE_MS` keeps a load on the first BLOCKS blocks of 4 KiB of a disk,
//! `test-campaign net:NAME SEED BLOCKS PATIENCE_MS` one of echoes on an interface, while the host injects faults, one after the other;
//! see `mailbox.rs` for how the two agree, and `trial.rs` for the course of one. What must be on the disk at the end it prints as
//! `test-endurance` does; the host compares the image.
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
use net_client::Nic;
use proto::devmgr::EndpointsClient;
use rt::{AsHandle, Channel, Deadline, println, startup};

use mailbox::Mailbox;
use test_endurance::load::Load;
use test_endurance::net_load::NetLoad;
use trial::{Injector, Shared};

rt::entry!(main);

const USAGE: i32 = 2;
/// Generations on a line of the journal.
const LINE: usize = 64;
/// How often a session that failed for good is opened again before the run is given up.
const REOPENS_MAX: u32 = 20_000;

struct Options {
    name: String,
    seed: u64,
    blocks: usize,
    patience: Duration,
}

/// A load and what is counted of it.
trait Workload: Sized {
    /// The scheme that its endpoint is found by.
    const SCHEME: &'static str;
    /// Puts it on an endpoint; `before` is one that failed for good.
    fn open(
        options: &Options,
        endpoints: &EndpointsClient,
        before: Option<&Self>,
    ) -> Result<Self, String>;
    /// Keeps it up while `go_on` says so, which is asked after each answer or a few.
    fn keep_up(&mut self, go_on: &mut dyn FnMut(&Self) -> bool) -> Result<(), String>;
    /// Looks whether all is as it must be.
    fn look(&mut self) -> Result<(), String>;
    /// What failed, and what was wrong.
    fn counts(&self) -> (u64, u64);
    /// Tells the host what was done.
    fn tell(&self);
}

fn opened(
    options: &Options,
    endpoints: &EndpointsClient,
) -> Result<(proto::devmgr::EndpointInfo, Channel, Channel), String> {
    let opened = endpoints.open(options.name.as_str());
    opened.map_err(|e| format!("{}: {e}", options.name))
}

impl Workload for Load {
    const SCHEME: &'static str = "disk";

    fn open(
        options: &Options,
        disks: &EndpointsClient,
        before: Option<&Load>,
    ) -> Result<Load, String> {
        let (_, endpoint, name) = opened(options, disks)?;
        let disk = Disk::named(endpoint, name).map_err(|e| format!("{}: {e}", options.name))?;
        let load = Load::new(&disk, options.blocks, options.seed)?;
        Ok(load.counting_errors(options.patience, before.map(Load::written)))
    }

    fn keep_up(&mut self, go_on: &mut dyn FnMut(&Load) -> bool) -> Result<(), String> {
        self.run_watched(go_on)
    }

    fn look(&mut self) -> Result<(), String> {
        self.verify()?;
        self.repair()
    }

    fn counts(&self) -> (u64, u64) {
        (self.totals.failed, self.totals.wrong)
    }

    fn tell(&self) {
        tell(self);
    }
}

impl Workload for NetLoad {
    const SCHEME: &'static str = "net";

    fn open(
        options: &Options,
        interfaces: &EndpointsClient,
        _: Option<&NetLoad>,
    ) -> Result<NetLoad, String> {
        let (_, endpoint, name) = opened(options, interfaces)?;
        let nic = Nic::named(endpoint, name).map_err(|e| format!("{}: {e}", options.name))?;
        NetLoad::new(&nic, options.seed)
    }

    fn keep_up(&mut self, go_on: &mut dyn FnMut(&NetLoad) -> bool) -> Result<(), String> {
        self.run_watched(go_on)
    }

    fn look(&mut self) -> Result<(), String> {
        self.settle()
    }

    fn counts(&self) -> (u64, u64) {
        (0, self.totals.wrong)
    }

    fn tell(&self) {
        let totals = &self.totals;
        println!(
            "load echoes={} repeated={} damaged={}",
            totals.answered, totals.repeated, totals.damaged
        );
    }
}

/// Scheme and options.
fn options() -> Option<(&'static str, Options)> {
    let args = startup::args();
    let number = |index: usize| args.get(index)?.parse::<u64>().ok();
    let (scheme, name) = args.get(1)?.split_once(':')?;
    let options = Options {
        name: name.to_string(),
        seed: number(2)?,
        blocks: number(3).filter(|n| (64..=1 << 20).contains(n))? as usize,
        patience: Duration::from_millis(number(4)?),
    };
    Some((scheme, options))
}

fn main() -> i32 {
    let result = match options() {
        Some((Load::SCHEME, options)) => run::<Load>(&options),
        Some((NetLoad::SCHEME, options)) => run::<NetLoad>(&options),
        _ => {
            println!("usage: test-campaign disk:NAME|net:NAME SEED BLOCKS PATIENCE_MS");
            return USAGE;
        }
    };
    match result {
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

fn run<W: Workload>(options: &Options) -> Result<(), String> {
    let endpoints = EndpointsClient::new(client(W::SCHEME)?);
    let settled = endpoints.wait_settled();
    settled.map_err(|e| format!("{}: {e}", W::SCHEME))?;
    let (info, ..) = opened(options, &endpoints)?;
    let mut load = W::open(options, &endpoints, None)?;
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
            // As far as the load is concerned the device failed for good; what an application does is open it
            // again.
            Err(why) => {
                rt::warn!("load: {why}");
                shared.lost.fetch_add(1, Ordering::Relaxed);
                load = loop {
                    reopens += 1;
                    if reopens > REOPENS_MAX {
                        return Err(format!("it cannot be opened again: {why}"));
                    }
                    match W::open(options, &endpoints, Some(&load)) {
                        Ok(again) => break again,
                        Err(_) => rt::time::sleep(Duration::from_millis(10)),
                    }
                    if shared.over.load(Ordering::Acquire) {
                        return Err(format!("it was not opened again: {why}"));
                    }
                };
            }
        }
    }
    thread
        .join(Deadline::after_secs(1))
        .map_err(|e| format!("thread: {e}"))??;
    load.look()?;
    load.look()?;
    load.tell();
    Ok(())
}

/// Keeps the load up until the injector wants something; `false` when it wants no more.
fn step<W: Workload>(load: &mut W, shared: &Shared) -> Result<bool, String> {
    let mut told = load.counts();
    // A load that was opened anew has counted nothing yet, so differences are told.
    let mut tell = |load: &W| {
        shared.completed.fetch_add(1, Ordering::Relaxed);
        let now = load.counts();
        shared.failed.fetch_add(now.0 - told.0, Ordering::Relaxed);
        shared.wrong.fetch_add(now.1 - told.1, Ordering::Relaxed);
        told = now;
    };
    let result = load.keep_up(&mut |load| {
        tell(load);
        !shared.over.load(Ordering::Acquire) && !shared.check.load(Ordering::Acquire)
    });
    let result = result.and_then(|()| {
        if shared.check.load(Ordering::Acquire) {
            load.look()?;
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
