//! Interrupt objects: a line of the I/O APIC, a message, or a virtual one. An interrupt is bound to one port and
//! sends no second packet until the first was acknowledged, so that a storm cannot fill a queue. Until then a line is
//! masked: a level at once, an edge when it comes again. A message can be masked in its device only: one that fires on
//! and on while nobody takes its packet signals `SIGNALED` to those who watch it.

use alloc::sync::{Arc, Weak};

use bulkhead_abi::{
    Error, IRQ_ACK_ON_DEQUEUE, IRQ_LINE, IRQ_MESSAGE, IRQ_VIRTUAL, InterruptInfo, ObjectKind,
    Packet, Result, Signals,
};

use crate::arch::{self, Msi, Trigger};
use crate::ipc::port::Port;
use crate::lock::{Cell, Locked};
use crate::object::Base;
use kernel_core::storm::Gauge;

enum Source {
    Line {
        gsi: u32,
        vector: u8,
        trigger: Trigger,
    },
    Message(Msi),
    Virtual,
}

struct Binding {
    port: Arc<Port>,
    key: u64,
    ack_on_dequeue: bool,
}

/// Where an interrupt stands between firing and acknowledgement.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The next one sends a packet.
    Idle,
    /// A packet is in the port's queue.
    Queued,
    /// The packet was taken; not yet acknowledged.
    Taken,
}

/// An interrupt.
pub struct Interrupt {
    pub base: Base,
    source: Source,
    cpu: usize,
    binding: Locked<Option<Binding>>,
    phase: Cell<Phase>,
    /// Fired again before it was acknowledged (edges and messages only).
    again: Cell<bool>,
    /// An edge that fired again is masked until its packet is served.
    masked: Cell<bool>,
    count: Cell<u64>,
    since_packet: Cell<u64>,
    storm: Cell<Gauge>,
    time: Cell<u64>,
    closed: Cell<bool>,
    this: Weak<Interrupt>,
}

static VECTORS: Locked<[Option<Weak<Interrupt>>; 256]> = Locked::new([const { None }; 256]);
static IN_USE: Cell<u64> = Cell::new(0);

/// Device vectors in use.
pub fn vectors_in_use() -> u64 {
    IN_USE.get()
}

/// A device interrupt arrived.
pub fn dispatch(vector: u8) {
    let interrupt = VECTORS.borrow()[vector as usize]
        .as_ref()
        .and_then(Weak::upgrade);
    if let Some(interrupt) = interrupt {
        interrupt.fire();
    }
}

impl Interrupt {
    fn with(source: Source, cpu: usize) -> Arc<Interrupt> {
        let vector = match &source {
            Source::Line { vector, .. } => Some(*vector),
            Source::Message(msi) => Some(msi.vector),
            Source::Virtual => None,
        };
        let interrupt = Arc::new_cyclic(|this| Interrupt {
            base: Base::new(ObjectKind::Interrupt),
            source,
            cpu,
            binding: Locked::new(None),
            phase: Cell::new(Phase::Idle),
            again: Cell::new(false),
            masked: Cell::new(false),
            count: Cell::new(0),
            since_packet: Cell::new(0),
            storm: Cell::new(Gauge::default()),
            time: Cell::new(0),
            closed: Cell::new(false),
            this: this.clone(),
        });
        if let Some(vector) = vector {
            VECTORS.borrow_mut()[vector as usize] = Some(Arc::downgrade(&interrupt));
            IN_USE.set(IN_USE.get() + 1);
        }
        interrupt
    }

    /// An I/O APIC input; masked until it is bound.
    pub fn line(gsi: u32, trigger: Trigger, cpu: usize) -> Result<Arc<Interrupt>> {
        let vector = arch::line_allocate(gsi, trigger, cpu).ok_or(Error::LimitReached)?;
        Ok(Interrupt::with(
            Source::Line {
                gsi,
                vector,
                trigger,
            },
            cpu,
        ))
    }

    /// A message-signalled interrupt.
    pub fn message(cpu: usize) -> Result<Arc<Interrupt>> {
        let msi = arch::msi_allocate(cpu).ok_or(Error::LimitReached)?;
        Ok(Interrupt::with(Source::Message(msi), cpu))
    }

    /// One that programs fire.
    pub fn software() -> Arc<Interrupt> {
        Interrupt::with(Source::Virtual, 0)
    }

    fn is_level(&self) -> bool {
        matches!(self.source, Source::Line { trigger, .. } if trigger.is_level())
    }

    /// Binds it to a port (or to none). A line is unmasked.
    pub fn bind(&self, port: Option<Arc<Port>>, key: u64, flags: usize) -> Result<()> {
        if self.closed.get() {
            return Err(Error::Cancelled);
        }
        let ack_on_dequeue = flags & IRQ_ACK_ON_DEQUEUE != 0;
        if flags & !IRQ_ACK_ON_DEQUEUE != 0 || (ack_on_dequeue && self.is_level()) {
            return Err(Error::InvalidArgument);
        }
        let Some(port) = port else {
            self.unbind();
            return Ok(());
        };
        if self.binding.borrow().is_some() {
            return Err(Error::AlreadyExists);
        }
        *self.binding.borrow_mut() = Some(Binding {
            port,
            key,
            ack_on_dequeue,
        });
        self.phase.set(Phase::Idle);
        // What fired before somebody listened is not lost.
        if self.again.replace(false) {
            self.send();
        }
        if let Source::Line { gsi, .. } = self.source {
            self.masked.set(false);
            arch::line_unmask(gsi);
        }
        Ok(())
    }

    fn unbind(&self) {
        if let Source::Line { gsi, .. } = self.source {
            arch::line_mask(gsi);
        }
        let old = self.binding.borrow_mut().take();
        if let Some(binding) = old {
            binding.port.cancel_interrupt(self);
        }
        self.phase.set(Phase::Idle);
        self.again.set(false);
    }

    /// It fired.
    pub fn fire(&self) {
        self.count.set(self.count.get() + 1);
        let unserved = self.since_packet.get() + 1;
        self.since_packet.set(unserved);
        let mut storm = self.storm.get();
        let storms = storm.fired(unserved, arch::now_ns);
        self.storm.set(storm);
        if storms {
            self.base.update(Signals::NONE, Signals::SIGNALED);
        }
        let bound = self.binding.borrow().is_some();
        if bound && self.phase.get() == Phase::Idle {
            self.send();
            return;
        }
        self.again.set(true);
        if let Source::Line { gsi, trigger, .. } = self.source
            && bound
            && !trigger.is_level()
            && !self.masked.replace(true)
        {
            arch::line_mask(gsi);
        }
    }

    fn send(&self) {
        let binding = self.binding.borrow();
        let Some(binding) = &*binding else { return };
        self.time.set(arch::now_ns());
        if binding.port.deliver(|| self.packet(binding.key)) {
            self.taken(binding.ack_on_dequeue);
        } else if let Some(this) = self.this.upgrade() {
            self.phase.set(Phase::Queued);
            binding.port.queue_interrupt(this);
        }
    }

    /// Its packet is taken from the port.
    pub fn take(&self) -> Packet {
        let binding = self.binding.borrow();
        let (key, ack) = binding
            .as_ref()
            .map_or((0, false), |b| (b.key, b.ack_on_dequeue));
        drop(binding);
        let packet = self.packet(key);
        self.taken(ack);
        packet
    }

    fn packet(&self, key: u64) -> Packet {
        Packet {
            key,
            kind: Packet::INTERRUPT,
            signals: 0,
            value: self.since_packet.get(),
            timestamp_ns: self.time.get(),
        }
    }

    fn taken(&self, ack: bool) {
        self.since_packet.set(0);
        if ack {
            // Whoever takes the packet looks at the device afterwards: what fired until now is covered.
            self.again.set(false);
            self.phase.set(Phase::Idle);
            self.unmask_edge();
        } else {
            self.phase.set(Phase::Taken);
        }
    }

    fn unmask_edge(&self) {
        if let Source::Line { gsi, .. } = self.source
            && self.masked.replace(false)
        {
            arch::line_unmask(gsi);
        }
    }

    /// Allows the next packet.
    pub fn acknowledge(&self) -> Result<()> {
        if self.phase.get() != Phase::Taken {
            return Err(Error::BadState);
        }
        self.phase.set(Phase::Idle);
        self.unmask_edge();
        if self.again.replace(false) && !self.is_level() {
            self.send();
        }
        // A level line that is still asserted fires again once it is unmasked.
        if let Source::Line { gsi, trigger, .. } = self.source
            && trigger.is_level()
        {
            arch::line_unmask(gsi);
        }
        Ok(())
    }

    /// Fires a virtual interrupt.
    pub fn trigger(&self) -> Result<()> {
        match self.source {
            Source::Virtual => {
                self.fire();
                Ok(())
            }
            _ => Err(Error::NotSupported),
        }
    }

    /// Masks it and gives the vector back: the last handle is gone, or its resource was revoked.
    pub fn close(&self) {
        if self.closed.replace(true) {
            return;
        }
        self.unbind();
        match &self.source {
            Source::Line { gsi, vector, .. } => {
                arch::line_free(*gsi);
                VECTORS.borrow_mut()[*vector as usize] = None;
            }
            Source::Message(msi) => {
                VECTORS.borrow_mut()[msi.vector as usize] = None;
                arch::msi_free(msi.vector);
            }
            Source::Virtual => return,
        }
        IN_USE.set(IN_USE.get() - 1);
    }

    /// For `object_info`.
    pub fn info(&self) -> InterruptInfo {
        let (kind, address, data, gsi) = match &self.source {
            Source::Line { gsi, .. } => (IRQ_LINE, 0, 0, *gsi),
            Source::Message(msi) => (IRQ_MESSAGE, msi.address, msi.data, 0),
            Source::Virtual => (IRQ_VIRTUAL, 0, 0, 0),
        };
        InterruptInfo {
            koid: self.base.koid(),
            kind: kind as u32,
            cpu: self.cpu as u32,
            address,
            data,
            gsi,
            count: self.count.get(),
        }
    }
}
