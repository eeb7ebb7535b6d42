//! The boot archive as a file system: names and places of its members, with the
//! directories that their paths imply.
//!
//! The pure part of the service. It is read-only for good: what the archive holds
//! was put there when the system was built.
#![cfg_attr(target_os = "none", no_std)]
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic
    )
)]

extern crate alloc;

use alloc::{collections::BTreeMap, vec::Vec};
use core::ops::ControlFlow;

use boot::archive::{Directory, FLAG_EXECUTABLE, PAGE_SIZE};
use volume::{
    Attributes, DirectoryEntry, Extent, FileKind, FileSystem, FsError, NodeId, Place, Timestamp,
    VolumeStatistics,
};

/// Number of the root directory; the nodes are numbered from it on.
const ROOT: NodeId = 1;

/// The archive's names.
#[derive(Debug)]
pub struct BootFs {
    nodes: Vec<Node>,
    archive_bytes: u64,
}

#[derive(Debug)]
enum Node {
    Directory(BTreeMap<Vec<u8>, NodeId>),
    File {
        offset: u64,
        len_bytes: u64,
        flags: u32,
    },
}

/// An open member or directory.
#[derive(Debug, Clone, Copy)]
pub struct File {
    attributes: Attributes,
    offset: u64,
}

impl File {
    /// Where the member lies in the archive, in bytes; a multiple of the page size.
    pub fn archive_offset(&self) -> u64 {
        self.offset
    }
}

impl BootFs {
    /// Builds the tree. A member whose path goes through another member, or has
    /// an empty component, is left out: nothing could open it.
    pub fn new(directory: &Directory<'_>) -> Self {
        let mut boot_fs = Self {
            nodes: Vec::from([Node::Directory(BTreeMap::new())]),
            archive_bytes: directory.archive_len() as u64,
        };
        for entry in directory.entries() {
            let (offset, len_bytes) = (entry.offset as u64, entry.len as u64);
            let flags = entry.flags;
            boot_fs.insert(
                entry.name,
                Node::File {
                    offset,
                    len_bytes,
                    flags,
                },
            );
        }
        boot_fs
    }

    fn insert(&mut self, path: &str, node: Node) -> Option<()> {
        if path.split('/').any(|name| matches!(name, "" | "." | "..")) {
            return None;
        }
        let mut directory = ROOT;
        let mut names = path.split('/').peekable();
        let mut node = Some(node);
        while let Some(name) = names.next() {
            let last = names.peek().is_none();
            let next = self.nodes.len() as NodeId + ROOT;
            let Node::Directory(entries) = self.node_mut(directory)? else {
                return None;
            };
            directory = match entries.get(name.as_bytes()) {
                Some(_) if last => return None,
                Some(known) => *known,
                None => {
                    entries.insert(name.as_bytes().to_vec(), next);
                    let new = if last { node.take() } else { None };
                    self.nodes
                        .push(new.unwrap_or(Node::Directory(BTreeMap::new())));
                    next
                }
            };
        }
        Some(())
    }

    fn node(&self, number: NodeId) -> Option<&Node> {
        self.nodes
            .get(usize::try_from(number.checked_sub(ROOT)?).ok()?)
    }

    fn node_mut(&mut self, number: NodeId) -> Option<&mut Node> {
        self.nodes
            .get_mut(usize::try_from(number.checked_sub(ROOT)?).ok()?)
    }
}

impl FileSystem for BootFs {
    type File = File;

    fn root(&self) -> NodeId {
        ROOT
    }

    async fn open(&self, node: NodeId) -> Result<File, FsError> {
        let page = PAGE_SIZE as u64;
        let (kind, size_bytes, permissions, offset) = match self.node(node) {
            None => return Err(FsError::NotFound),
            Some(Node::Directory(entries)) => (FileKind::Directory, entries.len() as u64, 0o555, 0),
            Some(Node::File {
                offset,
                len_bytes,
                flags,
            }) => {
                let permissions = if flags & FLAG_EXECUTABLE != 0 {
                    0o555
                } else {
                    0o444
                };
                (FileKind::File, *len_bytes, permissions, *offset)
            }
        };
        let never = Timestamp::default();
        let allocated = if kind == FileKind::File {
            size_bytes.next_multiple_of(page)
        } else {
            0
        };
        let attributes = Attributes {
            node,
            kind,
            permissions,
            links: 1,
            user: 0,
            group: 0,
            size_bytes,
            allocated_bytes: allocated,
            block_bytes: PAGE_SIZE as u32,
            device: None,
            accessed: never,
            modified: never,
            changed: never,
            created: None,
        };
        Ok(File { attributes, offset })
    }

    fn attributes(&self, file: &File) -> Attributes {
        file.attributes
    }

    async fn extent(&self, file: &File, _offset: u64) -> Result<Extent, FsError> {
        let len_bytes = file.attributes.size_bytes;
        Ok(Extent {
            file_offset: 0,
            len_bytes,
            place: Place::Volume(file.offset),
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
        let Some(Node::Directory(entries)) = self.node(directory.attributes.node) else {
            return Err(FsError::NotADirectory);
        };
        let skip = usize::try_from(position).unwrap_or(usize::MAX);
        for (at, (name, node)) in (0u64..).zip(entries).skip(skip) {
            let kind = match self.node(*node) {
                Some(Node::Directory(_)) => FileKind::Directory,
                _ => FileKind::File,
            };
            if sink(DirectoryEntry {
                name,
                node: *node,
                kind,
                next: at + 1,
            })
            .is_break()
            {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }

    fn statistics(&self) -> VolumeStatistics {
        let page = PAGE_SIZE as u64;
        VolumeStatistics {
            format: "bootfs",
            label: Vec::new(),
            block_bytes: PAGE_SIZE as u32,
            blocks: self.archive_bytes / page,
            free_blocks: 0,
            available_blocks: 0,
            nodes: self.nodes.len() as u64,
            free_nodes: 0,
            name_bytes_max: boot::archive::MAX_NAME_LEN as u32,
        }
    }
}

#[cfg(test)]
mod tests {
    use boot::archive::Writer;
    use volume::{FollowLast, Tree, Walk, compare::list, host::run_ready};

    use super::*;

    #[test]
    fn members_are_found_by_path_and_listed() {
        let mut writer = Writer::new();
        writer.add_program("bin/ls", vec![1; 5000]).unwrap();
        writer.add_program("bin/cat", vec![2; 10]).unwrap();
        writer
            .add_file("etc/boot.cfg", b"root =\n".to_vec())
            .unwrap();
        writer.add_file("readme", Vec::new()).unwrap();
        // These cannot be reached by any path.
        writer.add_file("readme/below", vec![3]).unwrap();
        writer.add_file("etc//double", vec![3]).unwrap();
        let bytes = writer.finish().unwrap();
        let front = Directory::head_len(&bytes).unwrap();
        let directory = Directory::parse(&bytes[..front], bytes.len() as u64).unwrap();
        let tree = Tree::new(BootFs::new(&directory));
        run_ready(async {
            let fs = tree.filesystem();
            let root = fs.open(fs.root()).await.unwrap();
            let names = |entries: Vec<(Vec<u8>, NodeId, FileKind)>| {
                entries
                    .into_iter()
                    .map(|e| String::from_utf8(e.0).unwrap())
                    .collect::<Vec<_>>()
            };
            assert_eq!(
                names(list(fs, &root, 1).await.unwrap()),
                ["bin", "etc", "readme"]
            );
            let walk = tree
                .walk([&b"bin"[..], b"ls"].into_iter(), FollowLast::Yes)
                .await;
            let Ok(Walk::Found(file)) = walk else {
                panic!()
            };
            assert_eq!(
                (
                    fs.attributes(&file).size_bytes,
                    fs.attributes(&file).permissions
                ),
                (5000, 0o555)
            );
            let at = file.archive_offset() as usize;
            assert_eq!(&bytes[at..at + 5000], &[1; 5000]);
            let missing = tree
                .walk([&b"bin"[..], b"no"].into_iter(), FollowLast::Yes)
                .await;
            assert!(matches!(missing, Err((1, FsError::NotFound))));
        });
    }
}
