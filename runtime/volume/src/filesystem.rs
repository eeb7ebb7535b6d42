//! The interface of a file-system format: what `ext` and `fat` implement.
//!
//! It names objects by number, not by path, and says where the bytes of a file
//! lie; it does not move file data. Formats do metadata only; [`crate::reader`]
//! does the rest.

use alloc::vec::Vec;
use core::ops::ControlFlow;

use crate::FsError;

/// Number of an object inside its volume: the inode number, or what the format
/// has in its stead. Stable while the volume is mounted.
pub type NodeId = u64;

/// What an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    /// The format does not say (or says something unknown).
    Unknown,
}

/// A point in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timestamp {
    /// Seconds since 1970-01-01 00:00 UTC.
    pub seconds: i64,
    /// Nanoseconds, below 1 000 000 000.
    pub nanoseconds: u32,
}

/// What `stat` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    /// The object's number.
    pub node: NodeId,
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
    /// Space that it takes on the volume, in bytes.
    pub allocated_bytes: u64,
    /// Preferred transfer size in bytes.
    pub block_bytes: u32,
    /// Major and minor number of a device node.
    pub device: Option<(u32, u32)>,
    /// Last read.
    pub accessed: Timestamp,
    /// Last change of contents.
    pub modified: Timestamp,
    /// Last change of attributes.
    pub changed: Timestamp,
    /// Creation, where the format records it.
    pub created: Option<Timestamp>,
}

/// One name in a directory. `.` and `..` are never reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirectoryEntry<'a> {
    /// The name, in the bytes of the volume (FAT: UTF-8).
    pub name: &'a [u8],
    /// What it names.
    pub node: NodeId,
    /// Its kind as the directory records it; may be [`FileKind::Unknown`].
    pub kind: FileKind,
    /// Position of the entry after this one, to resume from.
    pub next: u64,
}

/// Where a stretch of a file lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// On the volume, from this byte on.
    Volume(u64),
    /// Nowhere: it reads as zeroes.
    Hole,
    /// Inside the file's metadata: see [`FileSystem::inline_data`].
    Inline,
}

/// A stretch of a file that lies in one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// First byte, from the start of the file.
    pub file_offset: u64,
    /// Length in bytes, never 0. May reach beyond the end of the file.
    pub len_bytes: u64,
    /// Where its first byte lies.
    pub place: Place,
}

/// What `statfs` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeStatistics {
    /// Format: "ext4", "fat32".
    pub format: &'static str,
    /// Label, empty if there is none.
    pub label: Vec<u8>,
    /// Size of an allocation unit in bytes.
    pub block_bytes: u32,
    /// Allocation units that files can use or do use.
    pub blocks: u64,
    /// Free ones, as far as the volume says.
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

/// A mounted volume of some format.
#[expect(
    async_fn_in_trait,
    reason = "services are single-threaded; no Send bound is wanted"
)]
pub trait FileSystem {
    /// An open object: its metadata, and what was learnt about where it lies.
    type File;

    /// Number of the root directory.
    fn root(&self) -> NodeId;

    /// Reads an object's metadata.
    ///
    /// # Errors
    /// [`FsError::Corrupt`] when the number or the metadata cannot be right.
    async fn open(&self, node: NodeId) -> Result<Self::File, FsError>;

    /// What `stat` says of it.
    fn attributes(&self, file: &Self::File) -> Attributes;

    /// The stretch that holds byte `offset` of the file.
    ///
    /// # Errors
    /// [`FsError::Corrupt`] when the mapping cannot be right.
    async fn extent(&self, file: &Self::File, offset: u64) -> Result<Extent, FsError>;

    /// Contents that lie in the metadata ([`Place::Inline`]).
    fn inline_data<'a>(&self, file: &'a Self::File) -> &'a [u8];

    /// Target of a symbolic link.
    ///
    /// # Errors
    /// [`FsError::NotASymlink`], or corruption.
    async fn read_link(&self, file: &Self::File) -> Result<Vec<u8>, FsError>;

    /// Hands the entries of a directory to `sink`, from `position` on (0 is the
    /// start). When `sink` breaks, that entry is not consumed, and its position
    /// is returned; `None` means that all were handed over.
    ///
    /// # Errors
    /// [`FsError::NotADirectory`], or corruption; entries may have been handed
    /// over before it was met.
    async fn read_directory(
        &self,
        directory: &Self::File,
        position: u64,
        sink: &mut dyn FnMut(DirectoryEntry<'_>) -> ControlFlow<()>,
    ) -> Result<Option<u64>, FsError>;

    /// The form of a name under which equal names are equal: itself, unless the
    /// format ignores case.
    fn fold_name(&self, name: &[u8]) -> Vec<u8> {
        name.to_vec()
    }

    /// What `statfs` says.
    fn statistics(&self) -> VolumeStatistics;
}
