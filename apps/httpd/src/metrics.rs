//! The state in Prometheus' text format (exposition format 0.0.4).

use alloc::string::String;
use core::fmt::Write;

use crate::state::State;

/// One metric's lines.
struct Page(String);

impl Page {
    fn metric(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string does not fail; so below.
        let _ = writeln!(
            self.0,
            "# HELP bulkhead_{name} {help}\n# TYPE bulkhead_{name} {kind}"
        );
    }

    fn value(&mut self, name: &str, labels: &[(&str, &str)], value: u64) {
        let _ = write!(self.0, "bulkhead_{name}");
        for (n, (label, text)) in labels.iter().enumerate() {
            let open = if n == 0 { "{" } else { "," };
            let _ = write!(self.0, "{open}{label}=\"");
            for c in text.chars() {
                match c {
                    '\\' => self.0.push_str("\\\\"),
                    '"' => self.0.push_str("\\\""),
                    '\n' => self.0.push_str("\\n"),
                    c => self.0.push(c),
                }
            }
            self.0.push('"');
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {value}");
    }

    fn single(&mut self, name: &str, kind: &str, help: &str, value: u64) {
        self.metric(name, kind, help);
        self.value(name, &[], value);
    }
}

/// `/metrics`.
pub fn text(state: &State) -> String {
    let mut page = Page(String::new());
    page.single(
        "uptime_nanoseconds_total",
        "counter",
        "Time since boot.",
        state.uptime_ns,
    );
    if let Some(s) = &state.system {
        page.single(
            "memory_bytes",
            "gauge",
            "Memory of the machine.",
            s.total_bytes,
        );
        page.single(
            "memory_free_bytes",
            "gauge",
            "Memory that is free.",
            s.free_bytes,
        );
        page.single(
            "memory_pinned_bytes",
            "gauge",
            "Memory that devices may reach.",
            s.pinned_bytes,
        );
        let quarantined = s.quarantined_bytes;
        page.single(
            "memory_quarantined_bytes",
            "gauge",
            "Memory of dead drivers, not fenced yet.",
            quarantined,
        );
        page.single("handles", "gauge", "Open handles.", s.handles);
        page.single(
            "interrupts_total",
            "counter",
            "Device interrupts.",
            s.interrupts,
        );
        page.single(
            "context_switches_total",
            "counter",
            "Context switches.",
            s.context_switches,
        );
        page.single("syscalls_total", "counter", "System calls.", s.syscalls);
        page.single(
            "page_faults_total",
            "counter",
            "Page faults.",
            s.page_faults,
        );
        page.metric(
            "cpu_idle_nanoseconds_total",
            "counter",
            "Time that a CPU had nothing to do.",
        );
        for (n, idle) in s.idle_ns.iter().enumerate() {
            let cpu = alloc::format!("{n}");
            page.value("cpu_idle_nanoseconds_total", &[("cpu", &cpu)], *idle);
        }
    }
    let drivers = || {
        state
            .nodes
            .iter()
            .filter_map(|n| Some((n, n.driver.as_deref()?)))
    };
    page.metric("driver_up", "gauge", "Whether a device is in service.");
    for (node, driver) in drivers() {
        let up = node.state == proto::devmgr::NodeState::Running;
        page.value(
            "driver_up",
            &[("node", &node.path), ("driver", driver)],
            up.into(),
        );
    }
    page.metric(
        "driver_restarts_total",
        "counter",
        "Starts of a driver after the first one.",
    );
    for (node, driver) in drivers() {
        let labels = [("node", node.path.as_str()), ("driver", driver)];
        page.value("driver_restarts_total", &labels, node.restarts.into());
    }
    page.metric(
        "driver_interrupts_total",
        "counter",
        "Interrupts of a device since its driver's last start.",
    );
    for (node, driver) in drivers() {
        let labels = [("node", node.path.as_str()), ("driver", driver)];
        page.value("driver_interrupts_total", &labels, node.interrupts);
    }
    page.metric(
        "driver_memory_bytes",
        "gauge",
        "Memory of a driver's process.",
    );
    for (node, driver) in drivers() {
        if let Some(process) = state.driver_of(node) {
            let labels = [("node", node.path.as_str()), ("driver", driver)];
            page.value("driver_memory_bytes", &labels, process.memory_bytes);
        }
    }
    page.metric(
        "driver_cpu_nanoseconds_total",
        "counter",
        "CPU time of a driver's process.",
    );
    for (node, driver) in drivers() {
        if let Some(process) = state.driver_of(node) {
            let labels = [("node", node.path.as_str()), ("driver", driver)];
            page.value("driver_cpu_nanoseconds_total", &labels, process.cpu_time_ns);
        }
    }
    type Counter = fn(&proto::inet::InterfaceCounters) -> u64;
    let counters: [(&str, &str, Counter); 8] = [
        ("network_received_frames_total", "Frames received.", |c| {
            c.rx_frames
        }),
        ("network_received_bytes_total", "Bytes received.", |c| {
            c.rx_bytes
        }),
        (
            "network_received_dropped_total",
            "Received frames that were dropped.",
            |c| c.rx_dropped,
        ),
        ("network_sent_frames_total", "Frames sent.", |c| c.tx_frames),
        ("network_sent_bytes_total", "Bytes sent.", |c| c.tx_bytes),
        (
            "network_sent_dropped_total",
            "Frames that were not sent.",
            |c| c.tx_dropped,
        ),
        (
            "network_requests_dropped_total",
            "Connection requests without room.",
            |c| c.syn_dropped,
        ),
        (
            "network_recoveries_total",
            "Times that a driver was replaced.",
            |c| c.recoveries,
        ),
    ];
    for (name, help, counter) in counters {
        page.metric(name, "counter", help);
        for interface in &state.interfaces {
            page.value(
                name,
                &[("interface", &interface.name)],
                counter(&interface.counters),
            );
        }
    }
    page.single(
        "crashes_kept",
        "gauge",
        "Crash reports that are kept.",
        state.crashes.len() as u64,
    );
    page.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::devmgr::{NodeState, NodeSummary};

    #[test]
    fn labels_are_quoted() {
        let state = State {
            uptime_ns: 5,
            nodes: alloc::vec![NodeSummary {
                path: "/a\"b\\c".into(),
                known_as: Default::default(),
                description: String::new(),
                state: NodeState::Running,
                driver: Some("d".into()),
                pid: None,
                epoch: 1,
                restarts: 2,
                endpoints: alloc::vec![],
                interrupts: 3,
                dma_contained: None,
                reason: None,
            }],
            ..State::default()
        };
        let text = text(&state);
        assert!(text.contains("bulkhead_driver_up{node=\"/a\\\"b\\\\c\",driver=\"d\"} 1\n"));
        assert!(text.contains("bulkhead_uptime_nanoseconds_total 5\n"));
        // Each line is a comment or a name, perhaps labels, and a number.
        for line in text.lines().filter(|l| !l.starts_with('#')) {
            assert!(
                line.rsplit_once(' ')
                    .is_some_and(|(_, n)| n.parse::<u64>().is_ok()),
                "{line}"
            );
        }
    }
}
