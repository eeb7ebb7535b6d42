//! Channels: datagrams with handles, and calls that wait for their reply.

use alloc::vec::Vec;
use core::fmt;
use core::mem::MaybeUninit;

use crate::abi::{
    CallArgs, Error, MESSAGE_BYTES_MAX, MESSAGE_HANDLES_MAX, Property, RawHandle, Result, Syscall,
    message_sizes,
};
use crate::handle::{Handle, HandleType, handle_type, new_handle, object_set};
use crate::raw::syscall;
use crate::time::Deadline;

/// Handles of one message, owned, in order; at most 64. What is left in it is closed on drop.
pub struct HandleList {
    /// From `first` to `len` initialised and owned.
    raw: [MaybeUninit<u32>; MESSAGE_HANDLES_MAX],
    first: usize,
    len: usize,
}

impl HandleList {
    /// No handles.
    #[inline]
    pub const fn new() -> HandleList {
        HandleList {
            raw: [const { MaybeUninit::uninit() }; MESSAGE_HANDLES_MAX],
            first: 0,
            len: 0,
        }
    }

    /// Number of handles.
    #[inline]
    pub fn len(&self) -> usize {
        self.len - self.first
    }

    /// Whether there is none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends a handle. With 64 in it, `LimitReached` (and the handle is closed).
    pub fn push(&mut self, handle: impl HandleType) -> Result<()> {
        let slot = self.raw.get_mut(self.len).ok_or(Error::LimitReached)?;
        slot.write(handle.into_handle().into_raw().0);
        self.len += 1;
        Ok(())
    }

    /// Takes the first handle.
    pub fn pop_front(&mut self) -> Option<Handle> {
        if self.first == self.len {
            return None;
        }
        // SAFETY: slots from `first` to `len` are initialised; moving `first` gives this one away.
        let raw = unsafe { self.raw[self.first].assume_init() };
        self.first += 1;
        Some(Handle::from_raw(RawHandle(raw)))
    }

    /// Closes what is in it.
    pub fn clear(&mut self) {
        while self.pop_front().is_some() {}
        self.forget();
    }

    fn as_ptr(&self) -> *const u32 {
        self.raw[self.first..].as_ptr().cast()
    }

    /// Forgets its handles, which the kernel has taken.
    fn forget(&mut self) {
        self.first = 0;
        self.len = 0;
    }

    /// Takes over `len` handles that the kernel wrote to the front of the empty list.
    ///
    /// # Safety
    ///
    /// The first `len` slots were initialised, `len` being at most 64.
    unsafe fn adopt(&mut self, len: usize) {
        self.first = 0;
        self.len = len;
    }
}

impl Default for HandleList {
    fn default() -> HandleList {
        HandleList::new()
    }
}

impl Drop for HandleList {
    fn drop(&mut self) {
        while self.pop_front().is_some() {}
    }
}

impl fmt::Debug for HandleList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HandleList({})", self.len())
    }
}

impl<const N: usize> From<[Handle; N]> for HandleList {
    fn from(handles: [Handle; N]) -> HandleList {
        const { assert!(N <= MESSAGE_HANDLES_MAX) };
        let mut list = HandleList::new();
        for handle in handles {
            // It fits: checked above.
            let _ = list.push(handle);
        }
        list
    }
}

/// Which call a message belongs to; 0 for a message that asks for no reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Txid(pub u64);

impl Txid {
    /// Not a call.
    pub const NONE: Txid = Txid(0);
    /// Whether somebody waits for a reply.
    pub const fn is_call(self) -> bool {
        self.0 != 0
    }
}

/// A message that was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Received {
    /// Bytes.
    pub len: usize,
    /// The call that it belongs to.
    pub txid: Txid,
}

/// Why a call failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CallFailure {
    /// The error.
    pub error: Error,
    /// For `PeerClosed`: the epoch that the server set with [`Channel::set_epoch`].
    pub epoch: u64,
}

handle_type! {
    /// One end of a channel.
    Channel
}

impl Channel {
    /// The two ends of a new channel.
    pub fn create() -> Result<(Channel, Channel)> {
        // SAFETY: no memory is passed.
        let (a, b) = unsafe { syscall(Syscall::ChannelCreate, []) }.pair()?;
        Ok((new_handle(a), new_handle(b)))
    }

    /// Sends a message without a reply. Handles move; on an error they stay in the list.
    /// `ShouldWait`: the queue is full, wait for `WRITABLE`.
    pub fn write(&self, bytes: &[u8], handles: &mut HandleList) -> Result<()> {
        self.reply(Txid::NONE, bytes, handles)
    }

    /// Answers a call. As [`Channel::write`], with the call's ID.
    #[inline]
    pub fn reply(&self, txid: Txid, bytes: &[u8], handles: &mut HandleList) -> Result<()> {
        // SAFETY: the kernel reads bytes and handles, both borrowed for the call.
        unsafe {
            syscall(
                Syscall::ChannelWrite,
                [
                    self.arg(),
                    bytes.as_ptr() as usize,
                    bytes.len(),
                    handles.as_ptr() as usize,
                    handles.len(),
                    txid.0 as usize,
                ],
            )
        }
        .unit()?;
        handles.forget();
        Ok(())
    }

    /// Reads the next message into `buffer` and `handles` (what was in that is closed), waiting for
    /// one. `TimedOut` (or `ShouldWait`, with `Deadline::NOW`) if none came, `PeerClosed` once the
    /// other end is closed and everything is read, `BufferTooSmall` if it does not fit: it stays.
    #[inline]
    pub fn read(
        &self,
        buffer: &mut [u8],
        handles: &mut HandleList,
        deadline: Deadline,
    ) -> Result<Received> {
        // SAFETY: the slice is borrowed exclusively, and bytes are always valid in it.
        unsafe { self.read_raw(buffer.as_mut_ptr(), buffer.len(), handles, deadline) }
    }

    /// Reads the next message into a vector, in place of what was in it; its capacity is grown to the
    /// largest message first, so a vector that is used again costs nothing.
    pub fn read_vec(
        &self,
        buffer: &mut Vec<u8>,
        handles: &mut HandleList,
        deadline: Deadline,
    ) -> Result<Received> {
        buffer.clear();
        buffer.reserve_exact(MESSAGE_BYTES_MAX);
        let spare = buffer.spare_capacity_mut();
        let cap = spare.len().min(MESSAGE_BYTES_MAX);
        let target = spare.as_mut_ptr().cast::<u8>();
        // SAFETY: the spare capacity is ours to write.
        let received = unsafe { self.read_raw(target, cap, handles, deadline)? };
        // SAFETY: the kernel initialised `len` bytes, and `len` is at most `cap`.
        unsafe { buffer.set_len(received.len) };
        Ok(received)
    }

    /// # Safety
    ///
    /// `cap` bytes at `target` may be written.
    #[inline]
    unsafe fn read_raw(
        &self,
        target: *mut u8,
        cap: usize,
        handles: &mut HandleList,
        deadline: Deadline,
    ) -> Result<Received> {
        handles.clear();
        // SAFETY: the kernel writes at most `cap` bytes and `MESSAGE_HANDLES_MAX` handles.
        let (sizes, txid) = unsafe {
            syscall(
                Syscall::ChannelRead,
                [
                    self.arg(),
                    target as usize,
                    cap,
                    handles.raw.as_mut_ptr() as usize,
                    MESSAGE_HANDLES_MAX,
                    deadline.as_ns() as usize,
                ],
            )
        }
        .pair()?;
        let (len, count) = message_sizes(sizes as u64);
        // SAFETY: the kernel wrote `count` handles, at most the room that it was told of.
        unsafe { handles.adopt(count.min(MESSAGE_HANDLES_MAX)) };
        Ok(Received {
            len: len.min(cap),
            txid: Txid(txid as u64),
        })
    }

    /// Sends a message and waits for its reply, which comes into `reply` and `handles`. The handles in
    /// the list move; if the call fails before they do they stay.
    ///
    /// `Ok` tells the reply's length. The server runs at once on this CPU if it is waiting.
    pub fn call(
        &self,
        bytes: &[u8],
        handles: &mut HandleList,
        reply: &mut [u8],
        deadline: Deadline,
    ) -> core::result::Result<usize, CallFailure> {
        // SAFETY: both slices are borrowed for the call, `reply` exclusively.
        unsafe {
            self.call_raw(
                bytes.as_ptr(),
                bytes.len(),
                handles,
                reply.as_mut_ptr(),
                reply.len(),
                deadline,
            )
        }
    }

    /// As [`Channel::call`], with the reply in the buffer that the message stood in: `buffer[..len]`
    /// is sent, then overwritten. Saves the second buffer.
    #[inline]
    pub fn call_in_place(
        &self,
        buffer: &mut [u8],
        len: usize,
        handles: &mut HandleList,
        deadline: Deadline,
    ) -> core::result::Result<usize, CallFailure> {
        let failure = CallFailure {
            error: Error::InvalidArgument,
            epoch: 0,
        };
        if len > buffer.len() {
            return Err(failure);
        }
        let start = buffer.as_mut_ptr();
        // SAFETY: the kernel has copied the message before it writes the reply; the slice is borrowed
        // exclusively.
        unsafe { self.call_raw(start, len, handles, start, buffer.len(), deadline) }
    }

    /// # Safety
    ///
    /// `len` bytes at `bytes` are initialised; `reply_cap` bytes at `reply` may be written.
    #[inline]
    unsafe fn call_raw(
        &self,
        bytes: *const u8,
        len: usize,
        handles: &mut HandleList,
        reply: *mut u8,
        reply_cap: usize,
        deadline: Deadline,
    ) -> core::result::Result<usize, CallFailure> {
        let args = CallArgs {
            bytes: bytes as u64,
            bytes_len: u32::try_from(len).unwrap_or(u32::MAX),
            handles_len: handles.len() as u32,
            handles: handles.as_ptr() as u64,
            reply_bytes: reply as u64,
            reply_bytes_cap: u32::try_from(reply_cap).unwrap_or(u32::MAX),
            reply_handles_cap: MESSAGE_HANDLES_MAX as u32,
            reply_handles: handles.raw.as_mut_ptr() as u64,
        };
        // SAFETY: all memory that `args` names is borrowed or the caller's promise; the kernel has
        // taken the sent handles before it writes the reply's to the same array.
        let raw = unsafe {
            syscall(
                Syscall::ChannelCall,
                [
                    self.arg(),
                    (&raw const args) as usize,
                    deadline.as_ns() as usize,
                ],
            )
        };
        let second = raw.second;
        match raw.result() {
            Ok(sizes) => {
                let (len, count) = message_sizes(sizes as u64);
                // SAFETY: the kernel wrote `count` handles, at most the room that it was told of.
                unsafe { handles.adopt(count.min(MESSAGE_HANDLES_MAX)) };
                Ok(len.min(reply_cap))
            }
            Err(error) => {
                // Whether they have moved is not known: a late error comes after, an early one before.
                // Closing what has moved gives `BadHandle`, which nobody sees.
                handles.clear();
                Err(CallFailure {
                    error,
                    epoch: second as u64,
                })
            }
        }
    }

    /// Sets the epoch that callers at the other end are told when this end closes. Another epoch than before
    /// says that another server took this end over: calls that the old one took and left unanswered fail
    /// now, and the other end has the edge `PEER_RENEWED`; what nobody has read stays.
    pub fn set_epoch(&self, epoch: u64) -> Result<()> {
        object_set(self.raw(), Property::Epoch, epoch as usize)
    }
}
