//! The driver's process.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

ddk_backend_os::raw_driver!({{crate}}::{{type}});
