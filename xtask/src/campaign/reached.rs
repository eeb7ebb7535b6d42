//! Where a driver comes along: its code that runs when it starts, and its code that runs while it serves.
//!
//! A fault in code that never runs says nothing, and most code of a program never runs in one load. One boot under a plugin of
//! QEMU's (`xtask/plugin/reached.c`) tells it apart. What it found is kept beside the driver it is about, so that a seed means
//! the same faults from run to run.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};
use sha2::{Digest, Sha256};

use super::subject::Subject;
use crate::bench::measure;
use crate::build::Built;
use crate::guest::Outcome;
use crate::system::SystemTest;

/// Restarts of the driver in the boot that finds out.
const RESTARTS: u64 = 12;
/// Code that ran so much more often than the driver started serves.
const SERVES: u64 = 20;
const DISK_BYTES: u64 = 32 << 20;
/// Echoes of an interface in that boot.
const ECHOES: u32 = 20_000;

/// Addresses of blocks of code and their lengths in bytes.
#[derive(Clone, Debug, Default)]
pub struct Reached {
    /// What runs when the driver starts or is rarely wanted.
    pub rare: Vec<(u64, u64)>,
    /// What runs all the time.
    pub often: Vec<(u64, u64)>,
}

impl Reached {
    /// From the file that is kept, or from a boot.
    ///
    /// # Errors
    /// When the boot fails.
    pub fn find(
        built: &Built,
        subject: Subject,
        program: &Path,
        folder: &Path,
    ) -> anyhow::Result<Reached> {
        let Subject { name, endpoint, .. } = subject;
        let bytes = fs::read(program)?;
        let hash = Sha256::digest(&bytes);
        let kept = folder.join(format!(
            "reached-{name}-{:02x}{:02x}{:02x}{:02x}",
            hash[0], hash[1], hash[2], hash[3]
        ));
        if !kept.exists() {
            eprintln!("xtask: {name}: looking where its code runs");
            let image = folder.join(format!("reached-{name}.img"));
            let _ = fs::remove_file(&image);
            fs::File::create(&image)?.set_len(DISK_BYTES)?;
            let out = folder.join(format!("reached-{name}.out"));
            let plugin = measure::compile_plugin("reached")?;
            let argument = format!("{},out={}", plugin.display(), out.display());
            let load = if subject.is_disk() {
                format!("test-endurance {endpoint} {RESTARTS} 1 2048 100000\n")
            } else {
                format!(
                    "test-net {endpoint} {ECHOES} 1000 16 & sleep 1\n\
                     for n in {}; do drv restart {endpoint} > /dev/null; sleep 0.3; done\nwait\n",
                    (1..=RESTARTS)
                        .map(|n| n.to_string())
                        .collect::<Vec<_>>()
                        .join(" ")
                )
            };
            let script = format!(
                "{}drv policy {endpoint} budget=4294967295 pause-min-ms=0 pause-max-ms=0\n{load}",
                subject.make_room()
            );
            let mut devices = vec!["-plugin".to_owned(), argument];
            devices.extend(subject.arguments(false));
            let devices: Vec<&str> = devices.iter().map(String::as_str).collect();
            let test = SystemTest::measurement(format!("reached-{name}"), script)
                .cpus(2)
                .in_turn()
                .disks(subject.disk(&image))
                .devices(&devices)
                .time_limit(300);
            let report = test.execute(built, folder)?;
            ensure!(
                report.outcome == Outcome::Exit(0),
                "{name}: under the plugin the machine ended with {:?}",
                report.outcome
            );
            let done = if subject.is_disk() {
                "journal-end".to_owned()
            } else {
                format!("answered {ECHOES}")
            };
            ensure!(
                !report.console.contains("FAILED") && report.console.contains(&done),
                "{name}: the load failed under the plugin"
            );
            fs::remove_file(&image)?;
            fs::rename(&out, &kept)?;
        }
        parse(&fs::read_to_string(&kept)?, program)
    }
}

fn parse(text: &str, program: &Path) -> anyhow::Result<Reached> {
    let segments = super::mutation::segments(program)?;
    let mut blocks: BTreeMap<(u64, u64), u64> = BTreeMap::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [address, length, code, count] = words[..] else {
            continue;
        };
        let address = u64::from_str_radix(address, 16).context("address")?;
        let length: u64 = length.parse().context("length")?;
        let here = segments.iter().find_map(|(start, bytes)| {
            let at = usize::try_from(address.checked_sub(*start)?).ok()?;
            bytes.get(at..)
        });
        // Other programs have other code at the same address.
        let same = here.is_some_and(|here| {
            (0..code.len() / 2).all(|n| {
                let byte = u8::from_str_radix(&code[2 * n..2 * n + 2], 16).ok();
                byte.is_some() && here.get(n).copied() == byte
            })
        });
        if same {
            *blocks.entry((address, length)).or_default() += count.parse::<u64>()?;
        }
    }
    let mut reached = Reached::default();
    for (block, count) in blocks {
        if count > SERVES * RESTARTS {
            reached.often.push(block);
        } else {
            reached.rare.push(block);
        }
    }
    ensure!(
        !reached.often.is_empty(),
        "no code of the driver was seen to run"
    );
    Ok(reached)
}
