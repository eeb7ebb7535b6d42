//! Kernel records in the form in which `proc:` shows them, and the store of crash reports.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;

use bulkhead_abi::{CpuInfo, KernelStats, ObjectKind, PAGE_SIZE, ProcessInfo, exit, thread_state};
use proto::crash_report::Report;
use proto::proc::{ProcessState, ProcessSummary, SystemSummary};

/// Crash reports that are kept in all.
pub const CRASHES_MAX: usize = 24;
/// Crash reports that are kept of one driver or service.
pub const CRASHES_OF_ONE_MAX: usize = 4;
/// Traces of crash reports that are kept in all.
pub const TRACES_MAX: usize = 4;
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

/// The last crash reports, by their numbers.
#[derive(Clone, Debug, Default)]
pub struct Crashes {
    list: VecDeque<Report>,
    last: u64,
}

impl Crashes {
    /// Adds a report; gives its number. The oldest of the same subject goes, or of all.
    pub fn add(&mut self, mut report: Report) -> u64 {
        report.bound();
        self.last = self.last.saturating_add(1);
        report.number = self.last;
        let alike = |kept: &Report| kept.same_subject(&report);
        let count = self.list.iter().filter(|kept| alike(kept)).count();
        if count >= CRASHES_OF_ONE_MAX {
            let oldest = self.list.iter().position(alike);
            oldest.and_then(|place| self.list.remove(place));
        } else if self.list.len() >= CRASHES_MAX {
            self.list.pop_front();
        }
        self.list.push_back(report);
        self.last
    }

    /// The first one above this number.
    pub fn next(&self, after: u64) -> Option<&Report> {
        self.list.iter().find(|report| report.number > after)
    }

    /// Those above this number, oldest first, as many as fit into a message.
    pub fn above(&self, after: u64) -> Vec<Report> {
        const BYTES_MAX: usize = 48 * 1024;
        let mut left = BYTES_MAX;
        let later = self.list.iter().filter(|report| report.number > after);
        later
            .take_while(|report| {
                let rest = left.checked_sub(size(report));
                left = rest.unwrap_or(0);
                rest.is_some()
            })
            .cloned()
            .collect()
    }
}

/// Bytes of a report in a message, at most.
fn size(report: &Report) -> usize {
    let texts = |list: &[String]| list.iter().map(|text| text.len() + 8).sum::<usize>();
    let fault = report.fault.as_ref().map_or(0, |fault| {
        let frames = fault.backtrace.iter();
        let functions = frames.map(|f| f.function.as_ref().map_or(0, String::len) + 16);
        fault.registers.len() * 32 + functions.sum::<usize>()
    });
    let events = report.events.iter().map(|event| event.text.len() + 16);
    let trace = report.trace.as_ref().map_or(0, |trace| texts(&trace.last));
    let lists =
        texts(&report.log) + texts(&report.grants) + texts(&report.subject.known_as) + trace;
    2048 + fault + lists + events.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::crash_report::{EndReason, Kind, Subject};

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

    fn crash(name: &str, pid: u64, line: usize) -> Report {
        let subject = Subject {
            kind: Kind::Service,
            name: name.into(),
            pid,
            epoch: 1,
            program: "bin/x".into(),
            version: None,
            crc32: None,
            node: None,
            known_as: Vec::new(),
        };
        let mut report = Report::new(subject, 0, EndReason::Faulted, "page fault");
        report.log = vec!["x".repeat(line); 100];
        report
    }

    #[test]
    fn one_that_dies_often_leaves_room_for_others() {
        let mut crashes = Crashes::default();
        crashes.add(crash("first", 1, 1));
        for pid in 0..100 {
            crashes.add(crash("often", pid, 1));
        }
        let kept: Vec<u64> = crashes.above(0).iter().map(|c| c.number).collect();
        assert_eq!(kept, [1, 98, 99, 100, 101]);
        assert_eq!(crashes.next(98).unwrap().number, 99);
        assert!(crashes.next(101).is_none());
    }

    #[test]
    fn crash_reports_are_bounded_and_come_in_pages() {
        let mut crashes = Crashes::default();
        for n in 0..100 {
            crashes.add(crash(&alloc::format!("service-{n}"), n, 1000));
        }
        assert_eq!(crashes.list.len(), CRASHES_MAX);
        let (mut after, mut seen) = (0, 0);
        loop {
            let page = crashes.above(after);
            let Some(last) = page.last() else { break };
            assert!(page.iter().map(size).sum::<usize>() <= 48 * 1024);
            seen += page.len();
            after = last.number;
        }
        assert_eq!((seen, after), (CRASHES_MAX, 100));
    }
}
