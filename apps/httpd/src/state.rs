//! The system's state as JSON.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use proto::crash_report::Report;
use proto::devmgr::NodeSummary;
use proto::inet::InterfaceInfo;
use proto::proc::{ProcessState, ProcessSummary, SystemSummary};
use serde_json::{Value, json};

/// What was asked of the services; what did not answer is missing.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Nanoseconds since boot.
    pub uptime_ns: u64,
    /// Counts of the system.
    pub system: Option<SystemSummary>,
    /// The device tree.
    pub nodes: Vec<NodeSummary>,
    /// Processes.
    pub processes: Vec<ProcessSummary>,
    /// Network interfaces.
    pub interfaces: Vec<InterfaceInfo>,
    /// Crash reports.
    pub crashes: Vec<Report>,
}

impl State {
    fn process(&self, pid: Option<u64>) -> Option<&ProcessSummary> {
        self.processes.iter().find(|p| Some(p.pid) == pid)
    }

    /// The process that serves a node.
    pub fn driver_of(&self, node: &NodeSummary) -> Option<&ProcessSummary> {
        self.process(node.pid)
    }

    /// The interface that a node serves.
    pub fn interface_of(&self, node: &NodeSummary) -> Option<&InterfaceInfo> {
        let names = node
            .endpoints
            .iter()
            .filter_map(|e| e.strip_prefix("net:/"));
        let mut names = names;
        names.find_map(|name| self.interfaces.iter().find(|i| i.name == name))
    }

    /// `/api/system`.
    pub fn system_json(&self) -> Value {
        let Some(s) = &self.system else {
            return json!({ "uptime_ns": self.uptime_ns });
        };
        json!({
            "uptime_ns": self.uptime_ns,
            "memory_bytes": s.total_bytes,
            "free_bytes": s.free_bytes,
            "kernel_bytes": s.kernel_bytes,
            "pinned_bytes": s.pinned_bytes,
            "quarantined_bytes": s.quarantined_bytes,
            "handles": s.handles,
            "interrupts": s.interrupts,
            "context_switches": s.context_switches,
            "syscalls": s.syscalls,
            "page_faults": s.page_faults,
            "idle_ns": s.idle_ns,
        })
    }

    /// `/api/devices`: nodes with what their drivers use.
    pub fn devices_json(&self) -> Value {
        let nodes = self.nodes.iter().map(|node| {
            let driver = self.driver_of(node);
            let interface = self.interface_of(node);
            json!({
                "path": node.path,
                "description": node.description,
                "state": node.state.text(),
                "driver": node.driver,
                "pid": node.pid,
                "epoch": node.epoch,
                "restarts": node.restarts,
                "endpoints": node.endpoints,
                "interrupts": node.interrupts,
                "dma_contained": node.dma_contained,
                "reason": node.reason,
                "memory_bytes": driver.map(|p| p.memory_bytes),
                "cpu_ns": driver.map(|p| p.cpu_time_ns),
                "syscalls": driver.map(|p| p.syscalls),
                "rx_bytes": interface.map(|i| i.counters.rx_bytes),
                "tx_bytes": interface.map(|i| i.counters.tx_bytes),
            })
        });
        Value::Array(nodes.collect())
    }

    /// `/api/network`.
    pub fn network_json(&self) -> Value {
        let interfaces = self.interfaces.iter().map(|i| {
            let addresses: Vec<String> = i
                .addresses
                .iter()
                .map(|(cidr, _)| alloc::format!("{cidr}"))
                .collect();
            let c = &i.counters;
            json!({
                "name": i.name,
                "state": i.state.text(),
                "mtu": i.mtu,
                "driver": i.driver,
                "addresses": addresses,
                "offloads": i.offloads,
                "rx_frames": c.rx_frames,
                "rx_bytes": c.rx_bytes,
                "rx_dropped": c.rx_dropped,
                "tx_frames": c.tx_frames,
                "tx_bytes": c.tx_bytes,
                "tx_dropped": c.tx_dropped,
                "syn_dropped": c.syn_dropped,
                "recoveries": c.recoveries,
            })
        });
        Value::Array(interfaces.collect())
    }

    /// `/api/processes`.
    pub fn processes_json(&self) -> Value {
        let processes = self.processes.iter().map(|p| {
            json!({
                "pid": p.pid,
                "parent": p.parent,
                "name": p.name,
                "state": match p.state {
                    ProcessState::Running => "running",
                    ProcessState::Blocked => "blocked",
                    ProcessState::Suspended => "suspended",
                    ProcessState::Ended => "ended",
                },
                "threads": p.threads,
                "handles": p.handles,
                "memory_bytes": p.memory_bytes,
                "cpu_ns": p.cpu_time_ns,
                "syscalls": p.syscalls,
            })
        });
        Value::Array(processes.collect())
    }

    /// `/api/crashes`.
    pub fn crashes_json(&self) -> Value {
        let crashes = self.crashes.iter().map(|c| {
            json!({
                "number": c.number,
                "pid": c.subject.pid,
                "name": c.subject.name,
                "time_ns": c.time_ns,
                "reason": c.text,
                "report": c.to_string(),
            })
        });
        Value::Array(crashes.collect())
    }

    /// `/api/all`: everything at once, as the dashboard wants it.
    pub fn all_json(&self) -> Value {
        json!({
            "system": self.system_json(),
            "devices": self.devices_json(),
            "network": self.network_json(),
            "processes": self.processes_json(),
            "crashes": self.crashes_json(),
        })
    }
}
