//! From the formats' words to the protocol's.

use alloc::string::String;

use proto::fs;
use volume::{Attributes, FileKind, FsError, Timestamp, VolumeStatistics};

pub(crate) fn kind(kind: FileKind) -> fs::FileKind {
    match kind {
        FileKind::File => fs::FileKind::File,
        FileKind::Directory => fs::FileKind::Directory,
        FileKind::Symlink => fs::FileKind::Symlink,
        FileKind::CharacterDevice => fs::FileKind::CharacterDevice,
        FileKind::BlockDevice => fs::FileKind::BlockDevice,
        FileKind::Fifo => fs::FileKind::Fifo,
        FileKind::Socket => fs::FileKind::Socket,
        FileKind::Unknown => fs::FileKind::Unknown,
    }
}

fn time(time: Timestamp) -> fs::Time {
    fs::Time {
        seconds: time.seconds,
        nanoseconds: time.nanoseconds,
    }
}

pub(crate) fn info(attributes: &Attributes, volume: u32) -> fs::FileInfo {
    fs::FileInfo {
        volume,
        node: attributes.node,
        kind: kind(attributes.kind),
        permissions: attributes.permissions,
        links: attributes.links,
        user: attributes.user,
        group: attributes.group,
        size_bytes: attributes.size_bytes,
        allocated_bytes: attributes.allocated_bytes,
        block_bytes: attributes.block_bytes,
        device: attributes.device,
        accessed: time(attributes.accessed),
        modified: time(attributes.modified),
        changed: time(attributes.changed),
        created: attributes.created.map(time),
    }
}

pub(crate) fn statistics(statistics: VolumeStatistics) -> fs::VolumeInfo {
    fs::VolumeInfo {
        format: String::from(statistics.format),
        label: statistics.label.into(),
        access: fs::Access::ReadOnly,
        block_bytes: statistics.block_bytes,
        blocks: statistics.blocks,
        free_blocks: statistics.free_blocks,
        available_blocks: statistics.available_blocks,
        nodes: statistics.nodes,
        free_nodes: statistics.free_nodes,
        name_bytes_max: statistics.name_bytes_max,
    }
}

/// The client's error. What only the log can hold is said there by the caller.
pub(crate) fn error(error: &FsError) -> fs::FsError {
    match error {
        FsError::NotFound => fs::FsError::NotFound,
        FsError::NotADirectory => fs::FsError::NotADirectory,
        FsError::IsADirectory => fs::FsError::IsADirectory,
        FsError::NotASymlink => fs::FsError::NotASymlink,
        FsError::NameTooLong => fs::FsError::NameTooLong,
        FsError::ReadOnly => fs::FsError::ReadOnlyFileSystem,
        FsError::NotThisFormat { .. } => fs::FsError::UnknownFormat,
        FsError::Unsupported { .. } => fs::FsError::NotSupported,
        FsError::Device { .. } | FsError::OutsideVolume { .. } | FsError::Corrupt(_) => {
            fs::FsError::Io
        }
    }
}

/// Whether the operator should hear of it.
pub(crate) fn is_damage(error: &FsError) -> bool {
    matches!(
        error,
        FsError::Device { .. }
            | FsError::OutsideVolume { .. }
            | FsError::Corrupt(_)
            | FsError::Unsupported { .. }
    )
}
