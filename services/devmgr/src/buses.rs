//! Buses: the PCI host bridges, each with its bus driver, and the platform's fixed devices.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use devmgr::life::{Event, Phase};
use devmgr::node::{Device, PlatformDevice};
use devmgr::restart::History;
use pci_bus::arguments::Host;
use proto::bus::{
    BarKind, EcamRegion, FirmwareClient, PciAddress, PciBusClient, PciBusEventsRequest,
    PciBusEventsServer, PciFunctionInfo,
};
use proto::crash_report::EndReason;
use proto::devmgr::{Change, DevError, NodeState};
use rt::abi::{PRIORITY_DRIVER, Quota, ResourceKind};
use rt::ipc::Server;
use rt::process::{Child, Command, Stdio};
use rt::{AsHandle, Channel, Deadline, Interrupt, Resource, Vmo, startup};

use crate::manager::{BATCH, Manager, Node};

/// Time that a bus driver or the firmware has for an answer. A reset waits for hardware.
pub const CALL_LIMIT: Duration = Duration::from_secs(20);
/// Name and program of the PCI bus driver.
pub const BUS_DRIVER: &str = "pci";
pub const BUS_PROGRAM: &str = "bin/pci";

/// A bus and its driver.
pub struct Bus {
    pub path: String,
    pub host: Host,
    pub client: PciBusClient,
    /// The other end, which each incarnation serves: what one had not read waits for the next.
    pub serve: Channel,
    pub events: PciBusEventsServer,
    pub child: Child,
    /// For slots. The bus's own, whoever drives it: its vector must not be given to others while ports may send it.
    pub interrupt: Interrupt,
    pub history: History,
    pub restart_at: Option<Deadline>,
}

impl Manager {
    /// Finds all devices.
    pub fn enumerate(&mut self) {
        let firmware = startup::take::<Channel>("firmware")
            .map(|c| FirmwareClient::new(c).with_timeout(CALL_LIMIT).repeating());
        for (number, host) in hosts(firmware.as_ref()).into_iter().enumerate() {
            let path = if number == 0 {
                String::from("/pci")
            } else {
                format!("/pci{number}")
            };
            let description = String::from("PCI host bridge");
            let mut node = Node::new(path.clone(), Device::Bus { description }, None);
            match self.start_bus(&path, &host) {
                Ok(()) => node.served_by_bus = Some(NodeState::Running),
                Err(why) => {
                    rt::error!("{path}: {why}");
                    node.served_by_bus = Some(NodeState::Failed);
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
        let (client, serve) = Channel::create().map_err(text)?;
        let interrupt = Interrupt::message(&self.authority.msi, 0).map_err(text)?;
        let (child, events) = self.spawn_bus(host, &serve, &interrupt, None)?;
        let bus = Bus {
            path: path.to_string(),
            host: host.clone(),
            client: PciBusClient::new(client).with_timeout(CALL_LIMIT),
            serve,
            events,
            child,
            interrupt,
            history: History::new(),
            restart_at: None,
        };
        let index = self.buses.len();
        self.watch_bus(index, &bus).map_err(text)?;
        self.buses.push(bus);
        self.add_functions(index)
    }

    /// Starts a bus driver; one that takes over gets what its predecessor knew.
    pub fn spawn_bus(
        &self,
        host: &Host,
        serve: &Channel,
        interrupt: &Interrupt,
        topology: Option<&[PciFunctionInfo]>,
    ) -> Result<(Child, PciBusEventsServer), String> {
        let text = |e: rt::Error| e.to_string();
        let program = self
            .archive
            .window(BUS_PROGRAM)
            .map_err(|e| format!("{BUS_PROGRAM}: {e}"))?;
        let (theirs, events) = PciBusEventsServer::pair().map_err(text)?;
        let mut command = Command::new(&program, BUS_DRIVER)
            .args(host.to_words())
            .priority(PRIORITY_DRIVER)
            .quota(BUS_QUOTA)
            .stdin(Stdio::Null)
            .stdout(Stdio::Log)
            .stderr(Stdio::Log)
            .handle("serve:bus", serve.duplicate().map_err(text)?)
            .handle("events", theirs.into_channel());
        if let Some(infos) = topology {
            let bytes = postcard::to_allocvec(infos).map_err(|e| e.to_string())?;
            let vmo = Vmo::create(bytes.len().max(1)).map_err(text)?;
            vmo.write(0, &bytes).map_err(text)?;
            command = command.handle("topology", vmo);
        }
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
        // For slots whose devices come and go; without it they are looked at now and then.
        let granted = interrupt.duplicate().map_err(text)?;
        let command = command.handle("irq0", granted);
        let child = command.spawn().map_err(|e| e.to_string())?;
        Ok((child, events))
    }

    fn add_functions(&mut self, index: usize) -> Result<(), String> {
        let mut from = 0u32;
        loop {
            let bus = self.buses.get(index).ok_or("no such bus")?;
            let page = bus.client.functions(from).map_err(|e| e.to_string())?;
            if page.is_empty() {
                return Ok(());
            }
            from = from.saturating_add(u32::try_from(page.len()).unwrap_or(u32::MAX));
            for info in page {
                self.add_function(index, info);
            }
        }
    }

    /// A function was found or plugged in; gives the place of its node.
    fn add_function(&mut self, bus: usize, info: PciFunctionInfo) -> Option<usize> {
        let path = format!("{}/{}", self.buses.get(bus)?.path, info.address);
        let is_bridge = info.buses.is_some();
        let device = Device::Pci(info);
        let place = match self.nodes.iter().position(|n| n.path == path) {
            Some(place) => place,
            None => {
                self.nodes.push(Node::new(path, device.clone(), Some(bus)));
                self.nodes.len().saturating_sub(1)
            }
        };
        let node = self.nodes.get_mut(place)?;
        // The bus driver itself serves a bridge.
        node.served_by_bus = is_bridge.then_some(NodeState::Running);
        if node.held.is_some() {
            node.plugged = Some(device);
            return None;
        }
        node.device = device;
        Some(place)
    }

    /// Devices at fixed ports: the second serial port, which carries the console (the first one is the
    /// kernel's log).
    fn platform(&mut self) {
        let description = String::from("Platform devices");
        let mut bus = Node::new(String::from("/platform"), Device::Bus { description }, None);
        bus.served_by_bus = Some(NodeState::Running);
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

    /// The bus driver of a node's device.
    pub fn bus_of(&self, index: usize) -> Option<&Bus> {
        self.buses.get(self.nodes.get(index)?.bus?)
    }

    /// What a bus driver tells.
    pub fn serve_bus_events(&mut self, key: u64, index: usize) {
        for _ in 0..BATCH {
            let Some(bus) = self.buses.get(index) else {
                return;
            };
            let Ok(Some(event)) = bus.events.try_next() else {
                return;
            };
            match event {
                PciBusEventsRequest::Attached { .. } => {}
                PciBusEventsRequest::Fenced { ticket, problem } => {
                    let outcome = problem.map_or(Ok(()), |why| Err(why.to_string()));
                    self.fence_done(ticket, outcome);
                }
                PciBusEventsRequest::Config { ticket, bytes } => {
                    if let Some(reply) = self.config_replies.remove(&ticket) {
                        // Who asked may be gone.
                        let _ = match bytes.is_empty() {
                            true => reply.error(DevError::NotFound),
                            false => reply.ok(&bytes),
                        };
                    }
                }
                PciBusEventsRequest::Added { info } => self.plugged(index, info),
                PciBusEventsRequest::RemovalAsked { address } => {
                    if let Some(place) = self.function_at(index, address)
                        && let Err(refused) = self.event(place, Event::RemovalAsked)
                    {
                        rt::warn!("{address}: removal refused: {refused:?}");
                    }
                }
                PciBusEventsRequest::Removed { address } => self.unplugged(index, address),
            }
        }
        self.again(key);
    }

    pub fn function_at(&self, bus: usize, address: PciAddress) -> Option<usize> {
        self.nodes.iter().position(|n| {
            n.bus == Some(bus) && matches!(&n.device, Device::Pci(info) if info.address == address)
        })
    }

    fn plugged(&mut self, bus: usize, info: PciFunctionInfo) {
        rt::info!("{} is plugged in", info.address);
        let Some(place) = self.add_function(bus, info) else {
            return;
        };
        self.welcome(place);
    }

    /// Binds what took the place of another device.
    pub fn welcome_all(&mut self) {
        for place in core::mem::take(&mut self.to_welcome) {
            self.welcome(place);
        }
    }

    /// A node's device is there: told, and bound.
    fn welcome(&mut self, place: usize) {
        let Some(node) = self.nodes.get_mut(place) else {
            return;
        };
        let name = node.path.clone();
        if node.life.phase() == Phase::Absent {
            node.reason = None;
            node.fell_back = None;
            node.teardown.clear();
            self.happened(place, Event::Plugged);
        }
        self.tell(None, &Change::Added { name });
        self.bind_all();
    }

    pub fn unplugged(&mut self, bus: usize, address: PciAddress) {
        let Some(place) = self.function_at(bus, address) else {
            return;
        };
        rt::info!("{address} is gone");
        if let Some(node) = self.nodes.get_mut(place) {
            node.plugged = None;
            let why = String::from("the device was taken out");
            node.ending = Some((EndReason::DeviceGone, why));
        }
        self.happened(place, Event::Unplugged);
    }

    /// A node left the tree; if a device was plugged into its place meanwhile, that is next.
    pub fn removed(&mut self, place: usize) -> Option<Event> {
        let node = self.nodes.get_mut(place)?;
        let name = node.path.clone();
        node.served_by_bus = None;
        let next = node.plugged.take();
        self.tell(None, &Change::Removed { name });
        let node = self.nodes.get_mut(place)?;
        node.device = next?;
        self.to_welcome.push(place);
        None
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
