//! Channels: two ends, each with a queue of messages (bytes and handles), and calls that wait for their reply.
//!
//! A call's message carries a transaction number that the kernel chose; the reply carries it back and goes straight to
//! the caller that waits, past the queue. Callers of one end may be many: replies cannot reach the wrong one.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

use bulkhead_abi::{CHANNEL_MESSAGES_MAX, Error, ObjectKind, Result, Signals};

use crate::lock::{Cell, Locked};
use crate::memory::account::{Account, Charge};
use crate::object::thread::Thread;
use crate::object::{Base, Handle};
use crate::sched;

/// Most bytes that wait in one direction.
const QUEUED_BYTES_MAX: usize = 4 << 20;
/// Bytes of a message that need no allocation of their own.
pub const INLINE_BYTES: usize = 160;

/// A message.
pub struct Message {
    /// Transaction of a call or its reply; 0 for a plain message.
    pub txid: u64,
    /// Handles that move with it.
    pub handles: Vec<Handle>,
    len: usize,
    inline: [core::mem::MaybeUninit<u8>; INLINE_BYTES],
    long: Vec<u8>,
    /// Whose memory it takes; `None` for the kernel's own.
    _charge: Option<Charge>,
}

impl Message {
    /// A message of `len` bytes, which `fill` writes all if it succeeds, on somebody's account.
    #[inline]
    pub fn new(
        account: Option<&Arc<Account>>,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<()>,
    ) -> Result<Box<Message>> {
        let charge = account
            .map(|a| Charge::new(a, size_of::<Message>() + len))
            .transpose()?;
        let mut message = Box::new_uninit();
        let start: *mut Message = message.as_mut_ptr();
        // SAFETY: every field but the inline bytes, which need no initial value, is written.
        let mut message: Box<Message> = unsafe {
            (&raw mut (*start).txid).write(0);
            (&raw mut (*start).handles).write(Vec::new());
            (&raw mut (*start).len).write(0);
            (&raw mut (*start).long).write(Vec::new());
            (&raw mut (*start)._charge).write(charge);
            message.assume_init()
        };
        if len > INLINE_BYTES {
            message
                .long
                .try_reserve_exact(len)
                .map_err(|_| Error::NoMemory)?;
            message.long.resize(len, 0);
            fill(&mut message.long)?;
        } else {
            let start = message.inline.as_mut_ptr().cast::<u8>();
            // SAFETY: room for `len` bytes, which `fill` only writes: it gets them from user memory or a kernel record.
            fill(unsafe { core::slice::from_raw_parts_mut(start, len) })?;
        }
        // Only what `fill` wrote can be read.
        message.len = len;
        Ok(message)
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        if self.len > INLINE_BYTES {
            &self.long
        } else {
            // SAFETY: `new` initialised the first `len` bytes.
            unsafe { core::slice::from_raw_parts(self.inline.as_ptr().cast(), self.len) }
        }
    }
}

/// One direction's end: what waits to be read there, and who waits.
struct Side {
    inbox: VecDeque<Box<Message>>,
    inbox_bytes: usize,
    readers: VecDeque<Arc<Thread>>,
    /// Threads that called over this end and wait for the reply.
    callers: Vec<(u64, Arc<Thread>)>,
    closed: bool,
}

/// A pair of ends, 0 and 1.
pub struct Channel {
    bases: [Base; 2],
    sides: [Locked<Side>; 2],
    next_txid: Cell<u64>,
    /// What callers of the other end are told when an end closes.
    epochs: [Cell<u64>; 2],
}

/// Messages of channels that closed. They are dropped one after the other at the end of the system call: the handles
/// in them may close further channels, and so on, deeper than the stack would allow.
#[expect(
    clippy::vec_box,
    reason = "the messages come in boxes, and moving them costs more than a pointer"
)]
static GRAVE: Locked<Vec<Box<Message>>> = Locked::new(Vec::new());

/// Drops what closed channels left behind.
#[inline]
pub fn empty_grave() {
    loop {
        let Some(message) = GRAVE.borrow_mut().pop() else {
            break;
        };
        drop(message);
    }
}

impl Channel {
    /// A channel; make a handle for each end.
    pub fn new() -> Arc<Channel> {
        let side = || {
            Locked::new(Side {
                inbox: VecDeque::new(),
                inbox_bytes: 0,
                readers: VecDeque::new(),
                callers: Vec::new(),
                closed: false,
            })
        };
        let base = || {
            let base = Base::new(ObjectKind::Channel);
            base.update(Signals::NONE, Signals::WRITABLE);
            base
        };
        Arc::new(Channel {
            bases: [base(), base()],
            sides: [side(), side()],
            next_txid: Cell::new(1),
            epochs: [Cell::new(0), Cell::new(0)],
        })
    }

    /// What every object has, of an end.
    #[inline]
    pub fn base(&self, side: usize) -> &Base {
        &self.bases[side & 1]
    }

    /// Sets what callers of the other end learn when this end closes. Another epoch means another server: who called
    /// the old one, and whose message is no longer here to be read, learns it now.
    pub fn set_epoch(&self, side: usize, epoch: u64) {
        let (side, other) = (side & 1, (side ^ 1) & 1);
        if self.epochs[side].replace(epoch) == epoch {
            return;
        }
        let lost: Vec<_> = {
            let own = self.sides[side].borrow();
            let mut peer = self.sides[other].borrow_mut();
            let unread = |txid| own.inbox.iter().any(|message| message.txid == txid);
            peer.callers
                .extract_if(.., |caller| !unread(caller.0))
                .collect()
        };
        for (_, thread) in lost {
            thread.complete_with(Err(Error::PeerClosed), epoch as usize);
            sched::wake(thread);
        }
        // An edge for those who watch, and no state: a watch of tomorrow must not tell of today.
        self.bases[other].update(Signals::PEER_RENEWED, Signals::PEER_RENEWED);
        self.bases[other].update(Signals::PEER_RENEWED, Signals::NONE);
    }

    /// The epoch of the other end.
    pub fn peer_epoch(&self, side: usize) -> u64 {
        self.epochs[(side ^ 1) & 1].get()
    }

    /// A transaction number for a call.
    pub fn new_txid(&self) -> u64 {
        self.next_txid.replace(self.next_txid.get() + 1)
    }

    /// The last handle to an end is gone.
    pub fn close(&self, side: usize) {
        let (inbox, readers, own_callers) = {
            let mut own = self.sides[side].borrow_mut();
            own.closed = true;
            own.inbox_bytes = 0;
            (
                core::mem::take(&mut own.inbox),
                core::mem::take(&mut own.readers),
                core::mem::take(&mut own.callers),
            )
        };
        if !inbox.is_empty() {
            GRAVE.borrow_mut().extend(inbox);
            sched::put_aside();
        }
        let (peer_readers, peer_callers) = {
            let mut peer = self.sides[side ^ 1].borrow_mut();
            (
                core::mem::take(&mut peer.readers),
                core::mem::take(&mut peer.callers),
            )
        };
        for (_, thread) in own_callers {
            thread.complete(Err(Error::Cancelled));
            sched::wake(thread);
        }
        let epoch = self.epochs[side].get();
        for (_, thread) in peer_callers {
            thread.complete_with(Err(Error::PeerClosed), epoch as usize);
            sched::wake(thread);
        }
        // Readers look again and see the closed end.
        readers
            .into_iter()
            .chain(peer_readers)
            .for_each(sched::wake);
        self.bases[side ^ 1].update(Signals::WRITABLE, Signals::PEER_CLOSED);
    }

    /// Whether the other end is closed.
    pub fn peer_closed(&self, side: usize) -> bool {
        self.sides[side ^ 1].borrow().closed
    }

    /// Sends a message from an end; gives it back when it cannot be delivered.
    pub fn write(
        &self,
        side: usize,
        message: Box<Message>,
    ) -> core::result::Result<(), (Error, Box<Message>)> {
        let mut peer = self.sides[side ^ 1].borrow_mut();
        if peer.closed {
            return Err((Error::PeerClosed, message));
        }
        if message.txid != 0
            && let Some(at) = peer.callers.iter().position(|c| c.0 == message.txid)
        {
            let (_, thread) = peer.callers.swap_remove(at);
            drop(peer);
            thread.deliver(message);
            sched::wake_near(thread);
            return Ok(());
        }
        let bytes = message.len;
        if peer.inbox.len() >= CHANNEL_MESSAGES_MAX || peer.inbox_bytes + bytes > QUEUED_BYTES_MAX {
            drop(peer);
            self.bases[side].update(Signals::WRITABLE, Signals::NONE);
            return Err((Error::ShouldWait, message));
        }
        peer.inbox_bytes += bytes;
        peer.inbox.push_back(message);
        let reader = peer.readers.pop_front();
        drop(peer);
        if let Some(thread) = reader {
            sched::wake(thread);
        }
        // Every message is an edge: a reader that left messages behind hears of the next one.
        self.bases[side ^ 1].update(Signals::READABLE, Signals::READABLE);
        Ok(())
    }

    /// Takes the thread that waits to read at the other end, if a message from here would go straight to it and `takes`
    /// says that it has taken it.
    #[inline]
    pub fn take_reader(
        &self,
        side: usize,
        takes: impl FnOnce(&Thread) -> bool,
    ) -> Option<Arc<Thread>> {
        let mut peer = self.sides[(side ^ 1) & 1].borrow_mut();
        if peer.closed || !peer.inbox.is_empty() || !takes(peer.readers.front()?) {
            return None;
        }
        peer.readers.pop_front()
    }

    /// Takes the thread at the other end that waits for the reply to a call, if `takes` says that it has taken it.
    #[inline]
    pub fn take_caller(
        &self,
        side: usize,
        txid: u64,
        takes: impl FnOnce(&Thread) -> bool,
    ) -> Option<Arc<Thread>> {
        let mut peer = self.sides[(side ^ 1) & 1].borrow_mut();
        let at = peer.callers.iter().position(|c| c.0 == txid)?;
        takes(&peer.callers[at].1).then(|| peer.callers.swap_remove(at).1)
    }

    /// Takes the next message of an end, if `fits` says that its (bytes, handles) fit.
    pub fn read(&self, side: usize, fits: impl FnOnce(usize, usize) -> bool) -> Result<Taken> {
        let mut own = self.sides[side].borrow_mut();
        let Some(first) = own.inbox.front() else {
            let peer_closed = {
                drop(own);
                self.peer_closed(side)
            };
            return Err(if peer_closed {
                Error::PeerClosed
            } else {
                Error::ShouldWait
            });
        };
        if !fits(first.len, first.handles.len()) {
            return Ok(Taken::TooBig(first.len, first.handles.len()));
        }
        let was_full =
            own.inbox.len() >= CHANNEL_MESSAGES_MAX || own.inbox_bytes >= QUEUED_BYTES_MAX / 2;
        let Some(message) = own.inbox.pop_front() else {
            return Err(Error::ShouldWait);
        };
        own.inbox_bytes -= message.len;
        let empty = own.inbox.is_empty();
        drop(own);
        if empty {
            self.bases[side].update(Signals::READABLE, Signals::NONE);
        }
        let peer = &self.bases[side ^ 1];
        if was_full || !peer.signals().intersects(Signals::WRITABLE) {
            peer.update(Signals::NONE, Signals::WRITABLE);
        }
        Ok(Taken::Message(message))
    }

    /// Adds a thread that waits to read.
    pub fn add_reader(&self, side: usize, thread: Arc<Thread>) {
        self.sides[side].borrow_mut().readers.push_back(thread);
    }

    /// Whether a thread at the other end waits for the reply to this call.
    pub fn is_awaited(&self, side: usize, txid: u64) -> bool {
        let peer = self.sides[side ^ 1].borrow();
        peer.callers.iter().any(|caller| caller.0 == txid)
    }

    /// Adds a thread that waits for the reply to a call over this end.
    pub fn add_caller(&self, side: usize, txid: u64, thread: Arc<Thread>) {
        self.sides[side].borrow_mut().callers.push((txid, thread));
    }

    /// Removes a thread that no longer waits.
    pub fn remove_waiter(&self, side: usize, thread: &Thread) {
        let mut own = self.sides[side].borrow_mut();
        own.readers.retain(|t| !core::ptr::eq(&**t, thread));
        own.callers.retain(|(_, t)| !core::ptr::eq(&**t, thread));
    }
}

/// What [`Channel::read`] found.
pub enum Taken {
    /// The message.
    Message(Box<Message>),
    /// It does not fit: bytes and handles. It stays.
    TooBig(usize, usize),
}
