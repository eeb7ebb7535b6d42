//! The volume protocol: paths walked, objects opened.

use alloc::rc::Rc;
use core::cell::{Cell, RefCell};

use executor::Executor;
use ipc::Vmo;
use proto::fs::{
    Bytes, FileClient, FileInfo, FileServer, FsError as ClientError, LastLink, MountError,
    OpenFlags, VolumeInfo, VolumeRequest, VolumeServer, WalkStop,
};
use volume::{FileKind, FileSystem, FollowLast, FsError, ReadAhead, Tree, Walk, reader::Sink};

use crate::{convert, file, memory::MappedMemory};

/// Messages about damage that are logged; more would tell nothing new.
const MESSAGES_MAX: u32 = 200;

/// A mounted volume: a format, and how the contents of its files are reached.
#[expect(
    async_fn_in_trait,
    reason = "services are single-threaded; no Send bound is wanted"
)]
pub trait Contents: 'static {
    /// The format.
    type Format: FileSystem;

    /// Names and metadata.
    fn tree(&self) -> &Tree<Self::Format>;

    /// Reads up to `len` bytes at `offset`; returns how many there were.
    ///
    /// # Errors
    /// As [`volume::reader::read`].
    async fn read(
        &self,
        file: &<Self::Format as FileSystem>::File,
        ahead: &RefCell<ReadAhead>,
        offset: u64,
        len: u64,
        sink: &mut impl Sink<MappedMemory>,
    ) -> Result<u64, FsError>;

    /// The whole file as memory that cannot be written, and its length.
    ///
    /// # Errors
    /// `NoMemory` for files that are too large; what reading meets.
    async fn vmo(
        &self,
        file: &<Self::Format as FileSystem>::File,
    ) -> Result<(u64, Vmo), ClientError>;
}

/// A volume in service.
pub(crate) struct Volume<C> {
    pub contents: C,
    pub executor: Executor,
    pub number: Cell<u32>,
    open_files: Cell<u32>,
    messages: Cell<u32>,
}

/// Serves a volume until its last client is gone. `open` mounts it, at the
/// request to do so.
pub async fn serve<C: Contents>(
    executor: Executor,
    server: VolumeServer,
    open: impl AsyncFnOnce() -> Result<C, MountError>,
) {
    let requests = match executor.requests(server) {
        Ok(requests) => requests,
        Err(error) => return rt::error!("{error}"),
    };
    let mut open = Some(open);
    let mut mounted: Option<Rc<Volume<C>>> = None;
    while let Ok(Some(request)) = requests.next().await {
        match (request, &mounted) {
            (
                VolumeRequest::Mount {
                    volume: number,
                    reply,
                },
                _,
            ) => {
                let Some(open) = open.take() else {
                    // A VFS that was started again, or one whose request it was already.
                    let _ = match &mounted {
                        Some(volume) => {
                            volume.number.set(number);
                            reply.ok(Ok(volume.info()))
                        }
                        None => reply.ok(Err(MountError {
                            error: ClientError::Io,
                            reason: "it could not be mounted before".into(),
                        })),
                    };
                    continue;
                };
                let outcome = open().await.map(|contents| {
                    let volume = Rc::new(Volume {
                        contents,
                        executor: executor.clone(),
                        number: Cell::new(number),
                        open_files: Cell::new(0),
                        messages: Cell::new(0),
                    });
                    let info = volume.info();
                    mounted = Some(volume);
                    info
                });
                let _ = reply.ok(outcome);
            }
            (request, Some(volume)) => {
                let volume = volume.clone();
                executor
                    .spawn(async move { volume.answer(request).await })
                    .detach();
            }
            // Dropped: the client learns that there is no answer.
            (_, None) => {}
        }
    }
}

impl<C: Contents> Volume<C> {
    pub fn filesystem(&self) -> &C::Format {
        self.contents.tree().filesystem()
    }

    fn info(&self) -> VolumeInfo {
        convert::statistics(self.filesystem().statistics())
    }

    /// The client's error; damage is logged.
    pub fn error(&self, error: &FsError, what: &dyn core::fmt::Display) -> ClientError {
        let count = self.messages.get();
        if convert::is_damage(error) && count <= MESSAGES_MAX {
            self.messages.set(count + 1);
            match count {
                MESSAGES_MAX => rt::error!("further messages are left out"),
                _ => rt::error!("{what}: {error}"),
            }
        }
        convert::error(error)
    }

    async fn answer(self: Rc<Self>, request: VolumeRequest) {
        let read_only = || WalkStop::Failed(ClientError::ReadOnlyFileSystem);
        // A client that is gone needs no answer.
        let _ = match request {
            // It is the loop's to answer.
            VolumeRequest::Mount { reply, .. } => reply.ok(Ok(self.info())),
            VolumeRequest::Open { path, flags, reply } => reply.send(self.open(&path, flags).await),
            VolumeRequest::Stat { path, last, reply } => reply.send(self.stat(&path, last).await),
            VolumeRequest::ReadLink { path, reply } => reply.send(self.read_link(&path).await),
            VolumeRequest::Info { reply } => reply.ok(self.info()),
            VolumeRequest::OpenFiles { reply } => reply.ok(self.open_files.get()),
            // Nothing is ever unwritten.
            VolumeRequest::Sync { reply } => reply.ok(),
            VolumeRequest::MakeDirectory { reply, .. } => reply.error(read_only()),
            VolumeRequest::Unlink { reply, .. } => reply.error(read_only()),
            VolumeRequest::RemoveDirectory { reply, .. } => reply.error(read_only()),
            VolumeRequest::Rename { reply, .. } => reply.error(read_only()),
            VolumeRequest::Symlink { reply, .. } => reply.error(read_only()),
        };
    }

    async fn walk(
        &self,
        path: &[u8],
        last: FollowLast,
    ) -> Result<<C::Format as FileSystem>::File, WalkStop> {
        let components = path
            .split(|byte| *byte == b'/')
            .filter(|name| !name.is_empty());
        match self.contents.tree().walk(components, last).await {
            Ok(Walk::Found(file)) => Ok(file),
            Ok(Walk::Symlink { component, target }) => {
                let component = u32::try_from(component).unwrap_or(u32::MAX);
                Err(WalkStop::Symlink {
                    component,
                    target: target.into(),
                })
            }
            Err((_, error)) => {
                let path = alloc::string::String::from_utf8_lossy(path);
                Err(WalkStop::Failed(self.error(&error, &path)))
            }
        }
    }

    async fn open(
        self: &Rc<Self>,
        path: &[u8],
        flags: OpenFlags,
    ) -> Result<(FileInfo, FileClient), WalkStop> {
        let failed = |error| Err(WalkStop::Failed(error));
        if !OpenFlags::ALL.contains(flags) {
            return failed(ClientError::InvalidArgument);
        }
        let no_follow = flags.contains(OpenFlags::NO_FOLLOW);
        let last = if no_follow {
            FollowLast::No
        } else {
            FollowLast::Yes
        };
        let file = match self.walk(path, last).await {
            Err(WalkStop::Failed(ClientError::NotFound)) if flags.contains(OpenFlags::CREATE) => {
                return failed(ClientError::ReadOnlyFileSystem);
            }
            walked => walked?,
        };
        let attributes = self.filesystem().attributes(&file);
        if flags.contains(OpenFlags::CREATE | OpenFlags::EXCLUSIVE) {
            return failed(ClientError::AlreadyExists);
        }
        let is_directory = attributes.kind == FileKind::Directory;
        if flags.contains(OpenFlags::DIRECTORY) && !is_directory {
            return failed(ClientError::NotADirectory);
        }
        if flags.modifies() {
            let error = ClientError::ReadOnlyFileSystem;
            return failed(if is_directory {
                ClientError::IsADirectory
            } else {
                error
            });
        }
        let (client, server) = match FileServer::pair() {
            Ok(ends) => ends,
            Err(_) => return failed(ClientError::NoMemory),
        };
        let info = convert::info(&attributes, self.number.get());
        let volume = self.clone();
        self.open_files.set(self.open_files.get().saturating_add(1));
        let served = async move {
            file::serve(&volume, &file, server).await;
            volume
                .open_files
                .set(volume.open_files.get().saturating_sub(1));
        };
        self.executor.spawn(served).detach();
        Ok((info, client))
    }

    async fn stat(&self, path: &[u8], last: LastLink) -> Result<FileInfo, WalkStop> {
        let last = match last {
            LastLink::Follow => FollowLast::Yes,
            LastLink::Keep => FollowLast::No,
        };
        let file = self.walk(path, last).await?;
        Ok(convert::info(
            &self.filesystem().attributes(&file),
            self.number.get(),
        ))
    }

    async fn read_link(&self, path: &[u8]) -> Result<Bytes, WalkStop> {
        let file = self.walk(path, FollowLast::No).await?;
        let target = self.filesystem().read_link(&file).await;
        let path = alloc::string::String::from_utf8_lossy(path);
        target
            .map(Bytes)
            .map_err(|error| WalkStop::Failed(self.error(&error, &path)))
    }
}
