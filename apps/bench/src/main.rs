//! Measures the system from inside. For every pass of a row it prints
//! `bench ROW id=SECTION n=OPERATIONS ns=TIME`; between the markers around a pass
//! `cargo xtask bench` counts instructions from outside.
//!
//! The rows are those of the Linux side in `xtask/peer`, and do the same: same sizes,
//! same offsets, same numbers of operations and passes.

#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

mod block;
mod file;
mod interrupt;
mod ipc;
mod measure;
mod memory;
mod process;

use measure::{Failure, section};
use rt::println;

rt::entry!(main);

/// A row: its name and what measures it. `Ok(false)`: what it needs is not there.
type Row = (&'static str, fn(&str) -> Result<bool, Failure>);

const ROWS: &[Row] = &[
    ("null-call", ipc::null_call),
    ("call-reply-64", ipc::call_and_reply),
    ("thread-switch", ipc::thread_switch),
    ("page-fault", memory::page_fault),
    ("spawn", process::spawn),
    ("irq-to-user", interrupt::irq_to_user),
    ("raw-read-4k-qd1", |row| block::RAW.read_depth_1(row)),
    ("raw-read-4k-qd32", |row| block::RAW.read_depth_32(row)),
    ("raw-write-4k-qd1", |row| block::RAW.write_depth_1(row)),
    ("raw-write-4k-qd32", |row| block::RAW.write_depth_32(row)),
    ("raw-seq-read-128k", |row| block::RAW.sequential_128k(row)),
    ("raw-seq-read-1m", |row| block::RAW.sequential_1m(row)),
    ("nvme-read-4k-qd1", |row| block::NVME.read_depth_1(row)),
    ("nvme-read-4k-qd32", |row| block::NVME.read_depth_32(row)),
    ("nvme-write-4k-qd1", |row| block::NVME.write_depth_1(row)),
    ("nvme-write-4k-qd32", |row| block::NVME.write_depth_32(row)),
    ("nvme-seq-read-128k", |row| block::NVME.sequential_128k(row)),
    ("nvme-seq-read-1m", |row| block::NVME.sequential_1m(row)),
    ("ext4-read-4k-qd1", file::random_read),
    ("ext4-read-4k-qd32", file::random_read_depth_32),
    ("ext4-seq-read-128k", file::sequential_128k),
    ("ext4-seq-read-1m", file::sequential_1m),
    ("ext4-cached-4k", file::cached_read),
];

fn main() -> i32 {
    rt::marker::section_end::<0>();
    let wanted = rt::startup::args().get(1..).unwrap_or_default();
    if wanted.is_empty() || wanted.iter().any(|name| name == "boot") {
        measure::report("boot", 0, 1, rt::time::now_ns());
    }
    for name in wanted {
        if name != "boot" && ROWS.iter().all(|(row, _)| row != name) {
            rt::eprintln!("bench: no row is called {name}");
        }
    }
    for (row, run) in ROWS {
        if !wanted.is_empty() && wanted.iter().all(|name| name != row) {
            continue;
        }
        match run(row) {
            Ok(true) => {}
            Ok(false) => rt::eprintln!("bench: {row}: not measured, its device is not there"),
            Err(failure) => {
                println!("bench-failed {row}: {failure}");
                return 1;
            }
        }
    }
    0
}
