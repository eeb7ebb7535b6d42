//! Driver for virtio block devices (virtio 1.2, 5.2) on the PCI bus.
//!
//! One request queue per CPU where the device offers them, an MSI-X vector each and one for configuration
//! changes, indirect descriptors, `EVENT_IDX`. Payload is never mapped: descriptors are made from the device
//! addresses of pinned pages. Limits (segments, their size, discard, write-zeroes) are negotiated and
//! published, not assumed. Sessions, partitions and deadlines are the class layer's.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod config;
mod queue;
#[cfg(test)]
mod tests;

use alloc::string::String;
use alloc::vec::Vec;

use ddk::{
    DeviceContext, Driver, DriverError, EventQueue, Irq, PlatformError, StopReason, info, warn,
};
use ddk_class_block::{BlockDevice, DiskInfo};
use ddk_virtio::Transport;
use spec_virtio::block::feature;
use spec_virtio::feature::{RING_EVENT_IDX, RING_INDIRECT_DESC};

use config::Limits;
use queue::Queue;

ddk::driver! {
    driver: VirtioBlk,
    name: "virtio-blk",
    class: BLOCK,
    version: [0, 1, 0],
    // A transitional device is driven by its modern interface.
    matches: [
        pci_device(spec_virtio::PCI_VENDOR, spec_virtio::pci::DEVICE_ID_MODERN + spec_virtio::block::DEVICE_TYPE),
        pci_device(spec_virtio::PCI_VENDOR, spec_virtio::pci::DEVICE_ID_BLOCK_TRANSITIONAL),
    ],
    needs: [memory_bars(), msix(1, 65), dma(64)],
}

const WANTED: u64 = feature::SIZE_MAX
    | feature::SEG_MAX
    | feature::RO
    | feature::BLK_SIZE
    | feature::FLUSH
    | feature::TOPOLOGY
    | feature::CONFIG_WCE
    | feature::MQ
    | feature::DISCARD
    | feature::WRITE_ZEROES
    | RING_INDIRECT_DESC
    | RING_EVENT_IDX;

/// Descriptors of the longest request: as many as a page has room for.
const CHAIN_MAX: u16 = 256;

/// How long the device may take to tell its identification.
const IDENTIFY_LIMIT_MS: u32 = 5000;

/// The driver of one device.
pub struct VirtioBlk {
    cx: DeviceContext,
    transport: Transport,
    features: u64,
    limits: Limits,
    serial: String,
    /// Until the class layer takes them.
    queues: Vec<Queue>,
    /// Configuration changes; `None` when the only vector belongs to the queue.
    changes: Option<Irq>,
}

/// Steps 3 to 8 of the initialisation (3.1.1), and as many queues as there are CPUs, device queues and
/// vectors for.
async fn bring_up(
    cx: &DeviceContext,
    transport: &Transport,
) -> Result<(u64, Limits, Vec<Queue>), DriverError> {
    let features = transport.negotiate(WANTED, 0).await?;
    let limits = Limits::read(transport, features)?;
    let vectors = cx.interrupt_count();
    if vectors == 0 {
        return Err(DriverError::Unsupported {
            what: "MSI-X vectors",
        });
    }
    // Vector 0 announces changes, unless it is the only one.
    let first_vector = u16::from(vectors > 1);
    let offered = limits.queues.min(transport.queue_count()?).max(1);
    let cpus = cx.cpu_count().clamp(1, 64) as u16;
    let count = offered.min(cpus).min(vectors - first_vector);
    if first_vector > 0 {
        transport.set_config_vector(0)?;
    }
    let mut queues = Vec::new();
    for index in 0..count {
        let vector = first_vector + index;
        let virtqueue = transport.queue(index, features, vector, CHAIN_MAX)?;
        queues.push(Queue::new(cx, virtqueue, cx.interrupt(vector)?, &limits)?);
    }
    transport.driver_ok()?;
    Ok((features, limits, queues))
}

impl Driver for VirtioBlk {
    async fn start(cx: DeviceContext) -> Result<VirtioBlk, DriverError> {
        cx.pci().enable()?;
        let transport = Transport::new(&cx)?;
        let (features, limits, mut queues) = bring_up(&cx, &transport).await?;
        let mut serial = String::new();
        if let Some(queue) = queues.first_mut() {
            match queue
                .identify(&cx, cx.deadline_in_ms(IDENTIFY_LIMIT_MS))
                .await
            {
                Ok(text) => serial = text,
                Err(error @ DriverError::DeviceGone { .. }) => return Err(error),
                Err(error) => {
                    // An identification is nice to have, but a request that was not answered leaves the
                    // queue in doubt: start over without it.
                    warn!(cx, "no identification: {error}");
                    transport.reset().await?;
                    drop(core::mem::take(&mut queues));
                    queues = bring_up(&cx, &transport).await?.2;
                }
            }
        }
        let changes = if cx.interrupt_count() > 1 {
            Some(cx.interrupt(0)?)
        } else {
            None
        };
        let driver = VirtioBlk {
            cx,
            transport,
            features,
            limits,
            serial,
            queues,
            changes,
        };
        info!(
            driver.cx,
            "{} blocks of {} bytes{}, {} queues of {}, features {:#x}",
            driver.limits.block_count,
            1u32 << driver.limits.block_shift,
            if driver.limits.read_only {
                ", read-only"
            } else {
                ""
            },
            driver.queues.len(),
            driver.queues.first().map_or(0, Queue::size),
            driver.features
        );
        Ok(driver)
    }

    async fn suspend(&mut self) -> Result<(), DriverError> {
        self.transport.reset().await?;
        self.cx.pci().disable()
    }

    async fn resume(&mut self) -> Result<(), DriverError> {
        self.cx.pci().enable()
    }

    async fn stop(self, _: StopReason) {
        if let Err(error) = self.transport.reset().await {
            warn!(self.cx, "while stopping: {error}");
        }
        if let Err(error) = self.cx.pci().disable() {
            warn!(self.cx, "while stopping: {error}");
        }
    }
}

impl BlockDevice for VirtioBlk {
    type Queue = Queue;

    fn disks(&self) -> Vec<DiskInfo> {
        alloc::vec![self.limits.disk(self.serial.clone())]
    }

    fn take_queues(&mut self) -> Vec<Queue> {
        core::mem::take(&mut self.queues)
    }

    async fn reset(&mut self, old: Vec<Queue>) -> Result<Vec<Queue>, DriverError> {
        if let Err(error) = self.transport.reset().await {
            // The device may still use the queues' memory: it must never be given back from here.
            core::mem::forget(old);
            return Err(error);
        }
        drop(old);
        let (features, limits, queues) = bring_up(&self.cx, &self.transport).await?;
        self.features = features;
        self.limits = limits;
        Ok(queues)
    }

    fn bind_changes(&mut self, events: &dyn EventQueue, key: u64) -> Result<(), PlatformError> {
        match &mut self.changes {
            Some(irq) => irq.bind(events, key),
            None => Ok(()),
        }
    }

    async fn changed(&mut self) -> Result<(), DriverError> {
        self.transport.check_status()?;
        self.limits = Limits::read(&self.transport, self.features)?;
        Ok(())
    }
}
