//! Files and directories by path.

use alloc::string::String;
use alloc::vec::Vec;

use crate::backend;
use crate::errno::Result;

pub use backend::File;

/// Kind of a file, as in the upper bits of `st_mode`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// S_IFREG.
    Regular,
    /// S_IFDIR.
    Directory,
    /// S_IFLNK.
    Symlink,
    /// S_IFCHR.
    CharDevice,
    /// S_IFBLK.
    BlockDevice,
    /// S_IFIFO.
    Fifo,
    /// S_IFSOCK.
    Socket,
}

impl Kind {
    /// The value of `S_IFMT` bits.
    pub const fn mode_bits(self) -> u32 {
        match self {
            Kind::Regular => 0o100_000,
            Kind::Directory => 0o040_000,
            Kind::Symlink => 0o120_000,
            Kind::CharDevice => 0o020_000,
            Kind::BlockDevice => 0o060_000,
            Kind::Fifo => 0o010_000,
            Kind::Socket => 0o140_000,
        }
    }

    /// From a whole mode; an unknown type counts as a regular file.
    pub const fn from_mode(mode: u32) -> Kind {
        match mode & 0o170_000 {
            0o040_000 => Kind::Directory,
            0o120_000 => Kind::Symlink,
            0o020_000 => Kind::CharDevice,
            0o060_000 => Kind::BlockDevice,
            0o010_000 => Kind::Fifo,
            0o140_000 => Kind::Socket,
            _ => Kind::Regular,
        }
    }
}

/// What `stat` tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Metadata {
    /// Identifies the mounted volume.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// Type and permission bits.
    pub mode: u32,
    /// Hard links.
    pub links: u64,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes.
    pub size: u64,
    /// Allocated units of 512 bytes.
    pub blocks: u64,
    /// Preferred size of a transfer, bytes.
    pub block_size: u32,
    /// Major and minor number of a device file.
    pub device_numbers: (u32, u32),
    /// Last access: seconds since 1970 and nanoseconds.
    pub accessed: (i64, u32),
    /// Last change of the contents.
    pub modified: (i64, u32),
    /// Last change of the inode.
    pub changed: (i64, u32),
    /// Creation, where the file system has it.
    pub created: Option<(i64, u32)>,
}

impl Metadata {
    /// Kind of the file.
    pub const fn kind(&self) -> Kind {
        Kind::from_mode(self.mode)
    }
    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind() == Kind::Directory
    }
    /// Whether it is a regular file.
    pub fn is_file(&self) -> bool {
        self.kind() == Kind::Regular
    }
    /// Whether it is a symbolic link.
    pub fn is_symlink(&self) -> bool {
        self.kind() == Kind::Symlink
    }

    /// The ten characters of `ls -l`, for instance `drwxr-xr-x`.
    pub fn mode_text(&self) -> String {
        let mut text = String::with_capacity(10);
        text.push(match self.kind() {
            Kind::Regular => '-',
            Kind::Directory => 'd',
            Kind::Symlink => 'l',
            Kind::CharDevice => 'c',
            Kind::BlockDevice => 'b',
            Kind::Fifo => 'p',
            Kind::Socket => 's',
        });
        let bit = |mask: u32| self.mode & mask != 0;
        for (shift, special, set, unset) in [
            (6, 0o4000, 's', 'S'),
            (3, 0o2000, 's', 'S'),
            (0, 0o1000, 't', 'T'),
        ] {
            text.push(if bit(4 << shift) { 'r' } else { '-' });
            text.push(if bit(2 << shift) { 'w' } else { '-' });
            text.push(match (bit(special), bit(1 << shift)) {
                (true, true) => set,
                (true, false) => unset,
                (false, true) => 'x',
                (false, false) => '-',
            });
        }
        text
    }

    /// As `stat` names it: `regular file`, `directory` and so on.
    pub fn kind_text(&self) -> &'static str {
        match self.kind() {
            Kind::Regular if self.size == 0 => "regular empty file",
            Kind::Regular => "regular file",
            Kind::Directory => "directory",
            Kind::Symlink => "symbolic link",
            Kind::CharDevice => "character special file",
            Kind::BlockDevice => "block special file",
            Kind::Fifo => "fifo",
            Kind::Socket => "socket",
        }
    }
}

/// An entry of a directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DirEntry {
    /// Its name.
    pub name: String,
    /// Its inode number.
    pub inode: u64,
    /// Its kind.
    pub kind: Kind,
}

/// What `statfs` tells of a volume.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct VolumeInfo {
    /// Bytes per block.
    pub block_size: u64,
    /// Blocks in all.
    pub blocks: u64,
    /// Free blocks.
    pub free: u64,
    /// Free blocks that an ordinary user may use.
    pub available: u64,
    /// Inodes in all; 0 where there is no such number.
    pub inodes: u64,
    /// Free inodes.
    pub free_inodes: u64,
}

/// A mounted volume.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mount {
    /// What is mounted, for instance `disk:/virtio0p1`.
    pub source: String,
    /// Where.
    pub target: String,
    /// Type, for instance `ext4`.
    pub kind: String,
    /// Options separated by commas.
    pub options: String,
}

/// Metadata of what the path leads to.
pub fn stat(path: &str) -> Result<Metadata> {
    backend::stat(path)
}

/// Metadata of the file itself, also if it is a symbolic link.
pub fn lstat(path: &str) -> Result<Metadata> {
    backend::lstat(path)
}

/// Target of a symbolic link.
pub fn read_link(path: &str) -> Result<String> {
    backend::read_link(path)
}

/// Entries of a directory in the file system's order, without `.` and `..`.
pub fn read_dir(path: &str) -> Result<Vec<DirEntry>> {
    backend::read_dir(path)
}

/// Numbers of the volume that holds the path.
pub fn volume_info(path: &str) -> Result<VolumeInfo> {
    backend::volume_info(path)
}

/// Every mounted volume, in the order of mounting.
pub fn mounts() -> Result<Vec<Mount>> {
    backend::mounts()
}

/// Mounts a volume; an empty `kind` means: find out. The error is a text that names what is wrong.
pub fn mount(
    source: &str,
    target: &str,
    kind: &str,
    options: &str,
) -> core::result::Result<(), String> {
    backend::mount(source, target, kind, options)
}

/// Unmounts what is mounted at `target`; gives the number of open files that were lost with a disk that is gone.
pub fn unmount(target: &str) -> Result<u32> {
    backend::unmount(target)
}

/// Waits until the volumes that are there at boot are mounted.
pub fn wait_ready() -> Result<()> {
    backend::wait_ready()
}

/// The current directory of this process.
pub fn current_dir() -> String {
    backend::current_dir()
}

/// Makes a directory.
pub fn make_dir(path: &str, mode: u32) -> Result<()> {
    backend::make_dir(path, mode)
}

/// Removes a file that is not a directory.
pub fn remove_file(path: &str) -> Result<()> {
    backend::remove_file(path)
}

/// Removes an empty directory.
pub fn remove_dir(path: &str) -> Result<()> {
    backend::remove_dir(path)
}

/// Gives a file another name on the same volume.
pub fn rename(from: &str, to: &str) -> Result<()> {
    backend::rename(from, to)
}

/// Makes a symbolic link at `path` that leads to `target`.
pub fn symlink(target: &str, path: &str) -> Result<()> {
    backend::symlink(target, path)
}

/// Makes everything written so far durable.
pub fn sync() -> Result<()> {
    backend::sync()
}

/// Contents of a file.
pub fn read(path: &str) -> Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let mut all = Vec::new();
    let mut chunk = alloc::vec![0u8; 32 * 1024];
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(all),
            n => all.extend_from_slice(chunk.get(..n).unwrap_or_default()),
        }
    }
}
