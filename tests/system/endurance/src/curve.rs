//! Throughput of a disk while its driver is killed at intervals.
//!
//! `test-curve DISK SEED SECONDS ROUNDS INTERVAL_MS...` keeps the verified load up for SECONDS at each interval (0: nobody
//! is killed), all of them in turns, ROUNDS times, and prints a line for each.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;

use block_client::Disk;
use proto::devmgr::{DeviceTreeClient, EndpointsClient};
use proto::proc::ProcessesClient;
use rt::{AsHandle, Channel, Deadline, println, startup, time};
use test_endurance::load::Load;

rt::entry!(main);

const USAGE: i32 = 2;
/// Blocks of 4 KiB under load.
const BLOCKS: usize = 2048;
/// How often the killer looks whether the run is over.
const LOOK_NS: u64 = 5_000_000;

struct Options {
    disk: String,
    seed: u64,
    seconds: u64,
    rounds: u64,
    intervals_ms: Vec<u64>,
}

fn options() -> Option<Options> {
    let args = startup::args();
    let number = |index: usize| args.get(index)?.parse::<u64>().ok();
    let intervals = args.get(5..)?.iter().map(|text| text.parse().ok());
    Some(Options {
        disk: args.get(1)?.to_string(),
        seed: number(2)?,
        seconds: number(3)?,
        rounds: number(4)?,
        intervals_ms: intervals.collect::<Option<_>>()?,
    })
}

fn main() -> i32 {
    let Some(options) = options() else {
        println!("usage: test-curve DISK SEED SECONDS ROUNDS INTERVAL_MS...");
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

fn run(options: &Options) -> Result<(), String> {
    let disks = EndpointsClient::new(client("disk")?);
    disks.wait_settled().map_err(|e| format!("disks: {e}"))?;
    let opened = disks.open(options.disk.as_str());
    let (info, endpoint, name) = opened.map_err(|e| format!("{}: {e}", options.disk))?;
    let disk = Disk::named(endpoint, name).map_err(|e| format!("{}: {e}", options.disk))?;
    let mut load = Load::new(&disk, BLOCKS, options.seed)?;
    for round in 0..options.rounds {
        for interval_ms in &options.intervals_ms {
            let killer = Killer {
                tree: client("dev")?.into(),
                processes: client("proc")?.into(),
                node: info.node.clone(),
                interval_ms: *interval_ms,
            };
            let over = Arc::new(AtomicBool::new(false));
            let told = over.clone();
            let mut thread = rt::thread::builder("killer")
                .spawn(move || killer.run(&told))
                .map_err(|e| format!("thread: {e}"))?;
            let before = [
                load.totals.reads,
                load.totals.writes,
                load.totals.recoveries,
            ];
            let started = time::now_ns();
            let end = Deadline::after_secs(options.seconds);
            load.run(|| !end.has_passed())?;
            let elapsed_ns = time::now_ns().saturating_sub(started);
            over.store(true, Ordering::Release);
            let kills = thread
                .join(Deadline::after_secs(60))
                .map_err(|e| format!("thread: {e}"))??;
            let after = [
                load.totals.reads,
                load.totals.writes,
                load.totals.recoveries,
            ];
            println!(
                "point round={round} interval-ms={interval_ms} requests={} kills={kills} recoveries={} elapsed-us={}",
                after[0] + after[1] - before[0] - before[1],
                after[2] - before[2],
                elapsed_ns / 1000,
            );
            rt::io::flush().map_err(|e| format!("output: {e}"))?;
        }
    }
    load.verify()
}

struct Killer {
    tree: DeviceTreeClient,
    processes: ProcessesClient,
    node: String,
    interval_ms: u64,
}

impl Killer {
    /// Kills at each multiple of the interval; gives the number of processes that it ended.
    fn run(self, over: &AtomicBool) -> Result<u32, String> {
        let mut ended = 0;
        let interval_ns = self.interval_ms * 1_000_000;
        // The first one comes at half of the interval, so that a run has as many as its length says.
        let mut next = time::now_ns() + interval_ns / 2;
        while !over.load(Ordering::Acquire) {
            if interval_ns == 0 || time::now_ns() < next {
                time::sleep(Duration::from_nanos(LOOK_NS));
                continue;
            }
            next += interval_ns;
            let node = self.tree.node(self.node.as_str());
            let pid = node.map_err(|e| format!("devmgr: {e}"))?.summary.pid;
            if pid.is_some_and(|pid| self.processes.kill(pid, 9).is_ok()) {
                ended += 1;
            }
        }
        Ok(ended)
    }
}
