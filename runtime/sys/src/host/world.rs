//! The state of the stand-in and what each call does to it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::memory::Memory;
use super::objects::{Alarm, Binding, Body, End, Entry, Message, Object, Queued, Side, Watch};
use super::{Answer, Error, Result};
use crate::abi::{
    CHANNEL_MESSAGES_MAX, CallArgs, HandleInfo, IRQ_ACK_ON_DEQUEUE, IRQ_VIRTUAL, MAP_EXEC,
    MAP_FIXED, MAP_WRITE, MESSAGE_BYTES_MAX, MESSAGE_HANDLES_MAX, Packet, Property, RawHandle,
    Rights, Signals, Topic, VmoInfo, VmoOp, WAIT_ONCE,
};
use crate::time::now_ns;

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

/// How a message is sent.
#[derive(Clone, Copy)]
enum Sent {
    /// By `channel_write`: a plain message or a reply.
    Written,
    /// By `channel_call`.
    Called,
}

const INDEX_BITS: u32 = 20;
/// Bytes that one memory operation works on, as little as is useful in tests.
const OP_BYTES_MAX: usize = 64 * 1024;

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

    // Signals, watches, ports

    fn update(&mut self, koid: u64, side: usize, clear: u32, set: u32) {
        let Ok(state) = self.side(koid, side) else {
            return;
        };
        let before = state.signals & !clear;
        let edges = set & !before;
        state.signals = before | set;
        let watches = state.watches.clone();
        for id in watches {
            self.fire(id, edges);
        }
    }

    fn fire(&mut self, id: u64, edges: u32) {
        let Some(watch) = self.watches.get_mut(&id) else {
            return;
        };
        if edges & watch.mask == 0 {
            return;
        }
        watch.seen |= edges & watch.mask;
        watch.count += 1;
        let (port, once, object) = (watch.port, watch.once, watch.object);
        if !std::mem::replace(&mut watch.queued, true) {
            watch.timestamp_ns = now_ns();
            self.enqueue(port, Queued::Watch(id));
        }
        if once && let Ok(side) = self.side(object.0, object.1) {
            side.watches.retain(|w| *w != id);
        }
    }

    fn enqueue(&mut self, port: u64, item: Queued) {
        if let Some(Object {
            body: Body::Port(queue),
            ..
        }) = self.objects.get_mut(&port)
        {
            queue.push_back(item);
        }
    }

    fn port(&mut self, handle: u32, rights: Rights) -> Result<u64> {
        let entry = self.entry(handle, rights)?;
        match self.object(entry.koid)?.body {
            Body::Port(_) => Ok(entry.koid),
            _ => Err(Error::WrongType),
        }
    }

    pub(super) fn signal(&mut self, handle: u32, clear: u32, set: u32) -> Result<()> {
        let entry = self.entry(handle, Rights::SIGNAL)?;
        if !matches!(self.object(entry.koid)?.body, Body::Event) {
            return Err(Error::WrongType);
        }
        if (clear | set) & !(Signals::SIGNALED.0 | Signals::USER.0) != 0 {
            return Err(Error::InvalidArgument);
        }
        self.update(entry.koid, entry.side, clear, set);
        Ok(())
    }

    pub(super) fn wait_async(
        &mut self,
        handle: u32,
        port: u32,
        key: u64,
        mask: u32,
        options: usize,
    ) -> Result<()> {
        let entry = self.entry(handle, Rights::WAIT)?;
        let port = self.port(port, Rights::WRITE)?;
        let id = self.next_id();
        let side = self.side(entry.koid, entry.side)?;
        let present = side.signals & mask;
        side.watches.push(id);
        let watch = Watch {
            object: (entry.koid, entry.side),
            port,
            key,
            mask,
            once: options & WAIT_ONCE != 0,
            queued: false,
            seen: 0,
            count: 0,
            timestamp_ns: 0,
        };
        self.watches.insert(id, watch);
        if present != 0 {
            self.fire(id, present);
        }
        Ok(())
    }

    pub(super) fn create_port(&mut self) -> Result<u32> {
        Ok(self.create(Body::Port(VecDeque::new())))
    }

    /// # Safety
    ///
    /// A packet stands at `pointer`.
    pub(super) unsafe fn port_queue(&mut self, handle: u32, pointer: usize) -> Result<()> {
        let port = self.port(handle, Rights::WRITE)?;
        // SAFETY: the caller's promise.
        let sent = unsafe { (pointer as *const Packet).read() };
        let packet = Packet {
            kind: Packet::USER,
            signals: 0,
            timestamp_ns: now_ns(),
            ..sent
        };
        self.enqueue(port, Queued::User(packet));
        Ok(())
    }

    /// # Safety
    ///
    /// There is room for `count` packets at `pointer`.
    pub(super) unsafe fn port_take(
        &mut self,
        handle: u32,
        pointer: usize,
        count: usize,
    ) -> Result<usize> {
        let port = self.port(handle, Rights::READ)?;
        let mut taken = 0;
        while taken < count {
            let Body::Port(queue) = &mut self.object(port)?.body else {
                break;
            };
            let Some(item) = queue.pop_front() else { break };
            let Some(packet) = self.packet(item) else {
                continue;
            };
            // SAFETY: below `count`.
            unsafe { (pointer as *mut Packet).add(taken).write(packet) };
            taken += 1;
        }
        if taken == 0 {
            Err(Error::ShouldWait)
        } else {
            Ok(taken)
        }
    }

    fn packet(&mut self, item: Queued) -> Option<Packet> {
        match item {
            Queued::User(packet) => Some(packet),
            Queued::Watch(id) => {
                let watch = self.watches.get_mut(&id)?;
                watch.queued = false;
                let packet = Packet {
                    key: watch.key,
                    kind: Packet::SIGNAL,
                    signals: std::mem::take(&mut watch.seen),
                    value: std::mem::take(&mut watch.count),
                    timestamp_ns: watch.timestamp_ns,
                };
                let (object, once) = (watch.object, watch.once);
                if once || !self.objects.contains_key(&object.0) {
                    self.watches.remove(&id);
                }
                Some(packet)
            }
            Queued::Interrupt(koid) => {
                let binding = self.binding(koid).ok()?;
                binding.queued = false;
                let packet = Packet {
                    key: binding.key,
                    kind: Packet::INTERRUPT,
                    signals: 0,
                    value: std::mem::take(&mut binding.pending),
                    timestamp_ns: now_ns(),
                };
                binding.masked = !binding.ack_on_dequeue;
                Some(packet)
            }
        }
    }

    pub(super) fn port_cancel(&mut self, port: u32, handle: u32, key: u64) -> Result<()> {
        let port = self.port(port, Rights::NONE)?;
        let entry = self.entry(handle, Rights::NONE)?;
        let object = (entry.koid, entry.side);
        let ids: Vec<u64> = self
            .watches
            .iter()
            .filter(|(_, w)| w.object == object && w.port == port && w.key == key)
            .map(|(id, _)| *id)
            .collect();
        for id in &ids {
            self.watches.remove(id);
        }
        self.side(entry.koid, entry.side)?
            .watches
            .retain(|id| !ids.contains(id));
        Ok(())
    }

    // Events, timers

    pub(super) fn create_event(&mut self) -> Result<u32> {
        Ok(self.create(Body::Event))
    }

    pub(super) fn create_timer(&mut self) -> Result<u32> {
        Ok(self.create(Body::Timer(Alarm::default())))
    }

    pub(super) fn timer_set(&mut self, handle: u32, deadline: u64, period: u64) -> Result<()> {
        let entry = self.entry(handle, Rights::WRITE)?;
        let Body::Timer(alarm) = &mut self.object(entry.koid)?.body else {
            return Err(Error::WrongType);
        };
        alarm.deadline_ns = (deadline != u64::MAX).then_some(deadline);
        alarm.period_ns = period;
        self.update(entry.koid, 0, Signals::SIGNALED.0, 0);
        Ok(())
    }

    pub(super) fn fire_timers(&mut self, now: u64) {
        let mut due = Vec::new();
        for (koid, object) in &mut self.objects {
            if let Body::Timer(alarm) = &mut object.body
                && let Some(deadline) = alarm.deadline_ns
                && deadline <= now
            {
                alarm.deadline_ns =
                    (alarm.period_ns > 0).then(|| deadline.saturating_add(alarm.period_ns));
                due.push(*koid);
            }
        }
        for koid in due {
            self.update(koid, 0, Signals::SIGNALED.0, Signals::SIGNALED.0);
        }
    }

    pub(super) fn next_timer(&self) -> u64 {
        let deadline = |object: &Object| match &object.body {
            Body::Timer(alarm) => alarm.deadline_ns,
            _ => None,
        };
        self.objects
            .values()
            .filter_map(deadline)
            .min()
            .unwrap_or(u64::MAX)
    }

    // Futexes

    pub(super) fn futex_enter(&mut self, address: usize) -> u64 {
        let ticket = self.next_id();
        self.futexes.entry(address).or_default().push_back(ticket);
        ticket
    }

    pub(super) fn futex_is_waiting(&self, address: usize, ticket: u64) -> bool {
        self.futexes
            .get(&address)
            .is_some_and(|queue| queue.contains(&ticket))
    }

    pub(super) fn futex_leave(&mut self, address: usize, ticket: u64) {
        if let Some(queue) = self.futexes.get_mut(&address) {
            queue.retain(|t| *t != ticket);
            if queue.is_empty() {
                self.futexes.remove(&address);
            }
        }
    }

    pub(super) fn futex_wake(&mut self, address: usize, count: usize) -> usize {
        let Some(queue) = self.futexes.get_mut(&address) else {
            return 0;
        };
        let woken = queue.len().min(count);
        queue.drain(..woken);
        woken
    }

    // Channels

    pub(super) fn create_channel(&mut self) -> Answer {
        let a = self.create(Body::Channel(<[End; 2]>::default()));
        let koid = self.entry(a, Rights::NONE)?.koid;
        let b = self.new_handle(koid, 1);
        self.update(koid, 0, 0, Signals::WRITABLE.0);
        self.update(koid, 1, 0, Signals::WRITABLE.0);
        Ok((a as usize, b as usize))
    }

    fn end(&mut self, entry: Entry) -> Result<&mut End> {
        match &mut self.object(entry.koid)?.body {
            Body::Channel(ends) => Ok(&mut ends[entry.side]),
            _ => Err(Error::WrongType),
        }
    }

    fn peer(&mut self, entry: Entry) -> Result<&mut End> {
        self.end(Entry {
            side: entry.side ^ 1,
            ..entry
        })
    }

    /// # Safety
    ///
    /// Bytes and handles stand where the arguments say.
    unsafe fn send(
        &mut self,
        entry: Entry,
        bytes: (usize, usize),
        handles: (usize, usize),
        txid: u64,
        how: Sent,
    ) -> Result<()> {
        if bytes.1 > MESSAGE_BYTES_MAX || handles.1 > MESSAGE_HANDLES_MAX {
            return Err(Error::OutOfRange);
        }
        // SAFETY: the caller's promise.
        let (bytes, handles) = unsafe { (copy::<u8>(bytes), copy::<u32>(handles)) };
        for (i, handle) in handles.iter().enumerate() {
            let moved = self.entry(*handle, Rights::TRANSFER)?;
            if handles[..i].contains(handle) {
                return Err(Error::BadHandle);
            }
            if (moved.koid, moved.side) == (entry.koid, entry.side) {
                return Err(Error::InvalidArgument);
            }
        }
        let peer = self.peer(entry)?;
        if peer.closed {
            return Err(Error::PeerClosed);
        }
        if let Sent::Written = how
            && txid != 0
            && !peer.callers.contains(&txid)
        {
            return Err(Error::BadState);
        }
        let is_reply = matches!(how, Sent::Written) && txid != 0;
        if !is_reply && peer.inbox.len() >= CHANNEL_MESSAGES_MAX {
            self.update(entry.koid, entry.side, Signals::WRITABLE.0, 0);
            return Err(Error::ShouldWait);
        }
        let handles: Vec<Entry> = handles
            .iter()
            .filter_map(|h| self.remove(*h).ok())
            .collect();
        let message = Message {
            txid,
            bytes,
            handles,
        };
        let peer = self.peer(entry)?;
        if is_reply {
            peer.callers.retain(|t| *t != txid);
            peer.replies.push(message);
        } else {
            peer.inbox.push_back(message);
            let readable = Signals::READABLE.0;
            self.update(entry.koid, entry.side ^ 1, readable, readable);
        }
        Ok(())
    }

    /// # Safety
    ///
    /// As for [`World::send`].
    pub(super) unsafe fn channel_write(
        &mut self,
        handle: u32,
        bytes: usize,
        len: usize,
        handles: usize,
        count: usize,
        txid: u64,
    ) -> Result<()> {
        let entry = self.entry(handle, Rights::WRITE)?;
        // SAFETY: the caller's promise.
        unsafe { self.send(entry, (bytes, len), (handles, count), txid, Sent::Written) }
    }

    /// # Safety
    ///
    /// There is room for bytes and handles where the arguments say.
    unsafe fn receive(&mut self, message: Message, bytes: usize, handles: usize) -> (usize, u64) {
        let sizes = message.bytes.len() | message.handles.len() << 32;
        // SAFETY: the caller's promise; checked by it that they fit.
        unsafe {
            core::ptr::copy_nonoverlapping(
                message.bytes.as_ptr(),
                bytes as *mut u8,
                message.bytes.len(),
            );
            for (i, entry) in message.handles.into_iter().enumerate() {
                let raw = self.insert(entry);
                (handles as *mut u32).add(i).write(raw);
            }
        }
        (sizes, message.txid)
    }

    /// # Safety
    ///
    /// As for [`World::receive`].
    pub(super) unsafe fn channel_read(
        &mut self,
        handle: u32,
        bytes: usize,
        bytes_cap: usize,
        handles: usize,
        handles_cap: usize,
        second: &mut usize,
    ) -> Answer {
        let entry = self.entry(handle, Rights::READ)?;
        let peer_closed = self.peer(entry)?.closed;
        let end = self.end(entry)?;
        let Some(first) = end.inbox.front() else {
            return Err(if peer_closed {
                Error::PeerClosed
            } else {
                Error::ShouldWait
            });
        };
        if first.bytes.len() > bytes_cap || first.handles.len() > handles_cap {
            *second = first.bytes.len() | first.handles.len() << 32;
            return Err(Error::BufferTooSmall);
        }
        let Some(message) = end.inbox.pop_front() else {
            return Err(Error::ShouldWait);
        };
        if end.inbox.is_empty() {
            self.update(entry.koid, entry.side, Signals::READABLE.0, 0);
        }
        if !peer_closed {
            self.update(entry.koid, entry.side ^ 1, 0, Signals::WRITABLE.0);
        }
        // SAFETY: just checked that it fits.
        let (sizes, txid) = unsafe { self.receive(message, bytes, handles) };
        Ok((sizes, txid as usize))
    }

    /// # Safety
    ///
    /// A `CallArgs` stands at `args`, and what it says is so.
    pub(super) unsafe fn call_send(
        &mut self,
        handle: u32,
        args: usize,
        second: &mut usize,
    ) -> Result<u64> {
        let entry = self.entry(handle, Rights::READ | Rights::WRITE)?;
        // SAFETY: the caller's promise.
        let args = unsafe { (args as *const CallArgs).read() };
        let txid = self.next_id();
        let peer = self.peer(entry)?;
        if peer.closed {
            *second = peer.epoch as usize;
        }
        let bytes = (args.bytes as usize, args.bytes_len as usize);
        let handles = (args.handles as usize, args.handles_len as usize);
        // SAFETY: the caller's promise.
        unsafe { self.send(entry, bytes, handles, txid, Sent::Called)? };
        self.end(entry)?.callers.push(txid);
        Ok(txid)
    }

    /// # Safety
    ///
    /// As for [`World::call_send`].
    pub(super) unsafe fn call_receive(
        &mut self,
        handle: u32,
        args: usize,
        txid: u64,
        second: &mut usize,
    ) -> Result<usize> {
        let entry = self.entry(handle, Rights::NONE)?;
        // SAFETY: the caller's promise.
        let args = unsafe { (args as *const CallArgs).read() };
        let end = self.end(entry)?;
        if let Some(at) = end.lost.iter().position(|lost| lost.0 == txid) {
            *second = end.lost.swap_remove(at).1 as usize;
            return Err(Error::PeerClosed);
        }
        let Some(at) = end.replies.iter().position(|m| m.txid == txid) else {
            let peer = self.peer(entry)?;
            if peer.closed {
                *second = peer.epoch as usize;
                return Err(Error::PeerClosed);
            }
            return Err(Error::ShouldWait);
        };
        let message = end.replies.swap_remove(at);
        if message.bytes.len() > args.reply_bytes_cap as usize
            || message.handles.len() > args.reply_handles_cap as usize
        {
            message
                .handles
                .into_iter()
                .for_each(|entry| self.release(entry));
            return Err(Error::BufferTooSmall);
        }
        let (bytes, handles) = (args.reply_bytes as usize, args.reply_handles as usize);
        // SAFETY: just checked that it fits.
        Ok(unsafe { self.receive(message, bytes, handles) }.0)
    }

    pub(super) fn call_forget(&mut self, handle: u32, txid: u64) -> Result<()> {
        let entry = self.entry(handle, Rights::NONE)?;
        let end = self.end(entry)?;
        end.callers.retain(|t| *t != txid);
        end.lost.retain(|lost| lost.0 != txid);
        Ok(())
    }

    // Memory

    fn memory(&mut self, koid: u64) -> Result<Arc<Memory>> {
        match &self.object(koid)?.body {
            Body::Vmo(memory) => Ok(memory.clone()),
            _ => Err(Error::WrongType),
        }
    }

    pub(super) fn create_vmo(&mut self, size: usize, flags: usize) -> Result<u32> {
        if flags != 0 {
            return Err(Error::NotSupported);
        }
        Ok(self.create(Body::Vmo(Arc::new(Memory::new(size)?))))
    }

    /// # Safety
    ///
    /// `len` bytes at `pointer` are the caller's, for operations that copy.
    pub(super) unsafe fn vmo_op(
        &mut self,
        handle: u32,
        op: usize,
        offset: usize,
        len: usize,
        pointer: usize,
    ) -> Result<usize> {
        let op = VmoOp::from_number(op).ok_or(Error::InvalidArgument)?;
        let rights = match op {
            VmoOp::Read => Rights::READ,
            VmoOp::Write | VmoOp::Commit | VmoOp::Decommit => Rights::WRITE,
            VmoOp::Slice => Rights::DUPLICATE,
            VmoOp::Resize => return Err(Error::NotSupported),
        };
        let entry = self.entry(handle, rights)?;
        let memory = self.memory(entry.koid)?;
        let len = match op {
            VmoOp::Read | VmoOp::Write | VmoOp::Commit => len.min(OP_BYTES_MAX),
            _ => len,
        };
        let place = memory.at(offset, len)?;
        // SAFETY: `place` has `len` bytes; the rest is the caller's promise. Racing copies of shared
        // memory are as volatile as a kernel's.
        unsafe {
            match op {
                VmoOp::Read => core::ptr::copy(place, pointer as *mut u8, len),
                VmoOp::Write => core::ptr::copy(pointer as *const u8, place, len),
                VmoOp::Decommit => place.write_bytes(0, len),
                VmoOp::Slice => {
                    let slice = Memory::slice(&memory, offset, len)?;
                    let handle = self.create(Body::Vmo(Arc::new(slice)));
                    let index = self.index(handle)?;
                    if let Some(new) = &mut self.table[index].1 {
                        new.rights = entry.rights;
                    }
                    return Ok(handle as usize);
                }
                _ => {}
            }
        }
        Ok(len)
    }

    pub(super) fn map(
        &mut self,
        process: u32,
        vmo: u32,
        offset: usize,
        len: usize,
        flags: usize,
    ) -> Result<usize> {
        if process != RawHandle::SELF_PROCESS.0 || flags & (MAP_FIXED | MAP_EXEC) != 0 {
            return Err(Error::NotSupported);
        }
        let write = if flags & MAP_WRITE != 0 {
            Rights::WRITE
        } else {
            Rights::NONE
        };
        let entry = self.entry(vmo, Rights::MAP | Rights::READ | write)?;
        if !offset.is_multiple_of(crate::abi::PAGE_SIZE) {
            return Err(Error::InvalidArgument);
        }
        let memory = self.memory(entry.koid)?;
        let address = memory.at(offset, len)? as usize;
        self.mappings.entry(address).or_default().push(memory);
        Ok(address)
    }

    pub(super) fn unmap(&mut self, process: u32, address: usize) -> Result<()> {
        if process != RawHandle::SELF_PROCESS.0 {
            return Err(Error::NotSupported);
        }
        if let Some(owners) = self.mappings.get_mut(&address) {
            owners.pop();
            if owners.is_empty() {
                self.mappings.remove(&address);
            }
        }
        Ok(())
    }

    // Interrupts

    fn binding(&mut self, koid: u64) -> Result<&mut Binding> {
        match &mut self.object(koid)?.body {
            Body::Interrupt(binding) => Ok(binding),
            _ => Err(Error::WrongType),
        }
    }

    pub(super) fn create_interrupt(&mut self, kind: usize) -> Result<u32> {
        match kind {
            IRQ_VIRTUAL => Ok(self.create(Body::Interrupt(Binding::default()))),
            _ => Err(Error::NotSupported),
        }
    }

    pub(super) fn irq_bind(
        &mut self,
        handle: u32,
        port: u32,
        key: u64,
        flags: usize,
    ) -> Result<()> {
        let koid = self.entry(handle, Rights::MANAGE)?.koid;
        let port = match port {
            0 => None,
            port => Some(self.port(port, Rights::WRITE)?),
        };
        let binding = self.binding(koid)?;
        if port.is_some() && binding.port.is_some() {
            return Err(Error::BadState);
        }
        binding.port = port;
        binding.key = key;
        binding.ack_on_dequeue = flags & IRQ_ACK_ON_DEQUEUE != 0;
        binding.masked = false;
        self.irq_deliver(koid)
    }

    fn irq_deliver(&mut self, koid: u64) -> Result<()> {
        let binding = self.binding(koid)?;
        if let Some(port) = binding.port
            && binding.pending > 0
            && !binding.masked
            && !std::mem::replace(&mut binding.queued, true)
        {
            self.enqueue(port, Queued::Interrupt(koid));
        }
        Ok(())
    }

    pub(super) fn irq_ack(&mut self, handle: u32) -> Result<()> {
        let koid = self.entry(handle, Rights::MANAGE)?.koid;
        self.binding(koid)?.masked = false;
        self.irq_deliver(koid)
    }

    pub(super) fn irq_trigger(&mut self, handle: u32) -> Result<()> {
        let koid = self.entry(handle, Rights::SIGNAL)?.koid;
        let binding = self.binding(koid)?;
        binding.pending += 1;
        binding.total += 1;
        self.irq_deliver(koid)
    }
}

/// # Safety
///
/// `count` values stand at the address.
unsafe fn copy<T: Copy>((address, count): (usize, usize)) -> Vec<T> {
    // SAFETY: the caller's promise; nothing is read if there is nothing.
    (0..count)
        .map(|i| unsafe { (address as *const T).add(i).read_unaligned() })
        .collect()
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
