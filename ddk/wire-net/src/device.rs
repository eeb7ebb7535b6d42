//! A driver at a bad wire.

use alloc::sync::Arc;
use alloc::vec::Vec;

use ddk::manifest::Manifest;
use ddk::{
    Described, DeviceContext, Driver, DriverError, EventQueue, PlatformError, SavedState,
    StopReason,
};
use ddk_class_net::{DeviceCounters, MacAddress, NetDevice, NicInfo, Offloads, ReceiveMode};

use crate::{Counts, Payload, Wire, WiredQueue};

/// See the crate.
pub struct Wired<D> {
    device: D,
    cx: DeviceContext,
    wire: Wire,
    payload: Arc<dyn Payload>,
    counts: Arc<Counts>,
    /// Queues that were ever given out: each has chance of its own.
    queues: u64,
}

impl<D: NetDevice> Wired<D> {
    /// Puts a wire before a driver that was started.
    pub fn new(device: D, cx: DeviceContext, wire: Wire, payload: Arc<dyn Payload>) -> Wired<D> {
        Wired {
            device,
            cx,
            wire,
            payload,
            counts: Arc::default(),
            queues: 0,
        }
    }

    /// What it does from now on.
    pub fn counts(&self) -> Arc<Counts> {
        self.counts.clone()
    }

    fn wire(&mut self, queues: Vec<D::Queue>) -> Result<Vec<WiredQueue<D::Queue>>, DriverError> {
        let mut wired = Vec::with_capacity(queues.len());
        for queue in queues {
            let number = self.queues;
            self.queues += 1;
            wired.push(WiredQueue::new(
                &self.cx,
                queue,
                (self.wire, number),
                self.payload.clone(),
                self.counts.clone(),
            )?);
        }
        Ok(wired)
    }
}

impl<D: NetDevice> Described for Wired<D> {
    const MANIFEST: Manifest = D::MANIFEST;
}

impl<D: NetDevice> Driver for Wired<D> {
    /// Only [`Wired::new`] makes one.
    async fn start(_: DeviceContext) -> Result<Wired<D>, DriverError> {
        Err(DriverError::Unsupported {
            what: "a wire that nobody described",
        })
    }

    async fn suspend(&mut self) -> Result<(), DriverError> {
        self.device.suspend().await
    }

    async fn resume(&mut self) -> Result<(), DriverError> {
        self.device.resume().await
    }

    async fn stop(self, why: StopReason) {
        self.device.stop(why).await;
    }

    fn save(&self) -> Option<SavedState> {
        self.device.save()
    }
}

impl<D: NetDevice> NetDevice for Wired<D> {
    type Queue = WiredQueue<D::Queue>;

    fn info(&self) -> NicInfo {
        self.device.info()
    }

    /// None when there is no memory for the wire's own frames: the class layer says that there is no queue.
    fn take_queues(&mut self) -> Vec<Self::Queue> {
        let queues = self.device.take_queues();
        self.wire(queues).unwrap_or_default()
    }

    async fn reset(&mut self, old: Vec<Self::Queue>) -> Result<Vec<Self::Queue>, DriverError> {
        let (old, frames): (Vec<_>, Vec<_>) = old.into_iter().map(WiredQueue::into_parts).unzip();
        let queues = self.device.reset(old).await?;
        // The device may have read them until now.
        drop(frames);
        self.wire(queues)
    }

    fn bind_changes(&mut self, events: &dyn EventQueue, key: u64) -> Result<(), PlatformError> {
        self.device.bind_changes(events, key)
    }

    async fn changed(&mut self) -> Result<(), DriverError> {
        self.device.changed().await
    }

    async fn set_receive_mode(
        &mut self,
        mode: ReceiveMode,
        multicast: &[MacAddress],
    ) -> Result<(), DriverError> {
        self.device.set_receive_mode(mode, multicast).await
    }

    async fn set_mac(&mut self, mac: MacAddress) -> Result<(), DriverError> {
        self.device.set_mac(mac).await
    }

    async fn set_receive_offloads(&mut self, offloads: Offloads) -> Result<(), DriverError> {
        self.device.set_receive_offloads(offloads).await
    }

    async fn set_active_queues(&mut self, count: u16) -> Result<(), DriverError> {
        self.device.set_active_queues(count).await
    }

    fn counters(&mut self) -> DeviceCounters {
        self.device.counters()
    }
}
