//! The microkernel's home: a booted system with a disk of each shape, `test-conformance` as their client, and
//! the host's own look at the images afterwards.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use ddk_conformance_block::{LAST_GENERATION, Shape, last_blocks, stamp};
use serde_json::json;

use super::Verdict;
use crate::build::{self, ArchiveExtras, Profile};
use crate::guest::{self, Machine, Outcome, Streams};
use crate::setup;

/// How long the suite may take in a machine under emulation, beside other work.
const TIME_LIMIT: Duration = Duration::from_secs(900);
/// CPUs of the machine, and so queues of each device.
const CPUS: u32 = 2;
/// The block of the damaged disk that can be neither read nor written.
const DAMAGED: u64 = 4321;

/// A disk of the machine.
struct ScratchDisk {
    shape: Shape,
    blocks: u64,
    file: PathBuf,
}

impl ScratchDisk {
    fn new(shape: Shape, folder: &Path) -> anyhow::Result<Self> {
        let blocks = match shape {
            Shape::LargeBlocks => 1024,
            Shape::Odd => 1001,
            _ => 8192,
        };
        let disk = Self {
            shape,
            blocks,
            file: folder.join(format!("{shape}.img")),
        };
        let size = disk.block_size();
        let mut image = vec![0; blocks as usize * size];
        for (lba, block) in image.chunks_mut(size).enumerate() {
            stamp::write(block, lba as u64, 0);
        }
        fs::write(&disk.file, image)
            .with_context(|| format!("cannot write {}", disk.file.display()))?;
        Ok(disk)
    }

    fn block_size(&self) -> usize {
        if self.shape == Shape::LargeBlocks {
            4096
        } else {
            512
        }
    }

    /// The argument of `test-conformance`.
    fn argument(&self) -> String {
        match self.shape {
            Shape::Damaged => format!("{}={}:{DAMAGED}", self.shape, self.blocks),
            _ => format!("{}={}", self.shape, self.blocks),
        }
    }

    /// QEMU's arguments.
    fn machine_arguments(&self, device: &str) -> Vec<String> {
        let shape = self.shape;
        let read_only = shape == Shape::ReadOnly;
        let mut below = format!("{shape}-file");
        let mut nodes = vec![json!({
            "driver": "file",
            "node-name": below,
            "filename": self.file,
            "read-only": read_only,
            "discard": "unmap",
        })];
        if shape == Shape::Damaged {
            const INPUT_OUTPUT_ERROR: u32 = 5;
            let rule = |kind: &str| {
                json!({
                    "event": "none",
                    "iotype": kind,
                    "errno": INPUT_OUTPUT_ERROR,
                    "sector": DAMAGED,
                })
            };
            nodes.push(json!({
                "driver": "blkdebug",
                "node-name": "damage",
                "image": below,
                "inject-error": [rule("read"), rule("write")],
            }));
            below = "damage".to_owned();
        }
        nodes.push(json!({
            "driver": "raw",
            "node-name": format!("{shape}-disk"),
            "file": below,
            "read-only": read_only,
            "discard": "unmap",
        }));
        let mut arguments = Vec::new();
        for node in nodes {
            arguments.extend(["-blockdev".to_owned(), node.to_string()]);
        }
        let mut device = format!("{device},drive={shape}-disk,serial=cf-{shape}");
        match shape {
            Shape::LargeBlocks => {
                device.push_str(",logical_block_size=4096,physical_block_size=4096");
            }
            Shape::Odd => device.push_str(",write-cache=off"),
            // QEMU makes one request of neighbours, and then fails all of them.
            Shape::Damaged if device.starts_with("virtio-blk") => {
                device.push_str(",request-merging=off");
            }
            _ => {}
        }
        arguments.extend(["-device".to_owned(), device]);
        arguments
    }

    /// What the host finds in the image after the machine is off.
    fn check(&self) -> anyhow::Result<()> {
        let image =
            fs::read(&self.file).with_context(|| format!("cannot read {}", self.file.display()))?;
        let size = self.block_size();
        ensure!(
            image.len() == self.blocks as usize * size,
            "the image has {} bytes",
            image.len()
        );
        let block = |lba: u64| &image[lba as usize * size..][..size];
        let check = |lba, generation| {
            stamp::check(block(lba), lba, generation).map_err(|what| anyhow::anyhow!(what))
        };
        match self.shape {
            Shape::ReadOnly => (0..self.blocks).try_for_each(|lba| check(lba, 0)),
            // The suite only tries to write what cannot be written.
            Shape::Damaged => check(DAMAGED, 0),
            _ => last_blocks(self.blocks)
                .into_iter()
                .flat_map(|(first, count)| first..first + u64::from(count))
                .try_for_each(|lba| check(lba, LAST_GENERATION)),
        }
    }
}

/// QEMU's device for a driver's disks.
fn device(driver: &str) -> Option<String> {
    match driver {
        "virtio-blk" => Some(format!(
            "virtio-blk-pci,num-queues={CPUS},disable-legacy=on"
        )),
        "nvme" => Some(format!("nvme,max_ioqpairs={CPUS},msix_qsize={}", CPUS + 1)),
        _ => None,
    }
}

/// Runs the suite for a driver; gives each case with its verdict.
///
/// # Errors
/// When the system does not build or QEMU does not run.
pub fn run(
    driver: &str,
    filter: Option<&str>,
    seed: u64,
) -> anyhow::Result<Vec<(String, Verdict)>> {
    let Some(device) = device(driver) else {
        let reason = Verdict::NotRun("QEMU has no such device".to_owned());
        return Ok(vec![("all".to_owned(), reason)]);
    };
    setup::ensure(&[setup::MACHINE])?;
    let built = build::build(Profile::Release)?;
    let folder = build::target_folder(&format!("conformance/{driver}"))?;
    let disks = Shape::ALL
        .into_iter()
        // QEMU's NVMe namespaces do not tell that they are read-only.
        .filter(|shape| driver != "nvme" || *shape != Shape::ReadOnly)
        .map(|shape| ScratchDisk::new(shape, &folder))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let arguments: Vec<String> = disks.iter().map(ScratchDisk::argument).collect();
    let script = format!("test-conformance {driver} {seed} {}\n", arguments.join(" "));
    let archive = folder.join("boot.archive");
    let extras = ArchiveExtras {
        exec: Some(script),
        ..ArchiveExtras::default()
    };
    build::write_archive(&built, &extras, &archive)?;
    let mut machine = Machine::new(&built.kernel, Some(archive.clone()));
    machine.cpus = CPUS;
    for disk in &disks {
        machine.extra.extend(disk.machine_arguments(&device));
    }
    let (mut console, mut log) = (Vec::new(), Vec::new());
    let outcome = guest::run(
        &machine,
        Some(TIME_LIMIT),
        &mut Streams {
            console: &mut console,
            log: &mut log,
            input: None,
        },
    )?;
    fs::remove_file(archive)?;
    fs::write(folder.join("console"), &console)?;
    fs::write(folder.join("log"), &log)?;
    let mut verdicts = lines(&String::from_utf8_lossy(&console));
    if !matches!(outcome, Outcome::Exit(0 | 1)) || verdicts.is_empty() {
        let text = format!(
            "the machine ended with {outcome:?}; see {}",
            folder.join("log").display()
        );
        verdicts.push(("whole run".to_owned(), Verdict::Failed(text)));
        return Ok(verdicts);
    }
    for disk in &disks {
        let verdict = match disk.check() {
            Ok(()) => Verdict::Passed,
            Err(error) => Verdict::Failed(format!("{error:#}")),
        };
        verdicts.push((format!("host-view/{}", disk.shape), verdict));
    }
    if let Some(filter) = filter {
        verdicts.retain(|(case, _)| case.contains(filter));
    }
    Ok(verdicts)
}

/// Reads `passed CASE`, `FAILED CASE: what` and `not run CASE: reason`.
pub(super) fn lines(console: &str) -> Vec<(String, Verdict)> {
    let read = |line: &str| {
        ["passed", "FAILED", "not run"]
            .into_iter()
            .find_map(|word| {
                let rest = line.strip_prefix(word)?.strip_prefix(' ')?;
                let (case, detail) = rest.split_once(": ").unwrap_or((rest, ""));
                Some((case.to_owned(), Verdict::new(word, detail)?))
            })
    };
    console.lines().filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_guest_are_read() {
        let text = "booting\npassed a/plain\nFAILED b/odd: block 3: wrong\nnot run c/x: no: way\n";
        let expected = [
            ("a/plain", Verdict::Passed),
            ("b/odd", Verdict::Failed("block 3: wrong".into())),
            ("c/x", Verdict::NotRun("no: way".into())),
        ];
        let seen = lines(text);
        assert_eq!(seen.len(), expected.len());
        for ((case, verdict), expected) in seen.iter().zip(expected) {
            assert_eq!((case.as_str(), verdict), (expected.0, &expected.1));
        }
    }

    #[test]
    fn a_disk_that_was_not_written_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let disk = ScratchDisk::new(Shape::Odd, folder.path()).unwrap();
        assert!(disk.check().is_err());
        let disk = ScratchDisk::new(Shape::ReadOnly, folder.path()).unwrap();
        disk.check().unwrap();
    }
}
