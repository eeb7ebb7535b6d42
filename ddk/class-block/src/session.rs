//! A client's session, as its worker sees it.

use alloc::boxed::Box;
use alloc::vec::Vec;

use ddk::{EventQueue, PinnedBuffer, PlatformError};
use proto::block::{Completion, Submission};
use ring::{Consumer, LayoutError, Memory, Producer};

use crate::device::DiskInfo;

/// Number of a session, unique in a driver's life.
pub type SessionId = u32;

/// Wakes the other side of a ring.
pub trait Doorbell: Send {
    /// Rings it.
    fn ring(&self);

    /// Delivers its ringing to `events` with this key.
    ///
    /// # Errors
    /// When the system refuses.
    fn watch(&self, events: &dyn EventQueue, key: u64) -> Result<(), PlatformError>;

    /// Stops that.
    fn unwatch(&self, events: &dyn EventQueue, key: u64);
}

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

/// Answers when a buffer is no longer used: `true`, or `false` if there was none.
pub type Removed = Box<dyn FnOnce(bool) + Send>;

/// A buffer that a client registered.
pub(crate) struct Slot {
    pub(crate) buffer: PinnedBuffer,
    /// Requests in flight that use it.
    pub(crate) in_use: u16,
    /// Who waits for it to be free; no request may use it any more.
    pub(crate) removing: Option<Removed>,
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
    pub(crate) slots: Vec<Option<Slot>>,
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
            slots: Vec::new(),
            in_flight: 0,
            waiting: None,
            dirty: false,
            active: false,
            closed: false,
        })
    }
}

impl<M> Session<M> {
    /// The buffer in a slot, unless it is being removed.
    #[inline]
    pub(crate) fn buffer(&self, slot: u16) -> Option<&PinnedBuffer> {
        match self.slots.get(usize::from(slot)) {
            Some(Some(slot)) if slot.removing.is_none() => Some(&slot.buffer),
            _ => None,
        }
    }

    pub(crate) fn add_buffer(&mut self, slot: u16, buffer: PinnedBuffer) {
        let slot = usize::from(slot);
        if self.slots.len() <= slot {
            self.slots.resize_with(slot + 1, || None);
        }
        if let Some(entry) = self.slots.get_mut(slot) {
            *entry = Some(Slot {
                buffer,
                in_use: 0,
                removing: None,
            });
        }
    }

    pub(crate) fn remove_buffer(&mut self, slot: u16, done: Removed) {
        match self.slots.get_mut(usize::from(slot)) {
            Some(Some(entry)) if entry.in_use > 0 && entry.removing.is_none() => {
                entry.removing = Some(done);
            }
            Some(entry @ Some(_)) if entry.as_ref().is_some_and(|e| e.in_use == 0) => {
                // Unpinned before the client hears of it.
                *entry = None;
                done(true);
            }
            _ => done(false),
        }
    }

    #[inline]
    pub(crate) fn use_buffer(&mut self, slot: u16) {
        if let Some(Some(slot)) = self.slots.get_mut(usize::from(slot)) {
            slot.in_use += 1;
        }
    }

    #[inline]
    pub(crate) fn release_buffer(&mut self, slot: u16) {
        let Some(entry) = self.slots.get_mut(usize::from(slot)) else {
            return;
        };
        if let Some(used) = entry {
            used.in_use -= 1;
            if used.in_use == 0 && used.removing.is_some() {
                let done = used.removing.take();
                *entry = None;
                if let Some(done) = done {
                    done(true);
                }
            }
        }
    }
}
