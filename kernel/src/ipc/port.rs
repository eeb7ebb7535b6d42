//! Ports: where a thread waits for many things at once. Sources put packets into a port's queue; each watch and
//! each interrupt has at most one packet there, so that a queue is bounded by what its owner set up.

use alloc::collections::VecDeque;
use alloc::sync::Arc;

use bulkhead_abi::{Error, ObjectKind, Packet, Result, Signals};

use crate::arch;
use crate::irq::Interrupt;
use crate::lock::{Cell, Locked};
use crate::memory::account::Charge;
use crate::object::Base;
use crate::object::thread::Thread;
use crate::sched;

/// Most user packets in a queue.
const USER_PACKETS_MAX: usize = 4096;

enum Entry {
    Watch(Arc<Watch>),
    Interrupt(Arc<Interrupt>),
    User(Packet),
}

struct State {
    queue: VecDeque<Entry>,
    waiters: VecDeque<Arc<Thread>>,
    user_packets: usize,
    closed: bool,
}

/// A port.
pub struct Port {
    pub base: Base,
    state: Locked<State>,
}

impl Port {
    /// An empty port.
    pub fn new() -> Arc<Port> {
        Arc::new(Port {
            base: Base::new(ObjectKind::Port),
            state: Locked::new(State {
                queue: VecDeque::new(),
                waiters: VecDeque::new(),
                user_packets: 0,
                closed: false,
            }),
        })
    }

    /// The last handle is gone: nothing can be received any more.
    pub fn close(&self) {
        let (queue, waiters) = {
            let mut state = self.state.borrow_mut();
            state.closed = true;
            (
                core::mem::take(&mut state.queue),
                core::mem::take(&mut state.waiters),
            )
        };
        waiters.into_iter().for_each(sched::wake);
        for entry in queue {
            if let Entry::Watch(watch) = entry {
                watch.queued.set(false);
            }
        }
    }

    fn is_closed(&self) -> bool {
        self.state.borrow().closed
    }

    /// Gives a packet straight to a thread that waits. `false`: none does, or it cannot take it; the packet takes the way
    /// through the queue.
    #[inline]
    pub fn deliver(&self, packet: impl FnOnce() -> Packet) -> bool {
        let mut state = self.state.borrow_mut();
        if !state.queue.is_empty()
            || !state
                .waiters
                .front()
                .is_some_and(|thread| thread.receive_packet(&packet()))
        {
            return false;
        }
        let thread = state.waiters.pop_front();
        drop(state);
        if let Some(thread) = thread {
            sched::wake(thread);
        }
        true
    }

    #[inline]
    fn push(&self, entry: Entry) {
        let mut state = self.state.borrow_mut();
        state.queue.push_back(entry);
        if let Some(thread) = state.waiters.pop_front() {
            drop(state);
            sched::wake(thread);
        }
    }

    /// Queues a packet of a program.
    pub fn queue_user(&self, packet: Packet) -> Result<()> {
        if self.deliver(|| packet) {
            return Ok(());
        }
        {
            let mut state = self.state.borrow_mut();
            if state.user_packets >= USER_PACKETS_MAX {
                return Err(Error::ShouldWait);
            }
            state.user_packets += 1;
        }
        self.push(Entry::User(packet));
        Ok(())
    }

    /// Queues an interrupt's packet.
    #[inline]
    pub fn queue_interrupt(&self, interrupt: Arc<Interrupt>) {
        self.push(Entry::Interrupt(interrupt));
    }

    /// Takes an interrupt's packet out again.
    pub fn cancel_interrupt(&self, interrupt: &Interrupt) {
        self.state.borrow_mut().queue.retain(
            |entry| !matches!(entry, Entry::Interrupt(i) if core::ptr::eq(&**i, interrupt)),
        );
    }

    /// The next packet.
    #[inline]
    pub fn pop(&self) -> Option<Packet> {
        let entry = {
            let mut state = self.state.borrow_mut();
            let entry = state.queue.pop_front()?;
            if let Entry::User(_) = entry {
                state.user_packets -= 1;
            }
            entry
        };
        Some(match entry {
            Entry::User(packet) => packet,
            Entry::Watch(watch) => watch.take(),
            Entry::Interrupt(interrupt) => interrupt.take(),
        })
    }

    /// Whether a packet waits.
    pub fn has_packet(&self) -> bool {
        !self.state.borrow().queue.is_empty()
    }

    /// Adds a thread to those that wait.
    pub fn add_waiter(&self, thread: Arc<Thread>) {
        self.state.borrow_mut().waiters.push_back(thread);
    }

    /// Removes a thread that no longer waits.
    pub fn remove_waiter(&self, thread: &Thread) {
        self.state
            .borrow_mut()
            .waiters
            .retain(|t| !core::ptr::eq(&**t, thread));
    }
}

/// A watch on an object's signals.
pub struct Watch {
    port: Arc<Port>,
    key: u64,
    mask: Signals,
    once: bool,
    queued: Cell<bool>,
    seen: Cell<u32>,
    count: Cell<u64>,
    time: Cell<u64>,
    this: alloc::sync::Weak<Watch>,
    _charge: Charge,
}

impl Watch {
    /// A watch that sends packets with `key` to `port`; ends after the first with `once`.
    pub fn new(port: Arc<Port>, key: u64, mask: Signals, once: bool, charge: Charge) -> Arc<Watch> {
        Arc::new_cyclic(|this| Watch {
            port,
            key,
            mask,
            once,
            queued: Cell::new(false),
            seen: Cell::new(0),
            count: Cell::new(0),
            time: Cell::new(0),
            this: this.clone(),
            _charge: charge,
        })
    }

    /// What it watches.
    #[inline]
    pub fn mask(&self) -> Signals {
        self.mask
    }

    /// Whether its port is closed: it only takes up room.
    pub fn is_over(&self) -> bool {
        self.port.is_closed()
    }

    /// Whether it is a port's, with a key.
    pub fn belongs(&self, port: &Arc<Port>, key: u64) -> bool {
        self.key == key && Arc::ptr_eq(&self.port, port)
    }

    /// Signals were raised. Returns whether the watch goes on.
    #[inline]
    pub fn fire(&self, edges: Signals) -> bool {
        if self.port.is_closed() {
            return false;
        }
        let packet = || Packet {
            key: self.key,
            kind: Packet::SIGNAL,
            signals: edges.and(self.mask).0,
            value: 1,
            timestamp_ns: arch::now_ns(),
        };
        if !self.queued.get() && self.port.deliver(packet) {
            return !self.once;
        }
        self.seen.set(self.seen.get() | edges.and(self.mask).0);
        self.count.set(self.count.get() + 1);
        if !self.queued.replace(true)
            && let Some(this) = self.this.upgrade()
        {
            self.time.set(arch::now_ns());
            self.port.push(Entry::Watch(this));
        }
        !self.once
    }

    /// Takes its packet out of the port's queue.
    pub fn cancel(&self) {
        if self.queued.replace(false) {
            self.port
                .state
                .borrow_mut()
                .queue
                .retain(|entry| !matches!(entry, Entry::Watch(w) if core::ptr::eq(&**w, self)));
        }
    }

    fn take(&self) -> Packet {
        self.queued.set(false);
        Packet {
            key: self.key,
            kind: Packet::SIGNAL,
            signals: self.seen.replace(0),
            value: self.count.replace(0),
            timestamp_ns: self.time.get(),
        }
    }
}
