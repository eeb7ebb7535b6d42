//! The VFS process.
//!
//! Start-up handles: `serve:file`, `archive` (programs of the file-system
//! services), `bootfs` (mounted at `/boot`), `disk`. Environment: `BULKHEAD_ROOT`
//! names the root disk.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::{boxed::Box, format, string::String, vec::Vec};

use boot::archive::{Directory, HEADER_SIZE, PAGE_SIZE};
use ipc::{Channel, Vmo};
use proto::fs::{FilesServer, FsError, MountError};
use vfs::{
    RootChoice,
    service::{self, DiskEndpoint, Launcher, Sources},
};

rt::entry!(main);

fn main() {
    if let Err(error) = run() {
        rt::error!("{error}");
        rt::exit(1);
    }
}

fn run() -> Result<(), String> {
    let missing = |name: &str| format!("started without the handle \"{name}\"");
    let server = rt::startup::take::<Channel>("serve:file").ok_or_else(|| missing("serve:file"))?;
    let archive = rt::startup::take::<Vmo>("archive").ok_or_else(|| missing("archive"))?;
    let launcher = Box::new(ArchiveLauncher::new(archive)?);
    let sources = Sources {
        archive: rt::startup::take("bootfs"),
        disks: rt::startup::take("disk"),
        root: RootChoice::parse(rt::startup::env("BULKHEAD_ROOT")),
    };
    service::run(FilesServer::new(server), launcher, sources)
}

/// Starts programs of the boot archive; their text is mapped from it.
struct ArchiveLauncher {
    archive: Vmo,
    /// Header and index.
    head: Vec<u8>,
    len: u64,
}

impl ArchiveLauncher {
    fn new(archive: Vmo) -> Result<Self, String> {
        let system = |error: ipc::Error| format!("archive: {error}");
        let bad = |error: boot::archive::ArchiveError| format!("archive: {error}");
        let len = archive.size().map_err(system)?;
        let mut header = [0; HEADER_SIZE];
        archive.read(0, &mut header).map_err(system)?;
        let mut head = alloc::vec![0; Directory::head_len(&header).map_err(bad)?];
        archive.read(0, &mut head).map_err(system)?;
        Directory::parse(&head, len).map_err(bad)?;
        Ok(Self { archive, head, len })
    }
}

impl Launcher for ArchiveLauncher {
    fn launch(&self, program: &str, disk: DiskEndpoint, volume: Channel) -> Result<(), MountError> {
        let entry = Directory::parse(&self.head, self.len)
            .ok()
            .and_then(|directory| directory.find(&format!("bin/{program}")));
        let Some(entry) = entry else {
            let reason = format!("the boot archive has no bin/{program}");
            return Err(MountError {
                error: FsError::NotSupported,
                reason,
            });
        };
        let failed = |what: &dyn core::fmt::Display| MountError {
            error: FsError::NoMemory,
            reason: format!("{program}: {what}"),
        };
        let len = entry.len.next_multiple_of(PAGE_SIZE);
        let image = self
            .archive
            .slice(entry.offset as u64, len)
            .map_err(|e| failed(&e))?;
        rt::process::Command::new(&image, program)
            .handle("disk", disk.endpoint)
            .handle("disk-name", disk.name)
            .handle("volume", volume)
            .inherit(["log"])
            .spawn()
            .map(drop)
            .map_err(|error| failed(&error))
    }
}
