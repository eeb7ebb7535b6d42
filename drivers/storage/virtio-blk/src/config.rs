//! What the device says of itself (virtio 1.2, 5.2.4), checked and in the units of the class.

use alloc::string::String;

use ddk::{DriverError, PAGE};
use ddk_class_block::DiskInfo;
use ddk_virtio::Transport;
use spec_virtio::block::{SECTOR_BYTES, config, feature};
use spec_virtio::feature::RING_INDIRECT_DESC;

/// Bytes of a sector as a power of two.
const SECTOR_SHIFT: u8 = SECTOR_BYTES.trailing_zeros() as u8;

/// Data segments that fit into a chain beside header and status, by kind of chain.
const CHAIN_SEGMENTS_INDIRECT: u32 = 254;
const CHAIN_SEGMENTS_DIRECT: u32 = 14;

/// Limits and geometry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Limits {
    pub(crate) block_shift: u8,
    pub(crate) block_count: u64,
    pub(crate) read_only: bool,
    physical_block_size: u32,
    volatile_cache: bool,
    /// Most data segments of a request.
    pub(crate) segments: u32,
    /// Longest segment in bytes, 0 for no limit.
    pub(crate) segment_bytes: u32,
    max_discard: u32,
    max_write_zeroes: u32,
    /// Whether write-zeroes may unmap.
    pub(crate) unmap: bool,
    /// Request queues.
    pub(crate) queues: u16,
}

/// The fields as they are in the configuration.
#[derive(Clone, Copy, Default)]
struct Fields {
    capacity: u64,
    size_max: u32,
    seg_max: u32,
    blk_size: u32,
    physical_exp: u8,
    writeback: u8,
    num_queues: u16,
    discard_sectors: u32,
    zeroes_sectors: u32,
    zeroes_unmap: u8,
}

impl Limits {
    pub(crate) fn read(transport: &Transport, features: u64) -> Result<Limits, DriverError> {
        let fields = transport.read_config(|c| Fields {
            capacity: c.read_long(config::CAPACITY),
            size_max: c.read(config::SIZE_MAX),
            seg_max: c.read(config::SEG_MAX),
            blk_size: c.read(config::BLK_SIZE),
            physical_exp: c.read(config::PHYSICAL_BLOCK_EXP),
            writeback: c.read(config::WRITEBACK),
            num_queues: c.read(config::NUM_QUEUES),
            discard_sectors: c.read(config::MAX_DISCARD_SECTORS),
            zeroes_sectors: c.read(config::MAX_WRITE_ZEROES_SECTORS),
            zeroes_unmap: c.read(config::WRITE_ZEROES_MAY_UNMAP),
        })?;
        Limits::from_fields(&fields, features)
    }

    fn from_fields(fields: &Fields, features: u64) -> Result<Limits, DriverError> {
        let has = |bit| features & bit != 0;
        let block = if has(feature::BLK_SIZE) {
            fields.blk_size
        } else {
            SECTOR_BYTES
        };
        if !block.is_power_of_two() || !(SECTOR_BYTES..=65536).contains(&block) {
            let what = "block size, a power of two from 512 to 65536";
            return Err(DriverError::Protocol {
                what,
                expected: 512,
                seen: block.into(),
            });
        }
        let block_shift = block.trailing_zeros() as u8;
        let sectors_shift = block_shift - SECTOR_SHIFT;
        // Addresses in bytes have to fit into 64 bits.
        if fields.capacity > u64::MAX >> SECTOR_SHIFT {
            let what = "capacity in sectors";
            let expected = u64::MAX >> SECTOR_SHIFT;
            return Err(DriverError::Protocol {
                what,
                expected,
                seen: fields.capacity,
            });
        }
        let physical = if has(feature::TOPOLOGY) && fields.physical_exp <= 16 {
            block.saturating_mul(1 << fields.physical_exp)
        } else {
            block
        };
        let in_chain = if has(RING_INDIRECT_DESC) {
            CHAIN_SEGMENTS_INDIRECT
        } else {
            CHAIN_SEGMENTS_DIRECT
        };
        // Without SEG_MAX the device promises no more than one (5.2.5.2 speaks of limits only where offered).
        let segments = if has(feature::SEG_MAX) {
            fields.seg_max.max(1)
        } else {
            1
        };
        let segment_bytes = if has(feature::SIZE_MAX) {
            fields.size_max
        } else {
            0
        };
        if has(feature::SIZE_MAX) && segment_bytes < SECTOR_BYTES {
            let what = "longest segment in bytes";
            return Err(DriverError::Protocol {
                what,
                expected: 512,
                seen: segment_bytes.into(),
            });
        }
        let in_bytes = |sectors: u32| {
            let whole = u64::from(sectors) >> sectors_shift << block_shift;
            whole.min(u64::from(u32::MAX >> block_shift) << block_shift) as u32
        };
        let discard = if has(feature::DISCARD) {
            in_bytes(fields.discard_sectors)
        } else {
            0
        };
        let zeroes = if has(feature::WRITE_ZEROES) {
            in_bytes(fields.zeroes_sectors)
        } else {
            0
        };
        Ok(Limits {
            block_shift,
            block_count: fields.capacity >> sectors_shift,
            read_only: has(feature::RO),
            physical_block_size: physical,
            // 5.2.5.1: with CONFIG_WCE the field says; else FLUSH alone means write-back.
            volatile_cache: has(feature::FLUSH)
                && (!has(feature::CONFIG_WCE) || fields.writeback != 0),
            segments: segments.min(in_chain),
            segment_bytes,
            max_discard: discard,
            max_write_zeroes: zeroes,
            unmap: fields.zeroes_unmap == 1,
            queues: if has(feature::MQ) {
                fields.num_queues.max(1)
            } else {
                1
            },
        })
    }

    /// Longest transfer that fits into the segments however its pages lie: the first and the last page may be
    /// used in part.
    fn max_transfer(&self) -> u32 {
        let page = PAGE as u32;
        let pieces = match self.segment_bytes {
            0 => 1,
            bytes => page.div_ceil(bytes.min(page)),
        };
        let pages = (self.segments / pieces).saturating_sub(1).max(1);
        let bytes = pages.saturating_mul(page) >> self.block_shift << self.block_shift;
        bytes.max(1 << self.block_shift)
    }

    pub(crate) fn disk(&self, serial: String) -> DiskInfo {
        DiskInfo {
            unit: 0,
            suffix: String::new(),
            block_shift: self.block_shift,
            physical_block_size: self.physical_block_size,
            block_count: self.block_count,
            read_only: self.read_only,
            max_transfer: self.max_transfer(),
            max_discard: self.max_discard,
            max_write_zeroes: self.max_write_zeroes,
            volatile_cache: self.volatile_cache,
            durable_writes: false,
            serial,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn limits_follow_the_features() {
        let fields = Fields {
            capacity: 1000,
            blk_size: 4096,
            seg_max: 254,
            ..Fields::default()
        };
        let all = feature::BLK_SIZE | feature::SEG_MAX | RING_INDIRECT_DESC;
        let limits = Limits::from_fields(&fields, all).unwrap();
        assert_eq!((limits.block_shift, limits.block_count), (12, 125));
        assert_eq!(limits.max_transfer(), 253 * 4096);
        let plain = Limits::from_fields(&fields, 0).unwrap();
        assert_eq!(
            (plain.block_shift, plain.block_count, plain.segments),
            (9, 1000, 1)
        );
        assert!(!plain.volatile_cache);
    }

    proptest! {
        #[test]
        fn no_configuration_panics(
            numbers in any::<(u64, u32, u32, u32, u8, u8, u16, u32, u32)>(),
            features: u64,
        ) {
            let n = numbers;
            let fields = Fields {
                capacity: n.0, size_max: n.1, seg_max: n.2, blk_size: n.3, physical_exp: n.4,
                writeback: n.5, num_queues: n.6, discard_sectors: n.7, zeroes_sectors: n.8,
                zeroes_unmap: 1,
            };
            if let Ok(limits) = Limits::from_fields(&fields, features) {
                let disk = limits.disk(String::new());
                prop_assert!(disk.max_transfer >= 1 << disk.block_shift);
                prop_assert!(disk.block_count.checked_shl(disk.block_shift.into()).is_some());
                prop_assert_eq!(disk.max_discard % (1 << disk.block_shift), 0);
            }
        }
    }
}
