//! Partition tables and file systems in a sparse file, made by sgdisk, fdisk, sfdisk,
//! mke2fs, mkfs.vfat and mcopy.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use super::tree::{FILE_TIME_S, Tree};
use crate::tool::{self, Output};

/// Bytes of a sector.
pub const SECTOR: u64 = 512;
/// Bytes of a sector of a disk that has large ones.
const LARGE_SECTOR: u64 = 4096;
const MIB: u64 = 1 << 20;

/// A disk image that is being made: a sparse file.
#[derive(Clone, Debug)]
pub struct DiskFile {
    /// Its path.
    pub path: PathBuf,
    len: u64,
}

/// A stretch of a disk, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Where it starts; a multiple of 1 MiB.
    pub start: u64,
    /// Its length; a multiple of 1 MiB.
    pub len: u64,
}

/// A file system of the ext family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtOptions {
    /// `ext2`, `ext3` or `ext4`.
    pub kind: &'static str,
    /// Bytes of a block.
    pub block_len: u32,
    /// Features to switch on, or with `^` off, as mke2fs's `-O` takes them.
    pub features: Option<&'static str>,
}

impl DiskFile {
    /// An empty disk of `len` bytes.
    pub fn create(path: &Path, len: u64) -> anyhow::Result<Self> {
        let file = File::create(path).with_context(|| format!("cannot make {}", path.display()))?;
        file.set_len(len)?;
        Ok(Self {
            path: path.to_owned(),
            len,
        })
    }

    /// The whole disk, for a file system without a partition table.
    pub fn whole(&self) -> Extent {
        Extent {
            start: 0,
            len: self.len,
        }
    }

    /// Writes a GPT with one Linux partition from `start` to the end.
    pub fn partition_gpt(&self, start: u64) -> anyhow::Result<Extent> {
        // The last MiB is the backup table's.
        let extent = Extent {
            start,
            len: self.len - start - MIB,
        };
        let last = (extent.start + extent.len) / SECTOR - 1;
        let mut command = tool::command("sgdisk");
        command
            .arg("--new")
            .arg(format!("1:{}:{last}", extent.start / SECTOR))
            .args(["--typecode", "1:8300", "--change-name", "1:bulkhead"])
            .args(["--disk-guid", "6E1B2E59-3B8B-4D0C-9D8B-0A5A3C1F7E01"])
            .args(["--partition-guid", "1:6E1B2E59-3B8B-4D0C-9D8B-0A5A3C1F7E02"])
            .arg(&self.path);
        tool::run(&mut command, Output::OnFailure)?;
        Ok(extent)
    }

    /// The same for a disk with sectors of 4096 bytes, by which everything in the table
    /// is counted. sgdisk takes a file's sectors to be of 512 bytes, so fdisk writes it.
    pub fn partition_gpt_4096(&self, start: u64) -> anyhow::Result<Extent> {
        let extent = Extent {
            start,
            len: self.len - start - MIB,
        };
        let first = extent.start / LARGE_SECTOR;
        let last = (extent.start + extent.len) / LARGE_SECTOR - 1;
        // A new table, a partition, their identities, write.
        let commands = format!(
            "g\nn\n1\n{first}\n{last}\n\
             x\ni\n6E1B2E59-3B8B-4D0C-9D8B-0A5A3C1F7E05\n\
             u\n6E1B2E59-3B8B-4D0C-9D8B-0A5A3C1F7E06\nr\nw\n"
        );
        let mut command = tool::command("fdisk");
        command
            .args(["--sector-size", &LARGE_SECTOR.to_string()])
            .arg(&self.path);
        feed(command, commands.as_bytes())?;
        Ok(extent)
    }

    /// Writes an MBR with one FAT32 (LBA) partition from 1 MiB to the end.
    pub fn partition_mbr(&self) -> anyhow::Result<Extent> {
        let extent = Extent {
            start: MIB,
            len: self.len - MIB,
        };
        let table = format!(
            "label: dos\nlabel-id: 0xb01dface\nstart={}, size={}, type=c, bootable\n",
            extent.start / SECTOR,
            extent.len / SECTOR
        );
        let mut command = tool::command("sfdisk");
        command.arg("--quiet").arg(&self.path);
        feed(command, table.as_bytes())?;
        Ok(extent)
    }

    /// Makes a file system of the ext family with the files of `tree`.
    pub fn format_ext(
        &self,
        extent: Extent,
        options: ExtOptions,
        tree: &Tree,
    ) -> anyhow::Result<()> {
        let mut command = tool::command("mke2fs");
        command
            // So that superblock and inodes carry no time of today.
            .env("E2FSPROGS_FAKE_TIME", FILE_TIME_S.to_string())
            .args(["-q", "-F", "-t", options.kind])
            .args(["-b", &options.block_len.to_string()])
            .args(["-m", "0", "-N", "8192", "-L", "bulkhead"])
            .args(["-U", "6e1b2e59-3b8b-4d0c-9d8b-0a5a3c1f7e03"])
            .arg("-E")
            .arg(format!(
                "offset={},root_owner=0:0,hash_seed=6e1b2e59-3b8b-4d0c-9d8b-0a5a3c1f7e04",
                extent.start
            ));
        if let Some(features) = options.features {
            command.args(["-O", features]);
        }
        command
            .arg("-d")
            .arg(&tree.folder)
            .arg(&self.path)
            .arg(format!("{}k", extent.len / 1024));
        tool::run(&mut command, Output::OnFailure)
    }

    /// Makes a FAT file system (12, 16 or 32 bits) with the files of `tree`.
    pub fn format_fat(&self, extent: Extent, bits: u8, tree: &Tree) -> anyhow::Result<()> {
        let mut command = tool::command("mkfs.vfat");
        command
            .args(["-F", &bits.to_string(), "--invariant", "-i", "b01dface"])
            .args(["-n", "BULKHEAD", "-h", &(extent.start / SECTOR).to_string()])
            .args(["--offset", &(extent.start / SECTOR).to_string()])
            .arg(&self.path)
            .arg((extent.len / 1024).to_string());
        tool::run(&mut command, Output::OnFailure)?;
        let mut entries: Vec<PathBuf> = std::fs::read_dir(&tree.folder)?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<_, _>>()?;
        entries.sort();
        let mut copy = tool::command("mcopy");
        copy.env("TZ", "UTC")
            // Names are UTF-8, whatever the caller's locale is.
            .env("LC_ALL", "C.UTF-8")
            .args(["-s", "-Q", "-m", "-o", "-i"])
            .arg(format!("{}@@{}", self.path.display(), extent.start))
            .args(entries)
            .arg("::/");
        tool::run(&mut copy, Output::OnFailure)?;
        // FAT has no holes: give the zeroes back to the host.
        let mut dig = tool::command("fallocate");
        dig.arg("--dig-holes").arg(&self.path);
        if let Err(error) = tool::run(&mut dig, Output::OnFailure) {
            eprintln!("xtask: the image stays large: {error:#}");
        }
        Ok(())
    }

    /// Writes bytes at an offset of the disk.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> anyhow::Result<()> {
        let file = File::options().write(true).open(&self.path)?;
        file.write_all_at(bytes, offset)
            .with_context(|| format!("cannot write to {}", self.path.display()))
    }

    /// Reads `len` bytes at an offset of the disk.
    pub fn read_at(&self, offset: u64, len: usize) -> anyhow::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        let file = File::open(&self.path)?;
        file.read_exact_at(&mut bytes, offset)
            .with_context(|| format!("cannot read {}", self.path.display()))?;
        Ok(bytes)
    }

    /// Cuts the disk off after `len` bytes.
    pub fn truncate(&self, len: u64) -> anyhow::Result<()> {
        let file = File::options().write(true).open(&self.path)?;
        file.set_len(len)
            .with_context(|| format!("cannot shorten {}", self.path.display()))
    }
}

/// Runs a command with this standard input.
fn feed(mut command: Command, input: &[u8]) -> anyhow::Result<()> {
    let text = tool::shown(&command);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot start {text}"))?;
    child
        .stdin
        .take()
        .context("its input")?
        .write_all(input)
        .with_context(|| text.clone())?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!(
            "{text}: {}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}
