//! Errors of file systems: what was wrong, where, what was expected and seen.

use crate::BlockError;

/// A structure on the disk that cannot be right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Corruption {
    /// The kind of structure: "inode", "directory block", "FAT entry".
    pub structure: &'static str,
    /// Which one: inode number, block number, cluster, or byte offset.
    pub number: u64,
    /// What is wrong with it, with the place inside it if that helps.
    pub problem: &'static str,
    /// The value, or the limit, that would have been right.
    pub expected: u64,
    /// The value that was there.
    pub seen: u64,
}

impl core::fmt::Display for Corruption {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self {
            structure,
            number,
            problem,
            expected,
            seen,
        } = self;
        write!(
            f,
            "{structure} {number}: {problem} (expected {expected:#x}, seen {seen:#x})"
        )
    }
}

/// Why a file system could not do what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FsError {
    /// No entry of that name.
    NotFound,
    /// A directory was needed.
    NotADirectory,
    /// A directory cannot be read like a file.
    IsADirectory,
    /// Not a symbolic link.
    NotASymlink,
    /// A name longer than the format allows.
    NameTooLong,
    /// The volume cannot be written.
    ReadOnly,
    /// The volume does not hold this kind of file system.
    NotThisFormat {
        /// The format that was looked for.
        format: &'static str,
        /// The signature that it has.
        expected: u64,
        /// What stood there.
        seen: u64,
    },
    /// A feature of the format that this code does not read.
    Unsupported {
        /// The feature.
        what: &'static str,
        /// Its number, version or flag bits.
        seen: u64,
    },
    /// The device did not deliver.
    Device {
        /// Byte offset of the page that could not be read.
        offset: u64,
        /// The device's reason.
        error: BlockError,
    },
    /// Something points outside the volume.
    OutsideVolume {
        /// First byte asked for.
        offset: u64,
        /// How many bytes.
        len_bytes: u64,
        /// Size of the volume.
        volume_bytes: u64,
    },
    /// The disk's contents are wrong.
    Corrupt(Corruption),
}

impl FsError {
    /// A [`FsError::Corrupt`].
    pub const fn corrupt(
        structure: &'static str,
        number: u64,
        problem: &'static str,
        expected: u64,
        seen: u64,
    ) -> Self {
        Self::Corrupt(Corruption {
            structure,
            number,
            problem,
            expected,
            seen,
        })
    }
}

impl core::fmt::Display for FsError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::NotFound => f.write_str("no such file or directory"),
            Self::NotADirectory => f.write_str("not a directory"),
            Self::IsADirectory => f.write_str("is a directory"),
            Self::NotASymlink => f.write_str("not a symbolic link"),
            Self::NameTooLong => f.write_str("name too long"),
            Self::ReadOnly => f.write_str("read-only file system"),
            Self::NotThisFormat {
                format,
                expected,
                seen,
            } => {
                write!(
                    f,
                    "not {format}: signature {seen:#x} instead of {expected:#x}"
                )
            }
            Self::Unsupported { what, seen } => write!(f, "unsupported: {what} ({seen:#x})"),
            Self::Device { offset, error } => write!(f, "at byte {offset}: {error}"),
            Self::OutsideVolume {
                offset,
                len_bytes,
                volume_bytes,
            } => write!(
                f,
                "bytes {offset}..+{len_bytes} lie outside the volume of {volume_bytes} bytes"
            ),
            Self::Corrupt(corruption) => corruption.fmt(f),
        }
    }
}

impl core::error::Error for FsError {}
