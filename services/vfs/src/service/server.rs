//! The files protocol: every request resolved and passed on.

use alloc::{boxed::Box, rc::Rc, string::String, vec::Vec};
use core::cell::{Cell, RefCell};

use executor::{Caller, Executor, Notify};
use ipc::CallError;
use proto::devmgr::{EndpointsAsyncClient, RestartRules};
use proto::fs::{
    Bytes, BytesRef, FileClient, FileInfo, FileKind, FilesRequest, FilesServer, FsError, LastLink,
    MountError, MountInfo, OpenFlags, Time, WalkStop,
};

use super::{
    mount_folder,
    supervise::supervise,
    volumes::{Keeper, Service, Starter, VolumeClient, lost},
};
use crate::{Ending, MountTable, Question, Resolution, join, parse};

/// The service's state.
pub(crate) struct Vfs {
    pub executor: Executor,
    pub starter: Starter,
    pub disks: Option<EndpointsAsyncClient<Caller>>,
    pub mounts: RefCell<MountTable<Rc<Service>>>,
    /// What is done when a file system dies.
    pub rules: RestartRules,
    /// Where the mounts outlive this process.
    pub keeper: Option<Box<dyn Keeper>>,
    /// Something was mounted, or booting is done.
    pub changed: Notify,
    booted: Cell<bool>,
}

/// Where a path led.
struct Place<T> {
    /// The path without links, `.` and `..`.
    canonical: Vec<Vec<u8>>,
    /// What the volume answered; none for a directory that only leads to mounts.
    answer: Option<T>,
}

impl Vfs {
    /// Nothing is mounted.
    pub fn new(
        executor: Executor,
        starter: Starter,
        disks: Option<EndpointsAsyncClient<Caller>>,
        rules: RestartRules,
        keeper: Option<Box<dyn Keeper>>,
    ) -> Self {
        Self {
            executor,
            starter,
            disks,
            rules,
            keeper,
            mounts: RefCell::default(),
            changed: Notify::new(),
            booted: Cell::new(false),
        }
    }

    /// Lets requests in that waited.
    pub fn boot_done(&self) {
        self.booted.set(true);
        self.changed.notify();
    }

    /// Whether what is mounted at boot is mounted.
    pub fn is_boot_done(&self) -> bool {
        self.booted.get()
    }

    /// Puts a volume into its place, and watches over it from now on.
    pub fn put_in_place(self: &Rc<Self>, target: Vec<Vec<u8>>, service: Rc<Service>) {
        let number = service.number;
        self.mounts
            .borrow_mut()
            .add(number, target, service.clone());
        self.keep(number);
        let watched = supervise(self.clone(), service);
        self.executor.spawn(watched).detach();
        self.changed.notify();
    }

    fn service(&self, number: u32) -> Option<Rc<Service>> {
        self.mounts
            .borrow()
            .get(number)
            .map(|mount| mount.volume.clone())
    }

    /// Resolves a path; `ask` asks the volume that holds the object. It gets the
    /// path on the volume, and whether the path demands a directory.
    async fn resolve<T>(
        &self,
        path: &[u8],
        ask: impl AsyncFn(&VolumeClient, Bytes, Ending) -> Result<T, CallError<WalkStop>>,
    ) -> Result<Place<T>, FsError> {
        let mut resolution = Resolution::new(path)?;
        let is_archive = path
            .strip_prefix(b"/boot")
            .is_some_and(|rest| matches!(rest, [] | [b'/', ..]));
        if !is_archive {
            self.wait_for_boot().await;
        } else if !self.is_boot_done() {
            // The archive alone is enough.
            let target = [b"boot".to_vec()];
            let mounted = || {
                (self.is_boot_done() || self.mounts.borrow().at(&target).is_some()).then_some(())
            };
            self.changed.wait_until(mounted).await;
        }
        loop {
            let question = resolution.next(&self.mounts.borrow());
            let stop = match question {
                Question::Directory {
                    mount: Some(number),
                    path,
                } => {
                    let service = self.service(number).ok_or(FsError::NotFound)?;
                    let asked = async |volume: &VolumeClient| {
                        volume.stat(BytesRef(&path), LastLink::Follow).await
                    };
                    match service.ask(asked).await {
                        Ok(info) if info.kind == FileKind::Directory => {
                            resolution.is_directory();
                            continue;
                        }
                        Ok(_) => return Err(FsError::NotADirectory),
                        Err(error) => error,
                    }
                }
                Question::Object {
                    mount: Some(number),
                    path,
                } => {
                    let service = self.service(number).ok_or(FsError::NotFound)?;
                    let ending = resolution.ending();
                    let asked = async |volume: &VolumeClient| {
                        ask(volume, Bytes(path.clone()), ending).await
                    };
                    match service.ask(asked).await {
                        Ok(answer) => {
                            let canonical = resolution.canonical().to_vec();
                            return Ok(Place {
                                canonical,
                                answer: Some(answer),
                            });
                        }
                        Err(error) => error,
                    }
                }
                Question::Directory { mount: None, .. } | Question::Object { mount: None, .. } => {
                    CallError::Remote(WalkStop::Failed(FsError::NotFound))
                }
            };
            match stop {
                CallError::Remote(WalkStop::Symlink { component, target }) => {
                    resolution.symlink(component as usize, &target)?;
                }
                // Directories that exist only because something is mounted below.
                CallError::Remote(WalkStop::Failed(FsError::NotFound))
                    if self.leads_to_mounts(resolution.canonical()) =>
                {
                    if resolution.at_object() {
                        let canonical = resolution.canonical().to_vec();
                        return Ok(Place {
                            canonical,
                            answer: None,
                        });
                    }
                    resolution.is_directory();
                }
                CallError::Remote(WalkStop::Failed(error)) => return Err(error),
                error => return Err(lost(error)),
            }
        }
    }

    fn leads_to_mounts(&self, path: &[Vec<u8>]) -> bool {
        path.is_empty() || self.mounts.borrow().has_below(path)
    }

    async fn stat(&self, path: &[u8], last: LastLink) -> Result<(FileInfo, Vec<Vec<u8>>), FsError> {
        let place = self
            .resolve(path, async |volume, path, ending| {
                let last = if ending == Ending::Directory {
                    LastLink::Follow
                } else {
                    last
                };
                let info = volume.stat(path, last).await?;
                check_ending(&info, ending)?;
                Ok(info)
            })
            .await?;
        let info = place
            .answer
            .unwrap_or_else(|| directory_info(&place.canonical));
        Ok((info, place.canonical))
    }

    async fn open(
        self: &Rc<Self>,
        path: &[u8],
        flags: OpenFlags,
    ) -> Result<(FileInfo, FileClient), FsError> {
        let place = self
            .resolve(path, async |volume, path, ending| {
                let flags = match ending {
                    Ending::Directory => {
                        OpenFlags((flags.0 & !OpenFlags::NO_FOLLOW.0) | OpenFlags::DIRECTORY.0)
                    }
                    Ending::Any => flags,
                };
                volume.open(path, flags).await
            })
            .await?;
        match place.answer {
            Some(opened) => Ok(opened),
            None if flags.modifies() => Err(FsError::IsADirectory),
            None => {
                let info = directory_info(&place.canonical);
                let names = self.mounts.borrow().names_in(&place.canonical);
                mount_folder::open(self, info, names)
            }
        }
    }

    async fn read_link(&self, path: &[u8]) -> Result<Bytes, FsError> {
        let place = self
            .resolve(path, async |volume, path, ending| match ending {
                Ending::Any => volume.read_link(path).await,
                Ending::Directory => {
                    let info = volume.stat(path, LastLink::Follow).await?;
                    check_ending(&info, ending)?;
                    Err(failed(FsError::NotASymlink))
                }
            })
            .await?;
        place.answer.ok_or(FsError::NotASymlink)
    }

    async fn mount(
        self: &Rc<Self>,
        source: &str,
        target: &[u8],
        format: &str,
        options: &str,
    ) -> Result<(), MountError> {
        let refuse = |error: FsError, reason: String| Err(MountError { error, reason });
        let Some(name) = source
            .strip_prefix("disk:")
            .map(|name| name.trim_start_matches('/'))
        else {
            return refuse(
                FsError::InvalidArgument,
                alloc::format!("{source}: not a disk:/NAME"),
            );
        };
        for option in options.split(',').filter(|option| !option.is_empty()) {
            if option != "ro" {
                return refuse(
                    FsError::NotSupported,
                    alloc::format!("unknown option \"{option}\""),
                );
            }
        }
        let bad_target = |error: FsError| MountError {
            error,
            reason: alloc::format!("{}: {error}", String::from_utf8_lossy(target)),
        };
        // A mount point need not exist: a read-only root has no room for new ones.
        let canonical = match self.stat(target, LastLink::Follow).await {
            Ok((info, canonical)) if info.kind == FileKind::Directory => canonical,
            Ok(_) => return Err(bad_target(FsError::NotADirectory)),
            Err(FsError::NotFound) => {
                let (components, _) = parse(target).map_err(bad_target)?;
                if components.iter().any(|name| name == b"..") {
                    return Err(bad_target(FsError::NotFound));
                }
                components.into()
            }
            Err(error) => return Err(bad_target(error)),
        };
        let source = alloc::format!("disk:/{name}");
        if self
            .mounts
            .borrow()
            .iter()
            .any(|mount| mount.volume.source == source)
        {
            return refuse(FsError::Busy, alloc::format!("{source} is mounted already"));
        }
        let number = self.mounts.borrow_mut().reserve_number();
        let service = self.open_disk(name, format, number).await?;
        self.put_in_place(canonical, Rc::new(service));
        Ok(())
    }

    /// Gives the number of open files that were lost with a disk that is gone; otherwise a volume with open files is busy.
    async fn unmount(&self, target: &[u8]) -> Result<u32, FsError> {
        // By its name first: what is mounted there may not answer any more.
        let named: Vec<Vec<u8>> = parse(target)?.0.into();
        let canonical = if self.mounts.borrow().at(&named).is_some() {
            named
        } else {
            self.stat(target, LastLink::Follow).await?.1
        };
        let (number, service) = {
            let mounts = self.mounts.borrow();
            let mount = mounts.at(&canonical).ok_or(FsError::InvalidArgument)?;
            if mounts.has_below(&canonical) {
                return Err(FsError::Busy);
            }
            (mount.number, mount.volume.clone())
        };
        let gone = self.starter.disk_is_gone(&service).await;
        // A service that is gone has no open files.
        let open = match service.present() {
            None if gone => 0,
            _ => {
                let open = service.ask(async |volume| volume.open_files().await);
                open.await.unwrap_or(0)
            }
        };
        if open > 0 && !gone {
            return Err(FsError::Busy);
        }
        self.mounts.borrow_mut().remove(number);
        self.forget(number);
        service.end();
        Ok(open)
    }

    fn mount_infos(&self) -> Vec<MountInfo> {
        let mounts = self.mounts.borrow();
        let infos = mounts.iter().map(|mount| MountInfo {
            source: mount.volume.source.clone(),
            target: Bytes(join(&mount.target)),
            volume: mount.number,
            info: mount.volume.info(),
        });
        infos.collect()
    }

    async fn statfs(&self, path: &[u8]) -> Result<MountInfo, FsError> {
        let (_, canonical) = self.stat(path, LastLink::Follow).await?;
        let (number, target, service) = {
            let mounts = self.mounts.borrow();
            let mount = mounts.holding(&canonical).ok_or(FsError::NotFound)?;
            (mount.number, join(&mount.target), mount.volume.clone())
        };
        let info = service.ask(async |volume| volume.info().await).await;
        let info = info.map_err(lost)?;
        Ok(MountInfo {
            source: service.source.clone(),
            target: Bytes(target),
            volume: number,
            info,
        })
    }

    /// The object's volume refuses it, or the path leads nowhere.
    async fn refuse_change(&self, path: &[u8]) -> FsError {
        match self.stat(path, LastLink::Keep).await {
            Ok(_) | Err(FsError::NotFound) => FsError::ReadOnlyFileSystem,
            Err(error) => error,
        }
    }

    async fn answer(self: Rc<Self>, request: FilesRequest) {
        // A client that is gone needs no answer.
        let _ = match request {
            FilesRequest::Open { path, flags, reply } => reply.send(self.open(&path, flags).await),
            FilesRequest::Stat { path, last, reply } => {
                reply.send(self.stat(&path, last).await.map(|(info, _)| info))
            }
            FilesRequest::ReadLink { path, reply } => reply.send(self.read_link(&path).await),
            FilesRequest::Canonicalize { path, reply } => {
                let place = self.stat(&path, LastLink::Follow).await;
                reply.send(place.map(|(_, canonical)| Bytes(join(&canonical))))
            }
            FilesRequest::Mount {
                source,
                target,
                format,
                options,
                reply,
            } => reply.ok(self.mount(&source, &target, &format, &options).await),
            FilesRequest::Unmount { target, reply } => reply.send(self.unmount(&target).await),
            FilesRequest::Mounts { reply } => {
                self.wait_for_boot().await;
                reply.ok(self.mount_infos())
            }
            FilesRequest::Statfs { path, reply } => reply.send(self.statfs(&path).await),
            FilesRequest::MakeDirectory { path, reply, .. } => {
                match self.refuse_change(&path).await {
                    FsError::ReadOnlyFileSystem
                        if self.stat(&path, LastLink::Keep).await.is_ok() =>
                    {
                        reply.error(FsError::AlreadyExists)
                    }
                    error => reply.error(error),
                }
            }
            FilesRequest::Unlink { path, reply } => reply.error(self.refuse_removal(&path).await),
            FilesRequest::RemoveDirectory { path, reply } => {
                reply.error(self.refuse_removal(&path).await)
            }
            FilesRequest::Rename { from, reply, .. } => {
                reply.error(self.refuse_removal(&from).await)
            }
            FilesRequest::Symlink { path, reply, .. } => {
                reply.error(self.refuse_change(&path).await)
            }
            // Nothing is ever unwritten.
            FilesRequest::Sync { reply } => reply.ok(),
            FilesRequest::WaitMounted { reply } => {
                self.wait_for_boot().await;
                reply.ok()
            }
        };
    }

    async fn refuse_removal(&self, path: &[u8]) -> FsError {
        match self.stat(path, LastLink::Keep).await {
            Ok(_) => FsError::ReadOnlyFileSystem,
            Err(error) => error,
        }
    }
}

/// Serves the scheme; a request that waits keeps no other.
///
/// # Errors
/// A text, when the channel fails.
pub(crate) async fn serve(vfs: Rc<Vfs>, server: FilesServer) -> Result<(), String> {
    let system = |error: executor::Error| alloc::format!("files: {error}");
    let requests = vfs.executor.requests(server).map_err(system)?;
    while let Some(request) = requests.next().await.map_err(system)? {
        vfs.executor.spawn(vfs.clone().answer(request)).detach();
    }
    Ok(())
}

fn failed(error: FsError) -> CallError<WalkStop> {
    CallError::Remote(WalkStop::Failed(error))
}

fn check_ending(info: &FileInfo, ending: Ending) -> Result<(), CallError<WalkStop>> {
    if ending == Ending::Directory && info.kind != FileKind::Directory {
        return Err(failed(FsError::NotADirectory));
    }
    Ok(())
}

/// A directory that exists only because something is mounted below it.
fn directory_info(path: &[Vec<u8>]) -> FileInfo {
    // FNV-1a: equal paths have equal numbers, and that is all that is wanted.
    let hash = join(path)
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
    FileInfo {
        volume: 0,
        node: hash,
        kind: FileKind::Directory,
        permissions: 0o755,
        links: 2,
        user: 0,
        group: 0,
        size_bytes: 0,
        allocated_bytes: 0,
        block_bytes: 4096,
        device: None,
        accessed: Time::default(),
        modified: Time::default(),
        changed: Time::default(),
        created: None,
    }
}
