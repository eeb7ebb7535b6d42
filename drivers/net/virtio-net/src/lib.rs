//! Driver for virtio network devices (virtio 1.2, 5.1) on the PCI bus.
//!
//! One queue pair per CPU where the device offers them, an MSI-X vector each and one for configuration
//! changes, indirect descriptors, `EVENT_IDX`, mergeable receive buffers, checksums and TCP segmentation both ways, the control
//! queue for receive modes, address, steering and receive offloads; each is left out where the device lacks it. Payload is never mapped.
//! Sessions, checks of what clients ask for and deadlines are the class layer's.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod config;
mod control;
mod queue;
#[cfg(test)]
mod tests;

use alloc::vec::Vec;

use ddk::{
    DeviceContext, Driver, DriverError, EventQueue, Irq, PlatformError, StopReason, info, warn,
};
use ddk_class_net::{Link, MacAddress, NetDevice, NicInfo, Offloads, ReceiveMode};
use ddk_virtio::Transport;
use spec_virtio::net::{control as command, feature};
use spec_virtio::pci::NO_VECTOR;

use config::Config;
use control::Control;
use queue::Queue;

ddk::driver! {
    driver: VirtioNet,
    name: "virtio-net",
    class: NET,
    version: [0, 1, 0],
    // A transitional device is driven by its modern interface.
    matches: [
        pci_device(spec_virtio::PCI_VENDOR, spec_virtio::pci::DEVICE_ID_MODERN + spec_virtio::net::DEVICE_TYPE),
        pci_device(spec_virtio::PCI_VENDOR, spec_virtio::pci::DEVICE_ID_NET_TRANSITIONAL),
    ],
    needs: [memory_bars(), msix(1, 65), dma(64)],
}

/// The receive offloads, and the features that switch them.
const RECEIVE_OFFLOADS: [(Offloads, u64); 3] = [
    (Offloads::RX_CHECKSUM, feature::GUEST_CSUM),
    (Offloads::RX_TCP4, feature::GUEST_TSO4),
    (Offloads::RX_TCP6, feature::GUEST_TSO6),
];

/// What was set, which a reset forgets.
struct Settings {
    mode: ReceiveMode,
    multicast: Vec<MacAddress>,
    mac: Option<MacAddress>,
    offloads: Offloads,
    active: u16,
}

/// What a device that is in service has.
struct Parts {
    config: Config,
    queues: Vec<Queue>,
    control: Option<Control>,
}

/// The driver of one device.
pub struct VirtioNet {
    cx: DeviceContext,
    transport: Transport,
    config: Config,
    settings: Settings,
    /// Until the class layer takes them.
    queues: Vec<Queue>,
    control: Option<Control>,
    /// Configuration changes; `None` when the only vector belongs to the queues.
    changes: Option<Irq>,
}

/// Steps 3 to 8 of the initialisation (3.1.1), and as many queue pairs as there are CPUs, device queues and
/// vectors for.
async fn bring_up(cx: &DeviceContext, transport: &Transport) -> Result<Parts, DriverError> {
    let features = transport.negotiate_of(config::wanted, 0).await?;
    let config = Config::read(transport, features)?;
    let vectors = cx.interrupt_count();
    if vectors == 0 {
        return Err(DriverError::Unsupported {
            what: "MSI-X vectors",
        });
    }
    // Vector 0 announces changes, unless it is the only one.
    let first_vector = u16::from(vectors > 1);
    let cpus = cx.cpu_count().clamp(1, 64) as u16;
    let count = config.pairs.min(cpus).min(vectors - first_vector);
    if first_vector > 0 {
        transport.set_config_vector(0)?;
    }
    let (receive, transmit) = (
        queue::receive_chain(&config),
        queue::transmit_chain(&config),
    );
    let mut queues = Vec::new();
    for index in 0..count {
        let vector = first_vector + index;
        let pair = [(2 * index, receive), (2 * index + 1, transmit)];
        let [receive, transmit] =
            pair.map(|(number, chain)| transport.queue(number, features, vector, chain));
        let irq = cx.interrupt(vector)?;
        queues.push(Queue::new(cx, receive?, transmit?, irq, &config)?);
    }
    let control = if config.has(feature::CTRL_VQ) {
        // 5.1.2: it comes after all pairs, those that are not used too.
        let virtqueue = transport.queue(2 * config.pairs, features, NO_VECTOR, control::CHAIN)?;
        Some(Control::new(cx, virtqueue)?)
    } else {
        None
    };
    transport.driver_ok()?;
    Ok(Parts {
        config,
        queues,
        control,
    })
}

impl VirtioNet {
    /// Runs a command that the device offers.
    async fn command(&mut self, command: [u8; 2], data: &[u8]) -> Result<(), DriverError> {
        let refused = DriverError::Unsupported {
            what: "the command of the control queue",
        };
        let control = self.control.as_mut().ok_or(refused)?;
        if control.run(command, data).await? {
            return Ok(());
        }
        Err(refused)
    }

    /// Sets everything that a reset forgets.
    async fn apply(&mut self) -> Result<(), DriverError> {
        if self.settings.mac.is_some() {
            self.apply_mac().await?;
        }
        self.apply_mode().await?;
        self.apply_offloads().await?;
        self.apply_active().await
    }

    async fn apply_mac(&mut self) -> Result<(), DriverError> {
        let Some(mac) = self.settings.mac else {
            return Ok(());
        };
        self.command(command::MAC_ADDR_SET, &mac.0).await
    }

    /// Without `CTRL_RX` a device passes on everything that it gets (5.1.6.5.1), which is more than was asked for.
    async fn apply_mode(&mut self) -> Result<(), DriverError> {
        if !self.config.has(feature::CTRL_RX) {
            return Ok(());
        }
        let mode = self.settings.mode;
        let promiscuous = mode == ReceiveMode::Promiscuous;
        let all_multicast = mode == ReceiveMode::AllMulticast;
        self.command(command::RX_PROMISC, &[promiscuous.into()])
            .await?;
        self.command(command::RX_ALLMULTI, &[all_multicast.into()])
            .await?;
        // 5.1.6.5.2: no further unicast addresses, then those of groups.
        let mut table = Vec::from(0u32.to_le_bytes());
        let count = self.settings.multicast.len() as u32;
        table.extend(count.to_le_bytes());
        table.extend(self.settings.multicast.iter().flat_map(|mac| mac.0));
        self.command(command::MAC_TABLE_SET, &table).await
    }

    async fn apply_offloads(&mut self) -> Result<(), DriverError> {
        if !self.config.has(feature::CTRL_GUEST_OFFLOADS) {
            return Ok(());
        }
        let on = |(offload, _): &&(Offloads, u64)| self.settings.offloads.contains(*offload);
        let bits = RECEIVE_OFFLOADS.iter().filter(on);
        let bits = bits.fold(0, |all, (_, bit)| all | bit) & self.config.features;
        self.command(command::GUEST_OFFLOADS_SET, &bits.to_le_bytes())
            .await
    }

    async fn apply_active(&mut self) -> Result<(), DriverError> {
        if !self.config.has(feature::MQ) {
            return Ok(());
        }
        let pairs = self.settings.active;
        self.command(command::MQ_PAIRS_SET, &pairs.to_le_bytes())
            .await
    }

    /// Which receive offloads are on: those that were asked for, or all that there are where they cannot be switched.
    fn receive_offloads(&self) -> Offloads {
        let receive = Offloads::RX_CHECKSUM | Offloads::RX_TCP4 | Offloads::RX_TCP6;
        let offered = self.config.offloads() & receive;
        if self.config.has(feature::CTRL_GUEST_OFFLOADS) {
            offered & self.settings.offloads
        } else {
            offered
        }
    }
}

impl Driver for VirtioNet {
    async fn start(cx: DeviceContext) -> Result<VirtioNet, DriverError> {
        cx.pci().enable()?;
        let transport = Transport::new(&cx)?;
        let Parts {
            config,
            queues,
            control,
        } = bring_up(&cx, &transport).await?;
        let changes = if cx.interrupt_count() > 1 {
            Some(cx.interrupt(0)?)
        } else {
            None
        };
        let mut driver = VirtioNet {
            cx,
            transport,
            config,
            settings: Settings {
                mode: ReceiveMode::Filtered,
                multicast: Vec::new(),
                mac: None,
                offloads: Offloads::RX_CHECKSUM,
                active: 1,
            },
            queues,
            control,
            changes,
        };
        driver.apply().await?;
        let (receive, transmit) = driver.queues.first().map_or((0, 0), Queue::sizes);
        info!(
            driver.cx,
            "{}, MTU {}, {} queue pairs of {receive} and {transmit}, {}, features {:#x}",
            driver.config.mac,
            driver.info().mtu,
            driver.queues.len(),
            link_text(driver.config.link),
            driver.config.features
        );
        Ok(driver)
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

fn link_text(link: Link) -> &'static str {
    if link.is_up() { "link up" } else { "link down" }
}

impl NetDevice for VirtioNet {
    type Queue = Queue;

    fn info(&self) -> NicInfo {
        let mac = self.settings.mac.unwrap_or(self.config.mac);
        self.config.info(mac, self.receive_offloads())
    }

    fn take_queues(&mut self) -> Vec<Queue> {
        core::mem::take(&mut self.queues)
    }

    async fn reset(&mut self, old: Vec<Queue>) -> Result<Vec<Queue>, DriverError> {
        let control = self.control.take();
        if let Err(error) = self.transport.reset().await {
            // The device may still use the queues' memory: it must never be given back from here.
            core::mem::forget((old, control));
            return Err(error);
        }
        drop((old, control));
        let parts = bring_up(&self.cx, &self.transport).await?;
        self.config = parts.config;
        self.control = parts.control;
        self.apply().await?;
        Ok(parts.queues)
    }

    fn bind_changes(&mut self, events: &dyn EventQueue, key: u64) -> Result<(), PlatformError> {
        match &mut self.changes {
            Some(irq) => irq.bind(events, key),
            None => Ok(()),
        }
    }

    async fn changed(&mut self) -> Result<(), DriverError> {
        self.transport.check_status()?;
        let config = Config::read(&self.transport, self.config.features)?;
        if config.link != self.config.link {
            info!(self.cx, "{}", link_text(config.link));
        }
        // The rest of the configuration is fixed (5.1.4); the address is the one that was set.
        self.config.link = config.link;
        Ok(())
    }

    async fn set_receive_mode(
        &mut self,
        mode: ReceiveMode,
        multicast: &[MacAddress],
    ) -> Result<(), DriverError> {
        self.settings.mode = mode;
        self.settings.multicast = multicast.to_vec();
        self.apply_mode().await
    }

    async fn set_mac(&mut self, mac: MacAddress) -> Result<(), DriverError> {
        if !self.config.has(feature::CTRL_MAC_ADDR) {
            return Err(DriverError::Unsupported {
                what: "another hardware address",
            });
        }
        self.settings.mac = Some(mac);
        self.apply_mac().await
    }

    async fn set_receive_offloads(&mut self, offloads: Offloads) -> Result<(), DriverError> {
        self.settings.offloads = offloads;
        self.apply_offloads().await
    }

    async fn set_active_queues(&mut self, count: u16) -> Result<(), DriverError> {
        self.settings.active = count;
        self.apply_active().await
    }
}
