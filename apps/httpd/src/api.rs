//! The state of the system, asked of its services at each request, and the few things that can be done.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use httpd::answer::{Answer, JSON};
use httpd::request::Request;
use httpd::state::State;
use proto::devmgr::{DeviceTreeClient, DriverAdminClient, NodeSummary};
use proto::inet::IpClient;
use proto::proc::{ProcessSummary, ProcessesClient};
use rt::{AsHandle, Channel, Resource, startup};
use serde_json::json;

/// Time for a service to answer: the page comes with what there is.
const LIMIT: Duration = Duration::from_secs(3);
/// Time for a driver to be replaced.
const DRIVER_LIMIT: Duration = Duration::from_secs(90);
/// Bytes of the log in an answer.
const LOG_BYTES: usize = 32 * 1024;

/// What is asked of the services.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Everything.
    All,
    /// Counts of the system.
    System,
    /// Devices and what belongs to them.
    Devices,
    /// Interfaces.
    Network,
    /// Processes.
    Processes,
    /// Crash reports.
    Crashes,
}

fn channel(name: &str) -> Option<Channel> {
    startup::handle::<Channel>(name)?.duplicate().ok()
}

/// Asks for it.
pub fn state(wanted: Wanted) -> State {
    let is = |one: Wanted| wanted == Wanted::All || wanted == one;
    let devices = is(Wanted::Devices);
    let proc = channel("proc").map(|c| ProcessesClient::new(c).with_timeout(LIMIT));
    let mut state = State {
        uptime_ns: rt::time::now_ns(),
        ..State::default()
    };
    if let Some(proc) = &proc {
        if is(Wanted::System) {
            state.system = proc.system().ok();
        }
        if devices || is(Wanted::Processes) {
            state.processes = processes(proc);
        }
        if is(Wanted::Crashes) {
            state.crashes = proc.crashes().unwrap_or_default();
        }
    }
    if devices && let Some(dev) = channel("dev") {
        state.nodes = nodes(&DeviceTreeClient::new(dev).with_timeout(LIMIT));
    }
    if (devices || is(Wanted::Network))
        && let Some(ip) = channel("ip")
    {
        let ip = IpClient::new(ip).with_timeout(LIMIT);
        state.interfaces = ip.interfaces().unwrap_or_default();
    }
    state
}

fn nodes(dev: &DeviceTreeClient) -> Vec<NodeSummary> {
    const BATCH: u32 = 64;
    let mut all: Vec<NodeSummary> = Vec::new();
    loop {
        let after = all.last().map_or("", |n| n.path.as_str());
        let batch = dev.list(after, BATCH).unwrap_or_default();
        // A server that does not get on must not be asked for ever.
        if batch.last().is_none_or(|last| last.path.as_str() <= after) {
            return all;
        }
        all.extend(batch);
    }
}

fn processes(proc: &ProcessesClient) -> Vec<ProcessSummary> {
    const BATCH: u32 = 256;
    let mut all: Vec<ProcessSummary> = Vec::new();
    loop {
        let after = all.last().map_or(0, |p| p.pid);
        let batch = proc.list(after, BATCH).unwrap_or_default();
        if batch.last().is_none_or(|last| last.pid <= after) {
            return all;
        }
        all.extend(batch);
    }
}

/// The answers to read; `None` for a path that is none of them.
pub fn read(request: &Request) -> Option<Answer> {
    let value = match request.path.as_str() {
        "/api/all" => state(Wanted::All).all_json(),
        "/api/system" => state(Wanted::System).system_json(),
        "/api/devices" => state(Wanted::Devices).devices_json(),
        "/api/network" => state(Wanted::Network).network_json(),
        "/api/processes" => state(Wanted::Processes).processes_json(),
        "/api/crashes" => state(Wanted::Crashes).crashes_json(),
        "/api/log" => log(request),
        _ => return None,
    };
    Some(Answer::new(JSON, value.to_string()))
}

/// Lines of the log from a place on; without one, the last of them.
fn log(request: &Request) -> serde_json::Value {
    let Some(log) = startup::handle::<Resource>("log-reader") else {
        return json!({ "next": 0, "lines": [] });
    };
    let after = request
        .parameter("after")
        .and_then(|a| a.parse::<u64>().ok());
    let mut sequence = after.unwrap_or(0);
    let mut buffer = alloc::vec![0; LOG_BYTES];
    let mut text: Vec<u8> = Vec::new();
    // The log of the kernel is bounded, and so is this.
    for _ in 0..256 {
        let Ok(read) = rt::log_read(log, &mut buffer, sequence) else {
            break;
        };
        let end = read.len == 0 || read.next == sequence;
        sequence = read.next;
        text.extend_from_slice(buffer.get(..read.len).unwrap_or_default());
        if text.len() > LOG_BYTES {
            let surplus = text.len() - LOG_BYTES;
            text.drain(..surplus);
        }
        if end {
            break;
        }
    }
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    json!({ "next": sequence, "lines": lines })
}

/// Whether the request has the token; all of it is looked at, so that time tells nothing.
fn is_authorized(request: &Request) -> bool {
    let expected = startup::env("BULKHEAD_DASHBOARD_TOKEN")
        .unwrap_or("")
        .as_bytes();
    let given = request.token.as_deref().unwrap_or("").as_bytes();
    if expected.is_empty() || expected.len() != given.len() {
        return false;
    }
    let difference = expected.iter().zip(given).fold(0, |d, (a, b)| d | (a ^ b));
    difference == 0
}

/// `POST /api/driver?node=PATH&action=restart|reload|start|stop`.
pub fn driver(request: &Request) -> Answer {
    if !is_authorized(request) {
        return Answer::failure(401, "the token that was printed at the start is needed");
    }
    let (Some(node), Some(action)) = (request.parameter("node"), request.parameter("action"))
    else {
        return Answer::failure(400, "parameters node and action are needed");
    };
    let Some(drv) = channel("drv") else {
        return Answer::failure(403, "no access to drivers");
    };
    let drv = DriverAdminClient::new(drv).with_timeout(DRIVER_LIMIT);
    let outcome = match action {
        "restart" => drv.restart(node),
        "start" => drv.start(node),
        "stop" => drv.stop(node),
        "reload" => drv.reload(node, 0u64, None).map(|_| ()),
        _ => return Answer::failure(400, "action is one of restart, reload, start, stop"),
    };
    match outcome {
        Ok(()) => Answer::new(JSON, json!({ "node": node, "done": action }).to_string()),
        Err(error) => Answer::failure(503, &error.to_string()),
    }
}
