//! The mount table. Mount points are canonical paths; they need not exist on
//! the volume below, because a read-only root has no place for new directories.

use alloc::{collections::BTreeSet, vec::Vec};

/// A volume in its place.
#[derive(Debug, Clone)]
pub struct Mount<V> {
    /// Number of the mount, never used twice.
    pub number: u32,
    /// Canonical path, in components.
    pub target: Vec<Vec<u8>>,
    /// What is mounted.
    pub volume: V,
}

/// Everything that is mounted, in order of mounting.
#[derive(Debug, Clone)]
pub struct MountTable<V> {
    mounts: Vec<Mount<V>>,
    next_number: u32,
}

impl<V> Default for MountTable<V> {
    fn default() -> Self {
        Self {
            mounts: Vec::new(),
            next_number: 1,
        }
    }
}

impl<V> MountTable<V> {
    /// A number for a mount to come.
    pub fn reserve_number(&mut self) -> u32 {
        let number = self.next_number;
        self.next_number = self.next_number.wrapping_add(1);
        number
    }

    /// Mounts a volume; it hides what was at `target`.
    pub fn add(&mut self, number: u32, target: Vec<Vec<u8>>, volume: V) {
        self.next_number = self.next_number.max(number.wrapping_add(1));
        self.mounts.push(Mount {
            number,
            target,
            volume,
        });
    }

    /// Takes off a mount.
    pub fn remove(&mut self, number: u32) -> Option<Mount<V>> {
        let at = self
            .mounts
            .iter()
            .position(|mount| mount.number == number)?;
        Some(self.mounts.remove(at))
    }

    /// All mounts.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Mount<V>> {
        self.mounts.iter()
    }

    /// The mount with this number.
    pub fn get(&self, number: u32) -> Option<&Mount<V>> {
        self.mounts.iter().find(|mount| mount.number == number)
    }

    /// The mount that holds a canonical path: the deepest, and of those at one
    /// place the last.
    pub fn holding(&self, path: &[Vec<u8>]) -> Option<&Mount<V>> {
        let above = self
            .mounts
            .iter()
            .filter(|mount| path.starts_with(&mount.target));
        above.max_by_key(|mount| mount.target.len())
    }

    /// The mount that is visible at exactly this path.
    pub fn at(&self, path: &[Vec<u8>]) -> Option<&Mount<V>> {
        self.mounts.iter().rev().find(|mount| mount.target == path)
    }

    /// Whether something is mounted below a path (not at it).
    pub fn has_below(&self, path: &[Vec<u8>]) -> bool {
        self.mounts
            .iter()
            .any(|mount| is_below(&mount.target, path))
    }

    /// Names in a directory that lead to mounts below it.
    pub fn names_in(&self, path: &[Vec<u8>]) -> BTreeSet<Vec<u8>> {
        let below = self
            .mounts
            .iter()
            .filter(|mount| is_below(&mount.target, path));
        below
            .filter_map(|mount| mount.target.get(path.len()).cloned())
            .collect()
    }
}

fn is_below(target: &[Vec<u8>], path: &[Vec<u8>]) -> bool {
    target.len() > path.len() && target.starts_with(path)
}
