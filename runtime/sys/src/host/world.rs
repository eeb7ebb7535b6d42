//! The state of the stand-in and what each call does to it.

mod channels;
mod interrupts;
mod mappings;
mod ports;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::memory::Memory;
use super::objects::{Body, Entry, Object, Side, Watch};
use super::{Error, Result};
use crate::abi::{HandleInfo, IRQ_VIRTUAL, Property, RawHandle, Rights, Signals, Topic, VmoInfo};

#[derive(Default)]
pub(super) struct World {
    /// Generation and contents; a handle's number is the index plus 1 and the generation above bit 20.
    table: Vec<(u32, Option<Entry>)>,
    free: Vec<usize>,
    objects: HashMap<u64, Object>,
    watches: HashMap<u64, Watch>,
    mappings: HashMap<usize, Vec<Arc<Memory>>>,
    futexes: HashMap<usize, VecDeque<u64>>,
    last_id: u64,
}

const INDEX_BITS: u32 = 20;

impl World {
    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    // Handles

    fn insert(&mut self, entry: Entry) -> u32 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.table.push((0, None));
            self.table.len() - 1
        });
        let slot = &mut self.table[index];
        slot.0 = (slot.0 + 1) & 0x7ff;
        slot.1 = Some(entry);
        slot.0 << INDEX_BITS | (index as u32 + 1)
    }

    fn new_handle(&mut self, koid: u64, side: usize) -> u32 {
        if let Some(object) = self.objects.get_mut(&koid) {
            object.sides[side].handles += 1;
        }
        self.insert(Entry {
            koid,
            side,
            rights: Rights::ALL.0,
        })
    }

    fn create(&mut self, body: Body) -> u32 {
        let koid = self.next_id();
        self.objects.insert(koid, Object::new(body));
        self.new_handle(koid, 0)
    }

    fn index(&self, handle: u32) -> Result<usize> {
        let index = (handle & ((1 << INDEX_BITS) - 1))
            .checked_sub(1)
            .ok_or(Error::BadHandle)?;
        match self.table.get(index as usize) {
            Some((generation, Some(_))) if *generation == handle >> INDEX_BITS => {
                Ok(index as usize)
            }
            _ => Err(Error::BadHandle),
        }
    }

    fn entry(&self, handle: u32, rights: Rights) -> Result<Entry> {
        let entry = self.table[self.index(handle)?].1.ok_or(Error::BadHandle)?;
        if !Rights(entry.rights).contains(rights) {
            return Err(Error::AccessDenied);
        }
        Ok(entry)
    }

    fn remove(&mut self, handle: u32) -> Result<Entry> {
        let index = self.index(handle)?;
        self.free.push(index);
        self.table[index].1.take().ok_or(Error::BadHandle)
    }

    pub(super) fn close(&mut self, handle: u32) -> Result<()> {
        let entry = self.remove(handle)?;
        self.release(entry);
        Ok(())
    }

    pub(super) fn duplicate(&mut self, handle: u32, rights: u32) -> Result<u32> {
        let entry = self.entry(handle, Rights::DUPLICATE)?;
        let rights = if rights == Rights::SAME.0 {
            entry.rights
        } else {
            rights
        };
        if !Rights(entry.rights).contains(Rights(rights)) {
            return Err(Error::AccessDenied);
        }
        if let Some(object) = self.objects.get_mut(&entry.koid) {
            object.sides[entry.side].handles += 1;
        }
        Ok(self.insert(Entry { rights, ..entry }))
    }

    /// A handle is gone; with the last one so is the object, or a channel's end.
    fn release(&mut self, entry: Entry) {
        let mut dropped = vec![entry];
        while let Some(entry) = dropped.pop() {
            let Some(object) = self.objects.get_mut(&entry.koid) else {
                continue;
            };
            object.sides[entry.side].handles -= 1;
            if object.sides[entry.side].handles > 0 {
                continue;
            }
            for id in std::mem::take(&mut object.sides[entry.side].watches) {
                // A packet that waits already is still delivered.
                if self.watches.get(&id).is_some_and(|watch| !watch.queued) {
                    self.watches.remove(&id);
                }
            }
            let mut gone = true;
            if let Body::Channel(ends) = &mut object.body {
                let own = &mut ends[entry.side];
                own.closed = true;
                for message in own.inbox.drain(..).chain(own.replies.drain(..)) {
                    dropped.extend(message.handles);
                }
                gone = ends[entry.side ^ 1].closed;
                if !gone {
                    let clear = Signals::WRITABLE.0;
                    self.update(entry.koid, entry.side ^ 1, clear, Signals::PEER_CLOSED.0);
                }
            }
            if gone {
                self.objects.remove(&entry.koid);
            }
        }
    }

    fn object(&mut self, koid: u64) -> Result<&mut Object> {
        self.objects.get_mut(&koid).ok_or(Error::BadHandle)
    }

    fn side(&mut self, koid: u64, side: usize) -> Result<&mut Side> {
        Ok(&mut self.object(koid)?.sides[side])
    }

    // Information and properties

    /// # Safety
    ///
    /// `len` bytes at `pointer` may be written.
    pub(super) unsafe fn info(
        &mut self,
        handle: u32,
        topic: usize,
        pointer: usize,
        len: usize,
    ) -> Result<usize> {
        let entry = self.entry(handle, Rights::NONE)?;
        match Topic::from_number(topic) {
            Some(Topic::Handle) => {
                let object = self.object(entry.koid)?;
                let info = HandleInfo {
                    koid: entry.koid * 2 + entry.side as u64,
                    kind: object.kind() as u32,
                    rights: entry.rights,
                    related_koid: match object.body {
                        Body::Channel(_) => entry.koid * 2 + (entry.side ^ 1) as u64,
                        _ => 0,
                    },
                    signals: object.sides[entry.side].signals,
                    handles: object.sides[entry.side].handles,
                };
                // SAFETY: the caller's promise.
                unsafe { put(info, pointer, len) }
            }
            Some(Topic::Vmo) => {
                let memory = self.memory(entry.koid)?;
                let size = memory.len() as u64;
                let info = VmoInfo {
                    koid: entry.koid * 2,
                    size,
                    ..VmoInfo::default()
                };
                // SAFETY: the caller's promise.
                unsafe { put(info, pointer, len) }
            }
            Some(Topic::Interrupt) => {
                let count = self.binding(entry.koid)?.total;
                let info = crate::abi::InterruptInfo {
                    koid: entry.koid * 2,
                    kind: IRQ_VIRTUAL as u32,
                    count,
                    ..Default::default()
                };
                // SAFETY: the caller's promise.
                unsafe { put(info, pointer, len) }
            }
            _ => Err(Error::NotSupported),
        }
    }

    pub(super) fn set(&mut self, handle: u32, property: usize, value: usize) -> Result<()> {
        match Property::from_number(property) {
            Some(Property::Epoch) => {
                let entry = self.entry(handle, Rights::NONE)?;
                let (epoch, end) = (value as u64, self.end(entry)?);
                if core::mem::replace(&mut end.epoch, epoch) == epoch {
                    return Ok(());
                }
                let unread: Vec<u64> = end.inbox.iter().map(|message| message.txid).collect();
                let peer = self.peer(entry)?;
                let taken = peer.callers.iter().filter(|txid| !unread.contains(txid));
                let lost: Vec<(u64, u64)> = taken.map(|txid| (*txid, epoch)).collect();
                peer.callers.retain(|txid| unread.contains(txid));
                peer.lost.extend(lost);
                let edge = Signals::PEER_RENEWED.0;
                self.update(entry.koid, entry.side ^ 1, edge, edge);
                self.update(entry.koid, entry.side ^ 1, edge, 0);
                Ok(())
            }
            Some(Property::Name) => self.entry(handle, Rights::NONE).map(|_| ()),
            // Priority and affinity of the calling thread: nothing to do on a host.
            Some(Property::Priority | Property::Affinity) if handle == RawHandle::SELF_THREAD.0 => {
                Ok(())
            }
            _ => Err(Error::NotSupported),
        }
    }
}

/// # Safety
///
/// `len` bytes at `pointer` may be written.
unsafe fn put<T>(record: T, pointer: usize, len: usize) -> Result<usize> {
    if len < size_of::<T>() {
        return Err(Error::BufferTooSmall);
    }
    // SAFETY: the caller's promise; it fits.
    unsafe { (pointer as *mut T).write_unaligned(record) };
    Ok(size_of::<T>())
}
