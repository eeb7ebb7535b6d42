//! System-call numbers, with the meaning of each.

macro_rules! syscalls {
    ($($(#[$doc:meta])* $number:literal $name:ident $text:literal;)*) => {
        /// A system call. The names of the arguments stand in the text of each, in register order.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
        #[repr(usize)]
        pub enum Syscall { $($(#[$doc])* $name = $number,)* }

        impl Syscall {
            /// The call with this number.
            pub const fn from_number(n: usize) -> Option<Syscall> {
                match n { $($number => Some(Syscall::$name),)* _ => None }
            }
            /// The name as it stands in reports.
            pub const fn name(self) -> &'static str {
                match self { $(Syscall::$name => $text,)* }
            }
            /// Every call, in order of its number.
            pub const ALL: &'static [Syscall] = &[$(Syscall::$name,)*];
        }
    };
}

syscalls! {
    /// `(handle)`. Closes a handle; the object goes with its last reference.
    0 HandleClose "handle_close";
    /// `(handle, rights) -> handle`. `rights` is a subset, or `Rights::SAME`.
    1 HandleDuplicate "handle_duplicate";
    /// `(handle, topic, buffer, len) -> bytes written`, second value: bytes or entries available.
    2 ObjectInfo "object_info";
    /// `(handle, property, value or pointer, len)`.
    3 ObjectSet "object_set";
    /// `(handle, clear, set)`. Clears, then sets signals of an event. A bit that is in `clear`
    /// and in `set` counts as a new edge, so that it can ring as a doorbell.
    4 ObjectSignal "object_signal";
    /// `(handle, port, key, signals, options)`. Queues a packet on `port` when one of `signals`
    /// goes from clear to set, and at once if one is set already. The watch stays until
    /// `port_cancel` (or one packet, with `WAIT_ONCE`); at most one packet of a watch is queued at
    /// a time, later edges are added to it.
    5 WaitAsync "wait_async";
    /// `() -> port`.
    6 PortCreate "port_create";
    /// `(port, packet)`. Queues a `USER` packet with the given key and value.
    7 PortQueue "port_queue";
    /// `(port, packets, count, deadline_ns) -> packets written`. Blocks until there is one. A
    /// deadline of 0 never blocks.
    8 PortWait "port_wait";
    /// `(port, handle, key)`. Ends the watches of `handle` with `key` and drops their packet.
    9 PortCancel "port_cancel";
    /// `() -> handle`, second value: the other end.
    10 ChannelCreate "channel_create";
    /// `(channel, bytes, bytes_len, handles, handles_len, txid)`. Handles move; on an error none
    /// does. `txid` is 0 for a message, or that of the call that this replies to: `BadState` if its
    /// caller has given up.
    11 ChannelWrite "channel_write";
    /// `(channel, bytes, bytes_cap, handles, handles_cap, deadline_ns) -> sizes` (see
    /// [`message_sizes`](crate::message_sizes)), second value: txid of a call, else 0. A deadline
    /// of 0 never blocks. With `BufferTooSmall` the message stays and the second value holds its sizes.
    12 ChannelRead "channel_read";
    /// `(channel, CallArgs, deadline_ns) -> sizes`. Sends a message and waits for the reply that
    /// carries its txid; runs a waiting server at once on this CPU. When the peer is closed the
    /// second value is the epoch set with `Property::Epoch`.
    13 ChannelCall "channel_call";
    /// `() -> event`.
    14 EventCreate "event_create";
    /// `() -> timer`.
    15 TimerCreate "timer_create";
    /// `(timer, deadline_ns, period_ns)`. Clears and arms; a deadline of `FOREVER` disarms.
    /// With a period the timer fires again and again, an edge each.
    16 TimerSet "timer_set";
    /// `(address of u32, expected, deadline_ns)`. Blocks if the word still holds `expected`. With a
    /// deadline in the past it yields the CPU.
    17 FutexWait "futex_wait";
    /// `(address of u32, count) -> woken`.
    18 FutexWake "futex_wake";
    /// `(size, flags, resource) -> vmo`. `VMO_CONTIGUOUS` needs a `DmaDevice` resource.
    19 VmoCreate "vmo_create";
    /// `(resource, base, size, cache mode) -> vmo` of device memory.
    20 VmoPhysical "vmo_physical";
    /// `(vmo, VmoOp, offset, len, pointer) -> bytes` or, for `Slice`, a handle.
    21 VmoOp "vmo_op";
    /// `(process, vmo, offset, len, flags, address) -> address`. Without `MAP_FIXED` the kernel chooses
    /// the address, with an unmapped guard page on both sides.
    22 VmMap "vm_map";
    /// `(process, address, len)`. What is not mapped is skipped.
    23 VmUnmap "vm_unmap";
    /// `(process, address, len, flags)`. Never more than the handle allowed that was mapped.
    24 VmProtect "vm_protect";
    /// `(name, name_len, Quota or 0) -> process`, a child of the caller.
    25 ProcessCreate "process_create";
    /// `(process, ThreadArgs) -> thread`.
    26 ThreadStart "thread_start";
    /// `(process or thread, 0, code)`. Ends it; ends the caller if it names it. With a `System` resource:
    /// `(resource, koid, code)` ends the process with that koid.
    27 Kill "kill";
    /// `(thread, DebugOp, buffer, len)`.
    28 Debug "debug";
    /// `(resource, kind, base, len) -> resource`.
    29 ResourceDerive "resource_derive";
    /// `(resource, kind, number, trigger) -> interrupt`. `IRQ_LINE` takes a GSI, `IRQ_MESSAGE` a CPU
    /// mask (0: any), `IRQ_VIRTUAL` nothing (and no resource).
    30 IrqCreate "irq_create";
    /// `(interrupt, port, key, flags)`. One port at a time; port 0 unbinds and masks.
    31 IrqBind "irq_bind";
    /// `(interrupt)`. Allows the next packet; a line that is still asserted fires again at once.
    32 IrqAck "irq_ack";
    /// `(interrupt)`. Fires a virtual interrupt.
    33 IrqTrigger "irq_trigger";
    /// `(resource, device id) -> domain`.
    34 DmaCreate "dma_create";
    /// `(domain, vmo, offset, len, addresses, flags) -> pin`. Writes a `u64` device address per page.
    35 DmaPin "dma_pin";
    /// `(pin)`. Ends it and closes the handle: the driver's word that the device no longer uses it. A pin handle that is closed otherwise
    /// (so also by the death of its process) goes into the domain's quarantine.
    36 DmaUnpin "dma_unpin";
    /// `(domain) -> pages released`. Ends the quarantine, after the device was fenced.
    37 DmaRecover "dma_recover";
    /// `(resource, base, len)`. Lets the caller's process use I/O ports that the resource covers.
    38 IoportGrant "ioport_grant";
    /// `(resource, LogOp, buffer, len, sequence) -> bytes`, for `Read` second value: next sequence.
    39 Log "log";
}

/// `wait_async`: the watch ends with its first packet.
pub const WAIT_ONCE: usize = 1;

/// `vmo_create`: physically contiguous, committed at once.
pub const VMO_CONTIGUOUS: usize = 1;

/// `vm_map`, `vm_protect`: readable (always given with any other).
pub const MAP_READ: usize = 1;
/// Writable.
pub const MAP_WRITE: usize = 2;
/// Executable; never together with writable.
pub const MAP_EXEC: usize = 4;
/// At exactly this address, which must be free.
pub const MAP_FIXED: usize = 8;
/// Map every page now instead of at its first use.
pub const MAP_POPULATE: usize = 16;

/// `irq_create`: an I/O APIC input.
pub const IRQ_LINE: usize = 0;
/// `irq_create`: MSI or MSI-X; `InterruptInfo` tells address and data.
pub const IRQ_MESSAGE: usize = 1;
/// `irq_create`: fired by `irq_trigger`.
pub const IRQ_VIRTUAL: usize = 2;
/// `irq_create` trigger: edge, active high.
pub const TRIGGER_EDGE_HIGH: usize = 0;
/// Edge, active low.
pub const TRIGGER_EDGE_LOW: usize = 1;
/// Level, active high.
pub const TRIGGER_LEVEL_HIGH: usize = 2;
/// Level, active low.
pub const TRIGGER_LEVEL_LOW: usize = 3;
/// Whatever the firmware tables say of this ISA interrupt (the number is then the ISA number).
pub const TRIGGER_ISA: usize = 4;
/// `irq_bind`: taking the packet from the port acknowledges it (not for level lines).
pub const IRQ_ACK_ON_DEQUEUE: usize = 1;

/// `dma_pin`: the device may read the pages.
pub const PIN_DEVICE_READ: usize = 1;
/// `dma_pin`: the device may write the pages.
pub const PIN_DEVICE_WRITE: usize = 2;

/// Write-back cached: what ordinary memory is; `vmo_physical` refuses it.
pub const CACHE_WRITE_BACK: usize = 0;
/// Uncached device memory.
pub const CACHE_UNCACHED: usize = 1;
/// Write-combining (frame buffers).
pub const CACHE_WRITE_COMBINING: usize = 2;

/// Operations of `vmo_op`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub enum VmoOp {
    /// Copy from the VMO to the pointer.
    Read = 0,
    /// Copy from the pointer into the VMO.
    Write = 1,
    /// Allocate the pages of the range now.
    Commit = 2,
    /// Give the pages of the range back; they read as zero from then on. Fails while one is pinned.
    Decommit = 3,
    /// A new VMO that is a window on this one (page-aligned, same pages); the result is its handle.
    Slice = 4,
    /// Set the size to `len`; shrinking fails while a page beyond is pinned or mapped.
    Resize = 5,
}

impl VmoOp {
    /// The operation with this number.
    pub const fn from_number(n: usize) -> Option<VmoOp> {
        Some(match n {
            0 => VmoOp::Read,
            1 => VmoOp::Write,
            2 => VmoOp::Commit,
            3 => VmoOp::Decommit,
            4 => VmoOp::Slice,
            5 => VmoOp::Resize,
            _ => return None,
        })
    }
}

/// Properties of `object_set`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub enum Property {
    /// Process, thread, VMO: a name; `(pointer, len)`.
    Name = 0,
    /// Process: a [`Quota`](crate::Quota); `(pointer, len)`.
    Quota = 1,
    /// Thread: priority 0 to 31, at most the process's limit.
    Priority = 2,
    /// Thread: mask of CPUs.
    Affinity = 3,
    /// Thread: CPU budget in nanoseconds of every 10 ms, 0 for none. A thread that used it up runs at
    /// the lowest priority until the next period.
    Budget = 4,
    /// Channel: the epoch that callers of the other end are told when this end closes. Another epoch than
    /// before says that another process serves this end now: calls that the old one took and did not answer
    /// fail with `PeerClosed` and the new epoch, and the other end has the edge `PEER_RENEWED`. Messages
    /// that nobody has read stay for the new one.
    Epoch = 5,
    /// Resource: revoke it and everything made from it (value ignored).
    Revoke = 6,
}

impl Property {
    /// The property with this number.
    pub const fn from_number(n: usize) -> Option<Property> {
        Some(match n {
            0 => Property::Name,
            1 => Property::Quota,
            2 => Property::Priority,
            3 => Property::Affinity,
            4 => Property::Budget,
            5 => Property::Epoch,
            6 => Property::Revoke,
            _ => return None,
        })
    }
}

/// Operations of `debug`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub enum DebugOp {
    /// Stop the thread before its next user instruction.
    Suspend = 0,
    /// Let it go on.
    Resume = 1,
    /// Fill a [`CrashReport`](crate::CrashReport) with its present registers and backtrace.
    Report = 2,
}

impl DebugOp {
    /// The operation with this number.
    pub const fn from_number(n: usize) -> Option<DebugOp> {
        Some(match n {
            0 => DebugOp::Suspend,
            1 => DebugOp::Resume,
            2 => DebugOp::Report,
            _ => return None,
        })
    }
}

/// Operations of `log`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub enum LogOp {
    /// Append a line; the kernel adds the time and the process's name.
    Write = 0,
    /// Copy whole lines from the sequence number (a byte count since boot) on; the oldest are lost first.
    Read = 1,
    /// Append bytes as they are (the serial log only).
    WriteRaw = 2,
    /// Wait until everything has left the serial port.
    Flush = 3,
}

impl LogOp {
    /// The operation with this number.
    pub const fn from_number(n: usize) -> Option<LogOp> {
        Some(match n {
            0 => LogOp::Write,
            1 => LogOp::Read,
            2 => LogOp::WriteRaw,
            3 => LogOp::Flush,
            _ => return None,
        })
    }
}
