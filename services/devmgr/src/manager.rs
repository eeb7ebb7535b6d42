//! The state and the loop.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use boot_archive::BootArchive;
use devmgr::binding::{Driver, Offer};
use devmgr::endpoints::Table;
use devmgr::life::{Event, Fence, Life, Phase, Program};
use devmgr::names::Names;
use devmgr::node::{self, Device};
use devmgr::pci_names::PciNames;
use devmgr::program;
use proto::bus::FenceStep;
use proto::crash_report::{EndReason, Events};
use proto::devmgr::{
    Change, ChangeEventsClient, Class, Complaint, DeviceTreePciConfigReply, DeviceTreeServer,
    DeviceTreeWaitSettledReply, DriverAdminReloadReply, DriverAdminServer, DriverControlClient,
    DriverHostServer, DriverPolicy, EndpointsServer, EndpointsWaitSettledReply, NodeState,
    NodeSummary, PartitionsNextDiskReply, PartitionsServer, SavedState,
};
use proto::proc::CrashReportsClient;
use rt::process::Child;
use rt::{
    AsHandle, Channel, Deadline, DmaDomain, Error, Interrupt, Packet, Port, Resource, Signals, Vmo,
    Watch, startup,
};

use crate::admin::{AdminReply, Unloading};
use crate::buses::{BUS_DRIVER, Bus};
use crate::keep::Kept;
use crate::reopen::{Name, Reopening};
use crate::watch::Heartbeat;

/// Keys of the port. Those of nodes carry the incarnation, so that late packets are told apart.
pub const KEY_DEV: u64 = 1;
pub const KEY_DISK: u64 = 2;
pub const KEY_SERIAL: u64 = 3;
pub const KEY_PARTITIONS: u64 = 4;
pub const KEY_OTHER: u64 = 5;
pub const KEY_DRV: u64 = 6;
pub const KEY_NET: u64 = 7;
const KEY_SUPERVISOR: u64 = 8;
const KEY_BUSES: u64 = 0x100;
/// What bus drivers tell, by their places.
pub const KEY_BUS_EVENTS: u64 = 0x200;
/// Names of endpoints, by their place.
pub const KEY_NAMES: u64 = 0x1000;
const KEY_NODES: u64 = 1 << 16;
/// Requests served before the port is asked again.
pub const BATCH: usize = 32;
/// Waiting for somebody to read partition tables, once everything else is done.
const SCAN_LIMIT_S: u64 = 10;

/// What comes from a node's process.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum NodeKey {
    /// A request on its channel.
    Request = 0,
    /// Its end.
    Ended = 1,
    /// One of its interrupts storms.
    Storm = 2,
    /// Its device was refused memory.
    Refused = 3,
}

/// What is held for a driver while it runs, and until its device is fenced.
pub struct Held {
    pub child: Option<Child>,
    pub host: DriverHostServer,
    /// Kept open: its closing tells the driver that devmgr is gone.
    pub control: DriverControlClient,
    pub heartbeat: Heartbeat,
    pub interrupts: Vec<Interrupt>,
    /// What BARs and ports were made from.
    pub resources: Vec<Resource>,
    pub domain: Option<DmaDomain>,
    /// Where it writes its trace.
    pub trace: Option<Vmo>,
}

impl Held {
    /// How often the device has interrupted.
    fn interrupt_count(&self) -> u64 {
        let infos = self.interrupts.iter().map(Interrupt::interrupt_info);
        infos.filter_map(|info| Some(info.ok()?.count)).sum()
    }
}

/// A reload that is to be answered.
pub struct Reloading {
    pub reply: DriverAdminReloadReply,
    pub started_ns: u64,
    /// Version that served before.
    pub before: Option<String>,
}

/// A node.
pub struct Node {
    pub path: String,
    pub device: Device,
    /// Place among the buses; `None` for platform devices and buses themselves.
    pub bus: Option<usize>,
    /// State of a bus or bridge, whose driver is the bus driver.
    pub served_by_bus: Option<NodeState>,
    /// That of its own driver.
    pub life: Life,
    pub held: Option<Held>,
    pub epoch: u32,
    pub reason: Option<String>,
    /// Why the present incarnation ends, if somebody knows better than its exit record.
    pub ending: Option<(EndReason, String)>,
    /// What happened to it, for reports.
    pub events: Events,
    /// Steps of the teardown since the last start.
    pub teardown: Vec<String>,
    /// What an administrator wants; `None`: as its manifest says.
    pub policy: Option<DriverPolicy>,
    pub limit: Option<Deadline>,
    pub probation: Option<Deadline>,
    /// The step of the fence that the bus driver was asked for.
    pub fence: Option<(u64, FenceStep)>,
    /// What the version before left.
    pub saved: Option<SavedState>,
    pub reloading: Option<Reloading>,
    pub fell_back: Option<String>,
    /// Why it does not pause.
    pub pause_problem: Option<String>,
    /// What a client said while it paused.
    pub given_up: Option<Complaint>,
    /// Names of endpoints that it had.
    pub known_as: Vec<String>,
    /// The device that is there by now, while the one before is being torn down.
    pub plugged: Option<Device>,
}

impl Node {
    pub fn new(path: String, device: Device, bus: Option<usize>) -> Node {
        let fence = match device {
            Device::Pci(_) => Fence::Bus,
            _ => Fence::None,
        };
        Node {
            path,
            device,
            bus,
            served_by_bus: None,
            life: Life::new(fence),
            held: None,
            epoch: 0,
            reason: None,
            ending: None,
            events: Events::default(),
            teardown: Vec::new(),
            policy: None,
            limit: None,
            probation: None,
            fence: None,
            saved: None,
            reloading: None,
            fell_back: None,
            pause_problem: None,
            given_up: None,
            known_as: Vec::new(),
            plugged: None,
        }
    }

    pub fn state(&self) -> NodeState {
        self.served_by_bus.unwrap_or(self.life.state())
    }

    /// Whether the device is there.
    pub fn is_present(&self) -> bool {
        self.life.phase() != Phase::Absent
    }
}

/// Authority over the machine, from which drivers' grants are cut.
pub struct Authority {
    pub mmio: Resource,
    pub ports: Resource,
    pub irq: Resource,
    pub msi: Resource,
    pub dma: Resource,
}

/// Who waits for the tree to settle.
pub enum SettleReply {
    Tree(DeviceTreeWaitSettledReply),
    Endpoints(EndpointsWaitSettledReply),
}

/// Who watches what.
pub struct Watcher {
    /// Endpoints of a class, or nodes.
    pub class: Option<Class>,
    pub events: ChangeEventsClient,
}

/// devmgr's state.
pub struct Manager {
    pub archive: BootArchive,
    pub authority: Authority,
    pub port: Port,
    /// By their numbers, which programs of lives are.
    pub drivers: Vec<Driver>,
    /// Those that are not from the archive.
    pub loaded: BTreeMap<Program, Vmo>,
    pub next_ticket: u64,
    /// Nodes whose place was taken by another device.
    pub to_welcome: Vec<usize>,
    /// Who waits for a look at configuration space.
    pub config_replies: BTreeMap<u64, DeviceTreePciConfigReply>,
    pub buses: Vec<Bus>,
    pub nodes: Vec<Node>,
    pub names: Names,
    pub endpoints: Table<Channel>,
    pub tree_server: DeviceTreeServer,
    pub disk_server: EndpointsServer,
    pub serial_server: EndpointsServer,
    pub net_server: EndpointsServer,
    pub other_server: EndpointsServer,
    pub admin_server: DriverAdminServer,
    pub admin_replies: Vec<(usize, AdminReply)>,
    pub unloadings: Vec<Unloading>,
    pub endpoint_names: Vec<Name>,
    pub reopenings: Vec<Reopening>,
    pub partitions_server: PartitionsServer,
    pub watchers: Vec<Watcher>,
    pub settle_replies: Vec<SettleReply>,
    pub disk_replies: Vec<PartitionsNextDiskReply>,
    pub crash_reports: Option<CrashReportsClient>,
    /// Domains of devices that could not be fenced: their pages stay where they are.
    pub quarantine: Vec<DmaDomain>,
    pub kept: Kept,
    pci_ids: Option<String>,
    pub settled: bool,
    scan_limit: Option<Deadline>,
}

fn take<T: rt::HandleType>(name: &str) -> Result<T, String> {
    startup::take(name).ok_or_else(|| format!("handle {name:?} is missing"))
}

impl Manager {
    /// Takes over what init gave.
    ///
    /// # Errors
    /// A text that says what is missing.
    pub fn from_startup() -> Result<Manager, String> {
        let port = Port::create().map_err(|e| format!("port: {e}"))?;
        let served = |name: &str, key| {
            let channel: Channel = take(&format!("serve:{name}"))?;
            channel
                .wait_async(&port, key, Signals::READABLE, Watch::Persistent)
                .map_err(|e| format!("port: {e}"))?;
            Ok::<Channel, String>(channel)
        };
        let archive = BootArchive::open(take("archive")?).map_err(|e| format!("archive: {e}"))?;
        let drivers = find_drivers(&archive);
        let pci_ids = archive.read("etc/pci.ids").ok();
        Ok(Manager {
            tree_server: DeviceTreeServer::new(served("dev", KEY_DEV)?),
            disk_server: EndpointsServer::new(served("disk", KEY_DISK)?),
            serial_server: EndpointsServer::new(served("serial", KEY_SERIAL)?),
            net_server: EndpointsServer::new(served("net", KEY_NET)?),
            other_server: EndpointsServer::new(served("other", KEY_OTHER)?),
            admin_server: DriverAdminServer::new(served("drv", KEY_DRV)?),
            admin_replies: Vec::new(),
            unloadings: Vec::new(),
            endpoint_names: Vec::new(),
            reopenings: Vec::new(),
            partitions_server: PartitionsServer::new(served("partitions", KEY_PARTITIONS)?),
            authority: Authority {
                mmio: take("mmio")?,
                ports: take("ports")?,
                irq: take("irq")?,
                msi: take("msi")?,
                dma: take("dma")?,
            },
            crash_reports: startup::take("crash-reports").map(CrashReportsClient::new),
            archive,
            port,
            drivers,
            loaded: BTreeMap::new(),
            next_ticket: 1,
            to_welcome: Vec::new(),
            config_replies: BTreeMap::new(),
            buses: Vec::new(),
            nodes: Vec::new(),
            names: Names::default(),
            endpoints: Table::default(),
            watchers: Vec::new(),
            settle_replies: Vec::new(),
            disk_replies: Vec::new(),
            quarantine: Vec::new(),
            kept: Kept::from_startup(),
            pci_ids: pci_ids.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
            settled: false,
            scan_limit: None,
        })
    }

    /// Names of PCI devices.
    pub fn pci_names(&self) -> PciNames<'_> {
        PciNames::new(self.pci_ids.as_deref())
    }

    /// Looks for a driver for every node that has none, and starts what was found, in the order of paths.
    pub fn bind_all(&mut self) {
        let mut bound: Vec<(usize, devmgr::binding::Choice)> = Vec::new();
        for (index, node) in self.nodes.iter().enumerate() {
            if node.life.phase() != Phase::Unbound
                || node.served_by_bus.is_some()
                || node.device.identity().is_none()
            {
                continue;
            }
            let (_, choice) = devmgr::binding::candidates(&self.drivers, &node.device);
            bound.extend(choice.map(|choice| (index, choice)));
        }
        let named = bound.iter().filter_map(|(index, choice)| {
            let driver = self.drivers.get(choice.driver)?;
            Some((self.nodes.get(*index)?.path.as_str(), driver.stem()))
        });
        self.names.reserve(named);
        for (index, choice) in bound {
            self.happened(index, Event::Start(program_of(choice.driver)));
        }
        self.check_settled();
    }

    /// The loop; it ends only with an error of the port.
    ///
    /// # Errors
    /// A text with what failed.
    pub fn run(&mut self) -> Result<(), String> {
        let mut packets = [Packet::default(); 16];
        if let Some(own) = self.kept.supervised() {
            own.watch(&self.port, KEY_SUPERVISOR)
                .map_err(|e| format!("port: {e}"))?;
        }
        loop {
            self.keep();
            match self.port.wait(&mut packets, self.next_limit()) {
                Ok(count) => {
                    for packet in packets.iter().take(count) {
                        self.dispatch(packet.key);
                    }
                }
                Err(Error::TimedOut) => {}
                Err(error) => return Err(format!("port: {error}")),
            }
            self.welcome_all();
            self.restart_buses();
            self.check_timers();
            self.check_heartbeats();
            self.check_settled();
            self.answer_reopenings();
            self.answer_admin();
        }
    }

    fn dispatch(&mut self, key: u64) {
        match key {
            KEY_DEV => self.serve_tree(),
            KEY_DISK => self.serve_endpoints(Class::Block, key),
            KEY_SERIAL => self.serve_endpoints(Class::Serial, key),
            KEY_NET => self.serve_endpoints(Class::Net, key),
            KEY_OTHER => self.serve_endpoints(Class::Other, key),
            KEY_PARTITIONS => self.serve_partitions(),
            KEY_DRV => self.serve_admin(),
            KEY_SUPERVISOR => {
                if let Some(own) = self.kept.supervised() {
                    own.answer();
                }
            }
            key if key >= KEY_NODES => {
                let index = usize::try_from((key & 0xffff_ffff) >> 17).unwrap_or(usize::MAX);
                let epoch = (key >> 32) as u32;
                let about = |what: NodeKey| key & (KEY_NODES - 1) == what as u64;
                let alive = self.nodes.get(index).is_some_and(|n| n.epoch == epoch);
                if !alive {
                    return;
                }
                if about(NodeKey::Ended) {
                    self.driver_ended(index, key);
                } else if about(NodeKey::Storm) {
                    self.interrupt_storms(index);
                } else if about(NodeKey::Refused) {
                    self.dma_refused(index);
                } else {
                    self.serve_driver(index, key);
                }
            }
            key if key >= KEY_NAMES => self.serve_name(key),
            key if key >= KEY_BUS_EVENTS => {
                self.serve_bus_events(key, (key - KEY_BUS_EVENTS) as usize);
            }
            key => {
                let index = key.checked_sub(KEY_BUSES);
                let index = index.and_then(|i| usize::try_from(i).ok());
                self.bus_ended(index.unwrap_or(usize::MAX));
            }
        }
    }

    /// Key for packets of a node's present incarnation.
    pub fn node_key(index: usize, epoch: u32, what: NodeKey) -> u64 {
        u64::from(epoch) << 32 | (index as u64 & 0x7fff) << 17 | KEY_NODES | what as u64
    }

    /// Key for the end of a bus driver.
    pub fn bus_key(index: usize) -> u64 {
        KEY_BUSES.saturating_add(index as u64)
    }

    fn next_limit(&self) -> Deadline {
        let scan = self.scan_limit.filter(|_| !self.settled);
        let scan = scan.unwrap_or(Deadline::FOREVER);
        self.next_heartbeat()
            .min(self.next_timer())
            .min(self.next_bus_restart())
            .min(scan)
    }

    /// Tells all watchers of nodes (`None`) or of a class.
    pub fn tell(&mut self, class: Option<Class>, change: &Change) {
        // One that does not read, or is gone, is dropped: it sees its channel closed and can ask anew.
        self.watchers
            .retain(|w| w.class != class || w.events.change(change).is_ok());
    }

    /// Whether everything that was found is in service or failed; tells those who wait, once.
    pub fn check_settled(&mut self) {
        if self.settled || self.nodes.iter().any(|n| node::is_on_its_way(n.state())) {
            return;
        }
        if !self.endpoints.all_scanned() {
            let limit = *self
                .scan_limit
                .get_or_insert_with(|| Deadline::after_secs(SCAN_LIMIT_S));
            if !limit.has_passed() {
                return;
            }
            rt::warn!("nobody reads the partition tables; going on without");
        }
        self.settled = true;
        for reply in core::mem::take(&mut self.settle_replies) {
            let _ = match reply {
                SettleReply::Tree(reply) => reply.ok(),
                SettleReply::Endpoints(reply) => reply.ok(),
            };
        }
        self.watchers
            .retain(|w| w.events.change(&Change::Settled).is_ok());
    }

    /// The line of `lsdev` for a node.
    pub fn summary(&self, node: &Node) -> NodeSummary {
        let driver = node.life.current().and_then(|p| self.driver(p));
        let held = node.held.as_ref();
        let bus = self.bus_driver(node);
        let dma = held.and_then(|h| h.domain.as_ref()?.dma_info().ok());
        NodeSummary {
            path: node.path.clone(),
            description: node.device.description(&self.pci_names()),
            state: node.state(),
            driver: driver
                .map(|d| d.manifest.name())
                .or(bus.map(|_| BUS_DRIVER))
                .map(ToString::to_string),
            pid: held
                .and_then(|h| h.child.as_ref())
                .or(bus.map(|b| &b.child))
                .and_then(|child| child.id().ok()),
            epoch: node.epoch,
            restarts: node.epoch.saturating_sub(1),
            endpoints: self.endpoints.of_node(&node.path),
            known_as: node.known_as.clone(),
            interrupts: held.map_or(0, Held::interrupt_count),
            dma_contained: dma.map(|d| d.translated != 0),
            reason: node.reason.clone(),
        }
    }

    /// The place of the node at a path.
    pub fn place(&self, path: &str) -> Option<usize> {
        self.nodes
            .iter()
            .position(|n| n.path == path && n.is_present())
    }

    /// The node at a path.
    pub fn find(&self, path: &str) -> Option<&Node> {
        self.nodes.get(self.place(path)?)
    }

    /// The driver that a program is.
    pub fn driver(&self, program: Program) -> Option<&Driver> {
        self.drivers.get(program.0 as usize)
    }
}

/// The program of the driver at a place: there are never that many.
pub const fn program_of(place: usize) -> Program {
    Program(place as u32)
}

/// Every program of the archive that carries a manifest.
fn find_drivers(archive: &BootArchive) -> Vec<Driver> {
    let mut drivers: BTreeMap<String, Driver> = BTreeMap::new();
    for entry in archive.entries() {
        if !entry.name.starts_with("bin/") {
            continue;
        }
        let found = program::manifest(|offset, buffer| {
            let end = usize::try_from(offset).ok()?.checked_add(buffer.len())?;
            if end > entry.len {
                return None;
            }
            let at = (entry.offset as u64).checked_add(offset)?;
            archive.vmo().read(at, buffer).ok()
        });
        match found {
            Ok(Some(manifest)) => {
                let program = entry.name.to_string();
                let offer = Offer::Everyone;
                drivers.insert(
                    program.clone(),
                    Driver {
                        manifest,
                        program,
                        offer,
                    },
                );
            }
            Ok(None) => {}
            Err(error) => rt::warn!("{}: {error}", entry.name),
        }
    }
    drivers.into_values().collect()
}
