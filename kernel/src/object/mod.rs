//! Kernel objects: what they share, and handles to them.

pub mod event;
pub mod process;
pub mod resource;
pub mod thread;
pub mod timer;

use alloc::sync::Arc;
use alloc::vec::Vec;

use bulkhead_abi::{Error, OBJECT_KINDS, ObjectKind, Result, Rights, Signals};

use crate::dma::{DmaDomain, Pin};
use crate::ipc::channel::Channel;
use crate::ipc::port::{Port, Watch};
use crate::irq::Interrupt;
use crate::lock::{Cell, Locked};
use crate::memory::vmo::Vmo;
use event::Event;
use process::Process;
use resource::Resource;
use thread::Thread;
use timer::Timer;

static NEXT_KOID: Cell<u64> = Cell::new(1);
static LIVE: [Cell<u64>; OBJECT_KINDS] = [const { Cell::new(0) }; OBJECT_KINDS];
static HANDLES: Cell<u64> = Cell::new(0);

/// Live objects by kind.
pub fn live_objects() -> [u64; OBJECT_KINDS] {
    core::array::from_fn(|kind| LIVE[kind].get())
}

/// Handles in all processes and messages.
pub fn live_handles() -> u64 {
    HANDLES.get()
}

/// A new kernel object ID.
pub fn new_koid() -> u64 {
    NEXT_KOID.replace(NEXT_KOID.get() + 1)
}

/// What every object has: an ID, its signals, and who watches them.
pub struct Base {
    koid: u64,
    kind: ObjectKind,
    handles: Cell<u32>,
    signals: Cell<Signals>,
    watches: Locked<Vec<Arc<Watch>>>,
}

/// Most watches on one object.
const WATCHES_MAX: usize = 4096;

impl Base {
    /// For a new object of a kind.
    pub fn new(kind: ObjectKind) -> Base {
        let live = &LIVE[kind as usize];
        live.set(live.get() + 1);
        Base {
            koid: new_koid(),
            kind,
            handles: Cell::new(0),
            signals: Cell::new(Signals::NONE),
            watches: Locked::new(Vec::new()),
        }
    }

    /// Kernel object ID.
    pub fn koid(&self) -> u64 {
        self.koid
    }

    /// Handles to it.
    pub fn handles(&self) -> u32 {
        self.handles.get()
    }

    /// Its signals now.
    #[inline]
    pub fn signals(&self) -> Signals {
        self.signals.get()
    }

    /// Clears, then sets signals. A bit in `set` that was clear, or that is in `clear` too, is an edge and
    /// goes to those who watch it.
    #[inline]
    pub fn update(&self, clear: Signals, set: Signals) {
        let kept = self.signals.get().0 & !clear.0;
        self.signals.set(Signals(kept | set.0));
        let edges = set.0 & !kept;
        if edges != 0 && !self.watches.borrow().is_empty() {
            self.notify(Signals(edges));
        }
    }

    // Apart, so that a signal that nobody watches saves no registers.
    #[inline(never)]
    fn notify(&self, edges: Signals) {
        let mut watches = self.watches.borrow_mut();
        let mut n = 0;
        while let Some(watch) = watches.get(n) {
            if watch.mask().intersects(edges) && !watch.fire(edges) {
                // It has ended, by its one packet or with its port.
                watches.swap_remove(n);
            } else {
                n += 1;
            }
        }
    }

    /// Adds a watch; it fires at once if a signal is set already.
    pub fn watch(&self, watch: Arc<Watch>) -> Result<()> {
        let mut watches = self.watches.borrow_mut();
        // An object may outlive many processes that watched it.
        watches.retain(|watch| !watch.is_over());
        if watches.len() >= WATCHES_MAX {
            return Err(Error::LimitReached);
        }
        let present = self.signals.get().and(watch.mask());
        if present == Signals::NONE || watch.fire(present) {
            watches.push(watch);
        }
        Ok(())
    }

    /// Ends the watches of a port with a key; returns how many there were.
    pub fn unwatch(&self, port: &Arc<Port>, key: u64) -> usize {
        let mut watches = self.watches.borrow_mut();
        let before = watches.len();
        watches.retain(|watch| {
            let found = watch.belongs(port, key);
            if found {
                watch.cancel();
            }
            !found
        });
        before - watches.len()
    }
}

impl Drop for Base {
    fn drop(&mut self) {
        let live = &LIVE[self.kind as usize];
        live.set(live.get() - 1);
    }
}

/// A reference to an object of any kind.
#[derive(Clone)]
pub enum Object {
    /// See [`Process`].
    Process(Arc<Process>),
    /// See [`Thread`].
    Thread(Arc<Thread>),
    /// See [`Vmo`].
    Vmo(Arc<Vmo>),
    /// An end of a [`Channel`].
    Channel(Arc<Channel>, usize),
    /// See [`Port`].
    Port(Arc<Port>),
    /// See [`Event`].
    Event(Arc<Event>),
    /// See [`Timer`].
    Timer(Arc<Timer>),
    /// See [`Interrupt`].
    Interrupt(Arc<Interrupt>),
    /// See [`Resource`].
    Resource(Arc<Resource>),
    /// See [`DmaDomain`].
    DmaDomain(Arc<DmaDomain>),
    /// See [`Pin`].
    Pin(Arc<Pin>),
}

impl Object {
    /// What every object has.
    #[inline]
    pub fn base(&self) -> &Base {
        match self {
            Object::Process(o) => &o.base,
            Object::Thread(o) => &o.base,
            Object::Vmo(o) => &o.base,
            Object::Channel(o, side) => o.base(*side),
            Object::Port(o) => &o.base,
            Object::Event(o) => &o.base,
            Object::Timer(o) => &o.base,
            Object::Interrupt(o) => &o.base,
            Object::Resource(o) => &o.base,
            Object::DmaDomain(o) => &o.base,
            Object::Pin(o) => &o.base,
        }
    }

    /// Its kind.
    pub fn kind(&self) -> ObjectKind {
        self.base().kind
    }
}

/// A counted reference with rights: what a handle table and a message hold.
pub struct Handle {
    object: Object,
    rights: Rights,
}

impl Handle {
    /// A handle to an object.
    #[inline]
    pub fn new(object: Object, rights: Rights) -> Handle {
        let base = object.base();
        base.handles.set(base.handles.get() + 1);
        HANDLES.set(HANDLES.get() + 1);
        Handle { object, rights }
    }

    /// The object.
    #[inline]
    pub fn object(&self) -> &Object {
        &self.object
    }

    /// The rights.
    #[inline]
    pub fn rights(&self) -> Rights {
        self.rights
    }

    /// Another handle to the object, with other rights.
    pub fn with_rights(&self, rights: Rights) -> Handle {
        Handle::new(self.object.clone(), rights)
    }
}

impl Drop for Handle {
    #[inline]
    fn drop(&mut self) {
        HANDLES.set(HANDLES.get() - 1);
        let base = self.object.base();
        let left = base.handles.get() - 1;
        base.handles.set(left);
        if left == 0 {
            match &self.object {
                Object::Channel(channel, side) => channel.close(*side),
                Object::Port(port) => port.close(),
                Object::Interrupt(interrupt) => interrupt.close(),
                Object::Pin(pin) => pin.abandon(),
                Object::Timer(timer) => timer.disarm(),
                Object::DmaDomain(domain) => domain.close(),
                _ => {}
            }
        }
    }
}

/// A zero-filled name as text.
pub fn name_text(name: &[u8; bulkhead_abi::NAME_MAX]) -> &str {
    let len = name.iter().position(|b| *b == 0).unwrap_or(name.len());
    match core::str::from_utf8(&name[..len]) {
        Ok(text) => text,
        Err(error) => core::str::from_utf8(&name[..error.valid_up_to()]).unwrap_or("?"),
    }
}
