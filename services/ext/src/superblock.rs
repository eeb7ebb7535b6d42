//! The superblock and the group descriptors: the volume's geometry, checked
//! against the volume's size before anything is believed.

use alloc::vec::Vec;

use volume::{FsError, Volume};
use zerocopy::FromBytes;

use crate::{
    checksum::{crc16, crc32c},
    layout::{RawGroup, RawGroupHigh, RawSuperblock},
};

/// Signature of the superblock.
const MAGIC: u16 = 0xEF53;
/// Where the superblock lies, in bytes.
const SUPERBLOCK_OFFSET: u64 = 1024;
const SUPERBLOCK_BYTES: usize = 1024;

// Incompatible features ("Super Block", s_feature_incompat).
const INCOMPAT_FILETYPE: u32 = 0x2;
const INCOMPAT_RECOVER: u32 = 0x4;
const INCOMPAT_META_BG: u32 = 0x10;
const INCOMPAT_EXTENTS: u32 = 0x40;
const INCOMPAT_64BIT: u32 = 0x80;
const INCOMPAT_CSUM_SEED: u32 = 0x2000;
const INCOMPAT_LARGEDIR: u32 = 0x4000;
/// What this code reads: beside the above, multiple-mount protection (0x100),
/// flexible groups (0x200), attributes in inodes (0x400), inline data (0x8000),
/// encryption (0x10000; encrypted objects cannot be opened), and directories
/// that ignore case (0x20000; looked up exactly).
const INCOMPAT_KNOWN: u32 = INCOMPAT_FILETYPE
    | INCOMPAT_RECOVER
    | INCOMPAT_META_BG
    | INCOMPAT_EXTENTS
    | INCOMPAT_64BIT
    | INCOMPAT_CSUM_SEED
    | INCOMPAT_LARGEDIR
    | 0x100
    | 0x200
    | 0x400
    | 0x8000
    | 0x10000
    | 0x20000;
const COMPAT_HAS_JOURNAL: u32 = 0x4;
const COMPAT_SPARSE_SUPER2: u32 = 0x200;
const RO_COMPAT_SPARSE_SUPER: u32 = 0x1;
const RO_COMPAT_GDT_CSUM: u32 = 0x10;
const RO_COMPAT_METADATA_CSUM: u32 = 0x400;
/// s_state: the volume was unmounted cleanly.
const STATE_CLEAN: u16 = 0x1;
/// s_state: errors were found.
const STATE_ERRORS: u16 = 0x2;

/// Whether the first 4 KiB of a volume have the signature of ext2, ext3 and ext4.
pub fn has_signature(first: &[u8]) -> bool {
    let superblock = first.get(SUPERBLOCK_OFFSET as usize..).unwrap_or_default();
    RawSuperblock::ref_from_prefix(superblock).is_ok_and(|(raw, _)| raw.magic.get() == MAGIC)
}

/// Things to tell the operator that do not stop a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Warnings {
    /// The journal holds changes that were not written back; they are not seen.
    pub journal_not_replayed: bool,
    /// The volume was not unmounted cleanly.
    pub not_clean: bool,
    /// The volume is marked as having errors.
    pub has_errors: bool,
}

/// A volume's geometry.
#[derive(Debug, Clone)]
pub struct Geometry {
    pub block_bytes: u32,
    pub blocks: u64,
    pub inodes: u32,
    pub inodes_per_group: u32,
    pub inode_bytes: u16,
    pub first_inode: u32,
    pub reserved_blocks: u64,
    pub free_blocks: u64,
    pub free_inodes: u32,
    pub label: Vec<u8>,
    pub format: &'static str,
    /// Directory entries carry the kind of what they name.
    pub kinds_in_directories: bool,
    /// Directories may be longer than 4 GiB.
    pub large_directories: bool,
    /// `metadata_csum`: the seed of all checksums.
    pub checksum_seed: Option<u32>,
    pub warnings: Warnings,
    /// First block of each group's inode table.
    inode_tables: Vec<u64>,
    /// Blocks of the file system itself: start and end, sorted, disjoint.
    system_zone: Vec<(u64, u64)>,
}

impl Geometry {
    /// Reads and checks the superblock and all group descriptors.
    pub async fn read(volume: &impl Volume) -> Result<Self, FsError> {
        let mut bytes = [0; SUPERBLOCK_BYTES];
        if volume.size_bytes() < SUPERBLOCK_OFFSET + SUPERBLOCK_BYTES as u64 {
            return Err(FsError::OutsideVolume {
                offset: SUPERBLOCK_OFFSET,
                len_bytes: SUPERBLOCK_BYTES as u64,
                volume_bytes: volume.size_bytes(),
            });
        }
        volume.read_at(SUPERBLOCK_OFFSET, &mut bytes).await?;
        let raw = RawSuperblock::ref_from_bytes(&bytes)
            .map_err(|_| corrupt("too short", SUPERBLOCK_BYTES as u64, 0))?;
        let (mut geometry, plan) = Self::from_superblock(raw, &bytes, volume.size_bytes())?;
        geometry.read_groups(volume, raw, &plan).await?;
        Ok(geometry)
    }

    fn from_superblock(
        raw: &RawSuperblock,
        bytes: &[u8; SUPERBLOCK_BYTES],
        volume_bytes: u64,
    ) -> Result<(Self, GroupPlan), FsError> {
        let magic = raw.magic.get();
        if magic != MAGIC {
            let (expected, seen) = (u64::from(MAGIC), u64::from(magic));
            return Err(FsError::NotThisFormat {
                format: "ext2/3/4",
                expected,
                seen,
            });
        }
        // Revision 0 has no feature words and fixed inodes.
        let dynamic = raw.revision.get() >= 1;
        let feature = |word: u32| if dynamic { word } else { 0 };
        let compat = feature(raw.feature_compat.get());
        let incompat = feature(raw.feature_incompat.get());
        let ro_compat = feature(raw.feature_ro_compat.get());
        if ro_compat & RO_COMPAT_METADATA_CSUM != 0 {
            let computed = crc32c(
                !0,
                bytes.split_last_chunk::<4>().map_or(&[], |(head, _)| head),
            );
            let stored = raw.checksum.get();
            if computed != stored {
                return Err(corrupt("checksum mismatch", computed.into(), stored.into()));
            }
        }
        let unknown = incompat & !INCOMPAT_KNOWN;
        if unknown != 0 {
            let what = "incompatible feature of ext4";
            return Err(FsError::Unsupported {
                what,
                seen: unknown.into(),
            });
        }
        let log = raw.log_block_size.get();
        if log > 6 {
            return Err(corrupt("log_block_size above 64 KiB", 6, log.into()));
        }
        let block_bytes = 1024u32 << log;
        let wide = incompat & INCOMPAT_64BIT != 0;
        let join =
            |low: u32, high: u32| u64::from(low) | if wide { u64::from(high) << 32 } else { 0 };
        let blocks = join(raw.blocks_count_low.get(), raw.blocks_count_high.get());
        let volume_blocks = volume_bytes / u64::from(block_bytes);
        if blocks > volume_blocks {
            let problem = "the volume is shorter than its block count says (truncated?)";
            return Err(corrupt(problem, volume_blocks, blocks));
        }
        let first_block = raw.first_data_block.get();
        let first_block_expected = u32::from(block_bytes == 1024);
        // bigalloc with 1 KiB blocks starts at 0.
        if first_block > first_block_expected {
            let (expected, seen) = (first_block_expected.into(), first_block.into());
            return Err(corrupt("first_data_block", expected, seen));
        }
        let per_group = raw.blocks_per_group.get();
        let bits = block_bytes * 8;
        // With bigalloc a bit stands for a cluster.
        let cluster_log = raw.log_cluster_size.get().saturating_sub(log).min(20);
        let per_group_max = u64::from(bits) << cluster_log;
        if per_group < 256 || u64::from(per_group) > per_group_max {
            return Err(corrupt(
                "blocks_per_group out of range",
                per_group_max,
                per_group.into(),
            ));
        }
        if blocks <= u64::from(first_block) {
            return Err(corrupt("block count", u64::from(first_block) + 1, blocks));
        }
        let groups = (blocks - u64::from(first_block)).div_ceil(per_group.into());
        let inode_bytes = if dynamic { raw.inode_size.get() } else { 128 };
        if inode_bytes < 128
            || !inode_bytes.is_power_of_two()
            || u32::from(inode_bytes) > block_bytes
        {
            return Err(corrupt("inode_size", 256, inode_bytes.into()));
        }
        let inodes_per_group = raw.inodes_per_group.get();
        if inodes_per_group == 0 || inodes_per_group > bits {
            return Err(corrupt(
                "inodes_per_group",
                bits.into(),
                inodes_per_group.into(),
            ));
        }
        let inodes = raw.inodes_count.get();
        if u64::from(inodes_per_group) * groups != u64::from(inodes) {
            let expected = u64::from(inodes_per_group) * groups;
            return Err(corrupt(
                "inodes_count does not fit the groups",
                expected,
                inodes.into(),
            ));
        }
        let descriptor_bytes = if wide { raw.descriptor_size.get() } else { 32 };
        if descriptor_bytes < if wide { 64 } else { 32 }
            || !descriptor_bytes.is_power_of_two()
            || u32::from(descriptor_bytes) > block_bytes
        {
            return Err(corrupt("descriptor_size", 64, descriptor_bytes.into()));
        }
        let first_inode = if dynamic { raw.first_inode.get() } else { 11 };
        if !(11..=inodes).contains(&first_inode) {
            return Err(corrupt("first_inode", 11, first_inode.into()));
        }
        let checksum_seed = (ro_compat & RO_COMPAT_METADATA_CSUM != 0).then(|| {
            if incompat & INCOMPAT_CSUM_SEED != 0 {
                raw.checksum_seed.get()
            } else {
                crc32c(!0, &raw.uuid)
            }
        });
        let state = raw.state.get();
        let name_len = raw.volume_name.iter().position(|b| *b == 0).unwrap_or(16);
        let extents = incompat & (INCOMPAT_EXTENTS | INCOMPAT_64BIT) != 0;
        let geometry = Self {
            block_bytes,
            blocks,
            inodes,
            inodes_per_group,
            inode_bytes,
            first_inode,
            reserved_blocks: join(
                raw.reserved_blocks_low.get(),
                raw.reserved_blocks_high.get(),
            ),
            free_blocks: join(raw.free_blocks_low.get(), raw.free_blocks_high.get()),
            free_inodes: raw.free_inodes.get(),
            label: raw.volume_name.get(..name_len).unwrap_or_default().to_vec(),
            format: match (extents, compat & COMPAT_HAS_JOURNAL != 0) {
                (true, _) => "ext4",
                (false, true) => "ext3",
                (false, false) => "ext2",
            },
            kinds_in_directories: incompat & INCOMPAT_FILETYPE != 0,
            large_directories: incompat & INCOMPAT_LARGEDIR != 0,
            checksum_seed,
            warnings: Warnings {
                journal_not_replayed: incompat & INCOMPAT_RECOVER != 0,
                not_clean: state & STATE_CLEAN == 0,
                has_errors: state & STATE_ERRORS != 0,
            },
            inode_tables: Vec::new(),
            system_zone: Vec::new(),
        };
        let plan = GroupPlan {
            groups,
            per_group,
            first_block: first_block.into(),
            superblock_block: first_block_expected.into(),
            descriptor_bytes,
            meta_groups_from: if incompat & INCOMPAT_META_BG != 0 {
                raw.first_meta_group.get().into()
            } else {
                u64::MAX
            },
            sparse: ro_compat & RO_COMPAT_SPARSE_SUPER != 0,
            backups_elsewhere: compat & COMPAT_SPARSE_SUPER2 != 0,
            gdt_crc16: ro_compat & RO_COMPAT_GDT_CSUM != 0,
        };
        Ok((geometry, plan))
    }

    async fn read_groups(
        &mut self,
        volume: &impl Volume,
        raw: &RawSuperblock,
        plan: &GroupPlan,
    ) -> Result<(), FsError> {
        let size = usize::from(plan.descriptor_bytes);
        let per_block = u64::from(self.block_bytes) / size as u64;
        let table_bytes = u64::from(self.inodes_per_group) * u64::from(self.inode_bytes);
        let table_blocks = table_bytes.div_ceil(self.block_bytes.into());
        let gdt_blocks = plan.groups.div_ceil(per_block);
        let mut zone = Vec::new();
        let mut block = alloc::vec![0; self.block_bytes as usize];
        for table_block in 0..gdt_blocks {
            let at = plan.descriptor_block(table_block, per_block);
            self.check_block(at, "group descriptor table", table_block)?;
            volume.read_at(self.offset_of(at), &mut block).await?;
            zone.push((at, at + 1));
            let first = table_block * per_block;
            let count = (plan.groups - first).min(per_block) as usize;
            for (group, bytes) in (first..).zip(block.chunks_exact(size).take(count)) {
                self.check_group(group, bytes, raw, plan)?;
                let fields = GroupFields::parse(bytes, plan.descriptor_bytes >= 64)
                    .ok_or(corrupt("group descriptor too short", 32, size as u64))?;
                for (start, len, what) in [
                    (fields.block_bitmap, 1, "block bitmap outside the volume"),
                    (fields.inode_bitmap, 1, "inode bitmap outside the volume"),
                    (
                        fields.inode_table,
                        table_blocks,
                        "inode table outside the volume",
                    ),
                ] {
                    let end = start.saturating_add(len);
                    if start < plan.first_block || start == 0 || end > self.blocks {
                        let error = FsError::corrupt;
                        return Err(error("group descriptor", group, what, self.blocks, start));
                    }
                    zone.push((start, end));
                }
                self.inode_tables.push(fields.inode_table);
            }
        }
        for group in 0..plan.groups {
            if plan.has_superblock(group) {
                let start = plan.first_block + group * u64::from(plan.per_group);
                let with_table = plan.meta_groups_from == u64::MAX;
                let gdt = if with_table { gdt_blocks } else { 0 };
                zone.push((start, start + 1 + gdt));
            }
        }
        zone.push((0, plan.superblock_block + 1));
        zone.sort_unstable();
        for (start, end) in zone {
            match self.system_zone.last_mut() {
                Some(last) if start <= last.1 => last.1 = last.1.max(end),
                _ => self.system_zone.push((start, end)),
            }
        }
        Ok(())
    }

    /// Checks a descriptor's checksum ("Block Group Descriptors", bg_checksum).
    fn check_group(
        &self,
        group: u64,
        bytes: &[u8],
        raw: &RawSuperblock,
        plan: &GroupPlan,
    ) -> Result<(), FsError> {
        let (Some((head, stored)), Some(tail)) = (
            bytes.get(..32).and_then(|b| b.split_last_chunk::<2>()),
            bytes.get(32..),
        ) else {
            return Ok(());
        };
        let number = (group as u32).to_le_bytes();
        let computed = if let Some(seed) = self.checksum_seed {
            let mut crc = crc32c(seed, &number);
            for part in [head, &[0, 0], tail] {
                crc = crc32c(crc, part);
            }
            crc as u16
        } else if plan.gdt_crc16 {
            crc16(&[&raw.uuid, &number, head, tail])
        } else {
            return Ok(());
        };
        let stored = u16::from_le_bytes(*stored);
        if computed == stored {
            return Ok(());
        }
        let (expected, seen) = (computed.into(), stored.into());
        Err(FsError::corrupt(
            "group descriptor",
            group,
            "checksum mismatch",
            expected,
            seen,
        ))
    }

    /// Blocks that are not the file system's own.
    pub fn usable_blocks(&self) -> u64 {
        let own: u64 = self
            .system_zone
            .iter()
            .map(|(start, end)| end - start)
            .sum();
        self.blocks.saturating_sub(own)
    }

    /// Byte offset of a block that was checked.
    pub fn offset_of(&self, block: u64) -> u64 {
        block.saturating_mul(self.block_bytes.into())
    }

    /// Checks that a block number lies inside the volume.
    pub fn check_block(
        &self,
        block: u64,
        structure: &'static str,
        number: u64,
    ) -> Result<(), FsError> {
        if block < self.blocks {
            return Ok(());
        }
        let problem = "points outside the volume";
        Err(FsError::corrupt(
            structure,
            number,
            problem,
            self.blocks,
            block,
        ))
    }

    /// Checks that blocks can belong to a file: inside the volume, and none of
    /// the superblocks, descriptors, bitmaps and inode tables.
    pub fn check_file_blocks(&self, start: u64, len: u64, inode: u32) -> Result<(), FsError> {
        let end = start.saturating_add(len);
        if end > self.blocks {
            let problem = "block map points outside the volume";
            let seen = if start >= self.blocks { start } else { end - 1 };
            return Err(FsError::corrupt(
                "inode",
                inode.into(),
                problem,
                self.blocks,
                seen,
            ));
        }
        let at = self.system_zone.partition_point(|zone| zone.1 <= start);
        match self.system_zone.get(at) {
            Some(zone) if zone.0 < end => {
                let problem = "block map points into the file system's own metadata";
                let seen = start.max(zone.0);
                Err(FsError::corrupt(
                    "inode",
                    inode.into(),
                    problem,
                    zone.1,
                    seen,
                ))
            }
            _ => Ok(()),
        }
    }

    /// Byte offset of an inode.
    pub fn inode_offset(&self, inode: u32) -> Result<u64, FsError> {
        let outside = FsError::corrupt(
            "inode",
            inode.into(),
            "number out of range",
            self.inodes.into(),
            inode.into(),
        );
        if inode > self.inodes {
            return Err(outside);
        }
        let index = inode.checked_sub(1).ok_or(outside)?;
        let table = self
            .inode_tables
            .get((index / self.inodes_per_group) as usize);
        let within = u64::from(index % self.inodes_per_group) * u64::from(self.inode_bytes);
        Ok(self.offset_of(*table.ok_or(outside)?) + within)
    }
}

/// Where the group descriptors and the copies of the superblock lie.
struct GroupPlan {
    groups: u64,
    per_group: u32,
    first_block: u64,
    /// Block that holds the superblock: not the first one where blocks have
    /// 1 KiB and clusters make block 0 part of group 0.
    superblock_block: u64,
    descriptor_bytes: u16,
    /// First block of the descriptor table that lies in its own group.
    meta_groups_from: u64,
    sparse: bool,
    backups_elsewhere: bool,
    gdt_crc16: bool,
}

impl GroupPlan {
    /// Block that holds block `table_block` of the descriptor table.
    fn descriptor_block(&self, table_block: u64, per_block: u64) -> u64 {
        if table_block < self.meta_groups_from {
            return self.superblock_block + 1 + table_block;
        }
        let group = table_block * per_block;
        if group == 0 {
            return self.superblock_block + 1;
        }
        let start = self
            .first_block
            .saturating_add(group.saturating_mul(self.per_group.into()));
        start + u64::from(self.has_superblock(group))
    }

    fn has_superblock(&self, group: u64) -> bool {
        let power_of = |base: u64| {
            let mut power = base;
            while power < group {
                power = power.saturating_mul(base);
            }
            power == group
        };
        match group {
            0 => true,
            _ if self.backups_elsewhere => false,
            1 => true,
            _ => !self.sparse || power_of(3) || power_of(5) || power_of(7),
        }
    }
}

struct GroupFields {
    block_bitmap: u64,
    inode_bitmap: u64,
    inode_table: u64,
}

impl GroupFields {
    fn parse(bytes: &[u8], wide: bool) -> Option<Self> {
        let (low, rest) = RawGroup::ref_from_prefix(bytes).ok()?;
        let high = if wide {
            Some(RawGroupHigh::ref_from_prefix(rest).ok()?.0)
        } else {
            None
        };
        let join =
            |low: u32, high: Option<u32>| u64::from(low) | u64::from(high.unwrap_or(0)) << 32;
        Some(Self {
            block_bitmap: join(low.block_bitmap.get(), high.map(|h| h.block_bitmap.get())),
            inode_bitmap: join(low.inode_bitmap.get(), high.map(|h| h.inode_bitmap.get())),
            inode_table: join(low.inode_table.get(), high.map(|h| h.inode_table.get())),
        })
    }
}

fn corrupt(problem: &'static str, expected: u64, seen: u64) -> FsError {
    FsError::corrupt("superblock", 0, problem, expected, seen)
}
