//! Damaged images: each has one fault, put there on purpose in a small image
//! that was whole before.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use crc::Crc;

use super::disk_file::{DiskFile, ExtOptions, Extent, SECTOR};
use super::tree::{Capability, Tree};
use super::{EXT4, MIB, once};
use crate::setup;
use crate::tool;

/// The file whose contents are made unreachable, where the fault is in a file.
pub const VICTIM: &str = "VICTIM.BIN";

/// A fault of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// ext4 in a GPT, cut off in the middle of the file system.
    Truncated,
    /// ext4 whose superblock states a block size of 2^87 bytes.
    Superblock,
    /// ext4 whose superblock has a wrong checksum.
    SuperblockChecksum,
    /// FAT16 where a file's second cluster is followed by its first.
    FatLoop,
    /// ext4 where two extents of a file cover the same logical blocks.
    OverlappingExtents,
    /// ext4 where a file's extent points behind the end of the volume.
    ExtentOutside,
    /// GPT whose primary header has a wrong CRC; the backup is whole.
    GptPrimary,
    /// GPT whose two headers have wrong CRCs.
    GptBoth,
    /// GPT where both copies of the entries differ from the CRC in their header.
    GptEntries,
}

impl Fault {
    /// All faults.
    pub const ALL: [Self; 9] = [
        Self::Truncated,
        Self::Superblock,
        Self::SuperblockChecksum,
        Self::FatLoop,
        Self::OverlappingExtents,
        Self::ExtentOutside,
        Self::GptPrimary,
        Self::GptBoth,
        Self::GptEntries,
    ];

    /// Name of the image's file, without extension.
    pub fn name(self) -> &'static str {
        match self {
            Self::Truncated => "bad-truncated",
            Self::Superblock => "bad-superblock",
            Self::SuperblockChecksum => "bad-superblock-checksum",
            Self::FatLoop => "bad-fat-loop",
            Self::OverlappingExtents => "bad-overlapping-extents",
            Self::ExtentOutside => "bad-extent-outside",
            Self::GptPrimary => "bad-gpt-primary",
            Self::GptBoth => "bad-gpt-both",
            Self::GptEntries => "bad-gpt-entries",
        }
    }

    /// The image, made if it is not there.
    ///
    /// # Errors
    ///
    /// When a tool fails, or the host's own checker finds no fault in it.
    pub fn image(self) -> anyhow::Result<PathBuf> {
        setup::ensure(&[setup::IMAGES])?;
        let folder = once(self.name(), |folder| self.make(&folder.join("disk.img")))?;
        Ok(folder.join("disk.img"))
    }

    fn make(self, file: &Path) -> anyhow::Result<()> {
        let files = tempfile::tempdir()?;
        let capability = match self {
            Self::FatLoop => Capability::Fat,
            _ => Capability::Unix,
        };
        let tree = Tree::make_small(files.path(), capability)?;
        let disk = DiskFile::create(file, 32 * MIB)?;
        match self {
            Self::Truncated => {
                let extent = disk.partition_gpt(MIB)?;
                disk.format_ext(extent, EXT4, &tree)?;
                disk.truncate(8 * MIB)?;
            }
            Self::Superblock | Self::SuperblockChecksum => {
                disk.format_ext(disk.whole(), EXT4, &tree)?;
                self.damage_superblock(&disk)?;
                judge(&["dumpe2fs", "-h"], &disk)?;
            }
            Self::FatLoop => {
                disk.format_fat(disk.whole(), 16, &tree)?;
                loop_chain(&disk)?;
                judge(&["fsck.vfat", "-n"], &disk)?;
            }
            Self::OverlappingExtents | Self::ExtentOutside => {
                // Without checksums, so that the fault itself has to be found.
                let options = ExtOptions {
                    features: Some("^metadata_csum"),
                    ..EXT4
                };
                disk.format_ext(disk.whole(), options, &tree)?;
                self.damage_extents(&disk)?;
                judge(&["e2fsck", "-fn"], &disk)?;
            }
            Self::GptPrimary | Self::GptBoth | Self::GptEntries => {
                let extent = disk.partition_gpt(MIB)?;
                disk.format_ext(extent, EXT4, &tree)?;
                self.damage_gpt(&disk)?;
            }
        }
        Ok(())
    }

    fn damage_superblock(self, disk: &DiskFile) -> anyhow::Result<()> {
        /// The superblock is 1024 bytes into the volume.
        const SUPERBLOCK: u64 = 1024;
        const LOG_BLOCK_SIZE: u64 = 24;
        const CHECKSUM: u64 = 1020;
        match self {
            Self::Superblock => {
                disk.write_at(SUPERBLOCK + LOG_BLOCK_SIZE, &77_u32.to_le_bytes())?;
                // With the right checksum over it, so that the value is looked at.
                let bytes = disk.read_at(SUPERBLOCK, CHECKSUM as usize)?;
                let crc = Crc::<u32>::new(&EXT_CRC).checksum(&bytes);
                disk.write_at(SUPERBLOCK + CHECKSUM, &crc.to_le_bytes())
            }
            _ => {
                let checksum = disk.read_at(SUPERBLOCK + CHECKSUM, 1)?;
                let wrong: Vec<u8> = checksum.iter().map(|byte| byte ^ 0x10).collect();
                disk.write_at(SUPERBLOCK + CHECKSUM, &wrong)
            }
        }
    }

    /// Rewrites the extent tree in the victim's inode.
    fn damage_extents(self, disk: &DiskFile) -> anyhow::Result<()> {
        let inode = inode_offset(disk, VICTIM)?;
        /// The extent tree's root is in `i_block`.
        const BLOCK: u64 = 40;
        let root = disk.read_at(inode + BLOCK, 24)?;
        if root.get(..4) != Some(&[0x0a, 0xf3, 1, 0]) {
            bail!("{VICTIM} has not one extent: {root:02x?}");
        }
        let field = |at: usize| -> anyhow::Result<u32> {
            let bytes = root.get(at..at + 4).context("the extent")?;
            Ok(u32::from_le_bytes(bytes.try_into()?))
        };
        let (len, start) = (field(16)? & 0xffff, field(20)?);
        let extent = |first: u32, len: u32, start: u32| {
            let mut bytes = first.to_le_bytes().to_vec();
            bytes.extend_from_slice(&len.to_le_bytes());
            bytes.extend_from_slice(&start.to_le_bytes());
            bytes
        };
        match self {
            Self::OverlappingExtents => {
                disk.write_at(inode + BLOCK + 2, &2_u16.to_le_bytes())?;
                disk.write_at(inode + BLOCK + 12, &extent(0, len, start))?;
                disk.write_at(
                    inode + BLOCK + 24,
                    &extent(len / 2, len - len / 2, start + len / 2),
                )
            }
            _ => disk.write_at(inode + BLOCK + 12, &extent(0, len, 0x00ff_ff00)),
        }
    }

    fn damage_gpt(self, disk: &DiskFile) -> anyhow::Result<()> {
        let len = std::fs::metadata(&disk.path)?.len();
        let headers = [SECTOR, len - SECTOR];
        for header in headers {
            if disk.read_at(header, 8)? != b"EFI PART" {
                bail!("there is no GPT header at {header}");
            }
        }
        let flip = |offset: u64| -> anyhow::Result<()> {
            let byte = disk.read_at(offset, 1)?;
            disk.write_at(
                offset,
                &byte.iter().map(|byte| byte ^ 1).collect::<Vec<u8>>(),
            )
        };
        /// CRC of the header (UEFI 2.10, table 5.5).
        const HEADER_CRC: u64 = 16;
        match self {
            Self::GptPrimary => flip(headers[0] + HEADER_CRC),
            Self::GptBoth => headers
                .iter()
                .try_for_each(|header| flip(header + HEADER_CRC)),
            _ => {
                // The partition's name in both copies of its entry.
                flip(2 * SECTOR + 56)?;
                flip(len - 33 * SECTOR + 56)
            }
        }
    }
}

/// The CRC of ext4's metadata: CRC-32C without the final inversion.
const EXT_CRC: crc::Algorithm<u32> = crc::Algorithm {
    xorout: 0,
    residue: 0,
    ..crc::CRC_32_ISCSI
};

/// Checks that a checker of the host refuses the image.
fn judge(checker: &[&str], disk: &DiskFile) -> anyhow::Result<()> {
    let (program, arguments) = checker.split_first().context("an empty command")?;
    let output = tool::command(program)
        .args(arguments)
        .arg(&disk.path)
        .output()
        .with_context(|| format!("cannot start {program}"))?;
    if output.status.success() {
        bail!("{program} finds no fault in {}", disk.path.display());
    }
    Ok(())
}

/// Where a file's inode is on the disk, as debugfs says.
fn inode_offset(disk: &DiskFile, name: &str) -> anyhow::Result<u64> {
    let output = tool::read(
        tool::command("debugfs")
            .args(["-R", &format!("imap /{name}")])
            .arg(&disk.path),
    )?;
    let text = String::from_utf8_lossy(&output);
    // "located at block 36, offset 0x0d00"
    let (_, place) = text.split_once("at block ").context("debugfs's answer")?;
    let (block, offset) = place
        .split_once(", offset 0x")
        .context("debugfs's answer")?;
    let block: u64 = block.parse()?;
    let offset = u64::from_str_radix(offset.trim(), 16)?;
    Ok(block * u64::from(EXT4.block_len) + offset)
}

/// Leads a file's chain of clusters back to its start.
fn loop_chain(disk: &DiskFile) -> anyhow::Result<()> {
    let Extent { start, .. } = disk.whole();
    let boot = disk.read_at(start, 512)?;
    let word = |at: usize| -> anyhow::Result<u64> {
        let bytes = boot.get(at..at + 2).context("the boot sector")?;
        Ok(u64::from(u16::from_le_bytes(bytes.try_into()?)))
    };
    // Microsoft FAT specification 1.03, "Boot Sector and BPB".
    let sector = word(11)?;
    let fat = start + word(14)? * sector;
    let fats = u64::from(*boot.get(16).context("the boot sector")?);
    let fat_len = word(22)? * sector;
    let root = fat + fats * fat_len;
    let entries = disk.read_at(root, (word(17)? * 32) as usize)?;
    let short_name = VICTIM.replace('.', "  ");
    let entry = entries
        .chunks_exact(32)
        .find(|entry| entry.starts_with(short_name.as_bytes()))
        .with_context(|| format!("{VICTIM} is not in the root folder"))?;
    let first = u16::from_le_bytes(entry.get(26..28).context("the entry")?.try_into()?);
    let second = disk.read_at(fat + u64::from(first) * 2, 2)?;
    let second = u64::from(u16::from_le_bytes(second.as_slice().try_into()?));
    for copy in 0..fats {
        disk.write_at(fat + copy * fat_len + second * 2, &first.to_le_bytes())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_ext4() {
        // ext4 keeps the register as it is: no inversion at the end.
        let crc = Crc::<u32>::new(&EXT_CRC).checksum(b"123456789");
        assert_eq!(crc, !0xe306_9283_u32);
    }
}
