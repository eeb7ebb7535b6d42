//! The driver's process.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

ddk_backend_os::net_driver!(virtio_net::VirtioNet);
