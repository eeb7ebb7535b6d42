//! Verified loads on a disk and on a network interface, for tests in which its driver dies or goes wrong.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod load;
pub mod net_load;
pub mod random;
pub mod stamp;
