//! What a boot entry hands to the kernel: the [`info`] structure and the boot
//! [`archive`]. Only data formats; the entry code itself is in the kernel's
//! `arch` folders.
#![cfg_attr(not(any(test, feature = "write")), no_std)]
#![forbid(unsafe_code)]

pub mod archive;
pub mod info;
