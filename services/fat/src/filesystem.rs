//! The file-system interface over the parts.
//!
//! FAT has no inodes: an object's number is the place of its directory entry,
//! in units of 32 bytes from the start of the volume. The root is number 1,
//! where no entry can be.

use alloc::vec::Vec;
use core::ops::ControlFlow;

use volume::{
    Attributes, DirectoryEntry, Extent, FileKind, FileSystem, FsError, NodeId, Place, Timestamp,
    Volume, VolumeStatistics,
};
use zerocopy::FromBytes;

use crate::{
    bpb::{Geometry, Root, Width},
    chain::Chain,
    directory::{self, Left, Scanner, timestamp},
    layout::{ENTRY_BYTES, RawEntry},
    names, table,
};

const ROOT: NodeId = 1;
/// Longest directory: 65536 entries (FATGEN "FAT Directory Structure").
const DIRECTORY_BYTES_MAX: u64 = 65536 * ENTRY_BYTES as u64;
/// Largest table that is read to count free clusters.
const COUNTED_FAT_BYTES_MAX: u64 = 8 << 20;

/// A mounted FAT volume.
pub struct Fat<V> {
    volume: V,
    geometry: Geometry,
    free_clusters: u32,
}

/// An open file or directory.
pub struct File {
    attributes: Attributes,
    place: FilePlace,
}

enum FilePlace {
    /// A file of length 0.
    Nowhere,
    /// The root directory of FAT12 and FAT16.
    Region {
        offset: u64,
        len_bytes: u64,
    },
    Chain(Chain),
}

impl<V: Volume> Fat<V> {
    /// Reads the boot sector.
    ///
    /// # Errors
    /// [`FsError::NotThisFormat`] without the signatures; else what is wrong.
    pub async fn mount(volume: V) -> Result<Self, FsError> {
        let geometry = Geometry::read(&volume).await?;
        let free_clusters = match geometry.free_clusters {
            Some(free) => free,
            None if geometry.fat_bytes <= COUNTED_FAT_BYTES_MAX => {
                table::count_free(&volume, &geometry).await?
            }
            None => 0,
        };
        Ok(Self {
            volume,
            geometry,
            free_clusters,
        })
    }

    fn root_file(&self) -> File {
        let cluster_bytes = u64::from(self.geometry.cluster_bytes);
        let (place, size_bytes) = match self.geometry.root {
            Root::Region { offset, len_bytes } => {
                (FilePlace::Region { offset, len_bytes }, len_bytes)
            }
            Root::Cluster(first) => (FilePlace::Chain(Chain::new(first)), cluster_bytes),
        };
        let never = Timestamp::default();
        let attributes = self.new_attributes(ROOT, FileKind::Directory, size_bytes, 0, never);
        File { attributes, place }
    }

    fn new_attributes(
        &self,
        node: NodeId,
        kind: FileKind,
        size_bytes: u64,
        flags: u8,
        modified: Timestamp,
    ) -> Attributes {
        let cluster_bytes = u64::from(self.geometry.cluster_bytes);
        Attributes {
            node,
            kind,
            permissions: if flags & directory::READ_ONLY != 0 {
                0o555
            } else {
                0o755
            },
            links: 1,
            user: 0,
            group: 0,
            size_bytes,
            allocated_bytes: size_bytes.next_multiple_of(cluster_bytes),
            block_bytes: self.geometry.cluster_bytes,
            device: None,
            accessed: modified,
            modified,
            changed: modified,
            created: None,
        }
    }

    fn check_node(&self, node: NodeId) -> Result<u64, FsError> {
        let size = self.volume.size_bytes();
        let first = match self.geometry.root {
            Root::Region { offset, .. } => offset,
            Root::Cluster(_) => self.geometry.data_offset,
        };
        match node.checked_mul(ENTRY_BYTES as u64) {
            Some(offset) if offset >= first && offset < size => Ok(offset),
            _ => Err(FsError::corrupt(
                "directory entry",
                node,
                "out of range",
                first,
                size,
            )),
        }
    }
}

impl<V: Volume> FileSystem for Fat<V> {
    type File = File;

    fn root(&self) -> NodeId {
        ROOT
    }

    async fn open(&self, node: NodeId) -> Result<File, FsError> {
        if node == ROOT {
            return Ok(self.root_file());
        }
        let offset = self.check_node(node)?;
        let mut bytes = [0; ENTRY_BYTES];
        self.volume.read_at(offset, &mut bytes).await?;
        let bad = |problem, expected: u64, seen: u64| {
            FsError::corrupt("directory entry", node, problem, expected, seen)
        };
        let entry = RawEntry::ref_from_bytes(&bytes)
            .map_err(|_| bad("too short", ENTRY_BYTES as u64, 0))?;
        if !directory::is_object(entry) {
            return Err(bad(
                "names no file or directory",
                0,
                entry.attributes.into(),
            ));
        }
        let high = match self.geometry.width {
            Width::Fat32 => u32::from(entry.cluster_high.get()),
            _ => 0,
        };
        let first = high << 16 | u32::from(entry.cluster_low.get());
        let is_directory = entry.attributes & directory::DIRECTORY != 0;
        let size = u64::from(entry.size.get());
        let in_range = self.geometry.has_cluster(first);
        if !in_range && (is_directory || size != 0 || first != 0) {
            let end = self.geometry.cluster_end.into();
            return Err(bad("first cluster out of range", end, first.into()));
        }
        let (kind, size_bytes) = if is_directory {
            (FileKind::Directory, u64::from(self.geometry.cluster_bytes))
        } else {
            (FileKind::File, size)
        };
        let modified = timestamp(entry.modified_date.get(), entry.modified_time.get(), 0);
        let created = timestamp(
            entry.created_date.get(),
            entry.created_time.get(),
            entry.created_10ms.min(199),
        );
        let attributes = Attributes {
            accessed: timestamp(entry.accessed_date.get(), 0, 0),
            created: (entry.created_date.get() != 0).then_some(created),
            ..self.new_attributes(node, kind, size_bytes, entry.attributes, modified)
        };
        let place = if in_range {
            FilePlace::Chain(Chain::new(first))
        } else {
            FilePlace::Nowhere
        };
        Ok(File { attributes, place })
    }

    fn attributes(&self, file: &File) -> Attributes {
        file.attributes
    }

    async fn extent(&self, file: &File, offset: u64) -> Result<Extent, FsError> {
        let node = file.attributes.node;
        let bad = |problem, expected, seen| {
            Err(FsError::corrupt(
                "directory entry",
                node,
                problem,
                expected,
                seen,
            ))
        };
        let chain = match &file.place {
            FilePlace::Chain(chain) => chain,
            FilePlace::Region {
                offset: start,
                len_bytes,
            } if offset < *len_bytes => {
                let place = Place::Volume(*start);
                return Ok(Extent {
                    file_offset: 0,
                    len_bytes: *len_bytes,
                    place,
                });
            }
            _ => return bad("no data at the offset", 0, offset),
        };
        let cluster_bytes = u64::from(self.geometry.cluster_bytes);
        let index = u32::try_from(offset / cluster_bytes).unwrap_or(u32::MAX);
        let Some(run) = chain.run(&self.volume, &self.geometry, index).await? else {
            let clusters = file.attributes.size_bytes.div_ceil(cluster_bytes);
            let problem = "the chain is shorter than the size; clusters up to";
            return bad(problem, clusters, index.into());
        };
        Ok(Extent {
            file_offset: u64::from(run.index) * cluster_bytes,
            len_bytes: u64::from(run.len) * cluster_bytes,
            place: Place::Volume(self.geometry.cluster_offset(run.cluster)),
        })
    }

    fn inline_data<'a>(&self, _file: &'a File) -> &'a [u8] {
        &[]
    }

    async fn read_link(&self, _file: &File) -> Result<Vec<u8>, FsError> {
        Err(FsError::NotASymlink)
    }

    async fn read_directory(
        &self,
        directory: &File,
        position: u64,
        sink: &mut dyn FnMut(DirectoryEntry<'_>) -> ControlFlow<()>,
    ) -> Result<Option<u64>, FsError> {
        if directory.attributes.kind != FileKind::Directory {
            return Err(FsError::NotADirectory);
        }
        let mut scanner = Scanner::new(position);
        let cluster_bytes = u64::from(self.geometry.cluster_bytes);
        let mut buffer = Vec::new();
        // From the start of the cluster: a long name does not begin before it
        // unless it was refused there, and then the position is its beginning.
        let mut at = position / cluster_bytes * cluster_bytes;
        loop {
            let (offset, len) = match &directory.place {
                FilePlace::Nowhere => return Ok(None),
                FilePlace::Region { offset, len_bytes } if at < *len_bytes => {
                    (offset + at, (len_bytes - at).min(cluster_bytes))
                }
                FilePlace::Region { .. } => return Ok(None),
                FilePlace::Chain(chain) => {
                    if at >= DIRECTORY_BYTES_MAX {
                        let (node, problem) = (
                            directory.attributes.node,
                            "the directory is longer than any can be",
                        );
                        let error = FsError::corrupt;
                        return Err(error(
                            "directory entry",
                            node,
                            problem,
                            DIRECTORY_BYTES_MAX,
                            at,
                        ));
                    }
                    let index = u32::try_from(at / cluster_bytes).unwrap_or(u32::MAX);
                    let run = chain.run(&self.volume, &self.geometry, index).await?;
                    let Some(run) = run else { return Ok(None) };
                    let cluster = run.cluster + (index - run.index);
                    (self.geometry.cluster_offset(cluster), cluster_bytes)
                }
            };
            buffer.resize(len as usize, 0);
            self.volume.read_at(offset, &mut buffer).await?;
            match scanner.scan(&buffer, at, offset, sink) {
                Left::Used => at += len,
                Left::End => return Ok(None),
                Left::Refused(position) => return Ok(Some(position)),
            }
        }
    }

    fn fold_name(&self, name: &[u8]) -> Vec<u8> {
        names::fold(name)
    }

    fn statistics(&self) -> VolumeStatistics {
        VolumeStatistics {
            format: match self.geometry.width {
                Width::Fat12 => "fat12",
                Width::Fat16 => "fat16",
                Width::Fat32 => "fat32",
            },
            label: self.geometry.label.clone(),
            block_bytes: self.geometry.cluster_bytes,
            blocks: self.geometry.clusters().into(),
            free_blocks: self.free_clusters.into(),
            available_blocks: self.free_clusters.into(),
            nodes: 0,
            free_nodes: 0,
            // 255 UTF-16 units.
            name_bytes_max: 765,
        }
    }
}
