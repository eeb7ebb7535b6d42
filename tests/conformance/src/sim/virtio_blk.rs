//! virtio-blk over its model.

use std::sync::Arc;

use ddk::{DeviceAccess, PinnedBuffer, Platform};
use ddk_backend_sim::{Sim, SimPlatform};
use ddk_conformance_block::{Disk, Fault, Home, Problem, Promise, Shape};
use fastrand::Rng;
use model_virtio::VirtioPci;
use model_virtio_blk::{BlockModel, BlockModelOptions, Misbehaviour};
use spec_virtio::block::{SECTOR_BYTES, feature};
use spec_virtio::feature::{RING_EVENT_IDX, RING_INDIRECT_DESC};

use super::{DAMAGED, DISK_BYTES, ODD_BLOCKS, durable, finish, prepare, visible};
use crate::device::{Device, Ended, Payload};
use crate::host_disk::HostDisk;

/// The home.
pub struct VirtioBlkSim;

impl Home for VirtioBlkSim {
    fn open(&mut self, shape: Shape, seed: u64) -> Result<Box<dyn Disk + '_>, Problem> {
        let device = ModelDevice::new(shape, seed)?;
        Ok(Box::new(HostDisk::<virtio_blk::VirtioBlk, _>::new(
            device, 0,
        )?))
    }
}

struct ModelDevice {
    model: Arc<VirtioPci<BlockModel>>,
    platform: Arc<SimPlatform>,
    promise: Promise,
}

const LIES: [(&str, Misbehaviour); 6] = [
    ("an error for every request", Misbehaviour::Errors),
    ("a status that does not exist", Misbehaviour::OddStatus),
    ("no status", Misbehaviour::NoStatus),
    ("every completion twice", Misbehaviour::Twice),
    (
        "completions of chains that do not exist",
        Misbehaviour::Misnamed,
    ),
    (
        "more bytes written than there is room for",
        Misbehaviour::Overlong,
    ),
];
const LIE_NAMES: &[&str] = &[
    LIES[0].0, LIES[1].0, LIES[2].0, LIES[3].0, LIES[4].0, LIES[5].0,
];

/// A model that differs with the seed in all that a device may choose.
fn options(shape: Shape, seed: u64) -> BlockModelOptions {
    let mut rng = Rng::with_seed(seed);
    let mut features = feature::SEG_MAX
        | feature::BLK_SIZE
        | feature::TOPOLOGY
        | feature::MQ
        | feature::DISCARD
        | feature::WRITE_ZEROES;
    // The first four seeds have each of the kinds of ring.
    if seed & 1 == 0 {
        features |= RING_INDIRECT_DESC;
    }
    if seed & 2 == 0 {
        features |= RING_EVENT_IDX;
    }
    if shape != Shape::Odd {
        features |= feature::FLUSH;
        if rng.bool() {
            features |= feature::CONFIG_WCE;
        }
    }
    if shape == Shape::ReadOnly {
        features |= feature::RO;
    }
    let size_max = if rng.bool() {
        features |= feature::SIZE_MAX;
        rng.choice([4096, 8192, 1 << 20]).unwrap_or(4096)
    } else {
        0
    };
    let block_size = if shape == Shape::LargeBlocks {
        4096
    } else {
        512
    };
    let sectors = match shape {
        Shape::Odd => ODD_BLOCKS,
        _ => DISK_BYTES / u64::from(SECTOR_BYTES),
    };
    BlockModelOptions {
        features,
        sectors,
        block_size,
        seg_max: rng.choice([6, 14, 62, 126, 254]).unwrap_or(126),
        size_max,
        queues: rng.u16(1..=4),
        queue_size: rng.choice([32, 64, 128, 256]).unwrap_or(128),
    }
}

impl ModelDevice {
    fn new(shape: Shape, seed: u64) -> Result<ModelDevice, Problem> {
        let options = options(shape, seed);
        let promise = Promise {
            block_size: options.block_size,
            block_count: options.sectors * u64::from(SECTOR_BYTES) / u64::from(options.block_size),
            read_only: shape == Shape::ReadOnly,
            volatile_cache: Some(shape != Shape::Odd),
            serial: Some("model-disk-0".to_owned()),
            discard_zeroes: true,
            damaged: (shape == Shape::Damaged).then_some(DAMAGED),
            stamped: true,
        };
        // Fewer vectors than queues ask for are the driver's to live with.
        let vectors = Rng::with_seed(seed).u16(1..=options.queues + 1);
        let mut model = BlockModel::new(options);
        prepare(&mut model.media, promise.damaged);
        let model = VirtioPci::new(&Sim::new(seed), model, vectors);
        let platform = model.platform(4);
        Ok(ModelDevice {
            model,
            platform,
            promise,
        })
    }
}

impl Device for ModelDevice {
    fn platform(&self) -> Option<Arc<dyn Platform>> {
        Some(self.platform.clone())
    }

    fn payload(
        &mut self,
        pages: usize,
        access: DeviceAccess,
    ) -> Result<(PinnedBuffer, Box<dyn Payload>), Problem> {
        let (buffer, payload) = self.model.sim().memory().payload(pages, access);
        Ok((buffer, Box::new(payload)))
    }

    fn promise(&self) -> Promise {
        self.promise.clone()
    }

    fn fault(&mut self, fault: Fault) -> Result<(), Problem> {
        let misbehaviour = match fault {
            Fault::None => Misbehaviour::None,
            Fault::Silent => Misbehaviour::Silent,
            Fault::Dead => Misbehaviour::Dead,
            Fault::Lie(number) => match LIES.get(number) {
                Some((_, lie)) => *lie,
                None => return Err(Problem::Failed(format!("there is no lie {number}"))),
            },
            Fault::Gone => {
                self.model.unplug();
                return Ok(());
            }
        };
        self.model.with(|disk, _| disk.misbehaviour = misbehaviour);
        Ok(())
    }

    fn lies(&self) -> &'static [&'static str] {
        LIE_NAMES
    }

    fn has_virtual_time(&self) -> bool {
        true
    }

    fn medium(&mut self, lba: u64, into: &mut [u8]) -> Result<(), Problem> {
        self.model.with(|disk, _| visible(&disk.media, lba, into))
    }

    fn durable(&mut self, lba: u64, into: &mut [u8]) -> Result<(), Problem> {
        self.model.with(|disk, _| durable(&disk.media, lba, into))
    }

    fn finish(&mut self, ended: Ended) -> Result<(), Problem> {
        finish(&self.platform, self.model.sim().memory(), ended)
    }
}
