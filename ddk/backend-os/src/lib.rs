//! Home of drivers as processes on the microkernel: the one crate that knows both the DDK and the runtime.
//!
//! A driver's program is one line, [`block_driver!`], [`net_driver!`], [`serial_driver!`] or [`raw_driver!`] with the driver's type. It takes
//! what the device manager granted (see `proto::bus` for the names), starts the driver, publishes its
//! endpoint and serves it.
#![cfg_attr(target_os = "none", no_std)]

extern crate alloc;

mod block;
mod control;
mod dma;
mod entry;
#[cfg(feature = "faults")]
mod faults;
mod interrupt;
mod mmio;
mod net;
mod platform;
mod ports;
mod queue;
mod raw;
mod serial;
mod session;
#[cfg(feature = "trace")]
mod trace;
mod wire;

pub use block::run_block;
pub use control::{Control, Order};
pub use entry::Host;
pub use net::run_net;
pub use platform::OsPlatform;
pub use queue::OsQueue;
pub use raw::run_raw;
pub use serial::run_serial;

#[doc(hidden)]
pub use {ddk, rt};

/// The whole program of a block driver: `block_driver!(path::to::Driver);`. It carries the driver's manifest
/// in the ELF section `.bulkhead.manifest`.
#[macro_export]
macro_rules! block_driver {
    ($driver:ty) => {
        $crate::driver_program!($driver, $crate::run_block::<$driver>);
    };
}

/// The whole program of a network driver: `net_driver!(path::to::Driver);`.
#[macro_export]
macro_rules! net_driver {
    ($driver:ty) => {
        $crate::driver_program!($driver, $crate::run_net::<$driver>);
    };
}

/// The whole program of a serial driver: `serial_driver!(path::to::Driver);`.
#[macro_export]
macro_rules! serial_driver {
    ($driver:ty) => {
        $crate::driver_program!($driver, $crate::run_serial::<$driver>);
    };
}

/// The whole program of a driver without a class: `raw_driver!(path::to::Driver);`.
#[macro_export]
macro_rules! raw_driver {
    ($driver:ty) => {
        $crate::driver_program!($driver, $crate::run_raw::<$driver>);
    };
}

/// Manifest and entry of a driver's program.
#[doc(hidden)]
#[macro_export]
macro_rules! driver_program {
    ($driver:ty, $run:expr) => {
        #[used]
        #[unsafe(link_section = ".bulkhead.manifest")]
        static MANIFEST: $crate::ddk::manifest::Manifest =
            <$driver as $crate::ddk::Described>::MANIFEST;

        $crate::rt::entry!(main);

        fn main() -> i32 {
            // The reference keeps the section when the linker drops what nothing refers to.
            $run(core::hint::black_box(&MANIFEST))
        }
    };
}
