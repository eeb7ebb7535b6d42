//! A virtio block device (virtio 1.2, 5.2) over a disk in memory.

use spec_virtio::block::{Header, Range, SECTOR_BYTES, config, feature, request, status};
use zerocopy::{FromBytes, IntoBytes};

use ddk_backend_sim::DeviceMemory;
use model_virtio::{DeviceChain, DeviceLogic, DeviceQueue};

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
    /// Completes every request without writing its status.
    NoStatus,
    /// Completes everything twice.
    Twice,
}

/// The device.
pub struct BlockModel {
    options: BlockModelOptions,
    /// Contents.
    pub disk: Vec<u8>,
    /// What it does wrong.
    pub misbehaviour: Misbehaviour,
    /// Requests served, by type.
    pub served: Vec<u32>,
    /// Requests not covered by a flush yet.
    pub unflushed: usize,
}

impl BlockModel {
    /// A device with a zeroed disk.
    pub fn new(options: BlockModelOptions) -> BlockModel {
        let disk = vec![0; (options.sectors * u64::from(SECTOR_BYTES)) as usize];
        BlockModel {
            options,
            disk,
            misbehaviour: Misbehaviour::None,
            served: Vec::new(),
            unflushed: 0,
        }
    }

    /// Resizes the disk; call [`VirtioPci::change_config`](model_virtio::VirtioPci::change_config) afterwards.
    pub fn resize(&mut self, sectors: u64) {
        self.options.sectors = sectors;
        self.disk
            .resize((sectors * u64::from(SECTOR_BYTES)) as usize, 0);
    }

    /// Serves one request: status, and what is written before it.
    fn request(
        &mut self,
        chain: &DeviceChain,
        memory: &DeviceMemory,
    ) -> Result<(u8, Vec<u8>), String> {
        let input = chain.read(memory)?;
        let Some((header, data)) = input.split_at_checked(size_of::<Header>()) else {
            return Err(format!("request of {} bytes has no header", input.len()));
        };
        let header = Header::read_from_bytes(header).expect("16 bytes");
        let room = chain.writable_len();
        if room == 0 {
            return Err("request without room for its status".into());
        }
        let segments = chain.readable.len() + chain.writable.len() - 2;
        if self.options.features & feature::SEG_MAX != 0 && segments as u32 > self.options.seg_max {
            return Err(format!(
                "{segments} segments, at most {}",
                self.options.seg_max
            ));
        }
        let all = chain.readable.iter().chain(&chain.writable);
        if self.options.features & feature::SIZE_MAX != 0
            && let Some((_, len)) = all
                .into_iter()
                .find(|s| s.1 > self.options.size_max.max(16))
        {
            return Err(format!(
                "segment of {len} bytes, at most {}",
                self.options.size_max
            ));
        }
        self.served.push(header.kind);
        if self.misbehaviour == Misbehaviour::Errors {
            return Ok((status::IOERR, Vec::new()));
        }
        let block = u64::from(self.options.block_size / SECTOR_BYTES);
        match header.kind {
            request::IN | request::OUT => {
                let len = if header.kind == request::IN {
                    room - 1
                } else {
                    data.len() as u32
                };
                if len == 0 || u64::from(len) % (block * 512) != 0 || header.sector % block != 0 {
                    return Err(format!(
                        "{len} bytes at sector {}: misaligned",
                        header.sector
                    ));
                }
                let Some(range) = self.range(header.sector, u64::from(len) / 512) else {
                    return Err(format!("{len} bytes at sector {}: outside", header.sector));
                };
                if header.kind == request::IN {
                    return Ok((status::OK, self.disk[range].to_vec()));
                }
                if self.options.features & feature::RO != 0 {
                    return Ok((status::IOERR, Vec::new()));
                }
                self.disk[range].copy_from_slice(data);
                self.unflushed += 1;
                Ok((status::OK, Vec::new()))
            }
            request::FLUSH => {
                self.unflushed = 0;
                Ok((status::OK, Vec::new()))
            }
            request::GET_ID => {
                if room != 21 {
                    return Err("identification without 20 bytes of room".into());
                }
                Ok((status::OK, b"model-disk-0\0\0\0\0\0\0\0\0".to_vec()))
            }
            request::DISCARD | request::WRITE_ZEROES => {
                let Ok(segment) = Range::read_from_bytes(data) else {
                    return Err(format!("{} bytes of ranges", data.len()));
                };
                if header.kind == request::DISCARD && segment.flags != 0 {
                    return Err("discard with flags".into());
                }
                let Some(range) = self.range(segment.sector, segment.count.into()) else {
                    return Err("range outside".into());
                };
                if header.kind == request::WRITE_ZEROES {
                    self.disk[range].fill(0);
                }
                Ok((status::OK, Vec::new()))
            }
            _ => Ok((status::UNSUPP, Vec::new())),
        }
    }

    fn range(&self, sector: u64, count: u64) -> Option<std::ops::Range<usize>> {
        let start = sector.checked_mul(512)? as usize;
        let end = sector.checked_add(count)?.checked_mul(512)? as usize;
        (end <= self.disk.len()).then_some(start..end)
    }
}

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
        put(config::NUM_QUEUES, self.options.queues.as_bytes());
        put(config::MAX_DISCARD_SECTORS, 0x8000u32.as_bytes());
        put(config::MAX_DISCARD_SEG, 1u32.as_bytes());
        put(config::DISCARD_SECTOR_ALIGNMENT, 1u32.as_bytes());
        put(config::MAX_WRITE_ZEROES_SECTORS, 0x4000u32.as_bytes());
        put(config::MAX_WRITE_ZEROES_SEG, 1u32.as_bytes());
        put(config::WRITE_ZEROES_MAY_UNMAP, &[1]);
        bytes
    }

    fn queues(&self) -> (u16, u16) {
        (self.options.queues, self.options.queue_size)
    }

    fn serve(
        &mut self,
        _: u16,
        queue: &mut DeviceQueue,
        memory: &DeviceMemory,
    ) -> Result<bool, String> {
        let mut interrupt = false;
        while let Some(chain) = queue.pop()? {
            if matches!(self.misbehaviour, Misbehaviour::Silent | Misbehaviour::Dead) {
                continue;
            }
            let room = chain.writable_len();
            let (mut status, data) = self.request(&chain, memory)?;
            chain.write(memory, 0, &data)?;
            if self.misbehaviour == Misbehaviour::OddStatus {
                status = 0x77;
            }
            if self.misbehaviour != Misbehaviour::NoStatus {
                chain.write(memory, room - 1, &[status])?;
            }
            interrupt |= queue.complete(chain.head, data.len() as u32 + 1)?;
            if self.misbehaviour == Misbehaviour::Twice {
                interrupt |= queue.complete_raw(chain.head.into(), 1)?;
            }
        }
        Ok(interrupt)
    }

    fn answers_reset(&self) -> bool {
        self.misbehaviour != Misbehaviour::Dead
    }
}
