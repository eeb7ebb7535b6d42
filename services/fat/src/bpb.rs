//! The boot sector: the volume's geometry, checked against the volume's size.

use alloc::vec::Vec;

use volume::{FsError, Volume};
use zerocopy::FromBytes;

use crate::layout::{RawBootSector, RawInfoSector, RawTail16, RawTail32};

const BOOT_SIGNATURE: u16 = 0xAA55;
/// Number of the first cluster.
pub const FIRST_CLUSTER: u32 = 2;
/// FATGEN "FAT Type Determination": fewer clusters than these are FAT12, FAT16.
const FAT12_CLUSTERS: u64 = 4085;
const FAT16_CLUSTERS: u64 = 65525;
/// FAT32 uses 28 bits of an entry; the last values mean other things.
const FAT32_CLUSTERS: u64 = 0x0FFF_FFF5;

/// Whether the first 4 KiB of a volume look like a FAT volume's.
pub fn has_signature(first: &[u8]) -> bool {
    RawBootSector::ref_from_prefix(first).is_ok_and(|(raw, _)| check_signature(raw).is_ok())
}

fn check_signature(raw: &RawBootSector) -> Result<(), FsError> {
    let not_fat = |expected: u64, seen: u64| FsError::NotThisFormat {
        format: "FAT",
        expected,
        seen,
    };
    let signature = raw.signature.get();
    if signature != BOOT_SIGNATURE {
        return Err(not_fat(BOOT_SIGNATURE.into(), signature.into()));
    }
    // A partition table or a boot loader has the signature too, but no block of
    // parameters.
    if !matches!(raw.jump, [0xEB, _, 0x90] | [0xE9, _, _]) {
        return Err(not_fat(0xEB, raw.jump[0].into()));
    }
    if !(raw.media == 0xF0 || raw.media >= 0xF8) {
        return Err(not_fat(0xF8, raw.media.into()));
    }
    Ok(())
}

/// Width of an entry of the file allocation table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Width {
    Fat12,
    Fat16,
    Fat32,
}

impl Width {
    /// Bits that an entry takes.
    pub const fn bits(self) -> u64 {
        match self {
            Self::Fat12 => 12,
            Self::Fat16 => 16,
            Self::Fat32 => 32,
        }
    }
}

/// Where the root directory lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Root {
    /// FAT12, FAT16: at this byte, this long.
    Region { offset: u64, len_bytes: u64 },
    /// FAT32: a chain from this cluster on.
    Cluster(u32),
}

/// A volume's geometry; offsets and lengths in bytes.
#[derive(Debug, Clone)]
pub struct Geometry {
    pub width: Width,
    pub cluster_bytes: u32,
    /// Clusters are numbered from 2 up to this, not included.
    pub cluster_end: u32,
    /// The table that is in use.
    pub fat_offset: u64,
    pub fat_bytes: u64,
    pub data_offset: u64,
    pub root: Root,
    pub label: Vec<u8>,
    /// Free clusters, if the volume records them.
    pub free_clusters: Option<u32>,
}

impl Geometry {
    /// Reads and checks the boot sector.
    pub async fn read(volume: &impl Volume) -> Result<Self, FsError> {
        let volume_bytes = volume.size_bytes();
        let mut bytes = [0; 512];
        if volume_bytes < 512 {
            return Err(FsError::OutsideVolume {
                offset: 0,
                len_bytes: 512,
                volume_bytes,
            });
        }
        volume.read_at(0, &mut bytes).await?;
        let raw = RawBootSector::ref_from_bytes(&bytes)
            .map_err(|_| corrupt("too short", 512, bytes.len() as u64))?;
        let (mut geometry, info_offset) = Self::parse(raw, volume_bytes)?;
        if let Some(offset) = info_offset
            && offset.saturating_add(512) <= volume_bytes
        {
            volume.read_at(offset, &mut bytes).await?;
            geometry.free_clusters = free_clusters(&bytes)
                .filter(|free| *free <= geometry.cluster_end.saturating_sub(FIRST_CLUSTER));
        }
        Ok(geometry)
    }

    fn parse(raw: &RawBootSector, volume_bytes: u64) -> Result<(Self, Option<u64>), FsError> {
        check_signature(raw)?;
        let sector = u64::from(raw.sector_bytes.get());
        if !matches!(sector, 512 | 1024 | 2048 | 4096) {
            return Err(corrupt("bytes per sector", 512, sector));
        }
        let cluster_sectors = raw.cluster_sectors;
        if !cluster_sectors.is_power_of_two() {
            return Err(corrupt("sectors per cluster", 8, cluster_sectors.into()));
        }
        let reserved = u64::from(raw.reserved_sectors.get());
        if reserved == 0 {
            return Err(corrupt("reserved sectors", 1, 0));
        }
        let fats = u64::from(raw.fats);
        if !(1..=4).contains(&fats) {
            return Err(corrupt("number of FATs", 2, fats));
        }
        let tail_32 = RawTail32::ref_from_prefix(&raw.rest)
            .ok()
            .map(|(tail, _)| tail);
        let tail_16 = RawTail16::ref_from_prefix(&raw.rest)
            .ok()
            .map(|(tail, _)| tail);
        // FAT32 leaves the 16-bit length at 0. Counting clusters alone would
        // take a small FAT32 volume for FAT16.
        let narrow = u64::from(raw.fat_sectors_16.get());
        let (fat_sectors, is_32) = match tail_32 {
            Some(tail) if narrow == 0 => (u64::from(tail.fat_sectors.get()), true),
            _ => (narrow, false),
        };
        if fat_sectors == 0 {
            return Err(corrupt("sectors per FAT", 1, 0));
        }
        let sectors = match raw.sectors_16.get() {
            0 => u64::from(raw.sectors_32.get()),
            sectors => u64::from(sectors),
        };
        if sectors * sector > volume_bytes {
            let problem = "the volume is shorter than its sector count says (truncated?)";
            return Err(corrupt(problem, volume_bytes / sector, sectors));
        }
        let root_bytes = u64::from(raw.root_entries.get()) * 32;
        let root_sectors = root_bytes.div_ceil(sector);
        let data_sector = reserved + fats * fat_sectors + root_sectors;
        if data_sector >= sectors {
            return Err(corrupt(
                "no sectors left for data",
                data_sector + 1,
                sectors,
            ));
        }
        let clusters = (sectors - data_sector) / u64::from(cluster_sectors);
        let width = match clusters {
            _ if is_32 => Width::Fat32,
            0..FAT12_CLUSTERS => Width::Fat12,
            FAT12_CLUSTERS..FAT16_CLUSTERS => Width::Fat16,
            _ => {
                return Err(corrupt(
                    "too many clusters for FAT16",
                    FAT16_CLUSTERS - 1,
                    clusters,
                ));
            }
        };
        let fat_bytes = fat_sectors * sector;
        let clusters = clusters.min((fat_bytes * 8 / width.bits()).saturating_sub(2));
        if clusters == 0 || clusters > FAT32_CLUSTERS {
            return Err(corrupt("number of clusters", FAT32_CLUSTERS, clusters));
        }
        let cluster_end = clusters as u32 + FIRST_CLUSTER;
        let mut active = 0;
        let mut info_offset = None;
        let mut label = tail_16
            .filter(|tail| tail.extended_signature == 0x29)
            .map(|t| t.label);
        let root = match tail_32 {
            Some(tail) if is_32 => {
                if tail.version.get() != 0 {
                    let seen = tail.version.get().into();
                    return Err(FsError::Unsupported {
                        what: "version of FAT32",
                        seen,
                    });
                }
                let first = tail.root_cluster.get();
                if !(FIRST_CLUSTER..cluster_end).contains(&first) {
                    let problem = "root directory's cluster out of range";
                    return Err(corrupt(problem, cluster_end.into(), first.into()));
                }
                // Bit 7: one table only is in use, and which.
                let flags = tail.flags.get();
                if flags & 0x80 != 0 {
                    active = u64::from(flags & 0xF);
                }
                if active >= fats {
                    return Err(corrupt("active FAT out of range", fats - 1, active));
                }
                info_offset = Some(u64::from(tail.info_sector.get()) * sector);
                label = Some(tail.label).filter(|_| tail.extended_signature == 0x29);
                Root::Cluster(first)
            }
            _ => Root::Region {
                offset: (reserved + fats * fat_sectors) * sector,
                len_bytes: root_bytes,
            },
        };
        let label = label.unwrap_or_default().trim_ascii_end().to_vec();
        let label = if label == b"NO NAME" {
            Vec::new()
        } else {
            label
        };
        let geometry = Self {
            width,
            cluster_bytes: u32::from(cluster_sectors) * sector as u32,
            cluster_end,
            fat_offset: (reserved + active * fat_sectors) * sector,
            fat_bytes,
            data_offset: data_sector * sector,
            root,
            label,
            free_clusters: None,
        };
        Ok((geometry, info_offset))
    }

    /// Byte offset of a cluster that was checked.
    pub fn cluster_offset(&self, cluster: u32) -> u64 {
        let index = u64::from(cluster.saturating_sub(FIRST_CLUSTER));
        self.data_offset + index * u64::from(self.cluster_bytes)
    }

    /// Whether the number is that of a cluster.
    pub fn has_cluster(&self, cluster: u32) -> bool {
        (FIRST_CLUSTER..self.cluster_end).contains(&cluster)
    }

    /// Number of clusters.
    pub fn clusters(&self) -> u32 {
        self.cluster_end - FIRST_CLUSTER
    }
}

fn free_clusters(bytes: &[u8]) -> Option<u32> {
    let raw = RawInfoSector::ref_from_bytes(bytes).ok()?;
    let signed = raw.lead_signature.get() == 0x4161_5252 && raw.signature.get() == 0x6141_7272;
    signed.then(|| raw.free_clusters.get())
}

fn corrupt(problem: &'static str, expected: u64, seen: u64) -> FsError {
    FsError::corrupt("boot sector", 0, problem, expected, seen)
}
