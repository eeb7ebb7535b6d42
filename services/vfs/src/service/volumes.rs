//! Volumes: a file-system service each, started from the boot archive.

use alloc::{boxed::Box, format, string::String, string::ToString, vec::Vec};
use core::time::Duration;

use executor::{Caller, Executor};
use ipc::{CallError, Channel, sys::AsHandle};
use proto::fs::{FsError, MountError, VolumeAsyncClient, VolumeInfo};

/// Time for one call to a file-system service. Its disk has shorter deadlines.
const CALL_TIMEOUT: Duration = Duration::from_secs(90);

/// A mounted volume.
pub(crate) struct Service {
    /// How it is asked.
    pub volume: VolumeAsyncClient<Caller>,
    /// Where it comes from: `disk:/NAME` or `boot`.
    pub source: String,
    /// What it was when it was mounted.
    pub info: VolumeInfo,
}

/// A program that reads a format.
#[derive(Clone, Copy)]
struct FormatProgram {
    /// Name, and the archive's member.
    program: &'static str,
    /// Formats by the names that `mount -t` takes.
    formats: &'static [&'static str],
}

const PROGRAMS: [FormatProgram; 2] = [
    FormatProgram {
        program: "ext",
        formats: &["ext", "ext2", "ext3", "ext4"],
    },
    FormatProgram {
        program: "fat",
        formats: &["fat", "vfat", "msdos", "fat12", "fat16", "fat32"],
    },
];

/// A disk for a service: where it is served now, and where it will be after its driver's death.
#[derive(Debug)]
pub struct DiskEndpoint {
    /// Block endpoint (`proto::block::BlockEndpoint`).
    pub endpoint: Channel,
    /// Its name (`proto::devmgr::EndpointName`).
    pub name: Channel,
}

/// Starts the programs.
pub trait Launcher {
    /// Starts `program` (a member of `bin/`) on a disk; it serves the volume
    /// protocol on `volume` and ends when the other end is closed.
    ///
    /// # Errors
    /// Why it could not be started.
    fn launch(&self, program: &str, disk: DiskEndpoint, volume: Channel) -> Result<(), MountError>;
}

/// Starts file-system services.
pub(crate) struct Starter {
    pub executor: Executor,
    pub launcher: Box<dyn Launcher>,
}

impl Starter {
    /// Takes a service that runs already, and mounts what it has.
    ///
    /// # Errors
    /// What the service says.
    pub async fn adopt(
        &self,
        channel: Channel,
        source: &str,
        number: u32,
    ) -> Result<Service, MountError> {
        let caller = self.executor.caller(channel).map_err(|error| MountError {
            error: FsError::NoMemory,
            reason: error.to_string(),
        })?;
        let volume = VolumeAsyncClient::with_timeout(caller, CALL_TIMEOUT);
        let info = match volume.mount(number).await {
            Ok(outcome) => outcome?,
            Err(error) => {
                let reason = format!("the file-system service failed: {error:?}");
                return Err(MountError {
                    error: FsError::Gone,
                    reason,
                });
            }
        };
        Ok(Service {
            volume,
            source: source.to_string(),
            info,
        })
    }

    /// Mounts a disk: `format` as `mount -t` has it, or empty to find it out.
    ///
    /// # Errors
    /// `UnknownFormat` if no service knows it; else what its service says.
    pub async fn start(
        &self,
        disk: &DiskEndpoint,
        source: &str,
        format: &str,
        number: u32,
    ) -> Result<Service, MountError> {
        let mut tried = Vec::new();
        for candidate in PROGRAMS {
            if !format.is_empty() && !candidate.formats.contains(&format) {
                continue;
            }
            let channel = self.spawn(candidate.program, disk)?;
            match self.adopt(channel, source, number).await {
                Err(error) if error.error == FsError::UnknownFormat => tried.push(error.reason),
                outcome => return outcome,
            }
        }
        let reason = if tried.is_empty() {
            format!("no service for the format \"{format}\"")
        } else {
            format!("no file system ({})", tried.join(", "))
        };
        Err(MountError {
            error: FsError::UnknownFormat,
            reason,
        })
    }

    /// Starts a service on a disk; the volume's channel. The service ends when it
    /// is closed.
    fn spawn(&self, program: &'static str, disk: &DiskEndpoint) -> Result<Channel, MountError> {
        let system = |what: &'static str| {
            move |error: ipc::Error| MountError {
                error: FsError::NoMemory,
                reason: format!("{program}: {what}: {error}"),
            }
        };
        let (client, server) = Channel::create().map_err(system("channel"))?;
        let copy = |channel: &Channel| channel.duplicate().map_err(system("disk"));
        let disk = DiskEndpoint {
            endpoint: copy(&disk.endpoint)?,
            name: copy(&disk.name)?,
        };
        self.launcher.launch(program, disk, server)?;
        Ok(client)
    }
}

/// What a failed call means to the client, if the service did not say it.
pub(crate) fn lost<E>(_: CallError<E>) -> FsError {
    FsError::Gone
}
