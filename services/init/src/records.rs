//! Kernel records in the form in which `proc:` shows them, and the store of crash reports.

use alloc::collections::VecDeque;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use bulkhead_abi::{CpuInfo, KernelStats, ObjectKind, PAGE_SIZE, ProcessInfo, exit, thread_state};
use proto::proc::{CrashSummary, ProcessState, ProcessSummary, SystemSummary};

/// Crash reports that are kept.
pub const CRASHES_MAX: usize = 32;
/// Most bytes of a report's text that are kept.
pub const CRASH_TEXT_MAX: usize = 8 * 1024;
const PAGE: u64 = PAGE_SIZE as u64;

/// A zero-filled name as text.
pub fn name_text(name: &[u8]) -> String {
    let bytes = name.split(|b| *b == 0).next().unwrap_or(&[]);
    String::from_utf8_lossy(bytes).into_owned()
}

/// A line of `ps`.
pub fn process(info: &ProcessInfo) -> ProcessSummary {
    let state = match (info.exit_reason, info.state) {
        (exit::RUNNING, thread_state::READY | thread_state::RUNNING) => ProcessState::Running,
        (exit::RUNNING, thread_state::SUSPENDED) => ProcessState::Suspended,
        (exit::RUNNING, _) => ProcessState::Blocked,
        _ => ProcessState::Ended,
    };
    ProcessSummary {
        pid: info.koid,
        parent: info.parent_koid,
        name: name_text(&info.name),
        state,
        priority: u8::try_from(info.priority).unwrap_or(u8::MAX),
        threads: info.threads,
        handles: info.handles,
        memory_bytes: info.pages.saturating_mul(PAGE),
        resident_bytes: info.resident_pages.saturating_mul(PAGE),
        memory_limit_bytes: info.pages_limit.saturating_mul(PAGE),
        cpu_time_ns: info.cpu_time_ns,
        start_time_ns: info.start_time_ns,
        syscalls: info.syscalls,
        page_faults: info.page_faults,
    }
}

/// Processes above `after` in the order of their IDs.
pub fn page(mut all: Vec<ProcessInfo>, after: u64, limit: u32) -> Vec<ProcessSummary> {
    /// What fits into a message with room to spare.
    const LIMIT: u32 = 256;
    all.sort_by_key(|p| p.koid);
    let limit = limit.min(LIMIT) as usize;
    all.iter()
        .filter(|p| p.koid > after)
        .take(limit)
        .map(process)
        .collect()
}

/// Counts of the whole system.
pub fn system(stats: &KernelStats, cpus: &[CpuInfo]) -> SystemSummary {
    let objects = stats
        .objects
        .iter()
        .enumerate()
        .filter_map(|(kind, count)| {
            let kind = ObjectKind::from_number(u32::try_from(kind).ok()?)?;
            Some((alloc::format!("{kind:?}"), *count))
        });
    let bytes = |pages: u64| pages.saturating_mul(PAGE);
    SystemSummary {
        total_bytes: bytes(stats.total_pages),
        free_bytes: bytes(stats.free_pages),
        kernel_bytes: bytes(stats.heap_pages.saturating_add(stats.table_pages)),
        handles: stats.handles,
        pins: stats.pins,
        pinned_bytes: bytes(stats.pinned_pages),
        quarantined_bytes: bytes(stats.quarantined_pages),
        vectors: stats.vectors,
        objects: objects.collect(),
        context_switches: stats.context_switches,
        syscalls: stats.syscalls,
        page_faults: stats.page_faults,
        interrupts: stats.interrupts,
        idle_ns: cpus.iter().map(|c| c.idle_ns).collect(),
    }
}

/// The last crash reports.
#[derive(Clone, Debug, Default)]
pub struct Crashes {
    list: VecDeque<CrashSummary>,
}

impl Crashes {
    /// Adds a report, cut to what is kept; the oldest goes.
    pub fn add(&mut self, mut crash: CrashSummary) {
        let mut end = crash.text.len().min(CRASH_TEXT_MAX);
        while !crash.text.is_char_boundary(end) {
            end = end.saturating_sub(1);
        }
        crash.text.truncate(end);
        if self.list.len() >= CRASHES_MAX {
            self.list.pop_front();
        }
        self.list.push_back(crash);
    }

    /// Oldest first; as many of the newest as fit into a message.
    pub fn recent(&self) -> Vec<CrashSummary> {
        const BYTES_MAX: usize = 48 * 1024;
        let mut left = BYTES_MAX;
        let mut list: Vec<CrashSummary> = Vec::new();
        for crash in self.list.iter().rev() {
            let size = crash.text.len() + crash.reason.len() + crash.name.len() + 64;
            let Some(rest) = left.checked_sub(size) else {
                break;
            };
            left = rest;
            list.push(crash.clone());
        }
        list.reverse();
        list
    }
}

/// The first line of a text.
pub fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or("").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(koid: u64, name: &[u8]) -> ProcessInfo {
        let mut info = ProcessInfo {
            koid,
            ..ProcessInfo::default()
        };
        info.name[..name.len()].copy_from_slice(name);
        info
    }

    #[test]
    fn pages_are_in_order_and_complete() {
        let all: Vec<_> = [7, 3, 9, 5].iter().map(|k| info(*k, b"x")).collect();
        let ids = |after, limit| -> Vec<u64> {
            page(all.clone(), after, limit)
                .iter()
                .map(|p| p.pid)
                .collect()
        };
        assert_eq!(ids(0, 2), [3, 5]);
        assert_eq!(ids(5, 2), [7, 9]);
        assert_eq!(ids(9, 2), [0u64; 0]);
    }

    #[test]
    fn names_and_states() {
        assert_eq!(process(&info(1, b"virtio-blk")).name, "virtio-blk");
        assert_eq!(name_text(&[b'a'; 32]), "a".repeat(32));
        assert_eq!(process(&info(1, b"")).state, ProcessState::Running);
        let mut blocked = info(1, b"");
        blocked.state = thread_state::BLOCKED;
        assert_eq!(process(&blocked).state, ProcessState::Blocked);
        blocked.exit_reason = exit::KILLED;
        assert_eq!(process(&blocked).state, ProcessState::Ended);
    }

    fn crash(pid: u64, len: usize) -> CrashSummary {
        CrashSummary {
            pid,
            name: "x".into(),
            time_ns: 0,
            reason: "page fault".into(),
            text: "ä".repeat(len / 2),
        }
    }

    #[test]
    fn crash_reports_are_bounded() {
        let mut crashes = Crashes::default();
        for pid in 0..40 {
            crashes.add(crash(pid, 20_000));
        }
        let recent = crashes.recent();
        assert_eq!(recent.last().unwrap().pid, 39);
        assert_eq!(recent.len(), 5);
        assert!(recent.iter().all(|c| c.text.len() <= CRASH_TEXT_MAX));
        let mut crashes = Crashes::default();
        for pid in 0..40 {
            crashes.add(crash(pid, 10));
        }
        assert_eq!(crashes.recent().len(), CRASHES_MAX);
        assert_eq!(crashes.recent()[0].pid, 8);
    }
}
