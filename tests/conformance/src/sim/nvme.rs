//! NVMe over its model.

use std::sync::Arc;

use ddk::{DeviceAccess, PinnedBuffer, Platform};
use ddk_backend_sim::{DeviceMemory, SimPlatform};
use ddk_conformance_block::{Disk, Fault, Home, Problem, Promise, Shape};
use fastrand::Rng;
use model_nvme::{Misbehaviour, NamespaceOptions, NvmeModel, NvmeOptions};

use super::{DAMAGED, DISK_BYTES, ODD_BLOCKS, durable, finish, prepare, visible};
use crate::device::{Device, Ended, Payload};
use crate::host_disk::HostDisk;

/// The home.
pub struct NvmeSim;

impl Home for NvmeSim {
    fn open(&mut self, shape: Shape, seed: u64) -> Result<Box<dyn Disk + '_>, Problem> {
        let (device, index) = ModelDevice::new(shape, seed)?;
        Ok(Box::new(HostDisk::<nvme::Nvme, _>::new(device, index)?))
    }
}

struct ModelDevice {
    model: Arc<NvmeModel>,
    platform: Arc<SimPlatform>,
    memory: DeviceMemory,
    /// The namespace under test.
    namespace: u32,
    promise: Promise,
}

const LIES: [(&str, Misbehaviour); 7] = [
    ("an error for every command", Misbehaviour::Errors),
    ("a status that does not exist", Misbehaviour::OddStatus),
    (
        "completions of commands that do not exist",
        Misbehaviour::WrongId,
    ),
    (
        "completions of another queue's commands",
        Misbehaviour::WrongQueue,
    ),
    (
        "a submission queue head that does not exist",
        Misbehaviour::WrongHead,
    ),
    ("every completion twice", Misbehaviour::Twice),
    ("a controller that fails", Misbehaviour::Fatal),
];
const LIE_NAMES: &[&str] = &[
    LIES[0].0, LIES[1].0, LIES[2].0, LIES[3].0, LIES[4].0, LIES[5].0, LIES[6].0,
];

impl ModelDevice {
    /// A controller whose namespace number `.1` is the one under test; the others are there to be left alone.
    fn new(shape: Shape, seed: u64) -> Result<(ModelDevice, usize), Problem> {
        let mut rng = Rng::with_seed(seed);
        let block_bytes = if shape == Shape::LargeBlocks {
            4096
        } else {
            512
        };
        let blocks = match shape {
            Shape::Odd => ODD_BLOCKS,
            _ => DISK_BYTES / u64::from(block_bytes),
        };
        let index = (seed % 3) as usize;
        let mut namespaces = vec![NamespaceOptions::default(); 3];
        namespaces[index] = NamespaceOptions {
            block_bytes,
            blocks,
            read_only: shape == Shape::ReadOnly,
            metadata_bytes: 0,
        };
        let pairs = rng.u16(1..=4);
        let options = NvmeOptions {
            namespaces,
            pairs,
            entries: rng.choice([16, 24, 64, 1024]).unwrap_or(64),
            mdts: rng.choice([3, 5, 6]).unwrap_or(5),
            doorbell_stride: rng.u8(0..=1),
            volatile_cache: shape != Shape::Odd,
            aborts: rng.bool(),
            seed: Some(seed),
            ..NvmeOptions::default()
        };
        let promise = Promise {
            block_size: block_bytes,
            block_count: blocks,
            read_only: shape == Shape::ReadOnly,
            volatile_cache: Some(shape != Shape::Odd),
            serial: Some("MODEL-0001".to_owned()),
            discard_zeroes: true,
            damaged: (shape == Shape::Damaged).then_some(DAMAGED),
            stamped: true,
        };
        let memory = DeviceMemory::default();
        let vectors = rng.u16(1..=pairs + 1);
        let model = NvmeModel::new(options, memory.clone(), vectors);
        let namespace = index as u32 + 1;
        model.with(|state| match state.namespaces.get_mut(&namespace) {
            Some(found) => {
                prepare(&mut found.media, promise.damaged);
                Ok(())
            }
            None => Err(Problem::failed("the model has no such namespace")),
        })?;
        let platform = model.platform(4);
        let device = ModelDevice {
            model,
            platform,
            memory,
            namespace,
            promise,
        };
        Ok((device, index))
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
        let (buffer, payload) = self.memory.payload(pages, access);
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
                self.model.remove();
                return Ok(());
            }
        };
        self.model.with(|state| state.misbehaviour = misbehaviour);
        Ok(())
    }

    fn lies(&self) -> &'static [&'static str] {
        LIE_NAMES
    }

    fn has_virtual_time(&self) -> bool {
        true
    }

    fn medium(&mut self, lba: u64, into: &mut [u8]) -> Result<(), Problem> {
        self.model
            .with(|state| match state.namespaces.get(&self.namespace) {
                Some(found) => visible(&found.media, lba, into),
                None => Err(Problem::failed("the namespace is gone")),
            })
    }

    fn durable(&mut self, lba: u64, into: &mut [u8]) -> Result<(), Problem> {
        self.model
            .with(|state| match state.namespaces.get(&self.namespace) {
                Some(found) => durable(&found.media, lba, into),
                None => Err(Problem::failed("the namespace is gone")),
            })
    }

    fn finish(&mut self, ended: Ended) -> Result<(), Problem> {
        finish(&self.platform, &self.memory, ended)
    }
}
