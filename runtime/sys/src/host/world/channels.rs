//! Channels.

use super::World;
use crate::abi::{
    CHANNEL_MESSAGES_MAX, CallArgs, MESSAGE_BYTES_MAX, MESSAGE_HANDLES_MAX, Rights, Signals,
};
use crate::host::objects::{Body, End, Entry, Message};
use crate::host::{Answer, Error, Result};

/// How a message is sent.
#[derive(Clone, Copy)]
enum Sent {
    /// By `channel_write`: a plain message or a reply.
    Written,
    /// By `channel_call`.
    Called,
}

impl World {
    pub(in crate::host) fn create_channel(&mut self) -> Answer {
        let a = self.create(Body::Channel(<[End; 2]>::default()));
        let koid = self.entry(a, Rights::NONE)?.koid;
        let b = self.new_handle(koid, 1);
        self.update(koid, 0, 0, Signals::WRITABLE.0);
        self.update(koid, 1, 0, Signals::WRITABLE.0);
        Ok((a as usize, b as usize))
    }

    pub(super) fn end(&mut self, entry: Entry) -> Result<&mut End> {
        match &mut self.object(entry.koid)?.body {
            Body::Channel(ends) => Ok(&mut ends[entry.side]),
            _ => Err(Error::WrongType),
        }
    }

    pub(super) fn peer(&mut self, entry: Entry) -> Result<&mut End> {
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
    pub(in crate::host) unsafe fn channel_write(
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
    pub(in crate::host) unsafe fn channel_read(
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
    pub(in crate::host) unsafe fn call_send(
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
    pub(in crate::host) unsafe fn call_receive(
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

    pub(in crate::host) fn call_forget(&mut self, handle: u32, txid: u64) -> Result<()> {
        let entry = self.entry(handle, Rights::NONE)?;
        let end = self.end(entry)?;
        end.callers.retain(|t| *t != txid);
        end.lost.retain(|lost| lost.0 != txid);
        Ok(())
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
