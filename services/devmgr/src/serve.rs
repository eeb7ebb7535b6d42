//! Answers: to tools and services (`dev:`, `disk:`, `serial:`, `other:`), to the `part` service, to drivers.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use devmgr::binding;
use devmgr::endpoints::scheme;
use devmgr::life::Event;
use devmgr::node::Device;
use proto::crash_report::EndReason;
use proto::devmgr::{
    Change, ChangeEventsClient, Class, DevError, DeviceTreePciConfigReply, DeviceTreeRequest,
    DriverHostRequest, EndpointInfo, EndpointsRequest, NodeInfo, PartitionsRequest, WhyReport,
};
use rt::ipc::Server;
use rt::{AsHandle, Channel, Error, Signals};

use crate::manager::{BATCH, KEY_DEV, KEY_PARTITIONS, Manager, SettleReply, Watcher};
use crate::watch::Heartbeat;

/// Nodes in one answer: they must fit into a message.
const PAGE: usize = 64;
/// Most watchers and waiting requests: each is somebody's memory here.
pub const WAITING_MAX: usize = 256;

/// Most names of endpoints that a node is known by.
const KNOWN_MAX: usize = 16;

/// A driver's words, not too many of them.
fn short(text: &str) -> String {
    text.chars().take(256).collect()
}

impl Manager {
    /// What is left after a batch is asked for through the port.
    pub fn again(&self, key: u64) {
        if let Err(error) = self.port.queue(key, 0) {
            rt::error!("port: {error}");
        }
    }

    /// Serves a batch of `dev:`.
    pub fn serve_tree(&mut self) {
        let server = self.tree_server.clone();
        for _ in 0..BATCH {
            let Ok(Some(request)) = server.try_next() else {
                return;
            };
            // A client that is gone does not wait for its answer.
            let _ = match request {
                DeviceTreeRequest::List {
                    after,
                    limit,
                    reply,
                } => {
                    let limit = usize::try_from(limit).unwrap_or(PAGE).min(PAGE);
                    let mut nodes: Vec<_> = self.nodes.iter().collect();
                    nodes.retain(|n| n.path > after && n.is_present());
                    nodes.sort_by(|a, b| a.path.cmp(&b.path));
                    nodes.truncate(limit);
                    let list: Vec<_> = nodes.into_iter().map(|n| self.summary(n)).collect();
                    reply.ok(&list)
                }
                DeviceTreeRequest::Node { path, reply } => reply.send(self.node_info(&path)),
                DeviceTreeRequest::Why { path, reply } => reply.send(self.why(&path)),
                DeviceTreeRequest::Watch { reply } => reply.send(self.watch(None)),
                DeviceTreeRequest::WaitSettled { reply } => {
                    self.wait_settled(SettleReply::Tree(reply))
                }
                DeviceTreeRequest::PciConfig { path, reply } => self.pci_config(&path, reply),
            };
        }
        self.again(KEY_DEV);
    }

    fn node_info(&self, path: &str) -> Result<NodeInfo, DevError> {
        let node = self.find(path).ok_or(DevError::NotFound)?;
        let driver = node.life.current().and_then(|p| self.driver(p));
        Ok(NodeInfo {
            summary: self.summary(node),
            properties: node.device.properties(&self.pci_names()),
            pci: match &node.device {
                Device::Pci(info) => Some(info.clone()),
                _ => None,
            },
            driver_version: driver.map(binding::Driver::version),
            versions: self.versions(node),
            teardown: node.teardown.clone(),
        })
    }

    fn why(&self, path: &str) -> Result<WhyReport, DevError> {
        let node = self.find(path).ok_or(DevError::NotFound)?;
        let candidates = match node.device.identity() {
            Some(_) => binding::candidates(&self.drivers, &node.device).0,
            None => Vec::new(),
        };
        Ok(WhyReport {
            node: self.summary(node),
            identity: node.device.identity_text(),
            candidates,
        })
    }

    /// Asks the bus driver, which answers with an event.
    fn pci_config(&mut self, path: &str, reply: DeviceTreePciConfigReply) -> Result<(), Error> {
        let ticket = self.next_ticket;
        let place = self.place(path);
        let node = place.and_then(|p| self.nodes.get(p));
        let bus = place.and_then(|p| self.bus_of(p));
        let asked = match (node.map(|n| &n.device), bus) {
            (None, _) => Err(DevError::NotFound),
            (Some(Device::Pci(_)), _) if self.config_replies.len() >= WAITING_MAX => {
                Err(DevError::NoResources)
            }
            (Some(Device::Pci(info)), Some(bus)) => bus
                .client
                .config(ticket, info.address)
                .map_err(|_| DevError::NotRunning),
            (Some(_), _) => Err(DevError::Invalid(String::from("node: not a PCI function"))),
        };
        if let Err(error) = asked {
            return reply.error(&error);
        }
        self.next_ticket = ticket.wrapping_add(1);
        self.config_replies.insert(ticket, reply);
        Ok(())
    }

    fn watch(&mut self, class: Option<Class>) -> Result<Channel, DevError> {
        // Those who are gone are noticed when there is something to tell, which may be never.
        let is_there = |w: &Watcher| {
            let info = w.events.channel().info();
            info.is_ok_and(|info| !Signals(info.signals).intersects(Signals::PEER_CLOSED))
        };
        self.watchers.retain(is_there);
        if self.watchers.len() >= WAITING_MAX {
            return Err(DevError::NoResources);
        }
        let (events, theirs) = Channel::create().map_err(|_| DevError::NoResources)?;
        let events = ChangeEventsClient::new(events);
        let names: Vec<String> = match class {
            Some(class) => {
                let list = self.endpoints.list(class);
                list.into_iter().map(|e| e.name).collect()
            }
            None => {
                let here = self.nodes.iter().filter(|n| n.is_present());
                here.map(|n| n.path.clone()).collect()
            }
        };
        for name in names {
            let change = Change::Added { name };
            events.change(&change).map_err(|_| DevError::NoResources)?;
        }
        if self.settled {
            events
                .change(&Change::Settled)
                .map_err(|_| DevError::NoResources)?;
        }
        self.watchers.push(Watcher { class, events });
        Ok(theirs)
    }

    fn wait_settled(&mut self, reply: SettleReply) -> Result<(), Error> {
        if self.settled {
            return match reply {
                SettleReply::Tree(reply) => reply.ok(),
                SettleReply::Endpoints(reply) => reply.ok(),
            };
        }
        if self.settle_replies.len() >= WAITING_MAX {
            return match reply {
                SettleReply::Tree(reply) => reply.error(&DevError::NoResources),
                SettleReply::Endpoints(reply) => reply.error(&DevError::NoResources),
            };
        }
        self.settle_replies.push(reply);
        Ok(())
    }

    /// Serves a batch of `disk:`, `serial:`, `net:` or `other:`.
    pub fn serve_endpoints(&mut self, class: Class, key: u64) {
        let server = match class {
            Class::Serial => self.serial_server.clone(),
            Class::Net => self.net_server.clone(),
            Class::Other => self.other_server.clone(),
            _ => self.disk_server.clone(),
        };
        for _ in 0..BATCH {
            let Ok(Some(request)) = server.try_next() else {
                return;
            };
            let _ = match request {
                EndpointsRequest::List { reply } => reply.ok(self.endpoints.list(class)),
                EndpointsRequest::Open { name, reply } => match self.open(class, &name) {
                    Ok((info, endpoint, name)) => reply.ok(&info, endpoint, name),
                    Err(error) => reply.error(&error),
                },
                EndpointsRequest::Watch { reply } => reply.send(self.watch(Some(class))),
                EndpointsRequest::WaitSettled { reply } => {
                    self.wait_settled(SettleReply::Endpoints(reply))
                }
            };
        }
        self.again(key);
    }

    fn open(
        &mut self,
        class: Class,
        name: &str,
    ) -> Result<(EndpointInfo, Channel, Channel), DevError> {
        let name = name.trim_start_matches('/');
        let (info, endpoint) = self.endpoints.get(class, name).ok_or(DevError::NotFound)?;
        let info = info.clone();
        let endpoint = endpoint.duplicate().map_err(|_| DevError::NoResources)?;
        let name = self.name_channel(&info)?;
        self.keep_names();
        Ok((info, endpoint, name))
    }

    /// Serves a batch of the `part` service.
    pub fn serve_partitions(&mut self) {
        let server = self.partitions_server.clone();
        for _ in 0..BATCH {
            let Ok(Some(request)) = server.try_next() else {
                return;
            };
            match request {
                PartitionsRequest::NextDisk { reply } => {
                    if self.disk_replies.len() < WAITING_MAX {
                        self.disk_replies.push(reply);
                        self.hand_out_disks();
                    }
                }
                PartitionsRequest::Publish {
                    parent,
                    epoch,
                    number,
                    properties,
                    endpoint,
                    reply,
                } => {
                    let published = self
                        .endpoints
                        .publish_partition(&parent, epoch, number, properties, endpoint);
                    if let Ok(name) = &published {
                        let name = name.clone();
                        self.tell(Some(Class::Block), &Change::Added { name });
                    }
                    self.keep();
                    let _ = reply.send(published);
                }
                PartitionsRequest::Done {
                    parent,
                    epoch,
                    problem,
                    reply,
                } => {
                    if let Some(problem) = problem {
                        rt::warn!("disk:/{parent}: {problem}");
                    }
                    let _ = reply.send(self.endpoints.scanned(&parent, epoch));
                    self.check_settled();
                }
            }
        }
        self.again(KEY_PARTITIONS);
    }

    /// Gives disks that nobody looked at to those who wait for one.
    fn hand_out_disks(&mut self) {
        while !self.disk_replies.is_empty() {
            let Some((info, endpoint)) = self.endpoints.next_unscanned() else {
                return;
            };
            let (info, endpoint) = (info.clone(), endpoint.duplicate());
            let reply = self.disk_replies.remove(0);
            let sent = match endpoint {
                Ok(endpoint) => reply.ok(&info, endpoint),
                Err(_) => reply.error(&DevError::NoResources),
            };
            if sent.is_err() {
                // Whoever asked is gone; the next one gets the disk.
                self.endpoints.rescan();
            }
        }
    }

    /// Serves a batch of a driver's requests.
    pub fn serve_driver(&mut self, index: usize, key: u64) {
        for _ in 0..BATCH {
            let Some(held) = self.nodes.get(index).and_then(|n| n.held.as_ref()) else {
                return;
            };
            let Ok(Some(request)) = held.host.try_next() else {
                return;
            };
            let _ = match request {
                DriverHostRequest::Publish {
                    class,
                    suffix,
                    properties,
                    endpoint,
                    reply,
                } => {
                    let name = self.publish(index, class, &suffix, properties, endpoint);
                    self.keep();
                    let sent = reply.send(name);
                    self.hand_out_disks();
                    sent
                }
                DriverHostRequest::Running { reply } => {
                    if let Some(node) = self.nodes.get_mut(index) {
                        let policy = node.policy(&self.drivers);
                        if let Some(held) = &mut node.held {
                            held.heartbeat = Heartbeat::due(&policy);
                        }
                    }
                    self.happened(index, Event::Running);
                    self.keep();
                    reply.ok()
                }
                DriverHostRequest::Alive { beat } => {
                    if let Some(node) = self.nodes.get_mut(index) {
                        let policy = node.policy(&self.drivers);
                        if let Some(held) = &mut node.held {
                            held.heartbeat.answered(beat, &policy);
                        }
                    }
                    Ok(())
                }
                DriverHostRequest::Saved { state } => {
                    self.keep_state(index, state);
                    Ok(())
                }
                DriverHostRequest::Restored { reply } => {
                    let saved = self.nodes.get(index).and_then(|n| n.saved.clone());
                    reply.ok(saved)
                }
                DriverHostRequest::Suspended { problem } => {
                    let event = match problem {
                        None => Event::Paused,
                        Some(problem) => {
                            if let Some(node) = self.nodes.get_mut(index) {
                                node.pause_problem = Some(short(&problem));
                            }
                            Event::PauseRefused
                        }
                    };
                    self.happened(index, event);
                    Ok(())
                }
                DriverHostRequest::Resumed { problem } => {
                    let event = match problem {
                        None => Event::WentOn,
                        Some(problem) => {
                            if let Some(node) = self.nodes.get_mut(index) {
                                node.ending = Some((EndReason::GaveUp, short(&problem)));
                            }
                            Event::Broken
                        }
                    };
                    self.happened(index, event);
                    self.went_on(index);
                    Ok(())
                }
                DriverHostRequest::Failed { reason, reply } => {
                    if let Some(node) = self.nodes.get_mut(index) {
                        node.ending = Some((EndReason::GaveUp, short(&reason)));
                    }
                    reply.ok()
                }
            };
        }
        self.again(key);
    }

    fn publish(
        &mut self,
        index: usize,
        class: Class,
        suffix: &str,
        properties: Vec<(String, String)>,
        endpoint: Channel,
    ) -> Result<String, DevError> {
        let node = self.nodes.get(index).ok_or(DevError::NotFound)?;
        // One that was killed has no say any more.
        if !node.life.has_driver() {
            return Err(DevError::NotRunning);
        }
        let driver = node.life.current().and_then(|p| self.driver(p));
        let driver = driver.ok_or(DevError::NotFound)?;
        // The manifest says what a driver is; it cannot become something else.
        if driver.manifest.class.text() != class.text() {
            return Err(DevError::Invalid(String::from("class")));
        }
        let (path, epoch) = (node.path.clone(), node.epoch);
        let stem = driver.stem().to_string();
        let driver = driver.manifest.name().to_string();
        let name = self
            .names
            .name(&path, &stem, suffix)
            .ok_or_else(|| DevError::Invalid(String::from("suffix")))?;
        let info = EndpointInfo {
            name: name.clone(),
            class,
            parent: None,
            node: path,
            driver,
            epoch,
            properties,
        };
        self.endpoints.publish(info, endpoint)?;
        if let Some(node) = self.nodes.get_mut(index) {
            let known = format!("{}:/{name}", scheme(class));
            if !node.known_as.contains(&known) && node.known_as.len() < KNOWN_MAX {
                node.known_as.push(known);
            }
        }
        let added = Change::Added { name: name.clone() };
        self.tell(Some(class), &added);
        Ok(name)
    }
}
