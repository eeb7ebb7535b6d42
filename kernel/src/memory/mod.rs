//! Memory: frames, the kernel's heap, accounts, memory objects, address spaces, and access to user memory.

pub mod account;
pub mod frames;
pub mod heap;
pub mod space;
pub mod user;
pub mod vmo;

pub use bulkhead_abi::PAGE_SIZE;

/// Number of pages that hold `len` bytes.
pub const fn pages(len: usize) -> usize {
    len.div_ceil(PAGE_SIZE)
}

/// Whether a value is a multiple of the page size.
pub const fn aligned(value: usize) -> bool {
    value & (PAGE_SIZE - 1) == 0
}
