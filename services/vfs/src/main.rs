//! The VFS process.
//!
//! Start-up handles: `serve:file`, `archive` (programs of the file-system
//! services), `bootfs` (mounted at `/boot`), `disk`. Environment: `BULKHEAD_ROOT`
//! names the root disk, `BULKHEAD_RESTART_VOLUMES` what is done when a file system dies (`restart.volumes`).
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::{boxed::Box, format, string::String, vec::Vec};

use boot::archive::{Directory, Entry, HEADER_SIZE, PAGE_SIZE};
use ipc::{Channel, Handle, Vmo};
use proto::crash_report::{Kind, Subject};
use proto::fs::{Bytes, BytesRef, FilesServer, FsError, MountError};
use proto::proc::CrashReportsClient;
use rt::process::Child;
use supervision::{Supervised, rules_from_environment};
use vfs::{
    RootChoice,
    service::{self, DiskEndpoint, Keeper, Kept, Launcher, Sources},
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
    let supervised = Supervised::from_startup();
    let sources = Sources {
        archive: rt::startup::take("bootfs"),
        disks: rt::startup::take("disk"),
        root: RootChoice::parse(rt::startup::env("BULKHEAD_ROOT")),
        rules: rules_from_environment("volumes"),
        keeper: supervised
            .as_ref()
            .and_then(|own| own.duplicate().ok())
            .map(|own| Box::new(InitsVault(own)) as Box<dyn Keeper>),
        supervised,
    };
    service::run(FilesServer::new(server), launcher, sources)
}

/// Init keeps the mounts.
struct InitsVault(Supervised);

impl Keeper for InitsVault {
    fn put(&self, key: &str, bytes: &[u8], handles: Vec<Handle>) {
        if let Err(error) = self.0.put(key, &BytesRef(bytes), handles) {
            rt::error!("{key} is not kept: {error}");
        }
    }

    fn remove(&self, key: &str) {
        if let Err(error) = self.0.remove(key) {
            rt::error!("{key}: {error}");
        }
    }

    fn all(&self) -> Vec<Kept> {
        let keys = self.0.keys("").unwrap_or_default();
        let kept = |key: String| {
            let (Bytes(bytes), handles) = self.0.get(&key).ok()??;
            Some((key, bytes, handles))
        };
        keys.into_iter().filter_map(kept).collect()
    }
}

/// Starts programs of the boot archive; their text is mapped from it.
struct ArchiveLauncher {
    archive: Vmo,
    /// Header and index.
    head: Vec<u8>,
    len: u64,
    crash_reports: Option<CrashReportsClient>,
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
        Ok(Self {
            archive,
            head,
            len,
            crash_reports: rt::startup::take("crash-reports").map(CrashReportsClient::new),
        })
    }
}

impl ArchiveLauncher {
    fn find(&self, program: &str) -> Option<Entry<'_>> {
        let directory = Directory::parse(&self.head, self.len).ok()?;
        directory.find(&format!("bin/{program}"))
    }
}

impl Launcher for ArchiveLauncher {
    fn launch(
        &self,
        program: &str,
        disk: DiskEndpoint,
        volume: Channel,
    ) -> Result<Option<Child>, MountError> {
        let Some(entry) = self.find(program) else {
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
            .map(Some)
            .map_err(|error| failed(&error))
    }

    fn autopsy(&self, program: &str, child: &Child) -> String {
        let exited = match child.try_wait() {
            Ok(Some(exited)) => exited,
            other => return format!("{program}: no exit record ({other:?})"),
        };
        let subject = Subject {
            kind: Kind::FileSystem,
            name: program.into(),
            pid: exited.info.koid,
            epoch: 0,
            program: format!("bin/{program}"),
            version: None,
            crc32: None,
            node: None,
            known_as: Vec::new(),
        };
        let mut report = exited.report(subject, || {
            let mut image = Vec::new();
            if let Some(entry) = self.find(program) {
                image.resize(entry.len, 0);
                // Without the symbols the addresses have no names.
                let _ = self.archive.read(entry.offset as u64, &mut image);
            }
            image
        });
        if let Some(fault) = &report.fault {
            rt::error!("{}", report.title());
            for line in format!("{fault}").lines() {
                rt::error!("{line}");
            }
        }
        report.bound();
        if let Some(reports) = &self.crash_reports {
            // It is in the log in any case.
            let _ = reports.report(&report);
        }
        format!("{program} (process {}): {exited}", exited.info.koid)
    }
}
