//! Processes (scheme `proc`, served by init): list, details, kill, crash reports.

use alloc::string::String;
use alloc::vec::Vec;

use crash_report::Report;
use ipc::Vmo;
use serde::{Deserialize, Serialize};

/// How a process is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ProcessState {
    /// On a CPU or ready for one.
    Running,
    /// Waits.
    Blocked,
    /// Stopped by a debugger.
    Suspended,
    /// Over, still referred to.
    Ended,
}

/// A line of `ps`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ProcessSummary {
    /// Process ID: the kernel object's ID.
    pub pid: u64,
    /// That of its parent; 0 for init.
    pub parent: u64,
    /// Name.
    pub name: String,
    /// State.
    pub state: ProcessState,
    /// Priority of its first thread, 0 to 31.
    pub priority: u8,
    /// Threads.
    pub threads: u32,
    /// Handles.
    pub handles: u32,
    /// Memory charged to it and what it created, bytes.
    pub memory_bytes: u64,
    /// Memory mapped and present, bytes.
    pub resident_bytes: u64,
    /// Limit of the memory charged, bytes.
    pub memory_limit_bytes: u64,
    /// CPU time, nanoseconds.
    pub cpu_time_ns: u64,
    /// When it started, nanoseconds since boot.
    pub start_time_ns: u64,
    /// System calls made.
    pub syscalls: u64,
    /// Page faults served.
    pub page_faults: u64,
}

/// Counts of the whole system.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct SystemSummary {
    /// Bytes of memory.
    pub total_bytes: u64,
    /// Of these, free.
    pub free_bytes: u64,
    /// In the kernel's heap and page tables.
    pub kernel_bytes: u64,
    /// Open handles.
    pub handles: u64,
    /// Live DMA pins.
    pub pins: u64,
    /// Bytes pinned.
    pub pinned_bytes: u64,
    /// Bytes in quarantine.
    pub quarantined_bytes: u64,
    /// Interrupt vectors that devices use.
    pub vectors: u64,
    /// Live objects: kind and count.
    pub objects: Vec<(String, u64)>,
    /// Context switches since boot.
    pub context_switches: u64,
    /// System calls since boot.
    pub syscalls: u64,
    /// Page faults since boot.
    pub page_faults: u64,
    /// Device interrupts since boot.
    pub interrupts: u64,
    /// Per CPU: nanoseconds idle.
    pub idle_ns: Vec<u64>,
}

/// Why a request failed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ProcError {
    /// No process of that ID.
    NotFound,
    /// The process may not be killed: the system cannot do without it.
    Protected,
    /// The kernel refused.
    Kernel(i32),
}

impl core::fmt::Display for ProcError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            ProcError::NotFound => f.write_str("no such process"),
            ProcError::Protected => f.write_str("the system cannot do without this process"),
            ProcError::Kernel(code) => write!(f, "the kernel refused ({code})"),
        }
    }
}

ipc::protocol! {
    /// Processes: scheme `proc`.
    pub protocol Processes("proc", version = 1, error = ProcError) {
        /// Processes with a PID above `after`, in the order of PIDs, `limit` at most.
        1 = list(after: u64, limit: u32) -> (processes: Vec<ProcessSummary>);
        /// One process.
        2 = info(pid: u64) -> (process: ProcessSummary);
        /// Ends a process; its exit code becomes `code`.
        3 = kill(pid: u64, code: i32) -> ();
        /// Crash reports with a number above `after`, oldest first, as many as fit a message. Init keeps the last few of
        /// each driver and service.
        4 = crashes(after: u64) -> (crashes: Vec<Report>);
        /// Counts of the whole system.
        5 = system() -> (system: SystemSummary);
        /// The first crash report with a number above `after`, as soon as there is one.
        6 = next_crash(after: u64) -> (crash: Report);
        /// The area with the trace of a crash report ([`crash_report::trace`]), read-only. Init keeps those of the last few.
        7 = crash_trace(number: u64) -> (; area: Vmo);
    }
}

ipc::protocol! {
    /// From a service that supervises processes of its own (devmgr) to init.
    pub protocol CrashReports("crash-reports", version = 1, error = ProcError) {
        /// Adds a report to what `crashes` lists.
        1 = report(crash: Report);
        /// The same with the area of a trace, which nobody writes any more.
        2 = report_traced(crash: Report; area: Vmo);
    }
}

/// All crash reports with a number above `after`, oldest first.
///
/// # Errors
/// When a call fails.
pub fn crashes(
    client: &ProcessesClient,
    after: u64,
) -> Result<Vec<Report>, ipc::CallError<ProcError>> {
    let mut all: Vec<Report> = Vec::new();
    loop {
        let last = all.last().map_or(after, |report| report.number);
        let page = client.crashes(last)?;
        // A server that does not get on must not be asked for ever.
        if page.last().is_none_or(|report| report.number <= last) {
            return Ok(all);
        }
        all.extend(page);
    }
}
