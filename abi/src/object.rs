//! Handles, rights, object kinds and signals.

/// A process's name for an object: an index and a generation; 0 is never valid.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord, Default)]
#[repr(transparent)]
pub struct RawHandle(pub u32);

impl RawHandle {
    /// No handle.
    pub const INVALID: RawHandle = RawHandle(0);
    /// The calling process, wherever a process is expected.
    pub const SELF_PROCESS: RawHandle = RawHandle(0xffff_fffe);
    /// The calling thread, wherever a thread is expected.
    pub const SELF_THREAD: RawHandle = RawHandle(0xffff_fffd);
}

/// What a handle allows; a set of bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
#[repr(transparent)]
pub struct Rights(pub u32);

impl Rights {
    /// Nothing.
    pub const NONE: Rights = Rights(0);
    /// Make further handles to the object.
    pub const DUPLICATE: Rights = Rights(1 << 0);
    /// Send the handle through a channel.
    pub const TRANSFER: Rights = Rights(1 << 1);
    /// Read a VMO or channel; wait on a port.
    pub const READ: Rights = Rights(1 << 2);
    /// Write a VMO or channel; queue on a port; map into or start threads in a process.
    pub const WRITE: Rights = Rights(1 << 3);
    /// Map a VMO executable.
    pub const EXECUTE: Rights = Rights(1 << 4);
    /// Map a VMO at all (what READ, WRITE and EXECUTE allow). A driver gets payload without it.
    pub const MAP: Rights = Rights(1 << 5);
    /// Pin a VMO for DMA; with READ the device may read it, with WRITE it may write it.
    pub const PIN: Rights = Rights(1 << 6);
    /// Wait for signals of the object.
    pub const WAIT: Rights = Rights(1 << 7);
    /// Raise and clear signals.
    pub const SIGNAL: Rights = Rights(1 << 8);
    /// Ask for information.
    pub const INSPECT: Rights = Rights(1 << 9);
    /// Set properties (name, quota, priority ...); acknowledge and bind interrupts; resize a VMO.
    pub const MANAGE: Rights = Rights(1 << 10);
    /// Kill a process or thread; revoke a resource; recover a DMA domain's quarantine.
    pub const DESTROY: Rights = Rights(1 << 11);
    /// Every right.
    pub const ALL: Rights = Rights(0xfff);
    /// For `handle_duplicate`: the rights of the handle that is duplicated.
    pub const SAME: Rights = Rights(1 << 31);

    /// The rights in both sets.
    pub const fn and(self, other: Rights) -> Rights {
        Rights(self.0 & other.0)
    }
    /// The rights in either set.
    pub const fn or(self, other: Rights) -> Rights {
        Rights(self.0 | other.0)
    }
    /// These rights without `other`.
    pub const fn without(self, other: Rights) -> Rights {
        Rights(self.0 & !other.0)
    }
    /// Whether every right of `other` is here.
    pub const fn contains(self, other: Rights) -> bool {
        self.0 & other.0 == other.0
    }
}

impl core::ops::BitOr for Rights {
    type Output = Rights;
    fn bitor(self, other: Rights) -> Rights {
        self.or(other)
    }
}

/// Kind of a kernel object.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u32)]
pub enum ObjectKind {
    /// Address space, handle table, quota, threads.
    Process = 1,
    /// A flow of execution.
    Thread = 2,
    /// Virtual memory object: pages.
    Vmo = 3,
    /// One end of a channel.
    Channel = 4,
    /// A queue of packets to wait on.
    Port = 5,
    /// A set of signals, nothing more.
    Event = 6,
    /// Signals at a time.
    Timer = 7,
    /// A line, message-signalled or virtual interrupt.
    Interrupt = 8,
    /// Authority over a range of something.
    Resource = 9,
    /// What a device may reach by DMA.
    DmaDomain = 10,
    /// Pages held for a device.
    Pin = 11,
}

impl ObjectKind {
    /// The kind with this number.
    pub const fn from_number(n: u32) -> Option<ObjectKind> {
        Some(match n {
            1 => ObjectKind::Process,
            2 => ObjectKind::Thread,
            3 => ObjectKind::Vmo,
            4 => ObjectKind::Channel,
            5 => ObjectKind::Port,
            6 => ObjectKind::Event,
            7 => ObjectKind::Timer,
            8 => ObjectKind::Interrupt,
            9 => ObjectKind::Resource,
            10 => ObjectKind::DmaDomain,
            11 => ObjectKind::Pin,
            _ => return None,
        })
    }
}

/// Number of object kinds plus one: size of a table indexed by [`ObjectKind`].
pub const OBJECT_KINDS: usize = 12;

/// What a [`ObjectKind::Resource`] covers. Children are subsets of the same kind, except that
/// [`ResourceKind::Root`] is the parent of everything.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u32)]
pub enum ResourceKind {
    /// Everything; only init holds it.
    Root = 0,
    /// Physical addresses `base .. base + len` that are not RAM.
    Mmio = 1,
    /// I/O ports `base .. base + len`.
    IoPort = 2,
    /// Global system interrupts (I/O APIC inputs) `base .. base + len`.
    Irq = 3,
    /// May allocate message-signalled interrupts (`base` 0, `len` = how many).
    Msi = 4,
    /// May create DMA domains for device IDs `base .. base + len` (PCI: segment:bus:device.function).
    DmaDevice = 5,
    /// The kernel log: with WRITE append, with READ read.
    Log = 6,
    /// Kernel statistics, process list (INSPECT), killing by koid (DESTROY).
    System = 7,
}

impl ResourceKind {
    /// The kind with this number.
    pub const fn from_number(n: u32) -> Option<ResourceKind> {
        Some(match n {
            0 => ResourceKind::Root,
            1 => ResourceKind::Mmio,
            2 => ResourceKind::IoPort,
            3 => ResourceKind::Irq,
            4 => ResourceKind::Msi,
            5 => ResourceKind::DmaDevice,
            6 => ResourceKind::Log,
            7 => ResourceKind::System,
            _ => return None,
        })
    }
}

/// Signals of an object; a set of bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
#[repr(transparent)]
pub struct Signals(pub u32);

impl Signals {
    /// None.
    pub const NONE: Signals = Signals(0);
    /// A channel end has a message to read.
    pub const READABLE: Signals = Signals(1 << 0);
    /// A channel end may be written after it was full.
    pub const WRITABLE: Signals = Signals(1 << 1);
    /// The other end of a channel is closed.
    pub const PEER_CLOSED: Signals = Signals(1 << 2);
    /// A process or thread has ended.
    pub const TERMINATED: Signals = Signals(1 << 3);
    /// A timer has fired, an event is set, a resource was revoked.
    pub const SIGNALED: Signals = Signals(1 << 4);
    /// The other end of a channel is served by another process than before (see
    /// [`Property::Epoch`](crate::Property::Epoch)). It is an edge: watches made later do not see it.
    pub const PEER_RENEWED: Signals = Signals(1 << 5);
    /// Free for programs: bits 24 to 31 of every event.
    pub const USER: Signals = Signals(0xff00_0000);

    /// The signals in both sets.
    pub const fn and(self, other: Signals) -> Signals {
        Signals(self.0 & other.0)
    }
    /// The signals in either set.
    pub const fn or(self, other: Signals) -> Signals {
        Signals(self.0 | other.0)
    }
    /// Whether any signal of `other` is here.
    pub const fn intersects(self, other: Signals) -> bool {
        self.0 & other.0 != 0
    }
}

impl core::ops::BitOr for Signals {
    type Output = Signals;
    fn bitor(self, other: Signals) -> Signals {
        self.or(other)
    }
}
