//! A virtio block device (virtio 1.2, 5.2) over a [`Media`].

use model_media::{Durability, Media};
use model_virtio::{DeviceLogic, Request, Served};
use spec_virtio::block::{Header, Range, SECTOR_BYTES, UNMAP, config, feature, request, status};
use zerocopy::{FromBytes, IntoBytes};

/// What a [`BlockModel`] is like.
#[derive(Clone, Debug)]
pub struct BlockModelOptions {
    /// Features offered beside `VERSION_1`.
    pub features: u64,
    /// Sectors.
    pub sectors: u64,
    /// Block size in bytes.
    pub block_size: u32,
    /// Most segments of a request.
    pub seg_max: u32,
    /// Longest segment in bytes.
    pub size_max: u32,
    /// Request queues.
    pub queues: u16,
    /// Entries of each.
    pub queue_size: u16,
}

impl Default for BlockModelOptions {
    fn default() -> Self {
        BlockModelOptions {
            features: feature::SEG_MAX
                | feature::BLK_SIZE
                | feature::FLUSH
                | feature::TOPOLOGY
                | feature::MQ
                | feature::DISCARD
                | feature::WRITE_ZEROES
                | spec_virtio::feature::RING_INDIRECT_DESC
                | spec_virtio::feature::RING_EVENT_IDX,
            sectors: 4096,
            block_size: 512,
            seg_max: 126,
            size_max: 1 << 20,
            queues: 1,
            queue_size: 128,
        }
    }
}

/// How the device departs from the rules, from now on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Misbehaviour {
    /// Not at all.
    #[default]
    None,
    /// Takes requests and answers none.
    Silent,
    /// Takes requests, answers none, and ignores a reset.
    Dead,
    /// Reports an error for every request.
    Errors,
    /// Answers with a status that does not exist.
    OddStatus,
    /// Completes every request without writing its status, or data.
    NoStatus,
    /// Completes everything twice.
    Twice,
    /// Completes a chain that does not exist in place of each.
    Misnamed,
    /// Claims to have written more than there was room for.
    Overlong,
}

/// The device.
pub struct BlockModel {
    options: BlockModelOptions,
    /// Contents, of blocks of the options' size.
    pub media: Media,
    /// What it does wrong.
    pub misbehaviour: Misbehaviour,
    /// Requests served, by type.
    pub served: Vec<u32>,
    /// The volatile cache is in use (5.2.5.2).
    writeback: bool,
}

impl BlockModel {
    /// A device with a zeroed disk.
    pub fn new(options: BlockModelOptions) -> BlockModel {
        let sectors_per_block = u64::from(options.block_size / SECTOR_BYTES);
        let mut media = Media::new(options.block_size, options.sectors / sectors_per_block);
        if options.features & feature::RO != 0 {
            media.protect();
        }
        BlockModel {
            media,
            misbehaviour: Misbehaviour::None,
            served: Vec::new(),
            writeback: true,
            options,
        }
    }

    /// Resizes the disk; call [`VirtioPci::change_config`](model_virtio::VirtioPci::change_config) afterwards.
    pub fn resize(&mut self, sectors: u64) {
        self.options.sectors = sectors;
        self.media.resize(sectors / self.sectors_per_block());
    }

    fn sectors_per_block(&self) -> u64 {
        u64::from(self.options.block_size / SECTOR_BYTES)
    }

    /// Whether writes are durable when they complete (5.2.6.2).
    fn durability(&self, features: u64) -> Durability {
        let volatile = if features & feature::CONFIG_WCE != 0 {
            self.writeback
        } else {
            features & feature::FLUSH != 0
        };
        if volatile {
            Durability::Cached
        } else {
            Durability::Forced
        }
    }

    /// Blocks of a request.
    fn blocks(&self, sector: u64, sectors: u64) -> Result<(u64, u64), String> {
        let each = self.sectors_per_block();
        if !sector.is_multiple_of(each) || !sectors.is_multiple_of(each) || sectors == 0 {
            return Err(format!("{sectors} sectors at {sector}: misaligned"));
        }
        let (lba, count) = (sector / each, sectors / each);
        match lba.checked_add(count) {
            Some(end) if end <= self.media.block_count() => Ok((lba, count)),
            _ => Err(format!("{sectors} sectors at {sector}: outside")),
        }
    }

    /// The limits of a request's segments (5.2.5).
    fn check_segments(&self, asked: &Request<'_>) -> Result<(), String> {
        let chain = asked.chain;
        let segments = (chain.readable.len() + chain.writable.len()).saturating_sub(2);
        let BlockModelOptions {
            seg_max, size_max, ..
        } = self.options;
        if asked.features & feature::SEG_MAX != 0 && segments > seg_max as usize {
            return Err(format!("{segments} segments, at most {seg_max}"));
        }
        let mut all = chain.readable.iter().chain(&chain.writable);
        match all.find(|segment| segment.1 > size_max.max(16)) {
            Some((_, len)) if asked.features & feature::SIZE_MAX != 0 => {
                Err(format!("segment of {len} bytes, at most {size_max}"))
            }
            _ => Ok(()),
        }
    }

    /// Carries out one request: status, and what is written before it.
    fn request(&mut self, asked: &Request<'_>) -> Result<(u8, Vec<u8>), String> {
        let (chain, memory, features) = (asked.chain, asked.memory, asked.features);
        let input = chain.read(memory)?;
        let Some((header, data)) = input.split_at_checked(size_of::<Header>()) else {
            return Err(format!("request of {} bytes has no header", input.len()));
        };
        let header = Header::read_from_bytes(header).map_err(|e| e.to_string())?;
        let room = chain.writable_len();
        if room == 0 {
            return Err("request without room for its status".into());
        }
        self.check_segments(asked)?;
        self.served.push(header.kind);
        if self.misbehaviour == Misbehaviour::Errors {
            return Ok((status::IOERR, Vec::new()));
        }
        let negotiated = |bit, what| match features & bit {
            0 => Err(format!("{what} without its feature")),
            _ => Ok(()),
        };
        if !matches!(header.kind, request::IN | request::OUT) && header.sector != 0 {
            return Err(format!(
                "request {} with sector {}",
                header.kind, header.sector
            ));
        }
        let durability = self.durability(features);
        let done = match header.kind {
            request::IN => {
                let sectors = whole_sectors(room - 1)?;
                let (lba, count) = self.blocks(header.sector, sectors)?;
                match self.media.read(lba, count) {
                    Ok(bytes) => return Ok((status::OK, bytes)),
                    Err(error) => Err(error),
                }
            }
            request::OUT => {
                let sectors = whole_sectors(data.len() as u32)?;
                let (lba, _) = self.blocks(header.sector, sectors)?;
                self.media.write(lba, data, durability)
            }
            request::FLUSH => {
                negotiated(feature::FLUSH, "flush")?;
                self.media.flush();
                Ok(())
            }
            request::GET_ID => {
                if room != 21 {
                    return Err("identification without 20 bytes of room".into());
                }
                return Ok((status::OK, b"model-disk-0\0\0\0\0\0\0\0\0".to_vec()));
            }
            request::DISCARD | request::WRITE_ZEROES => {
                let Ok(segment) = Range::read_from_bytes(data) else {
                    return Err(format!("{} bytes of ranges", data.len()));
                };
                let (max, allowed) = if header.kind == request::DISCARD {
                    negotiated(feature::DISCARD, "discard")?;
                    (MAX_DISCARD_SECTORS, 0)
                } else {
                    negotiated(feature::WRITE_ZEROES, "write-zeroes")?;
                    (MAX_WRITE_ZEROES_SECTORS, UNMAP)
                };
                if segment.flags & !allowed != 0 {
                    return Err(format!("range with flags {:#x}", segment.flags));
                }
                if segment.count > max {
                    return Err(format!("range of {} sectors, at most {max}", segment.count));
                }
                let (lba, count) = self.blocks(segment.sector, segment.count.into())?;
                // What is discarded has no promised contents; this disk zeroes it, so that a discard of
                // the wrong blocks is seen.
                self.media.zero(lba, count, durability)
            }
            _ => return Ok((status::UNSUPP, Vec::new())),
        };
        let status = if done.is_ok() {
            status::OK
        } else {
            status::IOERR
        };
        Ok((status, Vec::new()))
    }
}

fn whole_sectors(bytes: u32) -> Result<u64, String> {
    if bytes.is_multiple_of(SECTOR_BYTES) {
        return Ok(u64::from(bytes / SECTOR_BYTES));
    }
    Err(format!("{bytes} bytes are not whole sectors"))
}

/// Longest discard and write-zeroes, in sectors.
const MAX_DISCARD_SECTORS: u32 = 0x8000;
const MAX_WRITE_ZEROES_SECTORS: u32 = 0x4000;

impl DeviceLogic for BlockModel {
    fn features(&self) -> u64 {
        self.options.features
    }

    fn config(&self) -> Vec<u8> {
        let mut bytes = vec![0; config::LEN];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(config::CAPACITY, self.options.sectors.as_bytes());
        put(config::SIZE_MAX, self.options.size_max.as_bytes());
        put(config::SEG_MAX, self.options.seg_max.as_bytes());
        put(config::BLK_SIZE, self.options.block_size.as_bytes());
        put(config::PHYSICAL_BLOCK_EXP, &[3]);
        put(config::WRITEBACK, &[self.writeback.into()]);
        put(config::NUM_QUEUES, self.options.queues.as_bytes());
        put(config::MAX_DISCARD_SECTORS, MAX_DISCARD_SECTORS.as_bytes());
        put(config::MAX_DISCARD_SEG, 1u32.as_bytes());
        put(config::DISCARD_SECTOR_ALIGNMENT, 1u32.as_bytes());
        put(
            config::MAX_WRITE_ZEROES_SECTORS,
            MAX_WRITE_ZEROES_SECTORS.as_bytes(),
        );
        put(config::MAX_WRITE_ZEROES_SEG, 1u32.as_bytes());
        put(config::WRITE_ZEROES_MAY_UNMAP, &[1]);
        bytes
    }

    fn queues(&self) -> (u16, u16) {
        (self.options.queues, self.options.queue_size)
    }

    fn write_config(&mut self, offset: usize, bytes: &[u8], features: u64) -> Result<(), String> {
        match (offset, bytes) {
            (config::WRITEBACK, [value @ 0..=1]) if features & feature::CONFIG_WCE != 0 => {
                self.writeback = *value == 1;
                if !self.writeback {
                    self.media.flush();
                }
                Ok(())
            }
            _ => Err(format!(
                "write of {bytes:x?} to the configuration at {offset:#x}"
            )),
        }
    }

    fn serve(&mut self, asked: &Request<'_>) -> Result<Served, String> {
        if matches!(self.misbehaviour, Misbehaviour::Silent | Misbehaviour::Dead) {
            return Ok(Served::Lost);
        }
        let (chain, memory) = (asked.chain, asked.memory);
        let room = chain.writable_len();
        let (mut status, data) = self.request(asked)?;
        if self.misbehaviour != Misbehaviour::NoStatus {
            chain.write(memory, 0, &data)?;
        }
        if self.misbehaviour == Misbehaviour::OddStatus {
            status = 0x77;
        }
        if self.misbehaviour != Misbehaviour::NoStatus {
            chain.write(memory, room - 1, &[status])?;
        }
        let written = data.len() as u32 + 1;
        Ok(match self.misbehaviour {
            Misbehaviour::Twice => Served::Twice(written),
            Misbehaviour::Misnamed => Served::Misnamed(written),
            Misbehaviour::Overlong => Served::Done(u32::MAX),
            _ => Served::Done(written),
        })
    }

    fn reset(&mut self) {
        self.writeback = true;
    }

    fn answers_reset(&self) -> bool {
        self.misbehaviour != Misbehaviour::Dead
    }
}
