//! Services and their supervisor (init): the listing and control of services (scheme `services`), and each service's
//! channel to init.
//!
//! A service's channel to init carries two protocols: init sends [`SupervisedClient`]'s pings, the service
//! answers and calls the vault with [`SupervisorClient`]. Every incarnation has a channel of its own.
//!
//! # Schemes outlive services
//!
//! A scheme's channel belongs to init, which hands its server's end to each incarnation. When one dies, calls that
//! it had taken fail with `ServerDied`; calls that it had not read, and those that come while there is none,
//! wait for the next one. When a service is given up or stopped, init answers them with
//! [`Refusal::Unavailable`](ipc::Refusal::Unavailable).

use alloc::string::String;
use alloc::vec::Vec;

pub use crash_report::EndReason;
use ipc::Handle;
use serde::{Deserialize, Serialize};

use crate::devmgr::RestartRules;
use crate::fs::Bytes;

/// How a service is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Serialize, Deserialize)]
pub enum ServiceState {
    /// Not started in this run of the system.
    Idle,
    /// Its process runs.
    Running,
    /// Between two incarnations: it waits for its pause to end.
    Restarting,
    /// Ended by hand, and stays so.
    Stopped,
    /// Died too often: given up.
    Quarantined,
}

impl ServiceState {
    /// The state in lower case, as tools print it.
    pub const fn text(self) -> &'static str {
        match self {
            ServiceState::Idle => "idle",
            ServiceState::Running => "running",
            ServiceState::Restarting => "restarting",
            ServiceState::Stopped => "stopped",
            ServiceState::Quarantined => "quarantined",
        }
    }
}

/// How an incarnation ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct End {
    /// Why.
    pub reason: EndReason,
    /// In words.
    pub text: String,
    /// When, milliseconds since boot.
    pub time_ms: u64,
}

/// A service as `svc` lists it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ServiceSummary {
    /// Name.
    pub name: String,
    /// State.
    pub state: ServiceState,
    /// Process ID, if it runs.
    pub pid: Option<u64>,
    /// Incarnation, from 1; 0 before the first.
    pub epoch: u32,
    /// Schemes that it serves.
    pub schemes: Vec<String>,
    /// What is done when it dies.
    pub rules: RestartRules,
    /// Deaths that count at present.
    pub deaths: u32,
    /// How the last incarnation ended.
    pub last_end: Option<End>,
    /// Bytes and handles that the vault keeps for it.
    pub kept: (u64, u32),
}

/// Why init refuses.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ServicesError {
    /// No service of that name.
    NotFound,
    /// Init does not do that; says why.
    Refused(String),
}

impl core::fmt::Display for ServicesError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            ServicesError::NotFound => f.write_str("no such service"),
            ServicesError::Refused(why) => f.write_str(why),
        }
    }
}

ipc::protocol! {
    /// Services: scheme `services`. What is asked is under way when the answer comes; the list tells when it is done.
    pub protocol Services("services", version = 1, error = ServicesError) {
        /// All services, in the order in which they start.
        1 = list() -> (services: Vec<ServiceSummary>);
        /// Starts a service that does not run; its deaths are forgotten.
        2 = start(name: String) -> ();
        /// Ends a service; it stays so.
        3 = stop(name: String) -> ();
        /// Ends a service and starts it again; this counts as no death.
        4 = restart(name: String) -> ();
        /// Sets what is done when it dies.
        5 = set_rules(name: String, rules: RestartRules) -> ();
    }
}

/// Why the vault refuses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum SupervisorError {
    /// Nothing is kept under this key.
    NotFound,
    /// It would keep too much for this service, or the handles may not be duplicated.
    Full,
}

impl core::fmt::Display for SupervisorError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            SupervisorError::NotFound => "nothing is kept under this key",
            SupervisorError::Full => "the vault keeps no more for this service",
        })
    }
}

ipc::protocol! {
    /// From a service to init. The vault keeps bytes and handles for the service's later incarnations, and for
    /// nobody else.
    pub protocol Supervisor("supervisor", version = 1, error = SupervisorError) {
        /// The service's loop answers the ping of this number.
        1 = alive(beat: u32);
        /// Keeps bytes and handles under a key, in place of what was there.
        2 = put(key: String, bytes: Bytes; handles: Vec<Handle>) -> ();
        /// What is kept under a key; duplicates of the handles.
        3 = get(key: String) -> (bytes: Bytes; handles: Vec<Handle>);
        /// Forgets a key, if it is there.
        4 = remove(key: String) -> ();
        /// Keys that begin with `prefix`, above `after`, in their order; as many as fit. Empty at the end.
        5 = keys(prefix: String, after: String) -> (keys: Vec<String>);
    }
}

ipc::protocol! {
    /// From init to a service.
    pub protocol Supervised("supervised", version = 1, error = SupervisorError) {
        /// Answer with [`SupervisorClient::alive`].
        1 = ping(beat: u32);
    }
}
