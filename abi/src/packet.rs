//! Records that system calls take and fill.

/// What a port delivers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Packet {
    /// The key given to `wait_async`, `irq_bind` or `port_queue`.
    pub key: u64,
    /// [`Packet::SIGNAL`], [`Packet::USER`] or [`Packet::INTERRUPT`].
    pub kind: u32,
    /// For `SIGNAL`: what was asserted, of what was waited for.
    pub signals: u32,
    /// For `USER`: the sender's value. For `SIGNAL` and `INTERRUPT`: how many edges or
    /// interrupts came since the last packet of this source (at least 1).
    pub value: u64,
    /// When the packet was queued, in nanoseconds since boot.
    pub timestamp_ns: u64,
}

impl Packet {
    /// Signals of an object that `wait_async` watches.
    pub const SIGNAL: u32 = 1;
    /// Sent with `port_queue`.
    pub const USER: u32 = 2;
    /// A bound interrupt.
    pub const INTERRUPT: u32 = 3;
}

/// Arguments of `channel_call`; pointers are user addresses.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct CallArgs {
    /// Message to send.
    pub bytes: u64,
    /// Its length in bytes.
    pub bytes_len: u32,
    /// Number of handles to send (they move).
    pub handles_len: u32,
    /// Handles to send: an array of `u32`.
    pub handles: u64,
    /// Where the reply goes.
    pub reply_bytes: u64,
    /// Room there, in bytes.
    pub reply_bytes_cap: u32,
    /// Room for handles of the reply.
    pub reply_handles_cap: u32,
    /// Where the reply's handles go: an array of `u32`.
    pub reply_handles: u64,
}

/// Arguments of `thread_start`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct ThreadArgs {
    /// First instruction.
    pub entry: u64,
    /// Initial stack pointer (aligned as at a function's entry: 16n + 8 on x86_64).
    pub stack: u64,
    /// Passed in `rsi`.
    pub arg: u64,
    /// Initial thread pointer (FS base).
    pub thread_pointer: u64,
    /// A handle that moves into the process and whose new value is passed in `rdi`; 0 for none.
    pub handle: u32,
    /// 0 to 31, or 255 for the process's default.
    pub priority: u32,
    /// CPUs that the thread may run on, a bit each; 0 for all.
    pub affinity: u64,
    /// Address of a name, or 0.
    pub name: u64,
    /// Its length in bytes, at most [`NAME_MAX`](crate::NAME_MAX).
    pub name_len: u64,
}

/// Limits of a process and of everything below it. A child's limits are at most its parent's, and
/// what a child uses counts against every ancestor (handles: only in the process itself).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Quota {
    /// Pages of memory, those of VMOs that the process created and of its page tables.
    pub pages: u64,
    /// Entries in the handle table.
    pub handles: u32,
    /// Threads.
    pub threads: u32,
    /// Processes below this one.
    pub processes: u32,
    /// Highest priority of a thread.
    pub max_priority: u32,
}

/// `rax` of `channel_read` and `channel_call`: bytes in bits 0..32, handles in bits 32..63.
pub const fn message_sizes(packed: u64) -> (usize, usize) {
    ((packed & 0xffff_ffff) as usize, (packed >> 32) as usize)
}
