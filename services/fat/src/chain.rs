//! The clusters of one file: its chain, followed as far as it was needed and
//! kept as runs. A cluster that comes up twice is a loop.

use alloc::{collections::BTreeMap, vec::Vec};
use core::cell::RefCell;

use volume::{FsError, Volume};

use crate::{
    bpb::Geometry,
    table::{Link, Window},
};

/// Clusters of a file that follow each other on the volume too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClusterRun {
    /// Number of the first one in the file.
    pub index: u32,
    /// Number of the first one on the volume.
    pub cluster: u32,
    /// How many.
    pub len: u32,
}

/// A chain, known up to some cluster.
#[derive(Debug)]
pub struct Chain {
    first: u32,
    known: RefCell<Known>,
}

#[derive(Debug, Default)]
struct Known {
    runs: Vec<ClusterRun>,
    /// First cluster and length of each run, by cluster.
    by_cluster: BTreeMap<u32, u32>,
    /// Number of clusters in `runs`.
    count: u32,
    ended: bool,
}

impl Chain {
    /// The chain that begins with `first`.
    pub fn new(first: u32) -> Self {
        Self {
            first,
            known: RefCell::default(),
        }
    }

    /// The run that holds cluster `index` of the file; none if the chain ends
    /// before it.
    pub async fn run(
        &self,
        volume: &impl Volume,
        geometry: &Geometry,
        index: u32,
    ) -> Result<Option<ClusterRun>, FsError> {
        loop {
            let (count, last) = {
                let known = self.known.borrow();
                if index < known.count {
                    return Ok(known.run(index));
                }
                if known.ended {
                    return Ok(None);
                }
                (
                    known.count,
                    known.runs.last().map(|run| run.cluster + (run.len - 1)),
                )
            };
            let Some(last) = last else {
                self.known
                    .borrow_mut()
                    .push(geometry, self.first, self.first)?;
                continue;
            };
            let window = Window::read(volume, geometry, last).await?;
            let mut known = self.known.borrow_mut();
            if known.count == count {
                known.follow(geometry, &window, last, index)?;
                if known.count == count && !known.ended {
                    let end = geometry.cluster_end.into();
                    return Err(corrupt(last, "lies outside the FAT", end, last.into()));
                }
            }
            // Otherwise another reader followed the chain in the meantime.
        }
    }
}

impl Known {
    fn run(&self, index: u32) -> Option<ClusterRun> {
        let at = self.runs.partition_point(|run| run.index <= index);
        self.runs.get(at.checked_sub(1)?).copied()
    }

    /// Follows links that lie in `window`, from `last` on, somewhat beyond
    /// cluster `index`: a reader will go on.
    fn follow(
        &mut self,
        geometry: &Geometry,
        window: &Window,
        mut last: u32,
        index: u32,
    ) -> Result<(), FsError> {
        let enough = index.saturating_add(256);
        while self.count <= enough
            && let Some(link) = window.link(last)
        {
            match link {
                Link::Next(next) => {
                    self.push(geometry, last, next)?;
                    last = next;
                }
                Link::End => {
                    self.ended = true;
                    return Ok(());
                }
                Link::Free => return Err(corrupt(last, "a chain runs into a free cluster", 1, 0)),
                Link::Bad => return Err(corrupt(last, "a chain runs into a bad cluster", 1, 0)),
            }
        }
        Ok(())
    }

    fn push(&mut self, geometry: &Geometry, entry: u32, cluster: u32) -> Result<(), FsError> {
        if !geometry.has_cluster(cluster) {
            let problem = "leads to a cluster out of range";
            return Err(corrupt(
                entry,
                problem,
                geometry.cluster_end.into(),
                cluster.into(),
            ));
        }
        if let Some((first, len)) = self.by_cluster.range(..=cluster).next_back()
            && cluster - first < *len
        {
            let problem = "the chain loops: it leads to a cluster that it had before";
            return Err(corrupt(entry, problem, 0, cluster.into()));
        }
        match self.runs.last_mut() {
            Some(run) if run.cluster + run.len == cluster => {
                run.len += 1;
                self.by_cluster.insert(run.cluster, run.len);
            }
            _ => {
                self.runs.push(ClusterRun {
                    index: self.count,
                    cluster,
                    len: 1,
                });
                self.by_cluster.insert(cluster, 1);
            }
        }
        self.count += 1;
        Ok(())
    }
}

fn corrupt(cluster: u32, problem: &'static str, expected: u64, seen: u64) -> FsError {
    FsError::corrupt("FAT entry", cluster.into(), problem, expected, seen)
}
