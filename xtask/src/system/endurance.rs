//! A driver is killed again and again under a verified load at full depth, with reads, writes and flushes
//! in flight: nothing fails, nothing is lost, torn or repeated, and nothing is left behind.
//!
//! Three judges: the load compares every read with what must be there; a second process in the guest, which
//! shares no code with the client library, reads the disk back; and the host reads the image afterwards.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use serde_json::json;

use super::{Report, SystemTest};
use crate::build;
use crate::guest::disk::{Access, Bus, Disk};

/// Bytes of a block of the region.
const BLOCK: usize = 4096;
/// Blocks of the region, at the start of the disk.
const BLOCKS: usize = 2048;
/// The disk is larger than the region, so that a stray write has somewhere to go.
const DISK_BYTES: u64 = 32 << 20;
const MAGIC: u64 = u64::from_le_bytes(*b"ENDURE01");

/// A run.
#[derive(Clone, Debug)]
pub struct Trial {
    /// Name of the driver, `virtio-blk` or `nvme`.
    pub driver: &'static str,
    /// Processors.
    pub cpus: u32,
    /// How often the driver is killed.
    pub kills: u32,
    /// Seed of load and deaths.
    pub seed: u64,
    /// Longest service of an incarnation in microseconds.
    pub life_us: u32,
}

/// Drivers with the bus that QEMU needs for them and the name of their first disk.
pub const DRIVERS: [(&str, Bus, &str); 2] = [
    ("virtio-blk", Bus::Virtio, "virtio0"),
    ("nvme", Bus::Nvme, "nvme0n1"),
];

/// What a run showed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Requests that completed: reads, writes, flushes.
    pub requests: [u64; 3],
    /// Processes that were ended.
    pub kills: u64,
    /// Times that the session went on with another incarnation.
    pub recoveries: u64,
    /// Gap of service in microseconds: p50, p99, longest.
    pub gap_us: [u64; 3],
    /// Length of the run in milliseconds.
    pub elapsed_ms: u64,
}

impl Findings {
    /// For `--json`.
    pub fn json(&self, trial: &Trial) -> serde_json::Value {
        json!({
            "class": "kill",
            "driver": trial.driver,
            "seed": trial.seed,
            "cpus": trial.cpus,
            "injected": trial.kills,
            "activated": self.kills,
            "manifested": self.recoveries,
            "recovered": self.recoveries,
            "workload_correct": true,
            "reads": self.requests[0],
            "writes": self.requests[1],
            "flushes": self.requests[2],
            "gap_us": { "p50": self.gap_us[0], "p99": self.gap_us[1], "max": self.gap_us[2] },
            "elapsed_ms": self.elapsed_ms,
        })
    }
}

/// The number after `KEY=` in a line of words.
fn number(line: &str, key: &str) -> anyhow::Result<u64> {
    let word = line
        .split(' ')
        .find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    let word = word.with_context(|| format!("no {key}= in {line:?}"))?;
    word.parse().with_context(|| format!("{key}={word}"))
}

impl Trial {
    fn image(&self) -> anyhow::Result<PathBuf> {
        let folder = build::target_folder("endurance")?;
        Ok(folder.join(format!("{}-{}-{}.img", self.driver, self.cpus, self.seed)))
    }

    /// The machine, the script, and the judges.
    ///
    /// # Errors
    /// When the image cannot be made, or there is no such driver.
    pub fn test(&self, name: String) -> anyhow::Result<SystemTest> {
        let known = DRIVERS.iter().find(|(driver, ..)| *driver == self.driver);
        let (_, bus, disk_name) = known.with_context(|| format!("no driver {:?}", self.driver))?;
        let image = self.image()?;
        fs::File::create(&image)?.set_len(DISK_BYTES)?;
        let Trial {
            kills,
            seed,
            life_us,
            ..
        } = self;
        let script = format!(
            "drv policy {disk_name} budget=4294967295 pause-min-ms=0 pause-max-ms=0\n\
             drv restart {disk_name}; sleep 1\n\
             echo '== counts before'; kernstat -l\n\
             echo '== load'\n\
             test-endurance {disk_name} {kills} {seed} {BLOCKS} {life_us} | test-endurance-check {disk_name}\n\
             echo \"status $?\"\n\
             echo '== counts after'; kernstat -l\n\
             true\n"
        );
        let disk = Disk {
            bus: *bus,
            ..Disk::new(&image, Access::ReadWrite)
        };
        let trial = self.clone();
        let check = move |report: &Report| trial.findings(report).map(drop);
        // A death costs some 20 ms on an idle host; a busy one is given fifty times that.
        let limit = 240 + u64::from(*kills);
        Ok(SystemTest::new(name, script, check)
            .cpus(self.cpus)
            .reliable()
            .disks([disk])
            .time_limit(limit))
    }

    /// What a report says, if all judges are content.
    ///
    /// # Errors
    /// The first judge's complaint.
    pub fn findings(&self, report: &Report) -> anyhow::Result<Findings> {
        report.expect_status(0)?;
        let load = report.section("load")?;
        if let Some(line) = load.lines().find(|line| line.starts_with("FAILED")) {
            bail!("{line}");
        }
        let line = |start: &str| {
            let found = load.lines().find(|line| line.starts_with(start));
            found.with_context(|| format!("no line {start:?} in {load:?}"))
        };
        line("checked 2048 blocks: all as the journal says")?;
        line("status 0")?;
        let (done, gaps) = (line("load ")?, line("gap-us ")?);
        let findings = Findings {
            requests: [
                number(done, "reads")?,
                number(done, "writes")?,
                number(done, "flushes")?,
            ],
            kills: number(done, "kills")?,
            recoveries: number(done, "recoveries")?,
            gap_us: [
                number(gaps, "p50")?,
                number(gaps, "p99")?,
                number(gaps, "max")?,
            ],
            elapsed_ms: number(done, "elapsed-ms")?,
        };
        // Deaths while the driver starts are not seen by the session one by one.
        ensure!(
            findings.recoveries >= u64::from(self.kills) / 2,
            "{} recoveries of {} deaths",
            findings.recoveries,
            self.kills
        );
        check_image(&self.image()?, load, BLOCKS)?;
        check_counts(report)?;
        fs::remove_file(self.image()?)?;
        Ok(findings)
    }
}

/// Compares what the kernel holds before and after.
pub(super) fn check_counts(report: &Report) -> anyhow::Result<()> {
    let (before, after) = (
        report.section("counts before")?,
        report.section("counts after")?,
    );
    let changed: Vec<String> = before
        .lines()
        .zip(after.lines())
        .filter(|(before, after)| before != after && !before.starts_with("used-bytes"))
        .map(|(before, after)| format!("{before} before, {after} after"))
        .collect();
    ensure!(
        before.lines().count() > 10,
        "kernstat told little: {before:?}"
    );
    ensure!(changed.is_empty(), "left behind: {}", changed.join("; "));
    Ok(())
}

/// The host's look at the image: every block of the region as the journal says, zeroes behind it.
pub fn check_image(image: &Path, load: &str, blocks: usize) -> anyhow::Result<()> {
    let mut journal: Vec<u64> = Vec::new();
    for line in load
        .lines()
        .filter_map(|line| line.strip_prefix("journal "))
    {
        for generation in line.split(' ').skip(1) {
            journal.push(generation.parse().context("journal")?);
        }
    }
    ensure!(
        journal.len() == blocks,
        "the journal has {} blocks",
        journal.len()
    );
    let bytes = fs::read(image)?;
    for (number, block) in bytes.chunks_exact(BLOCK).enumerate() {
        let generation = journal.get(number).copied().unwrap_or(0);
        let words = block
            .chunks_exact(8)
            .map(|word| u64::from_le_bytes(word.try_into().expect("8 bytes")));
        let right = if generation == 0 {
            block.iter().all(|byte| *byte == 0)
        } else {
            words
                .zip(stamp(number as u64, generation))
                .all(|(found, expected)| found == expected)
        };
        ensure!(
            right,
            "image, block {number}: generation {generation} is not there"
        );
    }
    Ok(())
}

/// The words of a block as the load writes them.
fn stamp(number: u64, generation: u64) -> impl Iterator<Item = u64> {
    let seed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ generation.rotate_left(32);
    let rest =
        (3..).map(move |index: u64| (seed ^ index << 48).wrapping_mul(0xff51_afd7_ed55_8ccd));
    [MAGIC, number, generation].into_iter().chain(rest)
}

pub(super) fn tests() -> anyhow::Result<Vec<SystemTest>> {
    [
        ("virtio-blk", 1, 1),
        ("virtio-blk", 4, 2),
        ("nvme", 1, 3),
        ("nvme", 4, 4),
    ]
    .into_iter()
    .map(|(driver, cpus, seed)| {
        let trial = Trial {
            driver,
            cpus,
            kills: 40,
            seed,
            life_us: 20_000,
        };
        trial.test(format!("endurance-{driver}-cpus-{cpus}"))
    })
    .collect()
}
