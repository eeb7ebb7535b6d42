//! Buses: the PCI host bridges, each with its bus driver, and the platform's fixed devices.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use devmgr::node::{Device, PlatformDevice};
use pci_bus::arguments::Host;
use proto::bus::{BarKind, EcamRegion, FirmwareClient, PciBusClient};
use proto::devmgr::NodeState;
use rt::abi::{PRIORITY_DRIVER, Quota, ResourceKind};
use rt::process::{Child, Command, Stdio};
use rt::{AsHandle, Channel, Resource, Signals, Watch, startup};

use crate::manager::{Manager, Node};

/// Time that a bus driver or the firmware has for an answer. A reset waits for hardware.
const CALL_LIMIT: Duration = Duration::from_secs(20);
/// Name and program of the PCI bus driver.
pub const BUS_DRIVER: &str = "pci";
const BUS_PROGRAM: &str = "bin/pci";

/// A running bus driver.
pub struct Bus {
    pub path: String,
    pub client: PciBusClient,
    pub child: Child,
}

impl Manager {
    /// Finds all devices.
    pub fn enumerate(&mut self) {
        let firmware = startup::take::<Channel>("firmware")
            .map(|c| FirmwareClient::new(c).with_timeout(CALL_LIMIT));
        for (number, host) in hosts(firmware.as_ref()).into_iter().enumerate() {
            let path = if number == 0 {
                String::from("/pci")
            } else {
                format!("/pci{number}")
            };
            let description = String::from("PCI host bridge");
            let mut node = Node::new(path.clone(), Device::Bus { description }, None);
            match self.start_bus(&path, &host) {
                Ok(()) => node.state = NodeState::Running,
                Err(why) => {
                    rt::error!("{path}: {why}");
                    node.state = NodeState::Failed;
                    node.reason = Some(why);
                }
            }
            self.nodes.push(node);
        }
        self.platform();
        // Only now: places of nodes are used as keys once drivers run.
        self.nodes.sort_by(|a, b| a.path.cmp(&b.path));
    }

    fn start_bus(&mut self, path: &str, host: &Host) -> Result<(), String> {
        let text = |e: rt::Error| e.to_string();
        let (client, server) = Channel::create().map_err(text)?;
        let program = self
            .archive
            .window(BUS_PROGRAM)
            .map_err(|e| format!("{BUS_PROGRAM}: {e}"))?;
        let mut command = Command::new(&program, BUS_DRIVER)
            .args(host.to_words())
            .priority(PRIORITY_DRIVER)
            .quota(BUS_QUOTA)
            .stdin(Stdio::Null)
            .stdout(Stdio::Log)
            .stderr(Stdio::Log)
            .handle("serve:bus", server);
        if let Some(log) = startup::handle::<Resource>("log") {
            command = command.handle("log", log.duplicate().map_err(text)?);
        }
        let mmio = |base, len| self.authority.mmio.derive(ResourceKind::Mmio, base, len);
        match &host.ecam {
            Some(ecam) => {
                let base = ecam.base.saturating_add(u64::from(ecam.first_bus) << 20);
                let buses = u64::from(ecam.last_bus.saturating_sub(ecam.first_bus)) + 1;
                command = command.handle("ecam", mmio(base, buses << 20).map_err(text)?);
            }
            None => {
                let ports = self.authority.ports.derive(ResourceKind::IoPort, 0xcf8, 8);
                command = command.handle("ports", ports.map_err(text)?);
            }
        }
        for (number, (base, len)) in memory_ranges(host).into_iter().enumerate() {
            let bars = mmio(base, len).map_err(text)?;
            command = command.handle(&format!("bars:{number}"), bars);
        }
        let child = command.spawn().map_err(|e| e.to_string())?;
        let index = self.buses.len();
        child
            .process()
            .wait_async(
                &self.port,
                Self::bus_key(index),
                Signals::TERMINATED,
                Watch::Once,
            )
            .map_err(text)?;
        self.buses.push(Bus {
            path: path.to_string(),
            client: PciBusClient::new(client).with_timeout(CALL_LIMIT),
            child,
        });
        self.add_functions(index, path)
    }

    fn add_functions(&mut self, index: usize, path: &str) -> Result<(), String> {
        let mut from = 0u32;
        loop {
            let bus = self.buses.get(index).ok_or("no such bus")?;
            let page = bus.client.functions(from).map_err(|e| e.to_string())?;
            if page.is_empty() {
                return Ok(());
            }
            from = from.saturating_add(u32::try_from(page.len()).unwrap_or(u32::MAX));
            for info in page {
                let path = format!("{path}/{}", info.address);
                let is_bridge = info.buses.is_some();
                let mut node = Node::new(path, Device::Pci(info), Some(index));
                if is_bridge {
                    // The bus driver itself serves it.
                    node.state = NodeState::Running;
                }
                self.nodes.push(node);
            }
        }
    }

    /// Devices at fixed ports: the second serial port, which carries the console (the first one is the
    /// kernel's log).
    fn platform(&mut self) {
        let description = String::from("Platform devices");
        let mut bus = Node::new(String::from("/platform"), Device::Bus { description }, None);
        bus.state = NodeState::Running;
        self.nodes.push(bus);
        let com2 = PlatformDevice {
            compatible: String::from("uart16550"),
            ports: alloc::vec![(0x2f8, 8)],
            interrupts: alloc::vec![3],
            description: String::from("Serial port COM2"),
        };
        let path = String::from("/platform/com2");
        self.nodes
            .push(Node::new(path, Device::Platform(com2), None));
    }

    /// The bus driver that serves the node itself: a bus, or a bridge on it.
    pub fn bus_driver(&self, node: &Node) -> Option<&Bus> {
        match &node.device {
            Device::Bus { .. } => self.buses.iter().find(|b| b.path == node.path),
            Device::Pci(info) if info.buses.is_some() => self.buses.get(node.bus?),
            _ => None,
        }
    }

    /// A bus driver ended: its devices cannot be configured or fenced any more, but those who run go on.
    pub fn bus_ended(&mut self, index: usize) {
        let Some(bus) = self.buses.get(index) else {
            return;
        };
        let path = bus.path.clone();
        let reason = self.report_end(&bus.child, BUS_DRIVER, BUS_PROGRAM);
        for node in &mut self.nodes {
            let bridge = matches!(&node.device, Device::Pci(info) if info.buses.is_some());
            if node.path == path || (bridge && node.bus == Some(index)) {
                node.state = NodeState::Failed;
                node.reason = Some(reason.clone());
            }
        }
    }
}

/// Limits of a bus driver: a description of every function, and pages of BARs.
const BUS_QUOTA: Quota = Quota {
    pages: 16_384,
    handles: 4_096,
    threads: 4,
    processes: 0,
    max_priority: PRIORITY_DRIVER as u32,
};

/// The host bridges: one for each ECAM region, or one by ports.
fn hosts(firmware: Option<&FirmwareClient>) -> Vec<Host> {
    let asked = firmware.map(|f| {
        let regions = f.ecam_regions();
        let apertures = f.apertures();
        let roots = f.root_buses();
        (regions, apertures, roots)
    });
    let (regions, apertures, roots) = match asked {
        Some((Ok(regions), apertures, roots)) => (
            regions,
            apertures.unwrap_or_default(),
            roots.unwrap_or_default(),
        ),
        Some((Err(error), ..)) => {
            rt::warn!("the firmware does not answer: {error}");
            Default::default()
        }
        None => Default::default(),
    };
    if regions.is_empty() {
        return alloc::vec![Host {
            ecam: None,
            apertures,
            roots,
        }];
    }
    let host = |region: &EcamRegion| Host {
        ecam: Some(*region),
        apertures: apertures.clone(),
        roots: roots.clone(),
    };
    regions.iter().map(host).collect()
}

/// Memory that BARs may lie in. Without a word of the firmware: from the end of low RAM on most PCs to the
/// I/O APIC.
fn memory_ranges(host: &Host) -> Vec<(u64, u64)> {
    const DEFAULT: (u64, u64) = (0xc000_0000, 0x3ec0_0000);
    let memory = host.apertures.iter().filter(|a| a.kind != BarKind::Io);
    let told: Vec<(u64, u64)> = memory.map(|a| (a.base, a.len)).collect();
    if told.is_empty() {
        alloc::vec![DEFAULT]
    } else {
        told
    }
}
