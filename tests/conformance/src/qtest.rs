//! The home beside QEMU: drivers as host processes against QEMU's own devices, over the qtest protocol. Each
//! test has a machine of its own.

use std::fs::File;
use std::marker::PhantomData;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use ddk::{DeviceAccess, PinnedBuffer, Platform};
use ddk_backend_qtest::{Disk as Image, Payload as Memory, QtestMachine};
use ddk_class_block::BlockDevice;
use ddk_conformance_block::{Disk, Fault, Home, Problem, Promise, Shape, stamp};

use crate::device::{Device, Ended, Payload};
use crate::host_disk::HostDisk;

/// CPUs that drivers are told of, and queues of the devices.
const CPUS: usize = 2;
/// The block of a damaged disk that can be neither read nor written.
const DAMAGED: u64 = 1234;
/// Name of the device, and of its disk.
const DEVICE: &str = "dut";
const DISK: &str = "medium";

impl Payload for Memory {
    fn read(&self, offset: usize, into: &mut [u8]) {
        into.copy_from_slice(&Memory::read(self, offset, into.len()));
    }

    fn write(&self, offset: usize, bytes: &[u8]) {
        Memory::write(self, offset, bytes);
    }

    fn is_pinned(&self) -> bool {
        Memory::is_pinned(self)
    }
}

/// The home of driver `D`.
pub struct Qtest<D> {
    /// QEMU's device, without what the shape decides.
    device: &'static str,
    folder: PathBuf,
    driver: PhantomData<D>,
}

impl<D> Qtest<D> {
    /// For this device of QEMU.
    ///
    /// # Errors
    /// Why nothing can run.
    pub fn new(device: &'static str) -> Result<Qtest<D>, String> {
        if ddk_backend_qtest::qemu().is_none() {
            return Err("no qemu-system-x86_64 in PATH".to_owned());
        }
        Ok(Qtest {
            device,
            folder: std::env::temp_dir(),
            driver: PhantomData,
        })
    }
}

impl<D: BlockDevice + 'static> Home for Qtest<D> {
    fn open(&mut self, shape: Shape, _: u64) -> Result<Box<dyn Disk + '_>, Problem> {
        let device = QemuDevice::new::<D>(self.device, shape, &self.folder)?;
        Ok(Box::new(HostDisk::<D, _>::new(device, 0)?))
    }
}

struct QemuDevice {
    machine: QtestMachine,
    platform: Option<Arc<dyn Platform>>,
    image: File,
    promise: Promise,
    /// Pages that nobody had before the driver came.
    free_pages: usize,
    silent: bool,
}

fn failed<E: std::fmt::Display>(what: &'static str) -> impl Fn(E) -> Problem {
    move |error| Problem::Failed(format!("{what}: {error}"))
}

impl QemuDevice {
    fn new<D: BlockDevice>(
        device: &str,
        shape: Shape,
        folder: &std::path::Path,
    ) -> Result<QemuDevice, Problem> {
        // QEMU's NVMe namespaces tell neither (NVMe 1.4, NSATTR and the feature of the cache).
        let is_nvme = device.starts_with("nvme");
        if is_nvme && shape == Shape::ReadOnly {
            return Err(Problem::not_offered(
                "the device does not tell that it is read-only",
            ));
        }
        let (block_size, block_count) = match shape {
            Shape::LargeBlocks => (4096, 512),
            Shape::Odd => (512, 1001),
            _ => (512, 4096),
        };
        let mut contents = vec![0; block_size as usize * block_count as usize];
        for (lba, block) in contents.chunks_mut(block_size as usize).enumerate() {
            stamp::write(block, lba as u64, 0);
        }
        let file = tempfile::Builder::new()
            .prefix("conformance-")
            .tempfile_in(folder)
            .map_err(failed("image"))?;
        std::fs::write(file.path(), contents).map_err(failed("image"))?;
        let mut disk = Image::new(DISK, file.path());
        let serial = format!("cf-{shape}");
        let mut device = format!("{device},id={DEVICE},drive={DISK},serial={serial}");
        match shape {
            Shape::LargeBlocks => {
                device.push_str(",logical_block_size=4096,physical_block_size=4096");
            }
            Shape::Odd => device.push_str(",write-cache=off"),
            Shape::ReadOnly => disk = disk.read_only(),
            Shape::Damaged => {
                disk = disk.bad_sector(DAMAGED);
                if device.starts_with("virtio-blk") {
                    // QEMU makes one request of neighbours, and then fails all of them.
                    device.push_str(",request-merging=off");
                }
            }
            Shape::Plain => {}
        }
        let machine = QtestMachine::builder()
            .cpus(CPUS)
            .disk(disk)
            .pluggable_device(&device)
            .start()
            .map_err(failed("machine"))?;
        let free_pages = machine.free_pages();
        let platform = machine
            .platform_for(DEVICE, &D::MANIFEST)
            .map_err(failed("platform"))?;
        // QEMU has the image open: its name is not needed any more.
        let image = file.into_file();
        Ok(QemuDevice {
            machine,
            platform: Some(platform),
            image,
            promise: Promise {
                block_size,
                block_count,
                read_only: shape == Shape::ReadOnly,
                volatile_cache: (!is_nvme).then_some(shape != Shape::Odd),
                serial: Some(serial),
                discard_zeroes: false,
                damaged: (shape == Shape::Damaged).then_some(DAMAGED),
                stamped: true,
            },
            free_pages,
            silent: false,
        })
    }
}

impl Device for QemuDevice {
    fn platform(&self) -> Option<Arc<dyn Platform>> {
        self.platform.clone()
    }

    fn payload(
        &mut self,
        pages: usize,
        access: DeviceAccess,
    ) -> Result<(PinnedBuffer, Box<dyn Payload>), Problem> {
        let (buffer, payload) = self
            .machine
            .payload(pages * ddk::PAGE, access)
            .map_err(failed("memory for a buffer"))?;
        Ok((buffer, Box::new(payload)))
    }

    fn promise(&self) -> Promise {
        self.promise.clone()
    }

    fn fault(&mut self, fault: Fault) -> Result<(), Problem> {
        match fault {
            Fault::None if self.silent => {
                self.silent = false;
                self.machine.release(DISK).map_err(failed("release"))
            }
            Fault::None => Ok(()),
            Fault::Silent => {
                self.silent = true;
                self.machine.hold(DISK).map_err(failed("hold"))
            }
            Fault::Gone => self.machine.unplug(DEVICE).map_err(failed("unplug")),
            Fault::Lie(_) => Err(Problem::not_offered("QEMU's devices keep the rules")),
            Fault::Dead => Err(Problem::not_offered("QEMU's devices can always be reset")),
        }
    }

    fn medium(&mut self, lba: u64, into: &mut [u8]) -> Result<(), Problem> {
        let from = lba * u64::from(self.promise.block_size);
        self.image
            .read_exact_at(into, from)
            .map_err(failed("image"))
    }

    fn durable(&mut self, _: u64, _: &mut [u8]) -> Result<(), Problem> {
        Err(Problem::not_offered("the device's cache is the host's"))
    }

    fn finish(&mut self, ended: Ended) -> Result<(), Problem> {
        self.platform = None;
        let free = self.machine.free_pages();
        if ended == Ended::Stopped && free != self.free_pages {
            let kept = self.free_pages.saturating_sub(free);
            return Err(Problem::Failed(format!(
                "{kept} pages are in use at the end"
            )));
        }
        Ok(())
    }
}
