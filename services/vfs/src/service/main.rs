//! The VFS service: scheme `file:`.
//!
//! It resolves names, opens files at the file-system services and passes on the
//! channels that they return, mounts disks at boot and by request, and starts one
//! file-system service for each volume. No file data goes through it.
//!
//! Start-up handles: `serve:file`, `archive` (programs of the services), `bootfs`
//! (mounted at `/boot`), `disk`. Environment: `BULKHEAD_ROOT` names the root disk.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

mod boot_mounts;
mod merged;
mod server;
mod volumes;

use alloc::{format, rc::Rc, string::String};
use core::time::Duration;

use executor::Executor;
use ipc::{Channel, Vmo};
use proto::{devmgr::EndpointsAsyncClient, fs::FilesServer};

use crate::{server::Vfs, volumes::Starter};

rt::entry!(main);

/// Time that devmgr has to find all disks; then what is there is mounted.
const ENUMERATION_TIMEOUT: Duration = Duration::from_secs(60);

fn main() {
    if let Err(error) = run() {
        rt::error!("vfs: {error}");
        rt::exit(1);
    }
}

fn run() -> Result<(), String> {
    let missing = |name: &str| format!("started without the handle \"{name}\"");
    let server = rt::startup::take::<Channel>("serve:file").ok_or_else(|| missing("serve:file"))?;
    let archive = rt::startup::take::<Vmo>("archive").ok_or_else(|| missing("archive"))?;
    let executor = Executor::new().map_err(|error| format!("executor: {error}"))?;
    let disks = match rt::startup::take::<Channel>("disk") {
        Some(channel) => {
            let caller = executor
                .caller(channel)
                .map_err(|error| format!("disk: {error}"))?;
            Some(EndpointsAsyncClient::with_timeout(
                caller,
                ENUMERATION_TIMEOUT,
            ))
        }
        None => None,
    };
    let starter = Starter::new(executor.clone(), archive)?;
    let vfs = Rc::new(Vfs::new(executor.clone(), starter, disks));
    executor.spawn(boot_mounts::mount_all(vfs.clone())).detach();
    executor.block_on(server::serve(vfs, FilesServer::new(server)))
}
