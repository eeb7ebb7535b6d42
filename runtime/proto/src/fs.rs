//! Files: the names ([`FilesClient`], served by the VFS), open files
//! ([`FileClient`], served by the file system that holds them), and volumes
//! ([`VolumeClient`], what the VFS asks of a file-system service).
//!
//! Opening goes through the VFS once; the channel that it returns leads straight
//! to the file-system service, so reads have one hop. Reading positions are the
//! client's own.
//!
//! # Paths
//!
//! Bytes, `/` between components, no NUL, at most [`PATH_BYTES_MAX`]. For
//! [`FilesClient`] they are absolute; `.`, `..` and repeated slashes are resolved
//! there. For [`VolumeClient`] they are relative to its root, without `.` and `..`.
//!
//! # Writing
//!
//! The operations that change something are part of the protocol; a file system
//! that cannot write answers [`FsError::ReadOnlyFileSystem`].

use alloc::{string::String, vec::Vec};

use ipc::Vmo;
use serde::{Deserialize, Serialize};

/// Longest path in bytes.
pub const PATH_BYTES_MAX: usize = 4096;
/// Symbolic links that one resolution follows.
pub const SYMLINKS_MAX: usize = 40;
/// Most bytes that [`FileClient::read`] returns and [`FileClient::write`] takes.
pub const INLINE_BYTES_MAX: u32 = 16 * 1024;
/// Largest buffer that can be registered with an open file.
pub const BUFFER_BYTES_MAX: u64 = 16 << 20;

/// Bytes that travel as one piece: paths, names, contents.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Default)]
pub struct Bytes(pub Vec<u8>);

impl Bytes {
    /// As text, damaged characters replaced.
    pub fn to_text(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }
}

impl<T: AsRef<[u8]> + ?Sized> From<&T> for Bytes {
    fn from(bytes: &T) -> Self {
        Self(bytes.as_ref().to_vec())
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl core::ops::Deref for Bytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl Serialize for Bytes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Bytes;
            fn expecting(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes(bytes.to_vec()))
            }
            fn visit_byte_buf<E: serde::de::Error>(self, bytes: Vec<u8>) -> Result<Bytes, E> {
                Ok(Bytes(bytes))
            }
        }
        deserializer.deserialize_bytes(Visitor)
    }
}

/// [`Bytes`] that the sender only lends.
#[derive(Clone, Copy, Debug)]
pub struct BytesRef<'a>(pub &'a [u8]);

impl Serialize for BytesRef<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

impl ipc::Encodes<Bytes> for BytesRef<'_> {}

/// How a file is opened: a set of bits. Unknown bits are refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default, Serialize, Deserialize)]
pub struct OpenFlags(pub u32);

impl OpenFlags {
    /// Reading (also listing a directory).
    pub const READ: Self = Self(1);
    /// Writing.
    pub const WRITE: Self = Self(2);
    /// Made if it is not there.
    pub const CREATE: Self = Self(4);
    /// With [`Self::CREATE`]: refused if it is there.
    pub const EXCLUSIVE: Self = Self(8);
    /// Cut to length 0.
    pub const TRUNCATE: Self = Self(16);
    /// Every write goes to the end.
    pub const APPEND: Self = Self(32);
    /// Refused if it is not a directory.
    pub const DIRECTORY: Self = Self(64);
    /// A symbolic link in the last place is opened itself.
    pub const NO_FOLLOW: Self = Self(128);
    /// Every bit that is defined.
    pub const ALL: Self = Self(255);

    /// Whether all of `bits` are set.
    pub const fn contains(self, bits: Self) -> bool {
        self.0 & bits.0 == bits.0
    }
    /// Whether the open may change something.
    pub const fn modifies(self) -> bool {
        self.0 & (Self::WRITE.0 | Self::CREATE.0 | Self::TRUNCATE.0 | Self::APPEND.0) != 0
    }
}

impl core::ops::BitOr for OpenFlags {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Whether a symbolic link in the last place of a path is followed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum LastLink {
    /// As `stat` does.
    Follow,
    /// As `lstat` does.
    Keep,
}

/// What an object is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Serialize, Deserialize)]
pub enum FileKind {
    /// Ordinary file.
    File,
    /// Directory.
    Directory,
    /// Symbolic link.
    Symlink,
    /// Character device.
    CharacterDevice,
    /// Block device.
    BlockDevice,
    /// Named pipe.
    Fifo,
    /// Socket.
    Socket,
    /// Not recorded in the directory; `stat` knows.
    Unknown,
}

/// A point in time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
pub struct Time {
    /// Seconds since 1970-01-01 00:00 UTC.
    pub seconds: i64,
    /// Nanoseconds, below 1 000 000 000.
    pub nanoseconds: u32,
}

/// What `stat` says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FileInfo {
    /// Number of the mount: differs between mounted volumes.
    pub volume: u32,
    /// Inode number; unique in its volume.
    pub node: u64,
    /// What it is.
    pub kind: FileKind,
    /// Permission bits, 0o7777 at most.
    pub permissions: u16,
    /// Number of names.
    pub links: u32,
    /// Owner.
    pub user: u32,
    /// Group.
    pub group: u32,
    /// Length in bytes.
    pub size_bytes: u64,
    /// Space taken on the volume, in bytes.
    pub allocated_bytes: u64,
    /// Preferred transfer size in bytes.
    pub block_bytes: u32,
    /// Major and minor number of a device node.
    pub device: Option<(u32, u32)>,
    /// Last read.
    pub accessed: Time,
    /// Last change of contents.
    pub modified: Time,
    /// Last change of attributes.
    pub changed: Time,
    /// Creation, where it is recorded.
    pub created: Option<Time>,
}

/// An entry of a directory. `.` and `..` are not listed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DirectoryEntry {
    /// Its name.
    pub name: Bytes,
    /// Inode number.
    pub node: u64,
    /// Its kind, if the directory records it.
    pub kind: FileKind,
}

/// A mounted volume, as `mount` lists it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MountInfo {
    /// Where it comes from: `disk:/NAME`, or `boot`.
    pub source: String,
    /// Absolute path.
    pub target: Bytes,
    /// Number of the mount, as in [`FileInfo::volume`].
    pub volume: u32,
    /// What it holds.
    pub info: VolumeInfo,
}

/// What `statfs` says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct VolumeInfo {
    /// Format: "ext4", "vfat", "bootfs".
    pub format: String,
    /// Label; may be empty.
    pub label: Bytes,
    /// Whether it can be written.
    pub access: Access,
    /// Size of an allocation unit in bytes.
    pub block_bytes: u32,
    /// Allocation units for files.
    pub blocks: u64,
    /// Free ones.
    pub free_blocks: u64,
    /// Free ones that an ordinary user may take.
    pub available_blocks: u64,
    /// Inodes; 0 if the format has none.
    pub nodes: u64,
    /// Free inodes.
    pub free_nodes: u64,
    /// Longest name in bytes.
    pub name_bytes_max: u32,
}

/// What can be done with a volume.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Access {
    /// Reading.
    ReadOnly,
    /// Reading and writing.
    ReadWrite,
}

/// Why a request was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum FsError {
    /// ENOENT.
    NotFound,
    /// ENOTDIR.
    NotADirectory,
    /// EISDIR.
    IsADirectory,
    /// EINVAL of `readlink`.
    NotASymlink,
    /// ELOOP: more than [`SYMLINKS_MAX`] links.
    TooManyLinks,
    /// ENAMETOOLONG.
    NameTooLong,
    /// EROFS.
    ReadOnlyFileSystem,
    /// EEXIST.
    AlreadyExists,
    /// ENOTEMPTY.
    NotEmpty,
    /// EACCES: the file was not opened for this.
    PermissionDenied,
    /// EINVAL.
    InvalidArgument,
    /// ENOTSUP: the format or a feature of it is not read.
    NotSupported,
    /// EIO: the device did not deliver, or the volume is damaged; the log says where.
    Io,
    /// ENOMEM, or a limit of the service.
    NoMemory,
    /// EBUSY: something is mounted below, or files are open.
    Busy,
    /// EXDEV.
    CrossesVolumes,
    /// ENOSPC.
    NoSpace,
    /// ENODEV: no such disk.
    NoDevice,
    /// The disk holds no file system that is known.
    UnknownFormat,
    /// The file-system service is gone, or did not answer in time.
    Gone,
}

impl FsError {
    /// The text that Unix tools print.
    pub const fn text(self) -> &'static str {
        match self {
            Self::NotFound => "No such file or directory",
            Self::NotADirectory => "Not a directory",
            Self::IsADirectory => "Is a directory",
            Self::NotASymlink | Self::InvalidArgument => "Invalid argument",
            Self::TooManyLinks => "Too many levels of symbolic links",
            Self::NameTooLong => "File name too long",
            Self::ReadOnlyFileSystem => "Read-only file system",
            Self::AlreadyExists => "File exists",
            Self::NotEmpty => "Directory not empty",
            Self::PermissionDenied => "Permission denied",
            Self::NotSupported => "Operation not supported",
            Self::Io => "Input/output error",
            Self::NoMemory => "Cannot allocate memory",
            Self::Busy => "Device or resource busy",
            Self::CrossesVolumes => "Invalid cross-device link",
            Self::NoSpace => "No space left on device",
            Self::NoDevice => "No such device",
            Self::UnknownFormat => "unknown file system",
            Self::Gone => "file system service is gone",
        }
    }
}

impl core::fmt::Display for FsError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.text())
    }
}

impl core::error::Error for FsError {}

/// Why a volume did not come to the end of a path, or could not do what was asked there.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum WalkStop {
    /// A symbolic link that has to be followed.
    Symlink {
        /// Components before it, all of them directories.
        component: u32,
        /// What it points to.
        target: Bytes,
    },
    /// It failed.
    Failed(FsError),
}

/// Why a volume could not be mounted.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MountError {
    /// The kind of failure.
    pub error: FsError,
    /// What was wrong and where.
    pub reason: String,
}

impl core::fmt::Display for MountError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(&self.reason)
    }
}

ipc::protocol! {
    /// Names of files over all mounts (scheme `file:`). Only calls go over the channel, so clients
    /// may share it.
    pub protocol Files("files", version = 1, error = FsError) {
        /// Opens a file, or a directory for listing.
        1 = open(path: Bytes, flags: OpenFlags) -> (info: FileInfo; file: FileClient);
        /// What is known of an object.
        2 = stat(path: Bytes, last: LastLink) -> (info: FileInfo);
        /// Target of a symbolic link.
        3 = read_link(path: Bytes) -> (target: Bytes);
        /// The path without links, `.` and `..`; all of it must exist.
        4 = canonicalize(path: Bytes) -> (path: Bytes);
        /// Mounts `source` (`disk:/NAME`) on the directory `target`. An empty `format` means that it
        /// is found by its signature. `options` are words between commas; `ro` is known.
        5 = mount(source: String, target: Bytes, format: String, options: String)
            -> (outcome: Result<(), MountError>);
        /// Takes the volume off that is mounted at `target`. With open files it is busy, unless its disk is gone: these
        /// files are lost then.
        6 = unmount(target: Bytes) -> (lost: u32);
        /// Everything that is mounted, in order of mounting.
        7 = mounts() -> (mounts: Vec<MountInfo>);
        /// The volume that holds an object.
        8 = statfs(path: Bytes) -> (info: MountInfo);
        /// Makes a directory.
        9 = make_directory(path: Bytes, permissions: u16) -> ();
        /// Removes a name that is not a directory's.
        10 = unlink(path: Bytes) -> ();
        /// Removes an empty directory.
        11 = remove_directory(path: Bytes) -> ();
        /// Gives an object another name on the same volume.
        12 = rename(from: Bytes, to: Bytes) -> ();
        /// Makes a symbolic link at `path` that points to `target`.
        13 = symlink(target: Bytes, path: Bytes) -> ();
        /// Everything written so far is durable afterwards.
        14 = sync() -> ();
        /// Waits until the volumes that are there at boot are mounted.
        15 = wait_mounted() -> ();
    }
}

ipc::protocol! {
    /// An open file or directory. Closing the channel closes it.
    pub protocol File("file", version = 1, error = FsError) {
        /// Up to `len` bytes (at most [`INLINE_BYTES_MAX`]) from `offset` on; fewer only at the end.
        1 = read(offset: u64, len: u32) -> (data: Bytes);
        /// What is known of it now.
        2 = stat() -> (info: FileInfo);
        /// Entries from `position` on (0 is the start), as many as fit a message; `next` is where to
        /// go on, and nothing at the end.
        3 = read_directory(position: u64) -> (entries: Vec<DirectoryEntry>, next: Option<u64>);
        /// Registers the memory that [`FileClient::read_buffer`] fills, in place of an earlier one.
        /// The VMO handle needs READ, WRITE and MAP; `length` is at most [`BUFFER_BYTES_MAX`].
        4 = register_buffer(length: u64; buffer: Vmo) -> ();
        /// Reads up to `len` bytes at `offset` to byte `at` of the registered buffer; fewer only at
        /// the end of the file.
        5 = read_buffer(offset: u64, len: u64, at: u64) -> (len: u64);
        /// The whole file as read-only memory, for running and mapping. The rest of the last page
        /// is zero.
        6 = vmo() -> (size_bytes: u64; vmo: Vmo);
        /// Writes `data` (at most [`INLINE_BYTES_MAX`]) at `offset`.
        7 = write(offset: u64, data: Bytes) -> (len: u32);
        /// Writes `len` bytes of the registered buffer from byte `at` on to `offset`.
        8 = write_buffer(offset: u64, len: u64, at: u64) -> (len: u64);
        /// Sets the length.
        9 = truncate(size_bytes: u64) -> ();
        /// What was written to this file is durable afterwards.
        10 = sync() -> ();
    }
}

ipc::protocol! {
    /// A volume: what the VFS asks of a file-system service.
    pub protocol Volume("volume", version = 1, error = WalkStop) {
        /// Waits until the volume is mounted, and describes it; one that is mounted already stays so. `volume` is
        /// the number that its [`FileInfo`]s carry from now on.
        1 = mount(volume: u32) -> (outcome: Result<VolumeInfo, MountError>);
        /// Opens an object. With a link in the way the walk stops there.
        2 = open(path: Bytes, flags: OpenFlags) -> (info: FileInfo; file: FileClient);
        /// What is known of an object.
        3 = stat(path: Bytes, last: LastLink) -> (info: FileInfo);
        /// Target of a symbolic link.
        4 = read_link(path: Bytes) -> (target: Bytes);
        /// The volume as it is now.
        5 = info() -> (info: VolumeInfo);
        /// Makes a directory.
        6 = make_directory(path: Bytes, permissions: u16) -> ();
        /// Removes a name that is not a directory's.
        7 = unlink(path: Bytes) -> ();
        /// Removes an empty directory.
        8 = remove_directory(path: Bytes) -> ();
        /// Gives an object another name. Links in `to` are not followed.
        9 = rename(from: Bytes, to: Bytes) -> ();
        /// Makes a symbolic link.
        10 = symlink(target: Bytes, path: Bytes) -> ();
        /// Everything written so far is durable afterwards.
        11 = sync() -> ();
        /// How many files are open: a volume in use is not unmounted.
        12 = open_files() -> (count: u32);
    }
}
