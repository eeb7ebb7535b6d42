//! The file-system interface over the parts.

use alloc::vec::Vec;
use core::{cell::RefCell, ops::ControlFlow};

use volume::{
    Attributes, DirectoryEntry, Extent, FileKind, FileSystem, FsError, NodeId, Place, Volume,
    VolumeStatistics,
};

use crate::{
    blockmap::{BlockMap, BlockRun},
    directory::{self, Stretch},
    extents, indirect,
    inode::{Inode, Mapping, ROOT},
    superblock::{Geometry, Warnings},
};

/// Longest name in a directory, in bytes.
const NAME_BYTES_MAX: u32 = 255;
/// Longest target of a symbolic link, in bytes.
const TARGET_BYTES_MAX: u64 = 4095;

/// A mounted ext2, ext3 or ext4 volume.
pub struct Ext<V> {
    volume: V,
    geometry: Geometry,
}

/// An open file or directory.
pub struct File {
    inode: Inode,
    map: RefCell<BlockMap>,
}

impl<V: Volume> Ext<V> {
    /// Reads the superblock and the group descriptors, and the root directory's
    /// inode.
    ///
    /// # Errors
    /// [`FsError::NotThisFormat`] without the signature; else what is wrong.
    pub async fn mount(volume: V) -> Result<Self, FsError> {
        let geometry = Geometry::read(&volume).await?;
        let ext = Self { volume, geometry };
        let root = ext.open(ROOT.into()).await?;
        if root.inode.attributes.kind != FileKind::Directory {
            let problem = "the root is not a directory";
            let mode = root.inode.attributes.permissions;
            return Err(FsError::corrupt(
                "inode",
                ROOT.into(),
                problem,
                0o40000,
                mode.into(),
            ));
        }
        Ok(ext)
    }

    /// What the operator should know about the state of the volume.
    pub fn warnings(&self) -> Warnings {
        self.geometry.warnings
    }

    async fn run(&self, file: &File, logical: u64) -> Result<BlockRun, FsError> {
        if let Some(run) = file.map.borrow().get(logical) {
            return Ok(run);
        }
        let (volume, geometry, inode) = (&self.volume, &self.geometry, &file.inode);
        match inode.mapping {
            Mapping::Extents => {
                extents::resolve(volume, geometry, inode, &file.map, logical).await?;
            }
            _ => indirect::resolve(volume, geometry, inode, &file.map, logical).await?,
        }
        file.map.borrow().get(logical).ok_or_else(|| {
            let number = inode.number.into();
            FsError::corrupt(
                "inode",
                number,
                "no mapping for a file block",
                logical,
                logical,
            )
        })
    }
}

impl<V: Volume> FileSystem for Ext<V> {
    type File = File;

    fn root(&self) -> NodeId {
        ROOT.into()
    }

    async fn open(&self, node: NodeId) -> Result<File, FsError> {
        let number = u32::try_from(node).map_err(|_| {
            let limit = self.geometry.inodes.into();
            FsError::corrupt("inode", node, "number out of range", limit, node)
        })?;
        let inode = Inode::read(&self.volume, &self.geometry, number).await?;
        Ok(File {
            inode,
            map: RefCell::default(),
        })
    }

    fn attributes(&self, file: &File) -> Attributes {
        file.inode.attributes
    }

    async fn extent(&self, file: &File, offset: u64) -> Result<Extent, FsError> {
        if file.inode.mapping == Mapping::Inline {
            let len_bytes = offset.saturating_add(1).max(file.inode.inline.len() as u64);
            return Ok(Extent {
                file_offset: 0,
                len_bytes,
                place: Place::Inline,
            });
        }
        let block_bytes = u64::from(self.geometry.block_bytes);
        let run = self.run(file, offset / block_bytes).await?;
        Ok(Extent {
            file_offset: run.logical.saturating_mul(block_bytes),
            len_bytes: run.len.saturating_mul(block_bytes),
            place: match run.physical {
                Some(start) => Place::Volume(self.geometry.offset_of(start)),
                None => Place::Hole,
            },
        })
    }

    fn inline_data<'a>(&self, file: &'a File) -> &'a [u8] {
        &file.inode.inline
    }

    async fn read_link(&self, file: &File) -> Result<Vec<u8>, FsError> {
        let attributes = &file.inode.attributes;
        if attributes.kind != FileKind::Symlink {
            return Err(FsError::NotASymlink);
        }
        let number = file.inode.number.into();
        let size = attributes.size_bytes;
        let limit = TARGET_BYTES_MAX.min(u64::from(self.geometry.block_bytes) - 1);
        if size == 0 || size > limit {
            let problem = "length of a symbolic link";
            return Err(FsError::corrupt("inode", number, problem, limit, size));
        }
        if file.inode.mapping == Mapping::Inline {
            let target = file.inode.inline.get(..size as usize);
            return Ok(target.unwrap_or(&file.inode.inline).to_vec());
        }
        let run = self.run(file, 0).await?;
        let Some(start) = run.physical else {
            let problem = "a symbolic link without a block";
            return Err(FsError::corrupt("inode", number, problem, 1, 0));
        };
        let mut target = alloc::vec![0; size as usize];
        self.volume
            .read_at(self.geometry.offset_of(start), &mut target)
            .await?;
        Ok(target)
    }

    async fn read_directory(
        &self,
        directory: &File,
        position: u64,
        sink: &mut dyn FnMut(DirectoryEntry<'_>) -> ControlFlow<()>,
    ) -> Result<Option<u64>, FsError> {
        let inode = &directory.inode;
        if inode.attributes.kind != FileKind::Directory {
            return Err(FsError::NotADirectory);
        }
        let size = inode.attributes.size_bytes;
        if inode.mapping == Mapping::Inline {
            return self.read_inline_directory(inode, position, sink);
        }
        let block_bytes = u64::from(self.geometry.block_bytes);
        let mut block = alloc::vec![0; self.geometry.block_bytes as usize];
        let mut at = position / block_bytes;
        while at.saturating_mul(block_bytes) < size {
            let run = self.run(directory, at).await?;
            let Some(start) = run.physical else {
                let (number, problem) = (inode.number.into(), "the directory has a hole at block");
                return Err(FsError::corrupt("inode", number, problem, 0, at));
            };
            let number = start + (at - run.logical);
            self.volume
                .read_at(self.geometry.offset_of(number), &mut block)
                .await?;
            directory::check_tail(inode, number, &block)?;
            let stretch = Stretch {
                position: at * block_bytes,
                from: position,
                block: number,
            };
            if let ControlFlow::Break(position) =
                directory::scan(&self.geometry, &block, stretch, sink)?
            {
                return Ok(Some(position));
            }
            at += 1;
        }
        Ok(None)
    }

    fn statistics(&self) -> VolumeStatistics {
        let geometry = &self.geometry;
        VolumeStatistics {
            format: geometry.format,
            label: geometry.label.clone(),
            block_bytes: geometry.block_bytes,
            blocks: geometry.usable_blocks(),
            free_blocks: geometry.free_blocks,
            available_blocks: geometry
                .free_blocks
                .saturating_sub(geometry.reserved_blocks),
            nodes: geometry.inodes.into(),
            free_nodes: geometry.free_inodes.into(),
            name_bytes_max: NAME_BYTES_MAX,
        }
    }
}

impl<V: Volume> Ext<V> {
    /// Entries in the inode ("Inline Directories"): the parent's number, then
    /// entries up to byte 60, then those in the attribute.
    fn read_inline_directory(
        &self,
        inode: &Inode,
        position: u64,
        sink: &mut dyn FnMut(DirectoryEntry<'_>) -> ControlFlow<()>,
    ) -> Result<Option<u64>, FsError> {
        let data = &inode.inline;
        for (start, end) in [(4, 60), (60, data.len())] {
            let stretch = Stretch {
                position: start as u64,
                from: position,
                block: inode.number.into(),
            };
            let bytes = data.get(start..end).unwrap_or_default();
            if let ControlFlow::Break(position) =
                directory::scan(&self.geometry, bytes, stretch, sink)?
            {
                return Ok(Some(position));
            }
        }
        Ok(None)
    }
}
