//! One path on its way to an object.
//!
//! A volume walks by itself as far as it can: one question for a path without
//! links, `..` and mounts, whatever its length. The part that was walked without
//! meeting a link is canonical, so mount points and `..` are matched on it by
//! name.

use alloc::vec::Vec;

use proto::fs::{FsError, SYMLINKS_MAX};

use crate::{
    mounts::MountTable,
    path::{Components, Ending, parse, relative, split},
};

/// What has to be asked next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// Whether this is a directory, links followed: the path goes on from there
    /// with `..`. Answer with [`Resolution::is_directory`], or
    /// [`Resolution::symlink`].
    Directory {
        /// Number of the mount; none for a path on no volume.
        mount: Option<u32>,
        /// Path on the volume.
        path: Vec<u8>,
    },
    /// The object itself. The path is canonical unless the volume answers with a
    /// link.
    Object {
        /// Number of the mount; none for a path on no volume.
        mount: Option<u32>,
        /// Path on the volume.
        path: Vec<u8>,
    },
}

/// The state of one resolution.
#[derive(Debug, Clone)]
pub struct Resolution {
    /// Known to be a directory, without links in it.
    prefix: Vec<Vec<u8>>,
    rest: Components,
    ending: Ending,
    links: usize,
    /// The canonical path that the last question was about, and how many of its
    /// components belong to the mount point.
    asked: Vec<Vec<u8>>,
    asked_mount_len: usize,
    /// Components of `rest` that the last question covered.
    asked_rest_len: usize,
}

impl Resolution {
    /// Begins with an absolute path.
    ///
    /// # Errors
    /// As [`parse`].
    pub fn new(path: &[u8]) -> Result<Self, FsError> {
        let (rest, ending) = parse(path)?;
        Ok(Self {
            prefix: Vec::new(),
            rest,
            ending,
            links: 0,
            asked: Vec::new(),
            asked_mount_len: 0,
            asked_rest_len: 0,
        })
    }

    /// Whether the path demands a directory, and a link in the last place to be
    /// followed, by how it ends.
    pub fn ending(&self) -> Ending {
        self.ending
    }

    /// The canonical path of the last question.
    pub fn canonical(&self) -> &[Vec<u8>] {
        &self.asked
    }

    /// The next question.
    pub fn next<V>(&mut self, mounts: &MountTable<V>) -> Question {
        // What is in `prefix` is a directory, so that `..` can be taken at once.
        while self.rest.front().is_some_and(|name| name == b"..") {
            self.rest.pop_front();
            self.prefix.pop();
        }
        let names = self.rest.iter().take_while(|name| *name != b"..");
        self.asked.clone_from(&self.prefix);
        self.asked.extend(names.cloned());
        self.asked_rest_len = self.asked.len() - self.prefix.len();
        let mount = mounts.holding(&self.asked);
        self.asked_mount_len = mount.map_or(0, |mount| mount.target.len());
        let on_volume = self.asked.get(self.asked_mount_len..).unwrap_or_default();
        let path = relative(on_volume);
        let mount = mount.map(|mount| mount.number);
        if self.asked_rest_len == self.rest.len() {
            Question::Object { mount, path }
        } else {
            Question::Directory { mount, path }
        }
    }

    /// Whether the last question was for the object itself.
    pub fn at_object(&self) -> bool {
        self.asked_rest_len == self.rest.len()
    }

    /// [`Question::Directory`] was answered: it is one.
    pub fn is_directory(&mut self) {
        self.rest.drain(..self.asked_rest_len.min(self.rest.len()));
        self.prefix.clone_from(&self.asked);
    }

    /// The volume met a link to `target` at component `component` of the path
    /// that it was asked for.
    ///
    /// # Errors
    /// `TooManyLinks`; `NotFound` for an empty target; `Io` for a component that
    /// was not in the question.
    pub fn symlink(&mut self, component: usize, target: &[u8]) -> Result<(), FsError> {
        self.links += 1;
        if self.links > SYMLINKS_MAX {
            return Err(FsError::TooManyLinks);
        }
        if target.is_empty() {
            return Err(FsError::NotFound);
        }
        let at = self.asked_mount_len.saturating_add(component);
        // The prefix holds no links: one there means that the volume changed or
        // answers nonsense.
        let (Some(before), Some(rest_before)) =
            (self.asked.get(..at), at.checked_sub(self.prefix.len()))
        else {
            return Err(FsError::Io);
        };
        if rest_before >= self.asked_rest_len {
            return Err(FsError::Io);
        }
        let before = before.to_vec();
        self.rest.drain(..=rest_before);
        let (mut components, ending) = split(target)?;
        if self.rest.is_empty() && ending == Ending::Directory {
            self.ending = Ending::Directory;
        }
        components.append(&mut self.rest);
        let absolute = target.first() == Some(&b'/');
        self.prefix = if absolute { Vec::new() } else { before };
        self.rest = components;
        Ok(())
    }
}
