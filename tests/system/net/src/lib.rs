//! Frames that ask a gateway for echoes, and what comes back.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod frame;
