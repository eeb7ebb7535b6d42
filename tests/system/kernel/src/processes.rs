//! Processes that fault, flood, spin and call at random: only they suffer.

use core::sync::atomic::Ordering;
use core::time::Duration;

use rt::abi::{PAGE_SIZE, Quota};
use rt::process::ExitReason;
use rt::{Deadline, MapAccess, Mapping, time};

use crate::{Failure, Kit, SMALL, Test, check, must};

pub const TESTS: &[(&str, Test)] = &[
    ("processes: exit codes and kills arrive", exits),
    (
        "processes: every fault ends its process, with a report",
        faults,
    ),
    ("processes: floating-point state survives switches", floats),
    ("processes: quotas hold against floods", floods),
    (
        "processes: addresses are used again, and page tables with them",
        addresses,
    ),
    ("processes: channels nested 20,000 deep are dropped", nested),
    (
        "processes: an endless loop at high priority starves nobody",
        spinning,
    ),
    ("processes: start and end again and again", again),
    (
        "processes: random system calls harm only their caller",
        random_calls,
    ),
];

const PATIENCE: u64 = 120;

fn exits(kit: &Kit) -> Result<(), Failure> {
    let child = kit.child("exit", 0, SMALL)?;
    let end = must("wait", child.wait(Deadline::after_secs(PATIENCE)))?;
    check!(
        end.reason == ExitReason::Exited(7),
        "ended by {:?}",
        end.reason
    );
    let child = kit.child("sleep", 0, SMALL)?;
    check!(must("try", child.try_wait())?.is_none(), "a sleeper ended");
    must("kill", child.kill())?;
    let end = must("wait", child.wait(Deadline::after_secs(PATIENCE)))?;
    check!(
        matches!(end.reason, ExitReason::Killed(_)),
        "ended by {:?}",
        end.reason
    );
    Ok(())
}

fn faults(kit: &Kit) -> Result<(), Failure> {
    // Mode, vector (Intel SDM volume 3, table 6-1), address if it is known.
    let cases = [
        ("write-null", 14, Some(0x10)),
        ("write-kernel", 14, Some(0xffff_ffff_8000_0000)),
        ("write-noncanonical", 13, None),
        ("write-text", 14, None),
        (
            "write-info-page",
            14,
            Some(rt::abi::SYSTEM_INFO_ADDR as u64),
        ),
        ("run-data", 14, None),
        ("divide", 0, None),
        ("illegal", 6, None),
        ("privileged", 13, None),
        ("port", 13, None),
        ("breakpoint", 3, None),
        ("bad-stack", 14, None),
        ("stack", 14, None),
        ("panic", 6, None),
    ];
    for (mode, vector, address) in cases {
        let child = kit.child(mode, 0, SMALL)?;
        let end = must(mode, child.wait(Deadline::after_secs(PATIENCE)))?;
        check!(
            end.reason == ExitReason::Faulted,
            "{mode}: ended by {:?}",
            end.reason
        );
        let report = end.crash.ok_or("no report")?;
        check!(report.vector == vector, "{mode}: vector {}", report.vector);
        check!(
            address.is_none_or(|a| a == report.address),
            "{mode}: address {:#x}",
            report.address
        );
        check!(report.backtrace[0] != 0, "{mode}: no backtrace");
        check!(
            report.name.starts_with(b"kernel-test-child"),
            "{mode}: another name"
        );
    }
    Ok(())
}

fn floats(kit: &Kit) -> Result<(), Failure> {
    let children = [1, 2, 3].map(|seed| kit.child("float", seed, SMALL));
    for child in children {
        let end = must("wait", child?.wait(Deadline::after_secs(PATIENCE)))?;
        check!(
            end.reason == ExitReason::Exited(0),
            "ended by {:?}",
            end.reason
        );
    }
    Ok(())
}

fn floods(kit: &Kit) -> Result<(), Failure> {
    for mode in ["memory", "handles", "messages"] {
        let free = must("stats", kit.system.kernel_stats())?.free_pages;
        let child = kit.child(mode, 0, SMALL)?;
        let end = must(mode, child.wait(Deadline::after_secs(PATIENCE)))?;
        check!(
            matches!(end.reason, ExitReason::Exited(_)),
            "{mode}: ended by {:?}",
            end.reason
        );
        if mode != "memory" {
            check!(
                end.reason == ExitReason::Exited(0),
                "{mode}: {:?}",
                end.reason
            );
        }
        let left = must("stats", kit.system.kernel_stats())?.free_pages;
        check!(
            left + 3 * SMALL.pages > free,
            "{mode}: {free} pages free before, {left} after"
        );
    }
    Ok(())
}

/// Maps and unmaps for long, with mappings that stay in between, and looks at the page tables.
fn addresses(kit: &Kit) -> Result<(), Failure> {
    const LEN: usize = 64 * 1024;
    let map = |n: usize| {
        let mapped = Mapping::create(LEN).and_then(|(_, m)| m.write(n % LEN, &[1]).map(|()| m));
        must("map", mapped)
    };
    let mut kept = alloc::collections::VecDeque::new();
    let mut tables = 0;
    for n in 0..20_000 {
        drop(map(n)?);
        kept.push_back(map(n)?);
        if kept.len() > 100 {
            kept.pop_front();
        }
        if n == 1000 {
            tables = must("stats", kit.system.kernel_stats())?.table_pages;
        }
    }
    let after = must("stats", kit.system.kernel_stats())?.table_pages;
    check!(
        after <= tables + 8,
        "{tables} pages of tables early, {after} at the end"
    );
    Ok(())
}

fn nested(kit: &Kit) -> Result<(), Failure> {
    let quota = Quota {
        pages: 16384,
        handles: 65536,
        ..SMALL
    };
    let child = kit.child("nest", 0, quota)?;
    let end = must("wait", child.wait(Deadline::after_secs(PATIENCE)))?;
    check!(
        end.reason == ExitReason::Exited(0),
        "ended by {:?}",
        end.reason
    );
    Ok(())
}

fn spinning(kit: &Kit) -> Result<(), Failure> {
    let cpus = must("cpus", kit.system.cpus())?.len();
    let quota = Quota {
        max_priority: 31,
        ..SMALL
    };
    let mut children = alloc::vec::Vec::new();
    for _ in 0..cpus + 1 {
        let child = kit.child("spin", 0, quota)?;
        for thread in must("threads", child.process().threads())? {
            check!(thread.priority <= 31, "priority {}", thread.priority);
        }
        children.push(child);
    }
    let before = must("own", rt::Process::own_info())?.cpu_time_ns;
    let start = time::now_ns();
    let mut rounds = 0u64;
    while time::now_ns() - start < 200_000_000 {
        rounds += 1;
    }
    time::sleep(Duration::from_millis(20));
    let used = must("own", rt::Process::own_info())?.cpu_time_ns - before;
    for child in &children {
        must("kill", child.kill())?;
        must("wait", child.wait(Deadline::after_secs(PATIENCE)))?;
    }
    check!(used > 1_000_000 && rounds > 0, "{used} ns of CPU in 200 ms");
    Ok(())
}

fn again(kit: &Kit) -> Result<(), Failure> {
    for _ in 0..200 {
        let child = kit.child("exit", 0, SMALL)?;
        must("wait", child.wait(Deadline::after_secs(PATIENCE)))?;
    }
    Ok(())
}

fn random_calls(kit: &Kit) -> Result<(), Failure> {
    let (vmo, mapping) = must("counter", Mapping::create(PAGE_SIZE))?;
    let _ = MapAccess::Read;
    let counter = must("counter", mapping.atomic_u64(0))?;
    let mut seed = kit.seed;
    let mut rounds = 0u64;
    let mut last_report = 0;
    while counter.load(Ordering::Relaxed) < kit.calls {
        let children = [seed, seed + 1].map(|s| kit.child_with("random", s, SMALL, Some(&vmo)));
        seed += 2;
        rounds += 2;
        let mut last = counter.load(Ordering::Relaxed);
        let mut quiet = 0;
        let children =
            [children[0].as_ref(), children[1].as_ref()].map(|c| c.map_err(|e| e.clone()));
        for child in children {
            let child = child?;
            loop {
                if child.wait(Deadline::after_ms(50)).is_ok() {
                    break;
                }
                let now = counter.load(Ordering::Relaxed);
                quiet = if now == last { quiet + 1 } else { 0 };
                last = now;
                // One whose threads all stopped themselves, or enough: the next seed.
                if quiet > 3 || now >= kit.calls {
                    must("kill", child.kill())?;
                    must("wait", child.wait(Deadline::after_secs(PATIENCE)))?;
                    break;
                }
            }
        }
        let now = counter.load(Ordering::Relaxed);
        if now - last_report > kit.calls / 10 {
            last_report = now;
            rt::info!("        {now} random calls by {rounds} processes");
        }
    }
    rt::info!(
        "        {} random calls by {rounds} processes",
        counter.load(Ordering::Relaxed)
    );
    Ok(())
}
