//! Entries of the file allocation table, read a window at a time.

use alloc::vec::Vec;

use volume::{FsError, Volume};

use crate::bpb::{Geometry, Width};

/// Bytes of the table that are read at once.
const WINDOW_BYTES: u64 = 4096;

/// What an entry says of its cluster (FATGEN "FAT Data Structure").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// Not in use.
    Free,
    /// Followed by this cluster, which need not exist.
    Next(u32),
    /// Marked as bad.
    Bad,
    /// The last of its chain.
    End,
}

/// A part of the table.
pub struct Window {
    first_byte: u64,
    bytes: Vec<u8>,
    width: Width,
}

impl Window {
    /// Reads the part that holds the entry of `cluster`.
    pub async fn read(
        volume: &impl Volume,
        geometry: &Geometry,
        cluster: u32,
    ) -> Result<Self, FsError> {
        let first_byte = first_byte(geometry.width, cluster) / WINDOW_BYTES * WINDOW_BYTES;
        // One byte more, for an entry of 12 bits that lies across the end.
        let len = (WINDOW_BYTES + 1).min(geometry.fat_bytes.saturating_sub(first_byte));
        let mut bytes = alloc::vec![0; len as usize];
        volume
            .read_at(geometry.fat_offset + first_byte, &mut bytes)
            .await?;
        Ok(Self {
            first_byte,
            bytes,
            width: geometry.width,
        })
    }

    /// The entry of a cluster; none if it lies in another window.
    pub fn link(&self, cluster: u32) -> Option<Link> {
        let at = first_byte(self.width, cluster).checked_sub(self.first_byte)?;
        if at >= WINDOW_BYTES {
            return None;
        }
        let rest = self.bytes.get(at as usize..)?;
        let pair = || {
            rest.first_chunk::<2>()
                .map(|pair| u32::from(u16::from_le_bytes(*pair)))
        };
        let (value, bits) = match self.width {
            Width::Fat12 if cluster.is_multiple_of(2) => (pair()? & 0xFFF, 12),
            Width::Fat12 => (pair()? >> 4, 12),
            Width::Fat16 => (pair()?, 16),
            Width::Fat32 => (
                u32::from_le_bytes(*rest.first_chunk::<4>()?) & 0x0FFF_FFFF,
                28,
            ),
        };
        let top = (1u32 << bits) - 1;
        Some(match value {
            0 => Link::Free,
            value if value >= top - 7 => Link::End,
            value if value == top - 8 => Link::Bad,
            value => Link::Next(value),
        })
    }
}

fn first_byte(width: Width, cluster: u32) -> u64 {
    u64::from(cluster) * width.bits() / 8
}

/// Counts free clusters, in the whole table.
pub async fn count_free(volume: &impl Volume, geometry: &Geometry) -> Result<u32, FsError> {
    let mut free = 0;
    let mut cluster = crate::bpb::FIRST_CLUSTER;
    while cluster < geometry.cluster_end {
        let window = Window::read(volume, geometry, cluster).await?;
        let start = cluster;
        while cluster < geometry.cluster_end
            && let Some(link) = window.link(cluster)
        {
            free += u32::from(link == Link::Free);
            cluster += 1;
        }
        if cluster == start {
            break;
        }
    }
    Ok(free)
}
