//! Who descends from whom.

use alloc::vec::Vec;

use proto::proc::ProcessSummary;

/// The process `root` and all that descend from it over parents that still live, each parent before its
/// children: killed in this order, none starts another one behind the killer's back.
pub fn descendants(processes: &[ProcessSummary], root: u64) -> Vec<u64> {
    let mut found = Vec::from([root]);
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        next += 1;
        for process in processes {
            if process.parent == parent && !found.contains(&process.pid) {
                found.push(process.pid);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use proto::proc::ProcessState;

    use super::*;

    fn process(pid: u64, parent: u64) -> ProcessSummary {
        ProcessSummary {
            pid,
            parent,
            name: "x".into(),
            state: ProcessState::Running,
            priority: 0,
            threads: 1,
            handles: 0,
            memory_bytes: 0,
            resident_bytes: 0,
            memory_limit_bytes: 0,
            cpu_time_ns: 0,
            start_time_ns: 0,
            syscalls: 0,
            page_faults: 0,
        }
    }

    #[test]
    fn a_family_is_found_and_nobody_else() {
        let all = [
            process(9, 5),
            process(5, 3),
            process(3, 1),
            process(4, 1),
            process(6, 3),
            // A parent that is its own child, as no kernel says, ends the search too.
            process(7, 7),
        ];
        assert_eq!(descendants(&all, 3), [3, 5, 6, 9]);
        assert_eq!(descendants(&all, 7), [7]);
        assert_eq!(descendants(&[], 8), [8]);
    }
}
