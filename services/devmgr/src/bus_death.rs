//! Bus drivers die as well: each is started again by the rules and takes over what its predecessor knew, without a write to
//! configuration space. Drivers go on meanwhile; steps of the fence that were under way are taken again.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use devmgr::node::Device;
use devmgr::restart::{History, Verdict};
use pci_bus::arguments::Host;
use proto::bus::{PciBusClient, PciBusEventsServer, PciFunctionInfo};
use proto::devmgr::NodeState;
use rt::process::Child;
use rt::{AsHandle, Channel, Deadline, Error, Signals, Watch};
use supervision::rules_from_environment;

use crate::buses::{Bus, CALL_LIMIT};
use crate::manager::{KEY_BUS_EVENTS, Manager};

/// Keys of the vault.
const BUSES: &str = "bus:";

/// A bus as it is kept: path, words for its driver, deaths.
type BusRecord = (String, Vec<String>, History);

fn now_ms() -> u64 {
    rt::time::now_ns() / 1_000_000
}

impl Manager {
    /// Puts the buses away.
    pub fn keep_buses(&mut self) {
        for (index, bus) in self.buses.iter().enumerate() {
            let handles = [
                bus.client.channel().as_handle(),
                bus.serve.as_handle(),
                bus.events.channel().as_handle(),
                bus.child.process().as_handle(),
                bus.interrupt.as_handle(),
            ];
            let record = (&bus.path, bus.host.to_words(), &bus.history);
            let key = format!("{BUSES}{index:03}");
            self.kept.put(&key, &record, &handles);
        }
    }

    /// Takes the buses over.
    pub fn restore_buses(&mut self) {
        for key in self.kept.keys(BUSES) {
            let Some((record, handles)) = self.kept.get::<BusRecord>(&key) else {
                continue;
            };
            let (path, words, history) = record;
            let mut handles = handles.into_iter();
            let mut next = || handles.next();
            let (Some(client), Some(serve), Some(events), Some(process), Some(interrupt)) =
                (next(), next(), next(), next(), next())
            else {
                continue;
            };
            let client: Channel = client.into_type();
            let bus = Bus {
                path,
                host: Host::from_words(words.iter().map(String::as_str)).unwrap_or_default(),
                client: PciBusClient::new(client).with_timeout(CALL_LIMIT),
                serve: serve.into_type(),
                events: PciBusEventsServer::new(events.into_type()),
                child: Child::from_process(process.into_type()),
                interrupt: interrupt.into_type(),
                history,
                restart_at: None,
            };
            if let Err(error) = self.watch_bus(self.buses.len(), &bus) {
                rt::error!("{}: {error}", bus.path);
            }
            self.buses.push(bus);
        }
    }

    /// Packets of a bus driver.
    pub fn watch_bus(&self, index: usize, bus: &Bus) -> Result<(), Error> {
        let key = Self::bus_key(index);
        let process = bus.child.process();
        process.wait_async(&self.port, key, Signals::TERMINATED, Watch::Once)?;
        let key = KEY_BUS_EVENTS.saturating_add(index as u64);
        let events = bus.events.channel();
        events.wait_async(&self.port, key, Signals::READABLE, Watch::Persistent)
    }

    /// A bus driver ended: until there is another one its devices cannot be configured or fenced, but drivers go on.
    pub fn bus_ended(&mut self, index: usize) {
        // What it had still said.
        self.serve_bus_events(KEY_BUS_EVENTS.saturating_add(index as u64), index);
        let Some(bus) = self.buses.get(index) else {
            return;
        };
        let reason = self.report_bus(bus);
        let rules = rules_from_environment("buses");
        let Some(bus) = self.buses.get_mut(index) else {
            return;
        };
        let now = now_ms();
        match bus.history.died(&rules, now) {
            Verdict::RestartAt(at) => {
                bus.restart_at = Some(Deadline::after_ms(at.saturating_sub(now)));
                self.bus_state(index, NodeState::Restarting, Some(reason));
            }
            Verdict::GiveUp => self.bus_given_up(index, reason),
        }
    }

    fn bus_state(&mut self, index: usize, state: NodeState, reason: Option<String>) {
        let Some(path) = self.buses.get(index).map(|bus| bus.path.clone()) else {
            return;
        };
        for node in &mut self.nodes {
            let bridge = matches!(&node.device, Device::Pci(info) if info.buses.is_some());
            if node.path == path || (bridge && node.bus == Some(index)) {
                node.served_by_bus = Some(state);
                node.reason.clone_from(&reason);
            }
        }
    }

    fn bus_given_up(&mut self, index: usize, reason: String) {
        rt::error!("the bus driver died too often: {reason}");
        self.bus_state(index, NodeState::Failed, Some(reason));
        // Steps of the fence that it was asked for are not taken.
        let here = self.nodes.iter().filter(|n| n.bus == Some(index));
        let unanswered: Vec<u64> = here.filter_map(|n| Some(n.fence?.0)).collect();
        for ticket in unanswered {
            self.fence_done(ticket, Err(String::from("the bus driver is gone")));
        }
    }

    /// When a bus driver is to be started again.
    pub fn next_bus_restart(&self) -> Deadline {
        let times = self.buses.iter().filter_map(|bus| bus.restart_at);
        times.fold(Deadline::FOREVER, Deadline::min)
    }

    /// Starts bus drivers whose time has come.
    pub fn restart_buses(&mut self) {
        for index in 0..self.buses.len() {
            let due = |at: &mut Deadline| at.has_passed();
            let bus = self.buses.get_mut(index);
            if bus.and_then(|bus| bus.restart_at.take_if(due)).is_none() {
                continue;
            }
            if let Err(why) = self.restart_bus(index) {
                rt::error!("bus driver: {why}");
                self.bus_given_up(index, why);
            }
        }
    }

    fn restart_bus(&mut self, index: usize) -> Result<(), String> {
        let text = |e: Error| e.to_string();
        let known: Vec<PciFunctionInfo> = self
            .nodes
            .iter()
            .filter(|node| node.bus == Some(index) && (node.is_present() || node.held.is_some()))
            .filter_map(|node| match node.plugged.as_ref().unwrap_or(&node.device) {
                Device::Pci(info) => Some(info.clone()),
                _ => None,
            })
            .collect();
        let bus = self.buses.get(index).ok_or("no such bus")?;
        let (child, events) =
            self.spawn_bus(&bus.host, &bus.serve, &bus.interrupt, Some(&known))?;
        let bus = self.buses.get_mut(index).ok_or("no such bus")?;
        (bus.child, bus.events) = (child, events);
        let bus = self.buses.get(index).ok_or("no such bus")?;
        self.watch_bus(index, bus).map_err(text)?;
        self.bus_state(index, NodeState::Running, None);
        rt::info!("the bus driver is back, {} functions", known.len());
        // Steps that the one before had taken over and did not report are taken again.
        let pending = self.nodes.iter().enumerate();
        let pending: Vec<_> = pending
            .filter(|(_, node)| node.bus == Some(index))
            .filter_map(|(place, node)| Some((place, node.fence?.1)))
            .collect();
        for (place, step) in pending {
            self.again_now(place, devmgr::life::Action::Fence(step));
        }
        Ok(())
    }
}
