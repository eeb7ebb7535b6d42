//! The device tree (`dev:`), class endpoints (`disk:`, `serial:`, `net:`) and the channel between devmgr and a
//! driver process.
//!
//! It does not say how a class works (see `block`) nor how a driver reaches its device (see `bus`).
//!
//! # Names
//!
//! A node has a stable path (`/pci/00:04.0`); an endpoint has a stable name within its class
//! (`disk:/virtio0`, its first partition `disk:/virtio0p1`). A name stays when the driver behind it is
//! replaced; the epoch changes.
//!
//! # Endpoints
//!
//! An endpoint is the client end of a channel that carries calls only. A driver publishes it once; devmgr
//! hands a duplicate to everyone who opens the name. What belongs to one client (sessions, buffers) lives
//! in channels of its own that the class protocol opens.

use alloc::string::String;
use alloc::vec::Vec;

use ipc::{Channel, Vmo};
use serde::{Deserialize, Serialize};

use crate::fs::Bytes;
use crate::wire::Wire;

/// State of a node's driver.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Serialize, Deserialize)]
pub enum NodeState {
    /// No driver matches, or none was looked for yet.
    Unbound,
    /// A driver is chosen and loaded, not started.
    Loaded,
    /// The driver's process runs and has not reported that it is ready.
    Starting,
    /// In service.
    Running,
    /// Asked to pause.
    Suspended,
    /// Asked to stop.
    Stopping,
    /// Stopped in good order, device fenced.
    Stopped,
    /// Between two incarnations of the driver.
    Restarting,
    /// Given up: fenced, endpoints withdrawn, no further attempt.
    Quarantined,
    /// The driver ended or reported an error; device fenced.
    Failed,
}

impl NodeState {
    /// The state in lower case, as tools print it.
    pub const fn text(self) -> &'static str {
        match self {
            NodeState::Unbound => "unbound",
            NodeState::Loaded => "loaded",
            NodeState::Starting => "starting",
            NodeState::Running => "running",
            NodeState::Suspended => "suspended",
            NodeState::Stopping => "stopping",
            NodeState::Stopped => "stopped",
            NodeState::Restarting => "restarting",
            NodeState::Quarantined => "quarantined",
            NodeState::Failed => "failed",
        }
    }
}

/// Class of an endpoint: which protocol its channel carries, and which scheme lists it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Class {
    /// Block devices and partitions, scheme `disk`.
    Block,
    /// Byte streams of serial ports, scheme `serial`.
    Serial,
    /// Network interfaces, scheme `net`.
    Net,
    /// A bus: its children are nodes, it has no endpoints.
    Bus,
    /// Endpoints of a protocol of their own, scheme `other`.
    Other,
}

impl Class {
    /// The name in lower case.
    pub const fn text(self) -> &'static str {
        match self {
            Class::Block => "block",
            Class::Serial => "serial",
            Class::Net => "net",
            Class::Bus => "bus",
            Class::Other => "other",
        }
    }
}

/// A node as `lsdev` lists it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeSummary {
    /// Stable path, for instance `/pci/00:04.0`.
    pub path: String,
    /// What it is, for people.
    pub description: String,
    /// State.
    pub state: NodeState,
    /// Driver bound to it.
    pub driver: Option<String>,
    /// Process ID of the driver.
    pub pid: Option<u64>,
    /// Incarnation of the driver, from 1; 0 before the first.
    pub epoch: u32,
    /// Starts after the first one.
    pub restarts: u32,
    /// Endpoints, as `disk:/virtio0`.
    pub endpoints: Vec<String>,
    /// Endpoints that it had before, while it has none.
    pub known_as: Vec<String>,
    /// How often its device has interrupted this incarnation, over all vectors.
    pub interrupts: u64,
    /// Whether an IOMMU contains its DMA; `None` without a DMA domain.
    pub dma_contained: Option<bool>,
    /// Why it is in its state: error or exit of the driver.
    pub reason: Option<String>,
}

/// All that is known of a node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeInfo {
    /// The line of the list.
    pub summary: NodeSummary,
    /// Names and values, in a stable order.
    pub properties: Vec<(String, String)>,
    /// Of a PCI function: its description.
    pub pci: Option<crate::bus::PciFunctionInfo>,
    /// Version of the driver.
    pub driver_version: Option<String>,
    /// Versions that the node knows.
    pub versions: Versions,
    /// Steps of the last teardown with their outcome.
    pub teardown: Vec<String>,
}

/// What became of one driver when a node looked for its driver.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Candidate {
    /// Name in the manifest.
    pub driver: String,
    /// Version in the manifest.
    pub version: String,
    /// Where the program is, for instance `bin/virtio-blk`.
    pub program: String,
    /// How specific the matching rule is; 0 if none matches.
    pub specificity: u32,
    /// Declared priority.
    pub priority: i32,
    /// Whether it is a fallback driver.
    pub fallback: bool,
    /// The rule that matched.
    pub matched: Option<String>,
    /// The first rule or need that failed, with what was expected and seen.
    pub failed: Option<String>,
    /// Whether it was chosen.
    pub chosen: bool,
}

/// Answer to "why has this node this driver".
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WhyReport {
    /// The node.
    pub node: NodeSummary,
    /// What rules look at, for instance `pci vendor=1af4 device=1042 class=01.00.00`.
    pub identity: String,
    /// Every driver that is known, best first.
    pub candidates: Vec<Candidate>,
}

/// What is done when a driver dies unasked.
///
/// The same rules hold for services. The first restart in a window comes at once; each further one waits twice as long as the one before,
/// within the bounds of the pause. The death after the last restart of the budget quarantines the device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RestartRules {
    /// Restarts in a window; 0 for none.
    pub budget: u32,
    /// Length of the window in milliseconds.
    pub window_ms: u32,
    /// Pause before the second restart in a window, in milliseconds.
    pub pause_min_ms: u32,
    /// Longest pause, in milliseconds.
    pub pause_max_ms: u32,
}

/// What a client has against the driver that serves it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Complaint {
    /// A request was not answered in time.
    Silent,
    /// It broke the protocol: an answer to nothing, a ring that cannot be.
    Protocol,
    /// It came up with another device than its predecessor had, in the same place.
    OtherDevice,
}

impl Complaint {
    /// As reports say it.
    pub const fn text(self) -> &'static str {
        match self {
            Complaint::Silent => "did not answer a client's request in time",
            Complaint::Protocol => "broke the protocol with a client",
            Complaint::OtherDevice => "came back with another device than it had",
        }
    }
}

/// How a node's driver is watched over, restarted and tried. Times are in milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DriverPolicy {
    /// What is done when it dies unasked.
    pub restart: RestartRules,
    /// A version that served this long without dying is the last known good one.
    pub probation_ms: u32,
    /// Pause between a heartbeat's answer and the next one.
    pub heartbeat_ms: u32,
    /// A driver that owes its answer for this long hangs, and is ended.
    pub silence_ms: u32,
    /// One that is not in service (or not back from a suspension) after this time is ended.
    pub start_ms: u32,
    /// One that was asked to stop, to suspend or to make room and has not after this time is ended.
    pub stop_ms: u32,
    /// Whether its next incarnations record what passes between them and their device, if they were built for it.
    pub trace: bool,
    /// The bad wire that its next incarnations have before them, if they serve a network interface.
    pub wire: Option<Wire>,
}

/// State that a driver leaves to the next version: numbered fields under a version of its schema.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct SavedState {
    /// Version of the schema.
    pub schema: u32,
    /// Field numbers and contents.
    pub fields: Vec<(u32, Bytes)>,
}

/// Most bytes that a saved state has in all its fields together.
pub const SAVED_BYTES_MAX: usize = 16 * 1024;
/// Most fields of a saved state.
pub const SAVED_FIELDS_MAX: usize = 256;

/// Which versions of a driver a node knows, as `NAME 1.2.3 (PROGRAM)`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Versions {
    /// The one that runs, or would be started.
    pub current: Option<String>,
    /// The one that is gone back to: it passed its probation.
    pub last_known_good: Option<String>,
    /// Whether the current one is not proven yet.
    pub in_probation: bool,
    /// What became of the last reload, if it did not stay.
    pub fell_back: Option<String>,
}

/// What a reload did.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReloadReport {
    /// Version that served before, if one did.
    pub before: Option<String>,
    /// Version that serves now.
    pub now: String,
    /// Incarnation that serves now.
    pub epoch: u32,
    /// Why the old version serves again, if it does.
    pub fell_back: Option<String>,
    /// Fields of state that the old version left for the new one.
    pub saved_fields: u32,
    /// From the order to the old version to the new one being in service, in nanoseconds.
    pub gap_ns: u64,
}

/// A driver's program as devmgr knows it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ProgramInfo {
    /// Name in the manifest.
    pub driver: String,
    /// Version in the manifest.
    pub version: String,
    /// Where it came from: `bin/nvme` of the boot archive, or what whoever loaded it said.
    pub program: String,
    /// Whether it was loaded at run time, and can be unloaded.
    pub loaded: bool,
    /// Paths of the nodes that it serves.
    pub nodes: Vec<String>,
}

/// Something changed in the tree or among the endpoints of a class.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Change {
    /// A node or an endpoint appeared.
    Added {
        /// Path of the node or name of the endpoint.
        name: String,
    },
    /// State, epoch or properties changed.
    Changed {
        /// Path of the node or name of the endpoint.
        name: String,
    },
    /// It is gone.
    Removed {
        /// Path of the node or name of the endpoint.
        name: String,
    },
    /// Every bus is enumerated, and every driver that was started is running or failed; partitions are
    /// published. Sent once, at once to watchers that come later.
    Settled,
}

/// An endpoint as `lsblk` lists it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EndpointInfo {
    /// Name within the scheme, for instance `virtio0` or `virtio0p1`.
    pub name: String,
    /// Class.
    pub class: Class,
    /// For a partition: the endpoint that it is a part of.
    pub parent: Option<String>,
    /// Node of the driver that serves it.
    pub node: String,
    /// Name of the driver.
    pub driver: String,
    /// Incarnation of the driver.
    pub epoch: u32,
    /// Properties that the publisher gave, for instance `("type", "linux")` of a partition.
    pub properties: Vec<(String, String)>,
}

/// Why devmgr refuses.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum DevError {
    /// No node or endpoint of that name.
    NotFound,
    /// The endpoint's driver is not running.
    NotRunning,
    /// The name is taken.
    AlreadyExists,
    /// An argument is malformed; says which.
    Invalid(String),
    /// The driver did not come up, or its device could not be fenced; says why.
    Failed(String),
    /// The caller may not do this.
    AccessDenied,
    /// devmgr ran out of something.
    NoResources,
}

impl core::fmt::Display for DevError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            DevError::NotFound => f.write_str("no such node or endpoint"),
            DevError::NotRunning => f.write_str("the driver is not running"),
            DevError::AlreadyExists => f.write_str("the name is taken"),
            DevError::Invalid(what) => write!(f, "invalid {what}"),
            DevError::Failed(why) => f.write_str(why),
            DevError::AccessDenied => f.write_str("access denied"),
            DevError::NoResources => f.write_str("out of resources"),
        }
    }
}

ipc::protocol! {
    /// The device tree: scheme `dev`. Paths are those of nodes.
    pub protocol DeviceTree("dev", version = 1, error = DevError) {
        /// Nodes in the order of their paths, `limit` at most, after the node `after` (empty: from the
        /// first); an empty answer ends the list.
        1 = list(after: String, limit: u32) -> (nodes: Vec<NodeSummary>);
        /// Everything about one node.
        2 = node(path: String) -> (info: NodeInfo);
        /// Which drivers were considered for a node and why.
        3 = why(path: String) -> (report: WhyReport);
        /// A channel on which [`ChangeEvents`] arrive; starts with what is there.
        4 = watch() -> (; events: Channel);
        /// Waits until enumeration has settled (see [`Change::Settled`]).
        5 = wait_settled() -> ();
        /// A raw look at a PCI function's configuration space.
        6 = pci_config(path: String) -> (bytes: Vec<u8>);
    }
}

ipc::protocol! {
    /// The endpoints of one class: schemes `disk`, `serial`, `net` and `other`. Names are without the scheme.
    pub protocol Endpoints("endpoints", version = 1, error = DevError) {
        /// All endpoints in their stable order.
        1 = list() -> (endpoints: Vec<EndpointInfo>);
        /// A client end of the endpoint's channel, and its name ([`EndpointName`]) for the time after the
        /// driver's death.
        2 = open(name: String) -> (info: EndpointInfo; endpoint: Channel, name: Channel);
        /// A channel on which [`ChangeEvents`] arrive; starts with what is there.
        3 = watch() -> (; events: Channel);
        /// Waits until enumeration has settled (see [`Change::Settled`]).
        4 = wait_settled() -> ();
    }
}

ipc::protocol! {
    /// One name of an endpoint: the right to find it again, and no other one. It outlives the driver.
    pub protocol EndpointName("endpoint-name", version = 1, error = DevError) {
        /// The endpoint as a later incarnation of the driver serves it: waits until there is one with an
        /// epoch above `after`. [`DevError::NotRunning`] when the driver will not come back,
        /// [`DevError::NotFound`] when it came back without this name.
        1 = reopen(after: u32) -> (info: EndpointInfo; endpoint: Channel);
        /// The incarnation `epoch` is of no use to a client: it is ended and counts as a death. Without effect
        /// when another one serves already. Whoever can open the endpoint can do this, and has the device's
        /// contents in its hands anyway; the budget of restarts bounds what it costs the others.
        2 = complain(epoch: u32, complaint: Complaint) -> ();
    }
}

ipc::protocol! {
    /// Authority over drivers: scheme `drv`. Paths are those of nodes.
    pub protocol DriverAdmin("drv", version = 1, error = DevError) {
        /// Starts the driver of a node that is stopped, failed or quarantined; its history is forgotten.
        1 = start(path: String) -> ();
        /// Asks the driver to finish, fences the device, and leaves it without a driver. Answered when
        /// that is done.
        2 = stop(path: String) -> ();
        /// Stops it in good order and starts it again. Answered when the new incarnation serves.
        3 = restart(path: String) -> ();
        /// How the driver is watched over and restarted, and its deaths in the window so far.
        6 = policy(path: String) -> (policy: DriverPolicy, deaths: u32);
        /// Sets that.
        7 = set_policy(path: String, policy: DriverPolicy) -> ();
        /// Puts a program of `length` bytes in the place of the node's driver (without one: the same program
        /// anew): the old version is quiesced and leaves its state, the device is fenced, the new version
        /// starts with that state. Answered when a version serves: when the new one does not come up, the
        /// old one does and the report says why. The program is copied before it is looked at.
        8 = reload(path: String, length: u64; program: Option<Vmo>) -> (report: ReloadReport);
        /// Lets the driver pause; its clients wait. Answered when it has.
        9 = suspend(path: String) -> ();
        /// Lets it go on.
        10 = resume(path: String) -> ();
        /// Makes a program known and starts it where it is the best match of a node without a driver; answers
        /// with those nodes. `name` says where it came from, for people.
        11 = load(name: String, length: u64; program: Vmo) -> (program: ProgramInfo);
        /// Stops the nodes that a loaded program serves, and forgets it.
        12 = unload(name: String) -> ();
        /// All programs with a manifest.
        13 = programs() -> (programs: Vec<ProgramInfo>);
    }
}

ipc::protocol! {
    /// Publishing of partitions, for the `part` service alone.
    pub protocol Partitions("partitions", version = 1, error = DevError) {
        /// Waits for the next whole disk that was not handed out yet.
        1 = next_disk() -> (info: EndpointInfo; endpoint: Channel);
        /// Publishes `disk:/{parent}p{number}`.
        2 = publish(parent: String, epoch: u32, number: u32, properties: Vec<(String, String)>; endpoint: Channel) -> (name: String);
        /// All partitions of this disk are published, or `problem` says why there are none.
        3 = done(parent: String, epoch: u32, problem: Option<String>) -> ();
    }
}

ipc::protocol! {
    /// What a watcher gets; messages without an answer.
    pub protocol ChangeEvents("changes", version = 1, error = DevError) {
        /// One change.
        1 = change(change: Change);
    }
}

ipc::protocol! {
    /// From a driver process to devmgr: its channel `devmgr`.
    pub protocol DriverHost("driver-host", version = 1, error = DevError) {
        /// Publishes an endpoint of the driver's class. `suffix` tells several endpoints of one driver
        /// apart and is empty for a single one. The answer is the stable name, for instance `virtio0`.
        1 = publish(class: Class, suffix: String, properties: Vec<(String, String)>; endpoint: Channel) -> (name: String);
        /// The driver is in service: the node goes from `Starting` to `Running`.
        2 = running() -> ();
        /// The driver cannot serve its device; it exits after this.
        3 = failed(reason: String) -> ();
        /// Every thread of the driver answered the ping of this number.
        4 = alive(beat: u32);
        /// What the next version is to know; before the exit that [`DriverControl`]'s `replace` asks for.
        5 = saved(state: SavedState);
        /// The state that the version before left, if this start follows a reload.
        6 = restored() -> (state: Option<SavedState>);
        /// It pauses as it was asked to, or says why it does not.
        7 = suspended(problem: Option<String>);
        /// It goes on as it was asked to, or says why it cannot.
        8 = resumed(problem: Option<String>);
    }
}

ipc::protocol! {
    /// From devmgr to a driver process: its channel `control`.
    pub protocol DriverControl("driver-control", version = 1, error = DevError) {
        /// Stop the device and exit. A message without an answer: the exit is the answer.
        1 = stop();
        /// Answer with [`DriverHost`]'s `alive`, from every thread that serves the device: heartbeat.
        2 = ping(beat: u32);
        /// Another version takes over: stop the device, tell [`DriverHost`]'s `saved`, and exit.
        3 = replace();
        /// The device is about to be removed: stop it and exit.
        4 = remove();
        /// Pause: answer with `suspended`.
        5 = suspend();
        /// Go on: answer with `resumed`.
        6 = resume();
    }
}
