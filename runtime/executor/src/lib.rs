//! A single-threaded executor of asynchronous tasks on a port.
#![cfg_attr(target_os = "none", no_std)]
#![forbid(unsafe_code)]

extern crate alloc;
