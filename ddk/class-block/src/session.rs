//! A client's session, as its worker sees it.

use alloc::boxed::Box;

use ddk_class_core::{Buffers, Doorbell, SessionId};
use proto::block::{Completion, Submission};
use ring::{Consumer, LayoutError, Memory, Producer};

use crate::device::DiskInfo;

/// The part of a disk that a session may use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extent {
    /// The disk: its [`DiskInfo::unit`].
    pub unit: u32,
    /// First logical block of the disk.
    pub first_lba: u64,
    /// Blocks.
    pub count: u64,
    /// Whether it may be changed.
    pub writable: bool,
}

impl Extent {
    /// All of a disk.
    pub fn whole(disk: &DiskInfo) -> Extent {
        Extent {
            unit: disk.unit,
            first_lba: 0,
            count: disk.block_count,
            writable: !disk.read_only,
        }
    }

    /// A part of it, in blocks of this one; never more rights. `None` when it is not inside.
    pub fn part(&self, first_lba: u64, count: u64, writable: bool) -> Option<Extent> {
        let end = first_lba.checked_add(count)?;
        if count == 0 || end > self.count {
            return None;
        }
        let first_lba = self.first_lba.checked_add(first_lba)?;
        Some(Extent {
            unit: self.unit,
            first_lba,
            count,
            writable: writable && self.writable,
        })
    }
}

/// A session: rings, doorbells, buffers.
pub struct Session<M> {
    pub(crate) id: SessionId,
    pub(crate) extent: Extent,
    pub(crate) depth: u16,
    pub(crate) submissions: Consumer<Submission, M>,
    pub(crate) completions: Producer<Completion, M>,
    pub(crate) submitted: Box<dyn Doorbell>,
    pub(crate) completed: Box<dyn Doorbell>,
    pub(crate) buffers: Buffers,
    pub(crate) in_flight: u16,
    /// A request that the queue had no room for.
    pub(crate) waiting: Option<Submission>,
    /// Completions were pushed and not published.
    pub(crate) dirty: bool,
    /// On the worker's list of sessions to drain.
    pub(crate) active: bool,
    /// The client is gone or broke the protocol: nothing is taken, nothing is answered.
    pub(crate) closed: bool,
}

impl<M: Memory + Clone> Session<M> {
    /// A session on fresh (zeroed) ring memory.
    ///
    /// # Errors
    /// When the rings do not fit.
    pub fn new(
        id: SessionId,
        extent: Extent,
        depth: u16,
        memory: M,
        completion_offset: usize,
        submitted: Box<dyn Doorbell>,
        completed: Box<dyn Doorbell>,
    ) -> Result<Session<M>, LayoutError> {
        Ok(Session {
            id,
            extent,
            depth,
            submissions: Consumer::new(memory.clone(), 0, depth.into())?,
            completions: Producer::new(memory, completion_offset, depth.into())?,
            submitted,
            completed,
            buffers: Buffers::default(),
            in_flight: 0,
            waiting: None,
            dirty: false,
            active: false,
            closed: false,
        })
    }
}
