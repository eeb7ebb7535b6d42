//! Names looked up in a file system.
//!
//! A directory that is searched is read once into an index, which answers for
//! names that are there and names that are not. Directories too large for the
//! index are searched in place. Paths here have no `.`, no `..` and no mounts:
//! those belong to the VFS.

use alloc::{collections::BTreeMap, vec::Vec};
use core::{cell::RefCell, ops::ControlFlow};

use crate::{FileKind, FileSystem, FsError, NodeId};

/// Names kept over all directories.
const NAMES_MAX: usize = 64 * 1024;
/// Longest path component that is looked for, in bytes.
const NAME_BYTES_MAX: usize = 1024;

/// A file system and the indices of its directories.
pub struct Tree<F: FileSystem> {
    filesystem: F,
    index: RefCell<Index>,
}

#[derive(Default)]
struct Index {
    directories: BTreeMap<NodeId, DirectoryIndex>,
    names: usize,
    clock: u64,
}

struct DirectoryIndex {
    names: BTreeMap<Vec<u8>, NodeId>,
    used: u64,
}

/// Where a walk ended.
pub enum Walk<T> {
    /// At the object that the whole path names.
    Found(T),
    /// At a symbolic link, component `component` (0 is the first) of the path.
    Symlink {
        /// Number of components before it, all of them real directories.
        component: usize,
        /// What it points to.
        target: Vec<u8>,
    },
}

impl<F: FileSystem> Tree<F> {
    /// Nothing is read yet.
    pub fn new(filesystem: F) -> Self {
        Self {
            filesystem,
            index: RefCell::default(),
        }
    }

    /// The file system under it.
    pub fn filesystem(&self) -> &F {
        &self.filesystem
    }

    /// The object called `name` in a directory.
    ///
    /// # Errors
    /// [`FsError::NotFound`], [`FsError::NotADirectory`], [`FsError::NameTooLong`],
    /// or what reading the directory met.
    pub async fn lookup(&self, directory: &F::File, name: &[u8]) -> Result<NodeId, FsError> {
        let attributes = self.filesystem.attributes(directory);
        if attributes.kind != FileKind::Directory {
            return Err(FsError::NotADirectory);
        }
        if name.len() > NAME_BYTES_MAX {
            return Err(FsError::NameTooLong);
        }
        let folded = self.filesystem.fold_name(name);
        if let Some(answer) = self.index.borrow_mut().answer(attributes.node, &folded) {
            return answer.ok_or(FsError::NotFound);
        }
        let mut names = BTreeMap::new();
        let mut found = None;
        let mut too_many = false;
        let ended = self
            .filesystem
            .read_directory(directory, 0, &mut |entry| {
                let key = self.filesystem.fold_name(entry.name);
                if key == folded && found.is_none() {
                    found = Some(entry.node);
                }
                if names.len() < NAMES_MAX / 4 {
                    names.entry(key).or_insert(entry.node);
                } else {
                    too_many = true;
                    if found.is_some() {
                        return ControlFlow::Break(());
                    }
                }
                ControlFlow::Continue(())
            })
            .await;
        match ended {
            Ok(_) => {
                if !too_many {
                    self.index.borrow_mut().insert(attributes.node, names);
                }
                found.ok_or(FsError::NotFound)
            }
            // What stands before the damage can still be used.
            Err(error) => found.ok_or(error),
        }
    }

    /// Follows `components` from the root up to a symbolic link or the end. A
    /// link in the last place is followed only if `follow_last` says so.
    ///
    /// # Errors
    /// The number of the component that failed, and why.
    pub async fn walk<'a>(
        &self,
        components: impl Iterator<Item = &'a [u8]>,
        follow_last: FollowLast,
    ) -> Result<Walk<F::File>, (usize, FsError)> {
        let mut components = components.peekable();
        let root = self.filesystem.root();
        let mut file = self
            .filesystem
            .open(root)
            .await
            .map_err(|error| (0, error))?;
        let mut component = 0;
        while let Some(name) = components.next() {
            let node = self
                .lookup(&file, name)
                .await
                .map_err(|error| (component, error))?;
            file = self
                .filesystem
                .open(node)
                .await
                .map_err(|error| (component, error))?;
            let last = components.peek().is_none();
            if self.filesystem.attributes(&file).kind == FileKind::Symlink
                && (!last || follow_last == FollowLast::Yes)
            {
                let target = self.filesystem.read_link(&file).await;
                let target = target.map_err(|error| (component, error))?;
                return Ok(Walk::Symlink { component, target });
            }
            component += 1;
        }
        Ok(Walk::Found(file))
    }
}

/// Whether a symbolic link in the last place of a path is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FollowLast {
    /// `stat`, `open`.
    Yes,
    /// `lstat`, `readlink`.
    No,
}

impl Index {
    fn answer(&mut self, directory: NodeId, name: &[u8]) -> Option<Option<NodeId>> {
        self.clock += 1;
        let index = self.directories.get_mut(&directory)?;
        index.used = self.clock;
        Some(index.names.get(name).copied())
    }

    fn insert(&mut self, directory: NodeId, names: BTreeMap<Vec<u8>, NodeId>) {
        let weight = |names: &BTreeMap<_, _>| names.len() + 16;
        self.names += weight(&names);
        if let Some(old) = self.directories.insert(
            directory,
            DirectoryIndex {
                names,
                used: self.clock,
            },
        ) {
            self.names -= weight(&old.names);
        }
        while self.names > NAMES_MAX && self.directories.len() > 1 {
            let oldest = self.directories.iter().min_by_key(|(_, index)| index.used);
            let Some(node) = oldest.map(|(node, _)| *node) else {
                break;
            };
            if let Some(old) = self.directories.remove(&node) {
                self.names -= weight(&old.names);
            }
        }
    }
}
