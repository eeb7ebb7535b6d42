//! The kernel's portable algorithms: page allocator, object allocator, handle table, run queue,
//! page map and log ring. They know no hardware and no kernel object, so that they are tested on the host
//! (unit tests, property tests, Miri). The kernel proper is `main.rs`.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod buddy;
pub mod handles;
pub mod log_ring;
pub mod page_map;
pub mod run_queue;
pub mod slab;
pub mod storm;

#[cfg(test)]
mod hostile_calls;

// The architecture's pure parts are tested here; the machine's are in the kernel proper.
#[cfg(all(test, target_arch = "x86_64"))]
#[expect(dead_code, reason = "only the pure parts are used")]
#[path = "arch/mod.rs"]
mod arch;
