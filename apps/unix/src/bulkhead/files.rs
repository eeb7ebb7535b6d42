//! Files through the VFS (scheme `file:`).
//!
//! A file that is open for reading survives the death of its file system and of the VFS: it is opened again by its
//! path, checked to be the same, and read on at the position, which is kept here. One that was handed to another process
//! as a stream has no path there and fails with an I/O error.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use rt::abi::Rights;
use rt::ipc::CallError;
use rt::proto::fs::{
    BytesRef, FileClient, FileInfo, FileKind, FilesClient, FsError, INLINE_BYTES_MAX, LastLink,
    OpenFlags, Time,
};
use rt::{AsHandle, Channel, Mapping, Once, Vmo, startup};

use super::errno;
use crate::errno::{Errno, Result};
use crate::fs::{DirEntry, Kind, Metadata, Mount, VolumeInfo};
use crate::path;

/// Bytes of the buffer that is registered with a file for large reads.
const BUFFER_BYTES: usize = 256 * 1024;

fn files() -> Result<&'static FilesClient> {
    static FILES: Once<Option<FilesClient>> = Once::new();
    FILES
        .get_or_init(|| {
            let channel = startup::handle::<Channel>(startup::name::FILE)?;
            let client = channel.duplicate().ok().map(FilesClient::new);
            client.map(FilesClient::repeating)
        })
        .as_ref()
        .ok_or(Errno::NotImplemented)
}

fn refused(error: FsError) -> Errno {
    match error {
        FsError::NotFound => Errno::NoEntry,
        FsError::NotADirectory => Errno::NotDirectory,
        FsError::IsADirectory => Errno::IsDirectory,
        FsError::NotASymlink | FsError::InvalidArgument => Errno::Invalid,
        FsError::TooManyLinks => Errno::Loop,
        FsError::NameTooLong => Errno::NameTooLong,
        FsError::ReadOnlyFileSystem => Errno::ReadOnly,
        FsError::AlreadyExists => Errno::Exists,
        FsError::NotEmpty => Errno::NotEmpty,
        FsError::PermissionDenied => Errno::Access,
        FsError::NotSupported => Errno::NotSupported,
        FsError::NoMemory => Errno::NoMemory,
        FsError::Busy => Errno::Busy,
        FsError::CrossesVolumes => Errno::CrossDevice,
        FsError::NoSpace => Errno::NoSpace,
        FsError::NoDevice => Errno::WrongDevice,
        FsError::UnknownFormat => Errno::Invalid,
        FsError::Io | FsError::Gone => Errno::Io,
    }
}

fn failed(error: CallError<FsError>) -> Errno {
    match error {
        CallError::Remote(error) => refused(error),
        CallError::Transport(rt::Error::PeerClosed) | CallError::ServerDied { .. } => Errno::Io,
        CallError::Transport(error) => errno(error),
        CallError::Refused(_) | CallError::Codec(_) => Errno::Protocol,
    }
}

/// The absolute path, as the VFS wants it.
fn absolute(text: &str) -> Result<String> {
    if text.is_empty() {
        return Err(Errno::NoEntry);
    }
    Ok(path::join(startup::cwd(), text))
}

fn metadata(info: &FileInfo) -> Metadata {
    let time = |t: Time| (t.seconds, t.nanoseconds);
    let kind = match info.kind {
        FileKind::File | FileKind::Unknown => Kind::Regular,
        FileKind::Directory => Kind::Directory,
        FileKind::Symlink => Kind::Symlink,
        FileKind::CharacterDevice => Kind::CharDevice,
        FileKind::BlockDevice => Kind::BlockDevice,
        FileKind::Fifo => Kind::Fifo,
        FileKind::Socket => Kind::Socket,
    };
    Metadata {
        device: u64::from(info.volume),
        inode: info.node,
        mode: kind.mode_bits() | u32::from(info.permissions),
        links: u64::from(info.links),
        uid: info.user,
        gid: info.group,
        size: info.size_bytes,
        blocks: info.allocated_bytes / 512,
        block_size: info.block_bytes,
        device_numbers: info.device.unwrap_or((0, 0)),
        accessed: time(info.accessed),
        modified: time(info.modified),
        changed: time(info.changed),
        created: info.created.map(time),
    }
}

/// How often one operation opens its file again before it fails.
const REOPENS_MAX: u32 = 16;

/// How a file was opened, and which one it was.
#[derive(Debug)]
struct Origin {
    path: String,
    flags: OpenFlags,
    info: FileInfo,
}

impl Origin {
    /// Whether it is the file that it was, as far as can be seen.
    fn is_same(&self, now: &FileInfo) -> bool {
        let was = &self.info;
        (now.node, now.kind, now.size_bytes) == (was.node, was.kind, was.size_bytes)
            && (now.modified, now.created) == (was.modified, was.created)
    }
}

/// An open file.
#[derive(Debug)]
pub struct File {
    client: FileClient,
    position: u64,
    buffer: Option<Mapping>,
    /// Of one that may be opened again.
    origin: Option<Box<Origin>>,
}

fn is_gone(error: &CallError<FsError>) -> bool {
    matches!(
        error,
        CallError::Transport(rt::Error::PeerClosed) | CallError::ServerDied { .. }
    )
}

impl File {
    /// Opens a file for reading.
    pub fn open(path: &str) -> Result<File> {
        File::with_flags(path, OpenFlags::READ)
    }

    /// Creates or empties a file and opens it for writing.
    pub fn create(path: &str) -> Result<File> {
        File::with_flags(
            path,
            OpenFlags::WRITE | OpenFlags::CREATE | OpenFlags::TRUNCATE,
        )
    }

    /// Opens an existing or new file for reading and writing in place.
    pub fn open_write(path: &str) -> Result<File> {
        File::with_flags(path, OpenFlags::READ | OpenFlags::WRITE | OpenFlags::CREATE)
    }

    pub(super) fn with_flags(path: &str, flags: OpenFlags) -> Result<File> {
        let full = absolute(path)?;
        let (info, client) = files()?
            .open(BytesRef(full.as_bytes()), flags)
            .map_err(failed)?;
        let origin = Origin {
            path: full,
            flags,
            info,
        };
        let origin = (!flags.modifies()).then(|| Box::new(origin));
        Ok(File {
            origin,
            ..File::from_client(client)
        })
    }

    /// Opens the file again whose file system died.
    fn reopen(&mut self) -> Result<()> {
        let origin = self.origin.as_ref().ok_or(Errno::Io)?;
        let path = BytesRef(origin.path.as_bytes());
        let (info, client) = files()?.open(path, origin.flags).map_err(failed)?;
        if !origin.is_same(&info) {
            return Err(Errno::Io);
        }
        self.client = client;
        self.buffer = None;
        Ok(())
    }

    /// Asks the file system, and its successor when it died.
    fn ask<T>(
        &mut self,
        question: impl Fn(&FileClient) -> core::result::Result<T, CallError<FsError>>,
    ) -> Result<T> {
        for _ in 0..REOPENS_MAX {
            match question(&self.client) {
                Err(error) if is_gone(&error) => self.reopen()?,
                answer => return answer.map_err(failed),
            }
        }
        Err(Errno::Io)
    }

    pub(super) fn from_client(client: FileClient) -> File {
        File {
            client,
            position: 0,
            buffer: None,
            origin: None,
        }
    }

    pub(super) fn channel(&self) -> &Channel {
        self.client.channel()
    }

    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// The whole file as memory, for running it.
    pub(super) fn memory(&mut self) -> Result<Vmo> {
        self.ask(|client| client.vmo().map(|(_, vmo)| vmo))
    }

    /// Reads at the position and moves it; 0 at the end.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let n = self.fetch(self.position, buffer)?;
        self.position = self.position.saturating_add(n as u64);
        Ok(n)
    }

    /// Reads at an offset.
    pub fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        self.fetch(offset, buffer)
    }

    fn fetch(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        if buffer.len() <= INLINE_BYTES_MAX as usize {
            let len = buffer.len() as u32;
            let data = self.ask(|client| client.read(offset, len))?;
            let room = buffer.get_mut(..data.len()).ok_or(Errno::Protocol)?;
            room.copy_from_slice(&data);
            return Ok(data.len());
        }
        for _ in 0..REOPENS_MAX {
            match self.fetch_buffered(offset, buffer)? {
                Some(n) => return Ok(n),
                None => self.reopen()?,
            }
        }
        Err(Errno::Io)
    }

    /// Reads through the registered buffer; `None` when the file system is gone.
    fn fetch_buffered(&mut self, offset: u64, buffer: &mut [u8]) -> Result<Option<usize>> {
        if self.buffer.is_none() {
            let (vmo, mapping) = Mapping::create(BUFFER_BYTES).map_err(errno)?;
            match self.client.register_buffer(BUFFER_BYTES as u64, vmo) {
                Ok(()) => self.buffer = Some(mapping),
                Err(error) if is_gone(&error) => return Ok(None),
                Err(error) => return Err(failed(error)),
            }
        }
        let mapping = self.buffer.as_ref().ok_or(Errno::NoMemory)?;
        let wanted = buffer.len().min(mapping.len());
        let n = match self.client.read_buffer(offset, wanted as u64, 0u64) {
            Ok(n) => n,
            Err(error) if is_gone(&error) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let n = usize::try_from(n).map_err(|_| Errno::Protocol)?;
        let room = buffer.get_mut(..n).ok_or(Errno::Protocol)?;
        mapping.read(0, room).map_err(errno)?;
        Ok(Some(n))
    }

    /// Writes all at the position and moves it.
    pub fn write_all(&mut self, bytes: &[u8]) -> Result<()> {
        for chunk in bytes.chunks(INLINE_BYTES_MAX as usize) {
            let mut rest = chunk;
            while !rest.is_empty() {
                let n = self
                    .client
                    .write(self.position, BytesRef(rest))
                    .map_err(failed)?;
                if n == 0 {
                    return Err(Errno::NoSpace);
                }
                self.position = self.position.saturating_add(u64::from(n));
                rest = rest.get(n as usize..).ok_or(Errno::Protocol)?;
            }
        }
        Ok(())
    }

    /// Moves the position.
    pub fn seek(&mut self, offset: u64) -> Result<()> {
        self.position = offset;
        Ok(())
    }

    /// Metadata.
    pub fn metadata(&self) -> Result<Metadata> {
        match (self.client.stat(), &self.origin) {
            (Err(error), Some(origin)) if is_gone(&error) => Ok(metadata(&origin.info)),
            (answer, _) => answer.map(|info| metadata(&info)).map_err(failed),
        }
    }

    /// Sets the size.
    pub fn truncate(&mut self, size: u64) -> Result<()> {
        self.client.truncate(size).map_err(failed)
    }

    /// The channel for another process.
    pub(super) fn duplicate_channel(&self) -> Result<Channel> {
        self.channel().duplicate_with(Rights::SAME).map_err(errno)
    }
}

fn info(path: &str, last: LastLink) -> Result<Metadata> {
    let full = absolute(path)?;
    let info = files()?
        .stat(BytesRef(full.as_bytes()), last)
        .map_err(failed)?;
    Ok(metadata(&info))
}

pub fn stat(path: &str) -> Result<Metadata> {
    info(path, LastLink::Follow)
}

pub fn lstat(path: &str) -> Result<Metadata> {
    info(path, LastLink::Keep)
}

pub fn read_link(path: &str) -> Result<String> {
    let full = absolute(path)?;
    let target = files()?
        .read_link(BytesRef(full.as_bytes()))
        .map_err(failed)?;
    Ok(target.to_text())
}

pub fn read_dir(path: &str) -> Result<Vec<DirEntry>> {
    let full = absolute(path)?;
    let mut directory = File::with_flags(&full, OpenFlags::READ | OpenFlags::DIRECTORY)?;
    let mut entries = Vec::new();
    let mut position = Some(0);
    while let Some(at) = position {
        let (batch, next) = directory.ask(|client| client.read_directory(at))?;
        // A server that repeats a position would be listened to for ever.
        position = next.filter(|next| *next != at);
        for entry in batch {
            let name = entry.name.to_text();
            let kind = match entry.kind {
                FileKind::File => Kind::Regular,
                FileKind::Directory => Kind::Directory,
                FileKind::Symlink => Kind::Symlink,
                FileKind::CharacterDevice => Kind::CharDevice,
                FileKind::BlockDevice => Kind::BlockDevice,
                FileKind::Fifo => Kind::Fifo,
                FileKind::Socket => Kind::Socket,
                FileKind::Unknown => {
                    lstat(&path::join(&full, &name)).map_or(Kind::Regular, |m| m.kind())
                }
            };
            entries.push(DirEntry {
                name,
                inode: entry.node,
                kind,
            });
        }
    }
    Ok(entries)
}

pub fn volume_info(path: &str) -> Result<VolumeInfo> {
    let full = absolute(path)?;
    let mount = files()?.statfs(BytesRef(full.as_bytes())).map_err(failed)?;
    Ok(volume(&mount.info))
}

fn volume(info: &rt::proto::fs::VolumeInfo) -> VolumeInfo {
    VolumeInfo {
        block_size: u64::from(info.block_bytes),
        blocks: info.blocks,
        free: info.free_blocks,
        available: info.available_blocks,
        inodes: info.nodes,
        free_inodes: info.free_nodes,
    }
}

pub fn mounts() -> Result<Vec<Mount>> {
    use rt::proto::fs::Access;
    let list = files()?.mounts().map_err(failed)?;
    Ok(list
        .into_iter()
        .map(|m| Mount {
            source: m.source,
            target: m.target.to_text(),
            kind: m.info.format,
            options: String::from(match m.info.access {
                Access::ReadOnly => "ro",
                Access::ReadWrite => "rw",
            }),
        })
        .collect())
}

pub fn mount(
    source: &str,
    target: &str,
    kind: &str,
    options: &str,
) -> core::result::Result<(), String> {
    use alloc::string::ToString as _;
    let full = absolute(target).map_err(|e| e.to_string())?;
    let files = files().map_err(|e| e.to_string())?;
    match files.mount(source, BytesRef(full.as_bytes()), kind, options) {
        Ok(outcome) => outcome.map_err(|e| e.reason),
        Err(error) => Err(failed(error).to_string()),
    }
}

pub fn unmount(target: &str) -> Result<u32> {
    let full = absolute(target)?;
    files()?.unmount(BytesRef(full.as_bytes())).map_err(failed)
}

pub fn wait_ready() -> Result<()> {
    /// A slow machine with several large disks needs its time, but not for ever.
    const TIMEOUT: core::time::Duration = core::time::Duration::from_secs(120);
    let files = files()?.duplicate().map_err(errno)?.with_timeout(TIMEOUT);
    files.wait_mounted().map_err(failed)
}

pub fn current_dir() -> String {
    String::from(startup::cwd())
}

pub fn make_dir(path: &str, mode: u32) -> Result<()> {
    let full = absolute(path)?;
    files()?
        .make_directory(BytesRef(full.as_bytes()), (mode & 0o7777) as u16)
        .map_err(failed)
}

pub fn remove_file(path: &str) -> Result<()> {
    let full = absolute(path)?;
    files()?.unlink(BytesRef(full.as_bytes())).map_err(failed)
}

pub fn remove_dir(path: &str) -> Result<()> {
    let full = absolute(path)?;
    files()?
        .remove_directory(BytesRef(full.as_bytes()))
        .map_err(failed)
}

pub fn rename(from: &str, to: &str) -> Result<()> {
    let (from, to) = (absolute(from)?, absolute(to)?);
    files()?
        .rename(BytesRef(from.as_bytes()), BytesRef(to.as_bytes()))
        .map_err(failed)
}

pub fn symlink(target: &str, path: &str) -> Result<()> {
    let full = absolute(path)?;
    files()?
        .symlink(BytesRef(target.as_bytes()), BytesRef(full.as_bytes()))
        .map_err(failed)
}

pub fn sync() -> Result<()> {
    files()?.sync().map_err(failed)
}
