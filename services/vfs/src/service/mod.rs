//! The service: scheme `file:`.
//!
//! It resolves names, opens files at the file-system services and passes on the
//! channels that they return, mounts disks at boot and by request, and has one
//! file-system service started for each volume. How a program is started is the
//! caller's ([`Launcher`]).

mod boot_mounts;
mod keep;
mod mount_folder;
mod server;
mod supervise;
mod volumes;

use alloc::{boxed::Box, format, rc::Rc, string::String};
use core::time::Duration;

use executor::Executor;
use ipc::Channel;
use proto::{
    devmgr::{EndpointsAsyncClient, RestartRules},
    fs::FilesServer,
};
use supervision::Supervised;

use crate::RootChoice;
use server::Vfs;
use volumes::Starter;
pub use volumes::{DiskEndpoint, Keeper, Kept, Launcher};

/// Time that devmgr has to find all disks; then what is there is mounted.
const ENUMERATION_TIMEOUT: Duration = Duration::from_secs(60);

/// What is mounted at boot.
pub struct Sources {
    /// Volume that is mounted at `/boot`.
    pub archive: Option<Channel>,
    /// Scheme `disk:`.
    pub disks: Option<Channel>,
    /// Which disk is `/`.
    pub root: RootChoice,
    /// What is done when a file system dies.
    pub rules: RestartRules,
    /// Where the mounts outlive this process.
    pub keeper: Option<Box<dyn Keeper>>,
    /// Init's heartbeat.
    pub supervised: Option<Supervised>,
}

/// Serves the scheme until its last client is gone.
///
/// # Errors
/// A text, when the system refuses what the service cannot do without.
pub fn run(
    files: FilesServer,
    launcher: Box<dyn Launcher>,
    sources: Sources,
) -> Result<(), String> {
    let executor = Executor::new().map_err(|error| format!("executor: {error}"))?;
    let disks = match sources.disks {
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
    let starter = Starter {
        executor: executor.clone(),
        launcher,
    };
    if let Some(supervised) = sources.supervised {
        executor.spawn(supervised.serve(executor.clone())).detach();
    }
    let vfs = Vfs::new(
        executor.clone(),
        starter,
        disks,
        sources.rules,
        sources.keeper,
    );
    let vfs = Rc::new(vfs);
    let mounting = boot_mounts::mount_all(vfs.clone(), sources.archive, sources.root);
    executor.spawn(mounting).detach();
    executor.block_on(server::serve(vfs, files))
}
