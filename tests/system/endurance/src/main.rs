//! A verified load on a disk while its driver is killed.
//!
//! `test-endurance DISK KILLS SEED [BLOCKS [LIFE_US [EARLY_ONE_IN]]]` loads the first BLOCKS blocks of 4 KiB, which are zero, with
//! random reads, writes and flushes at depth 32, kills the driver KILLS times after at most LIFE_US
//! microseconds of service each, reads everything back, and prints what was done and, for an
//! independent check, the generation of every block (`journal FIRST G G G ...`).
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

mod killer;

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;

use block_client::Disk;
use proto::devmgr::EndpointsClient;
use rt::{AsHandle, Channel, Deadline, println, startup, time};

use killer::Killer;
use test_endurance::load::Load;
use test_endurance::random::Random;

rt::entry!(main);

const USAGE: i32 = 2;
/// Generations on a line of the journal.
const LINE: usize = 64;

struct Options {
    disk: String,
    kills: u32,
    seed: u64,
    blocks: usize,
    life_us: u64,
    early_one_in: u32,
}

fn options() -> Option<Options> {
    let args = startup::args();
    let number = |index: usize, default: Option<u64>| match args.get(index) {
        Some(text) => text.parse().ok(),
        None => default,
    };
    Some(Options {
        disk: args.get(1)?.to_string(),
        kills: number(2, None)?.try_into().ok()?,
        seed: number(3, None)?,
        blocks: number(4, Some(2048)).filter(|n| (64..=1 << 20).contains(n))? as usize,
        life_us: number(5, Some(20_000))?,
        early_one_in: number(6, Some(8)).filter(|n| *n > 0)?.try_into().ok()?,
    })
}

fn main() -> i32 {
    let Some(options) = options() else {
        println!("usage: test-endurance DISK KILLS SEED [BLOCKS [LIFE_US [EARLY_ONE_IN]]]");
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
    let mut load = Load::new(&disk, options.blocks, options.seed)?;
    let killer = Killer {
        tree: client("dev")?.into(),
        processes: client("proc")?.into(),
        node: info.node,
        kills: options.kills,
        longest_life: Duration::from_micros(options.life_us),
        early_one_in: options.early_one_in,
        random: Random::new(!options.seed),
    };
    let started = time::now_ns();
    let over = Arc::new(AtomicBool::new(false));
    let told = over.clone();
    let mut thread = rt::thread::builder("killer")
        .spawn(move || {
            let result = killer.run();
            told.store(true, Ordering::Release);
            result
        })
        .map_err(|e| format!("thread: {e}"))?;
    load.run(|| !over.load(Ordering::Acquire))?;
    let kills = thread
        .join(Deadline::after_secs(1))
        .map_err(|e| format!("thread: {e}"))??;
    let elapsed_ns = time::now_ns().saturating_sub(started);
    load.verify()?;
    tell(&load, kills, elapsed_ns);
    Ok(())
}

fn tell(load: &Load, kills: u32, elapsed_ns: u64) {
    let totals = &load.totals;
    let mut gaps = totals.gaps_ns.clone();
    gaps.sort_unstable();
    let percentile = |percent: usize| {
        let at = (gaps.len().saturating_sub(1)) * percent / 100;
        gaps.get(at).copied().unwrap_or(0) / 1000
    };
    println!(
        "load kills={kills} reads={} writes={} flushes={} recoveries={} elapsed-ms={}",
        totals.reads,
        totals.writes,
        totals.flushes,
        totals.recoveries,
        elapsed_ns / 1_000_000
    );
    println!(
        "gap-us p50={} p99={} max={} n={}",
        percentile(50),
        percentile(99),
        percentile(100),
        gaps.len()
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
