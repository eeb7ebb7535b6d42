//! Drivers as processes of a Linux guest, on QEMU's devices behind an emulated IOMMU.
//!
//! The programs are examples of `ddk-backend-vfio`; what `vfio-disk` says it read and wrote
//! is compared with the images here.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use sha2::{Digest, Sha256};

use super::Tally;
use crate::build;
use crate::guest::Outcome;
use crate::linux::vfio::{self, Task};

const TIME_LIMIT: Duration = Duration::from_secs(240);
const IMAGE_BYTES: usize = 4 << 20;
/// What `vfio-disk` hashes and overwrites.
const HASHED_BYTES: usize = 1 << 20;
const WRITTEN_FROM: u64 = 64 << 10;
const WRITTEN_BYTES: u32 = 40 << 10;

/// A device, and its disks.
struct Test {
    name: &'static str,
    /// The example of `ddk-backend-vfio` that drives it.
    program: &'static str,
    /// The driver's name.
    driver: &'static str,
    device: &'static str,
    /// Devices that hang on that one, `{}` standing for the disk's node.
    below: &'static [&'static str],
    block_bytes: &'static [u64],
    /// What the program prints when it got so far.
    milestones: &'static [&'static str],
}

const TESTS: &[Test] = &[
    Test {
        name: "vfio-virtio-blk",
        program: "vfio-disk",
        driver: "virtio-blk",
        device: "virtio-blk-pci,drive=d0,disable-legacy=on,iommu_platform=on",
        below: &[],
        block_bytes: &[512],
        milestones: &[
            "0000:00:10.0 virtio-blk contained, driver 1 done",
            "0000:00:10.0 virtio-blk contained, driver 2 done",
        ],
    },
    Test {
        name: "vfio-nvme",
        program: "vfio-disk",
        driver: "nvme",
        device: "nvme,id=nvme0,serial=vfio",
        below: &[
            "nvme-ns,bus=nvme0,drive=d0",
            "nvme-ns,bus=nvme0,drive=d1,logical_block_size=4096,physical_block_size=4096",
        ],
        block_bytes: &[512, 4096],
        milestones: &[
            "0000:00:10.0 nvme contained, driver 1 done",
            "0000:00:10.0 nvme contained, driver 2 done",
        ],
    },
    Test {
        name: "vfio-edu",
        program: "vfio-edu",
        driver: "edu",
        device: "edu",
        below: &[],
        block_bytes: &[],
        milestones: &["0000:00:10.0 messages done", "0000:00:10.0 line done"],
    },
];

/// Runs the level.
///
/// # Errors
///
/// When the folder for its files cannot be had.
pub(super) fn run(filter: Option<&str>) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    let wanted = |test: &&Test| filter.is_none_or(|filter| test.name.contains(filter));
    let tests: Vec<&Test> = TESTS.iter().filter(wanted).collect();
    if tests.is_empty() {
        return Ok(tally);
    }
    if let Some(reason) = vfio::obstacle() {
        for test in tests {
            tally.skip(test.name, &reason);
        }
        return Ok(tally);
    }
    let folder = build::target_folder("vfio")?;
    for test in tests {
        tally.check(test.name, || test.run(&folder));
    }
    Ok(tally)
}

impl Test {
    fn run(&self, folder: &Path) -> anyhow::Result<()> {
        let built = vfio::build_static(&["ddk-backend-vfio"])?;
        let program = built
            .get(self.program)
            .with_context(|| format!("{} was not built", self.program))?;
        let files = tempfile::tempdir_in(folder)?;
        let mut task = Task {
            program: program.clone(),
            arguments: Vec::new(),
            machine: Vec::new(),
            devices: vec![self.device.to_owned()],
            below: self.below.iter().map(ToString::to_string).collect(),
            cpus: 2,
            time_limit: TIME_LIMIT,
        };
        let mut contents = Vec::new();
        for (number, _) in self.block_bytes.iter().enumerate() {
            let image = files.path().join(format!("{number}.img"));
            let bytes = image_bytes(number);
            fs::write(&image, &bytes)?;
            task.machine.extend([
                "-blockdev".to_owned(),
                format!(
                    "driver=raw,node-name=d{number},file.driver=file,file.filename={}",
                    image.display()
                ),
            ]);
            contents.push((image, bytes));
        }
        let report = vfio::run(&task, folder)?;
        fs::write(folder.join(format!("{}.output", self.name)), &report.output)?;
        fs::write(folder.join(format!("{}.log", self.name)), &report.log)?;
        ensure!(
            report.outcome == Outcome::Exit(0),
            "ended with {:?}; last words: {}",
            report.outcome,
            report.log.lines().last().unwrap_or_default()
        );
        for (number, ((image, before), block)) in contents.iter().zip(self.block_bytes).enumerate()
        {
            let disk = format!("0000:00:10.0 {} {number}", self.driver);
            let news = news(number);
            let mut after = before.clone();
            let written = WRITTEN_FROM as usize..WRITTEN_FROM as usize + news.len();
            after
                .get_mut(written)
                .context("the image is too short")?
                .copy_from_slice(&news);
            // The first driver reads what was there, the second what the first wrote.
            for bytes in [before, &after] {
                let hashed = bytes
                    .get(..HASHED_BYTES)
                    .context("the image is too short")?;
                expect_line(
                    &report.output,
                    &format!("{disk} sha256={:x}", Sha256::digest(hashed)),
                )?;
            }
            let size = format!("{disk} blocks={} block={block}", IMAGE_BYTES as u64 / block);
            expect_line(&report.output, &size)?;
            let mut found = vec![0; news.len()];
            fs::File::open(image)?.read_exact_at(&mut found, WRITTEN_FROM)?;
            ensure!(found == news, "{}: not what was written", image.display());
            ensure!(
                fs::read(image)? == after,
                "{}: changed elsewhere",
                image.display()
            );
        }
        for line in self.milestones {
            expect_line(&report.output, line)?;
        }
        Ok(())
    }
}

/// An image, each with other bytes.
fn image_bytes(number: usize) -> Vec<u8> {
    let seed = number as u32 + 1;
    let words = (0..IMAGE_BYTES as u32 / 4)
        .flat_map(|n| n.wrapping_mul(0x9e37_79b1).wrapping_add(seed).to_le_bytes());
    words.collect()
}

/// What `vfio-disk` writes to its disk `number`.
fn news(number: usize) -> Vec<u8> {
    (0..WRITTEN_BYTES)
        .map(|n| (n / 251) as u8 ^ n as u8 ^ number as u8)
        .collect()
}

fn expect_line(output: &str, line: &str) -> anyhow::Result<()> {
    ensure!(
        output.lines().any(|seen| seen == line),
        "the program did not print {line:?}"
    );
    Ok(())
}
