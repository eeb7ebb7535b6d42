//! Volumes: a file-system service each, started from the boot archive, and started again when it dies.
//!
//! A request that a dead service had taken is repeated at its successor: a file system that is only read may be asked
//! twice. Open files are channels to the service and die with it; their clients open them again.

use alloc::{
    boxed::Box,
    format,
    rc::Rc,
    string::{String, ToString},
    vec::Vec,
};
use core::{
    cell::{Cell, RefCell},
    time::Duration,
};

use executor::{Caller, Executor, Notify};
use ipc::{CallError, Channel, Handle, Refusal, sys::AsHandle};
use proto::devmgr::{DevError, EndpointNameAsyncClient};
use proto::fs::{FsError, MountError, VolumeAsyncClient, VolumeInfo, WalkStop};
use rt::process::Child;

/// Time for one call to a file-system service. Its disk has shorter deadlines.
const CALL_TIMEOUT: Duration = Duration::from_secs(90);
/// A driver that died is waited for so long.
const DISK_TIMEOUT: Duration = Duration::from_secs(60);
/// A disk whose driver is on its way is there; who asks is not kept waiting.
const LOOK_TIMEOUT: Duration = Duration::from_secs(2);
/// Successors that one request is given to.
const ATTEMPTS_MAX: u32 = 16;

/// How a volume is asked.
pub(crate) type VolumeClient = VolumeAsyncClient<Caller>;

/// A service that runs.
pub(crate) struct Serving {
    pub client: VolumeClient,
    pub info: VolumeInfo,
    /// `None` for one that somebody else started.
    pub child: Option<Child>,
}

/// Where a volume's service comes from.
pub(crate) enum Origin {
    /// Somebody else starts it, and a successor serves the same channel.
    Channel(Channel),
    /// A program, on a disk with this name (`proto::devmgr::EndpointName`).
    Program {
        program: &'static str,
        disk_name: Channel,
    },
}

/// A mounted volume, whichever service serves it.
pub(crate) struct Service {
    /// Where it comes from: `disk:/NAME` or `boot`.
    pub source: String,
    pub number: u32,
    pub origin: Origin,
    present: RefCell<Option<Rc<Serving>>>,
    /// What it was when it was mounted last.
    info: RefCell<VolumeInfo>,
    /// Services so far.
    generation: Cell<u32>,
    over: Cell<bool>,
    /// One of the above has changed.
    pub changed: Notify,
}

/// Whether it tells of the service's end and not of the question.
pub(crate) fn is_gone(error: &CallError<WalkStop>) -> bool {
    matches!(
        error,
        CallError::ServerDied { .. }
            | CallError::Transport(ipc::Error::PeerClosed)
            // A successor that nobody told to mount yet.
            | CallError::Refused(Refusal::Abandoned)
    )
}

impl Service {
    pub fn new(source: &str, number: u32, origin: Origin, serving: Serving) -> Service {
        Service {
            source: source.to_string(),
            number,
            origin,
            info: RefCell::new(serving.info.clone()),
            present: RefCell::new(Some(Rc::new(serving))),
            generation: Cell::new(1),
            over: Cell::new(false),
            changed: Notify::new(),
        }
    }

    /// A volume whose service is to be started yet.
    pub fn absent(source: &str, number: u32, origin: Origin, info: VolumeInfo) -> Service {
        Service {
            source: source.to_string(),
            number,
            origin,
            info: RefCell::new(info),
            present: RefCell::new(None),
            generation: Cell::new(0),
            over: Cell::new(false),
            changed: Notify::new(),
        }
    }

    /// What it was when it was mounted last.
    pub fn info(&self) -> VolumeInfo {
        self.info.borrow().clone()
    }

    /// The service that runs, if one does.
    pub fn present(&self) -> Option<Rc<Serving>> {
        self.present.borrow().clone()
    }

    /// The service is gone: who asks waits from now on.
    pub fn lost(&self) {
        *self.present.borrow_mut() = None;
    }

    /// A successor serves.
    pub fn found(&self, serving: Serving) {
        *self.info.borrow_mut() = serving.info.clone();
        *self.present.borrow_mut() = Some(Rc::new(serving));
        self.generation.set(self.generation.get().wrapping_add(1));
        self.changed.notify();
    }

    /// Unmounted, or given up: nobody serves it any more.
    pub fn end(&self) {
        self.over.set(true);
        self.lost();
        self.changed.notify();
    }

    /// Whether [`Service::end`] was called.
    pub fn is_over(&self) -> bool {
        self.over.get()
    }

    /// Asks the service, and its successor when it dies with the question.
    ///
    /// # Errors
    /// The answer; `ServerDied` when there is no successor.
    pub async fn ask<T>(
        &self,
        question: impl AsyncFn(&VolumeClient) -> Result<T, CallError<WalkStop>>,
    ) -> Result<T, CallError<WalkStop>> {
        let mut after = None;
        for _ in 0..ATTEMPTS_MAX {
            let next = || {
                if self.over.get() {
                    return Some(None);
                }
                let serving = self.present.borrow().clone()?;
                (after != Some(self.generation.get())).then_some(Some(serving))
            };
            let Some(serving) = self.changed.wait_until(next).await else {
                break;
            };
            after = Some(self.generation.get());
            match question(&serving.client).await {
                Err(error) if is_gone(&error) => {}
                answer => return answer,
            }
        }
        Err(CallError::ServerDied { epoch: 0 })
    }
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

/// The program of that name.
pub(crate) fn program(name: &str) -> Option<&'static str> {
    PROGRAMS.iter().map(|p| p.program).find(|p| *p == name)
}

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
    /// protocol on `volume` and ends when the other end is closed. `None` where it is no process.
    ///
    /// # Errors
    /// Why it could not be started.
    fn launch(
        &self,
        program: &str,
        disk: DiskEndpoint,
        volume: Channel,
    ) -> Result<Option<Child>, MountError>;

    /// Reports how a service ended that should not have; a text for the log.
    fn autopsy(&self, program: &str, child: &Child) -> String {
        let _ = (program, child);
        String::from("gone")
    }
}

/// Keeps what is mounted beyond the end of this process (see `supervision::Supervised`).
pub trait Keeper: Send {
    /// Keeps it under a key.
    fn put(&self, key: &str, bytes: &[u8], handles: Vec<Handle>);
    /// Forgets a key.
    fn remove(&self, key: &str);
    /// Everything that is kept.
    fn all(&self) -> Vec<Kept>;
}

/// A key with bytes and handles.
pub type Kept = (String, Vec<u8>, Vec<Handle>);

/// Starts file-system services.
pub(crate) struct Starter {
    pub executor: Executor,
    pub launcher: Box<dyn Launcher>,
}

impl Starter {
    /// Takes a service that runs already, and mounts what it has. One that has mounted it stays as it is.
    ///
    /// # Errors
    /// What the service says.
    pub async fn adopt(
        &self,
        channel: Channel,
        child: Option<Child>,
        number: u32,
    ) -> Result<Serving, MountError> {
        let caller = self.executor.caller(channel).map_err(|error| MountError {
            error: FsError::NoMemory,
            reason: error.to_string(),
        })?;
        let client = VolumeAsyncClient::with_timeout(caller, CALL_TIMEOUT);
        let info = match client.mount(number).await {
            Ok(outcome) => outcome?,
            Err(error) => {
                let reason = format!("the file-system service failed: {error:?}");
                return Err(MountError {
                    error: FsError::Gone,
                    reason,
                });
            }
        };
        Ok(Serving {
            client,
            info,
            child,
        })
    }

    /// Mounts a disk: `format` as `mount -t` has it, or empty to find it out.
    ///
    /// # Errors
    /// `UnknownFormat` if no service knows it; else what its service says.
    pub async fn start(
        &self,
        disk: DiskEndpoint,
        source: &str,
        format: &str,
        number: u32,
    ) -> Result<Service, MountError> {
        let mut tried = Vec::new();
        for candidate in PROGRAMS {
            if !format.is_empty() && !candidate.formats.contains(&format) {
                continue;
            }
            let program = candidate.program;
            match self.spawn(program, &disk, number).await {
                Err(error) if error.error == FsError::UnknownFormat => tried.push(error.reason),
                outcome => {
                    let disk_name = disk.name;
                    let origin = Origin::Program { program, disk_name };
                    return Ok(Service::new(source, number, origin, outcome?));
                }
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

    /// Starts a volume's service again.
    ///
    /// # Errors
    /// What it says, or why it could not be started.
    pub async fn restart(&self, service: &Service) -> Result<Serving, MountError> {
        let gone = |what: &dyn core::fmt::Display| MountError {
            error: FsError::Gone,
            reason: format!("{}: {what}", service.source),
        };
        match &service.origin {
            Origin::Channel(channel) => {
                let channel = channel.duplicate().map_err(|error| gone(&error))?;
                self.adopt(channel, None, service.number).await
            }
            Origin::Program { program, disk_name } => {
                // The driver may have been replaced as well: the name leads to the present one.
                let name = disk_name.duplicate().map_err(|error| gone(&error))?;
                let own = disk_name.duplicate().map_err(|error| gone(&error))?;
                let caller = self.executor.caller(own).map_err(|error| gone(&error))?;
                let names = EndpointNameAsyncClient::with_timeout(caller, DISK_TIMEOUT);
                let (_, endpoint) = names.reopen(0u32).await.map_err(|error| gone(&error))?;
                let disk = DiskEndpoint { endpoint, name };
                self.spawn(program, &disk, service.number).await
            }
        }
    }

    /// Whether a volume's disk was taken out, or its driver given up: nobody can use its files any more.
    pub async fn disk_is_gone(&self, service: &Service) -> bool {
        let Origin::Program { disk_name, .. } = &service.origin else {
            return false;
        };
        let Ok(Ok(caller)) = disk_name.duplicate().map(|own| self.executor.caller(own)) else {
            return false;
        };
        let names = EndpointNameAsyncClient::with_timeout(caller, LOOK_TIMEOUT);
        let found = names.reopen(0u32).await;
        matches!(
            found,
            Err(CallError::Remote(DevError::NotFound | DevError::NotRunning))
        )
    }

    /// Starts a service on a disk; it ends when its channel is closed.
    async fn spawn(
        &self,
        program: &'static str,
        disk: &DiskEndpoint,
        number: u32,
    ) -> Result<Serving, MountError> {
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
        let child = self.launcher.launch(program, disk, server)?;
        self.adopt(client, child, number).await
    }
}

/// What a failed call means to the client, if the service did not say it.
pub(crate) fn lost<E>(_: CallError<E>) -> FsError {
    FsError::Gone
}
