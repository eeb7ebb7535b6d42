//! What outlives this process: the tree, what is held for drivers, endpoints and their names are kept in init's vault.
//! Drivers go on serving while there is no device manager; its successor takes up where it ended.
//!
//! A node's record is put away at the end of each turn of the loop, and in two places before that: with the process of a
//! driver, before its first thread runs, so that no driver is ever unknown; and when its grants were released, so that
//! nothing stays alive here that was given back. And whoever is told that something is published or open is told so
//! after it was put away. Whatever else was half done is done again from the record: a teardown
//! starts over at its present step, and each step of the fence may be taken twice.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use devmgr::binding::{Driver, Offer};
use devmgr::endpoints::Scan;
use devmgr::life::{Action, Event, Life, Phase, Safety};
use devmgr::names::Names;
use devmgr::node::Device;
use devmgr::program;
use proto::crash_report::EndReason;
use proto::devmgr::{
    Complaint, DriverControlClient, DriverHostServer, DriverPolicy, EndpointInfo, NodeState,
    SavedState,
};
use rt::process::Child;
use rt::{AsHandle, Channel, Deadline, Error, Handle, Process, Signals, Vmo, Watch};
use serde::{Deserialize, Serialize};
use supervision::Supervised;

use crate::manager::{Held, Manager, Node, NodeKey, program_of};
use crate::watch::{Heartbeat, watch_domain, watch_interrupts};

/// Present once the buses are enumerated.
const ENUMERATED: &str = "enumerated";
const SETTLED: &str = "settled";
const INCARNATION: &str = "incarnation";
const NUMBERS: &str = "numbers";
const NODES: &str = "node:";
const ENDPOINTS: &str = "endpoint:";
const DRIVERS: &str = "driver:";
/// Time for the kernel to end a process that was killed already.
const END_LIMIT_S: u64 = 5;
/// A step of the fence may wait for a reset of the hardware.
const FENCE_LIMIT_S: u64 = 20;

/// What is kept now, so that only what changed is put away: bytes, and the numbers of the handles.
#[derive(Default)]
pub struct Kept {
    vault: Option<Supervised>,
    written: BTreeMap<String, (Vec<u8>, Vec<u32>)>,
    /// This process's place among the device managers of this run, from 1.
    pub incarnation: u32,
}

#[derive(Serialize, Deserialize)]
struct HeldRecord {
    has_child: bool,
    has_domain: bool,
    has_trace: bool,
    interrupts: usize,
    resources: usize,
}

/// A node as it is kept. Its handles are host, control, interrupts, resources, domain, trace, process.
#[derive(Serialize, Deserialize)]
struct NodeRecord {
    path: String,
    device: Device,
    bus: Option<usize>,
    served_by_bus: Option<NodeState>,
    life: Life,
    epoch: u32,
    reason: Option<String>,
    ending: Option<(EndReason, String)>,
    teardown: Vec<String>,
    policy: Option<DriverPolicy>,
    saved: Option<SavedState>,
    fell_back: Option<String>,
    pause_problem: Option<String>,
    given_up: Option<Complaint>,
    known_as: Vec<String>,
    plugged: Option<Device>,
    held: Option<HeldRecord>,
}

impl Kept {
    /// In init's vault, if there is one.
    pub fn from_startup() -> Kept {
        Kept {
            vault: Supervised::from_startup(),
            ..Kept::default()
        }
    }

    /// The channel to init.
    pub fn supervised(&self) -> Option<&Supervised> {
        self.vault.as_ref()
    }

    /// Puts it away if it changed.
    pub fn put<T: Serialize>(&mut self, key: &str, value: &T, handles: &[&Handle]) {
        let Some(vault) = &self.vault else { return };
        let Ok(bytes) = postcard::to_allocvec(value) else {
            return;
        };
        let numbers: Vec<u32> = handles.iter().map(|handle| handle.raw().0).collect();
        let new = (bytes, numbers);
        if self.written.get(key) == Some(&new) {
            return;
        }
        let copies: Result<Vec<Handle>, Error> = handles.iter().map(|h| h.duplicate()).collect();
        let kept = match copies {
            Ok(copies) => vault.put(key, value, copies).map_err(|e| e.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match kept {
            Ok(()) => {
                self.written.insert(key.to_string(), new);
            }
            Err(why) => rt::error!("{key} is not kept: {why}"),
        }
    }

    /// Forgets a key.
    pub fn remove(&mut self, key: &str) {
        if self.written.remove(key).is_some()
            && let Some(vault) = &self.vault
            && let Err(error) = vault.remove(key)
        {
            rt::error!("{key}: {error}");
        }
    }

    /// Forgets what begins so and is not among these.
    pub fn retain(&mut self, prefix: &str, there: &[String]) {
        let gone = self.written.keys().filter(|key| key.starts_with(prefix));
        let gone: Vec<String> = gone.filter(|key| !there.contains(key)).cloned().collect();
        gone.iter().for_each(|key| self.remove(key));
    }

    /// What is kept under a key.
    pub fn get<T: for<'a> Deserialize<'a> + Serialize>(
        &mut self,
        key: &str,
    ) -> Option<(T, Vec<Handle>)> {
        match self.vault.as_ref()?.get::<T>(key) {
            Ok(found) => {
                let (value, handles) = found?;
                // Its handles have other numbers here: it is put away anew once.
                self.written.insert(key.to_string(), Default::default());
                Some((value, handles))
            }
            Err(error) => {
                rt::error!("{key}: {error}");
                None
            }
        }
    }

    /// Keys that begin so.
    pub fn keys(&self, prefix: &str) -> Vec<String> {
        let keys = self.vault.as_ref().map(|vault| vault.keys(prefix));
        keys.and_then(Result::ok).unwrap_or_default()
    }
}

fn handles_of(held: &Held) -> Vec<&Handle> {
    let mut handles = alloc::vec![
        held.host.channel().as_handle(),
        held.control.channel().as_handle()
    ];
    handles.extend(held.interrupts.iter().map(AsHandle::as_handle));
    handles.extend(held.resources.iter().map(AsHandle::as_handle));
    handles.extend(held.domain.iter().map(AsHandle::as_handle));
    handles.extend(held.trace.iter().map(AsHandle::as_handle));
    handles.extend(held.child.iter().map(|child| child.process().as_handle()));
    handles
}

impl HeldRecord {
    fn of(held: &Held) -> HeldRecord {
        HeldRecord {
            has_child: held.child.is_some(),
            has_domain: held.domain.is_some(),
            has_trace: held.trace.is_some(),
            interrupts: held.interrupts.len(),
            resources: held.resources.len(),
        }
    }

    fn restore(&self, handles: Vec<Handle>) -> Option<Held> {
        let mut handles = handles.into_iter();
        let host: Channel = handles.next()?.into_type();
        let control: Channel = handles.next()?.into_type();
        let interrupts = (0..self.interrupts).map(|_| Some(handles.next()?.into_type()));
        let interrupts = interrupts.collect::<Option<_>>()?;
        let resources = (0..self.resources).map(|_| Some(handles.next()?.into_type()));
        let resources = resources.collect::<Option<_>>()?;
        let domain = match self.has_domain {
            true => Some(handles.next()?.into_type()),
            false => None,
        };
        let trace = match self.has_trace {
            true => Some(handles.next()?.into_type()),
            false => None,
        };
        let process = match self.has_child {
            true => Some(handles.next()?.into_type::<Process>()),
            false => None,
        };
        Some(Held {
            child: process.map(Child::from_process),
            host: DriverHostServer::new(host),
            control: DriverControlClient::new(control),
            heartbeat: Heartbeat::default(),
            interrupts,
            resources,
            domain,
            trace,
        })
    }
}

impl Manager {
    /// Puts away what changed.
    pub fn keep(&mut self) {
        for index in 0..self.nodes.len() {
            self.keep_node(index);
        }
        let mut there = Vec::new();
        for (info, scan, endpoint) in self.endpoints.iter() {
            let key = format!("{ENDPOINTS}{}:{}", info.class.text(), info.name);
            self.kept.put(&key, &(info, scan), &[endpoint.as_handle()]);
            there.push(key);
        }
        self.kept.retain(ENDPOINTS, &there);
        self.kept.put(NUMBERS, &self.names, &[]);
        let mut there = Vec::new();
        for (program, vmo) in &self.loaded {
            let key = format!("{DRIVERS}{:05}", program.0);
            if let Some(driver) = self.drivers.get(program.0 as usize) {
                let record = (&driver.program, driver.offer);
                self.kept.put(&key, &record, &[vmo.as_handle()]);
            }
            there.push(key);
        }
        self.kept.retain(DRIVERS, &there);
        self.keep_names();
        self.keep_buses();
        if self.settled {
            self.kept.put(SETTLED, &(), &[]);
        }
    }

    /// Domains of devices that could not be fenced are held by the vault for as long as the system runs.
    pub fn keep_quarantine(&mut self) {
        for (number, domain) in self.quarantine.iter().enumerate() {
            let key = format!("quarantine:{}:{number}", self.kept.incarnation);
            self.kept.put(&key, &(), &[domain.as_handle()]);
        }
    }

    /// The buses are enumerated, and are so from now on.
    pub fn keep_enumerated(&mut self) {
        self.keep();
        self.kept.put(ENUMERATED, &(), &[]);
    }

    /// Puts a node away as it is now.
    pub fn keep_node(&mut self, index: usize) {
        let Some(node) = self.nodes.get(index) else {
            return;
        };
        let record = NodeRecord {
            path: node.path.clone(),
            device: node.device.clone(),
            bus: node.bus,
            served_by_bus: node.served_by_bus,
            life: node.life.clone(),
            epoch: node.epoch,
            reason: node.reason.clone(),
            ending: node.ending.clone(),
            teardown: node.teardown.clone(),
            policy: node.policy,
            saved: node.saved.clone(),
            fell_back: node.fell_back.clone(),
            pause_problem: node.pause_problem.clone(),
            given_up: node.given_up,
            known_as: node.known_as.clone(),
            plugged: node.plugged.clone(),
            held: node.held.as_ref().map(HeldRecord::of),
        };
        let handles = node.held.as_ref().map(handles_of).unwrap_or_default();
        self.kept
            .put(&format!("{NODES}{index:05}"), &record, &handles);
    }

    /// Takes over from a device manager that died; `false` if there was none, or it had not come to have drivers.
    ///
    /// # Errors
    /// A text with what the vault should have had.
    pub fn take_over(&mut self) -> Result<bool, String> {
        let before = self.kept.get::<u32>(INCARNATION).map_or(0, |(n, _)| n);
        self.kept.incarnation = before.saturating_add(1);
        let incarnation = self.kept.incarnation;
        self.kept.put(INCARNATION, &incarnation, &[]);
        // Answers to the one before must not be taken for those to this one.
        self.next_ticket = u64::from(incarnation) << 32;
        if self.kept.get::<()>(ENUMERATED).is_none() {
            return Ok(false);
        }
        rt::info!("taking over, incarnation {incarnation}");
        self.settled = self.kept.get::<()>(SETTLED).is_some();
        if let Some((names, _)) = self.kept.get::<Names>(NUMBERS) {
            self.names = names;
        }
        for key in self.kept.keys(DRIVERS) {
            self.restore_driver(&key)?;
        }
        for key in self.kept.keys(NODES) {
            let (record, handles) = self
                .kept
                .get::<NodeRecord>(&key)
                .ok_or_else(|| format!("{key} is not readable"))?;
            self.restore_node(record, handles);
        }
        for key in self.kept.keys(ENDPOINTS) {
            let Some(((info, scan), handles)) = self.kept.get::<(EndpointInfo, Scan)>(&key) else {
                continue;
            };
            // Those of a driver that is on its way down were withdrawn, or are to be.
            let serves =
                |n: &Node| n.path == info.node && n.epoch == info.epoch && n.life.has_driver();
            if self.nodes.iter().any(serves)
                && let Some(endpoint) = handles.into_iter().next()
            {
                self.endpoints.restore(info, endpoint.into_type(), scan);
            }
        }
        // Whoever read a partition table asks anew.
        self.endpoints.rescan();
        self.restore_names();
        self.restore_buses();
        for index in 0..self.nodes.len() {
            self.go_on(index);
        }
        Ok(true)
    }

    fn restore_driver(&mut self, key: &str) -> Result<(), String> {
        let bad = || format!("{key} is not readable");
        let ((name, offer), handles) = self.kept.get::<(String, Offer)>(key).ok_or_else(bad)?;
        let number: u32 = key.trim_start_matches(DRIVERS).parse().map_err(|_| bad())?;
        let vmo: Vmo = handles.into_iter().next().ok_or_else(bad)?.into_type();
        let manifest = program::manifest(|offset, buffer| vmo.read(offset, buffer).ok());
        let manifest = manifest.ok().flatten().ok_or_else(bad)?;
        let driver = Driver {
            manifest,
            program: name,
            offer,
        };
        let place = number as usize;
        while self.drivers.len() < place {
            // Numbers between that nobody uses.
            let unused = Driver {
                offer: Offer::Nobody,
                ..driver.clone()
            };
            self.drivers.push(unused);
        }
        match self.drivers.get_mut(place) {
            Some(there) => *there = driver,
            None => self.drivers.push(driver),
        }
        self.loaded.insert(program_of(place), vmo);
        Ok(())
    }

    fn restore_node(&mut self, record: NodeRecord, handles: Vec<Handle>) {
        let held = record.held.and_then(|held| held.restore(handles));
        let node = Node {
            served_by_bus: record.served_by_bus,
            life: record.life,
            held,
            epoch: record.epoch,
            reason: record.reason,
            ending: record.ending,
            teardown: record.teardown,
            policy: record.policy,
            saved: record.saved,
            fell_back: record.fell_back,
            pause_problem: record.pause_problem,
            given_up: record.given_up,
            known_as: record.known_as,
            plugged: record.plugged,
            ..Node::new(record.path, record.device, record.bus)
        };
        self.nodes.push(node);
    }

    /// Watches over a node's driver again, and takes up what was under way.
    fn go_on(&mut self, index: usize) {
        if let Err(error) = self.watch_driver(index) {
            rt::error!("node {index}: {error}");
        }
        let Some(node) = self.nodes.get_mut(index) else {
            return;
        };
        let policy = node.policy(&self.drivers);
        let in_ms = |ms: u32| Some(Deadline::after_ms(ms.into()));
        match node.life.phase() {
            Phase::Unbound
            | Phase::Waiting
            | Phase::Stopped
            | Phase::Failed
            | Phase::Quarantined
            | Phase::Absent => {
                if node.life.phase() == Phase::Waiting {
                    node.limit = in_ms(0);
                }
                // Its grants were being given back.
                let safety = match node.life.is_unfenced() {
                    true => Safety::Unfenced,
                    false => Safety::Fenced,
                };
                self.release(index, safety);
            }
            // Whether its first thread ran is not known: it goes the way of one that died.
            Phase::Launching if node.held.as_ref().is_some_and(|h| h.child.is_some()) => {
                let why = "the device manager died while it was started".to_string();
                node.ending = Some((EndReason::CannotStart, why));
                self.happened(index, Event::Launched);
                self.happened(index, Event::Broken);
            }
            Phase::Launching => self.happened(index, Event::LaunchFailed),
            Phase::Starting | Phase::Resuming => node.limit = in_ms(policy.start_ms),
            Phase::Stopping | Phase::Suspending => node.limit = in_ms(policy.stop_ms),
            Phase::Running => {
                if node.life.in_probation() {
                    node.probation = in_ms(policy.probation_ms);
                }
                if let Some(held) = &mut node.held {
                    held.heartbeat = Heartbeat::due(&policy);
                }
            }
            Phase::Suspended => {}
            Phase::Ending => {
                node.limit = Some(Deadline::after_secs(END_LIMIT_S));
                self.again_now(index, Action::Kill);
            }
            Phase::Fencing(step) => {
                node.limit = Some(Deadline::after_secs(FENCE_LIMIT_S));
                self.again_now(index, Action::Fence(step));
            }
        }
    }

    /// Packets of a driver that another process started.
    fn watch_driver(&mut self, index: usize) -> Result<(), Error> {
        let Some(node) = self.nodes.get(index) else {
            return Ok(());
        };
        let Some(held) = &node.held else {
            return Ok(());
        };
        let host = held.host.channel();
        // What the one before took and did not answer is asked again.
        host.set_epoch(self.kept.incarnation.into())?;
        let key = Self::node_key(index, node.epoch, NodeKey::Request);
        host.wait_async(&self.port, key, Signals::READABLE, Watch::Persistent)?;
        let key = Self::node_key(index, node.epoch, NodeKey::Storm);
        watch_interrupts(&held.interrupts, &self.port, key)?;
        let key = Self::node_key(index, node.epoch, NodeKey::Refused);
        watch_domain(held.domain.as_ref(), &self.port, key)?;
        if let Some(child) = &held.child {
            let key = Self::node_key(index, node.epoch, NodeKey::Ended);
            let process = child.process();
            process.wait_async(&self.port, key, Signals::TERMINATED, Watch::Once)?;
        }
        Ok(())
    }
}
