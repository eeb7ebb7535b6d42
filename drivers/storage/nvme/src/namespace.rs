//! What controller and namespaces say of themselves (NVMe 1.4, 5.15.2), checked and in the units of the class.

use alloc::format;
use alloc::string::String;

use ddk::{DmaRegion, DriverError, PAGE};
use ddk_class_block::DiskInfo;
use spec_nvme::command::BLOCKS_MAX;
use spec_nvme::identify::{controller, namespace};

/// Most pages of a transfer: what one page of PRP entries describes, so that lists are never chained.
const PAGES_MAX: u32 = (PAGE / 8) as u32;
/// Longest discard in bytes. A controller may take long for more, and small ones have limits near this.
const DISCARD_MAX: u32 = 1 << 30;
/// Block sizes that the class serves, as powers of two.
const BLOCK_SHIFTS: core::ops::RangeInclusive<u8> = 9..=16;

/// What Identify Controller says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Identity {
    pub(crate) serial: String,
    pub(crate) model: String,
    /// Most pages of a transfer.
    pub(crate) pages: u32,
    pub(crate) volatile_cache: bool,
    pub(crate) discard: bool,
    pub(crate) write_zeroes: bool,
    /// Events that can be configured.
    pub(crate) events: u32,
    /// Highest namespace identifier.
    pub(crate) namespaces: u32,
}

impl Identity {
    /// Reads the answer of Identify Controller. `page_min_shift` is the unit of MDTS.
    pub(crate) fn read(page: &DmaRegion, page_min_shift: u8) -> Result<Identity, DriverError> {
        // 5.15.2.2: entries of 64 and 16 bytes are within what the controller takes.
        for (what, at, wanted) in [
            ("size of submission queue entries", controller::SQES, 6),
            ("size of completion queue entries", controller::CQES, 4),
        ] {
            let sizes = page.read::<u8>(at);
            if !(sizes & 0xf..=sizes >> 4).contains(&wanted) {
                return Err(DriverError::Protocol {
                    what,
                    expected: wanted.into(),
                    seen: sizes.into(),
                });
            }
        }
        let mdts = page.read::<u8>(controller::MDTS);
        // In pages of 4096 bytes, which are the smallest that the controller has, or larger.
        let shift = u32::from(mdts) + u32::from(page_min_shift) - PAGE.trailing_zeros();
        let pages = match mdts {
            0 => PAGES_MAX,
            _ => 1u32.checked_shl(shift).unwrap_or(PAGES_MAX).min(PAGES_MAX),
        };
        let optional = page.read::<u16>(controller::ONCS);
        Ok(Identity {
            serial: text(page, controller::SERIAL, controller::SERIAL_BYTES),
            model: text(page, controller::MODEL, controller::MODEL_BYTES),
            pages: pages.max(1),
            volatile_cache: page.read::<u8>(controller::VWC) & controller::VWC_PRESENT != 0,
            discard: optional & controller::ONCS_DATASET_MANAGEMENT != 0,
            write_zeroes: optional & controller::ONCS_WRITE_ZEROES != 0,
            events: page.read(controller::OAES),
            namespaces: page.read(controller::NN),
        })
    }
}

/// Printable text, without the spaces that pad it.
fn text(page: &DmaRegion, at: usize, len: usize) -> String {
    let bytes = (at..at + len).map(|at| page.read::<u8>(at));
    let printable = bytes.map(|b| if b.is_ascii_graphic() { b } else { b' ' });
    let all: String = printable.map(char::from).collect();
    String::from(all.trim())
}

/// A namespace that can be served.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Namespace {
    pub(crate) id: u32,
    pub(crate) block_shift: u8,
    pub(crate) blocks: u64,
    pub(crate) read_only: bool,
    physical_block_size: u32,
    /// Whether write-zeroes may deallocate and the blocks still read as zeroes.
    pub(crate) zeroes_unmap: bool,
}

/// Why a namespace cannot be served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unserved {
    /// It is not active.
    Inactive,
    /// Its blocks have metadata.
    Metadata(u16),
    /// Its blocks have a size that is not served, as a power of two.
    BlockShift(u8),
    /// Its size in bytes does not fit into 64 bits.
    Size(u64),
}

impl core::fmt::Display for Unserved {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Unserved::Inactive => f.write_str("it is not active"),
            Unserved::Metadata(bytes) => write!(
                f,
                "its blocks have {bytes} bytes of metadata; format it without"
            ),
            Unserved::BlockShift(shift) => write!(
                f,
                "its blocks have 2^{shift} bytes; 2^9 to 2^16, and no more than a transfer, are served"
            ),
            Unserved::Size(blocks) => write!(f, "{blocks} blocks are more than 2^64 bytes"),
        }
    }
}

impl Namespace {
    /// Reads the answer of Identify Namespace.
    pub(crate) fn read(
        page: &DmaRegion,
        id: u32,
        identity: &Identity,
    ) -> Result<Namespace, Unserved> {
        let blocks = page.read::<u64>(namespace::NSZE);
        if blocks == 0 {
            return Err(Unserved::Inactive);
        }
        let format = usize::from(page.read::<u8>(namespace::FLBAS) & 0xf);
        let format = page.read::<u32>(namespace::LBAF + 4 * format);
        let (metadata, block_shift) = (format as u16, (format >> 16) as u8);
        if metadata != 0 {
            return Err(Unserved::Metadata(metadata));
        }
        let transfer = identity.pages.saturating_mul(PAGE as u32);
        if !BLOCK_SHIFTS.contains(&block_shift) || 1 << block_shift > transfer {
            return Err(Unserved::BlockShift(block_shift));
        }
        if blocks > u64::MAX >> block_shift {
            return Err(Unserved::Size(blocks));
        }
        let block = 1u32 << block_shift;
        let optimal = page.read::<u8>(namespace::NSFEAT) & namespace::NSFEAT_OPTIMAL_IO != 0;
        let granularity = u32::from(page.read::<u16>(namespace::NPWG)) + 1;
        let physical = block.saturating_mul(granularity);
        let plausible = optimal && physical.is_power_of_two() && physical <= 1 << 16;
        let deallocated = page.read::<u8>(namespace::DLFEAT);
        let attributes = page.read::<u8>(namespace::NSATTR);
        Ok(Namespace {
            id,
            block_shift,
            blocks,
            read_only: attributes & namespace::NSATTR_WRITE_PROTECTED != 0,
            physical_block_size: if plausible { physical } else { block },
            zeroes_unmap: deallocated & namespace::DLFEAT_READ_MASK
                == namespace::DLFEAT_READ_ZEROES
                && deallocated & namespace::DLFEAT_WRITE_ZEROES != 0,
        })
    }

    /// The disk that it is.
    pub(crate) fn disk(&self, identity: &Identity) -> DiskInfo {
        let shift = self.block_shift;
        // Both limits are multiples of the block size: it divides a page or is a multiple of one that was
        // found to be no more than a transfer.
        let transfer = identity.pages.saturating_mul(PAGE as u32);
        let zeroes = u64::from(BLOCKS_MAX) << shift;
        let zeroes = zeroes.min(u64::from(u32::MAX >> shift) << shift) as u32;
        DiskInfo {
            unit: self.id,
            suffix: format!("n{}", self.id),
            block_shift: shift,
            physical_block_size: self.physical_block_size,
            block_count: self.blocks,
            read_only: self.read_only,
            max_transfer: transfer >> shift << shift,
            max_discard: if identity.discard { DISCARD_MAX } else { 0 },
            max_write_zeroes: if identity.write_zeroes { zeroes } else { 0 },
            volatile_cache: identity.volatile_cache,
            durable_writes: true,
            serial: identity.serial.clone(),
        }
    }
}
