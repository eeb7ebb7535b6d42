//! Records that `object_info` fills, the system-information page, and the first message to init.

use crate::{NAME_MAX, OBJECT_KINDS};

/// Topics of `object_info`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub enum Topic {
    /// Any handle: [`HandleInfo`].
    Handle = 0,
    /// Process: [`ProcessInfo`].
    Process = 1,
    /// Process that was ended by a fault: [`CrashReport`].
    Crash = 2,
    /// Thread: [`ThreadInfo`].
    Thread = 3,
    /// VMO: [`VmoInfo`].
    Vmo = 4,
    /// Interrupt: [`InterruptInfo`].
    Interrupt = 5,
    /// DMA domain: [`DmaInfo`].
    Dma = 6,
    /// Resource: [`ResourceInfo`].
    Resource = 7,
    /// `System` resource: [`KernelStats`].
    Kernel = 8,
    /// `System` resource: array of [`ProcessInfo`].
    Processes = 9,
    /// `System` resource: array of [`CpuInfo`].
    Cpus = 10,
    /// Process: array of [`MappingInfo`].
    Mappings = 11,
    /// Process (also by `System` resource): array of [`ThreadInfo`].
    Threads = 12,
}

impl Topic {
    /// The topic with this number.
    pub const fn from_number(n: usize) -> Option<Topic> {
        Some(match n {
            0 => Topic::Handle,
            1 => Topic::Process,
            2 => Topic::Crash,
            3 => Topic::Thread,
            4 => Topic::Vmo,
            5 => Topic::Interrupt,
            6 => Topic::Dma,
            7 => Topic::Resource,
            8 => Topic::Kernel,
            9 => Topic::Processes,
            10 => Topic::Cpus,
            11 => Topic::Mappings,
            12 => Topic::Threads,
            _ => return None,
        })
    }
}

/// A name of at most [`NAME_MAX`] bytes, zero-filled.
pub type Name = [u8; NAME_MAX];

/// [`Topic::Handle`].
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct HandleInfo {
    /// Kernel object ID: unique since boot.
    pub koid: u64,
    /// [`ObjectKind`](crate::ObjectKind) as a number.
    pub kind: u32,
    /// [`Rights`](crate::Rights).
    pub rights: u32,
    /// Channel: koid of the other end; 0 else.
    pub related_koid: u64,
    /// Present [`Signals`](crate::Signals).
    pub signals: u32,
    /// Handles to the object, in all processes and messages.
    pub handles: u32,
}

/// How a process ended.
pub mod exit {
    /// It runs.
    pub const RUNNING: u32 = 0;
    /// It called `kill` on itself: a normal exit with a code.
    pub const EXITED: u32 = 1;
    /// Another process ended it.
    pub const KILLED: u32 = 2;
    /// A fault ended it; a [`CrashReport`](crate::CrashReport) is kept.
    pub const FAULTED: u32 = 3;
    /// Its last thread ended.
    pub const NO_THREADS: u32 = 4;
}

/// [`Topic::Process`].
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct ProcessInfo {
    /// Kernel object ID; serves as process ID.
    pub koid: u64,
    /// That of the process that created it; 0 for init.
    pub parent_koid: u64,
    /// Name.
    pub name: Name,
    /// One of [`exit`].
    pub exit_reason: u32,
    /// Code of the exit or kill.
    pub exit_code: i32,
    /// Threads that have not ended.
    pub threads: u32,
    /// Handles open.
    pub handles: u32,
    /// Pages charged to it and to those below it.
    pub pages: u64,
    /// Its limit of pages.
    pub pages_limit: u64,
    /// Pages mapped and present.
    pub resident_pages: u64,
    /// CPU time of all its threads, in nanoseconds.
    pub cpu_time_ns: u64,
    /// When it was created, nanoseconds since boot.
    pub start_time_ns: u64,
    /// System calls made.
    pub syscalls: u64,
    /// Page faults served.
    pub page_faults: u64,
    /// Priority of its first thread.
    pub priority: u32,
    /// State of its most active thread, as in [`ThreadInfo::state`].
    pub state: u32,
}

/// States of a thread.
pub mod thread_state {
    /// In a run queue.
    pub const READY: u32 = 0;
    /// On a CPU.
    pub const RUNNING: u32 = 1;
    /// Waits for something.
    pub const BLOCKED: u32 = 2;
    /// Stopped by `debug`.
    pub const SUSPENDED: u32 = 3;
    /// Over.
    pub const ENDED: u32 = 4;
}

/// [`Topic::Thread`].
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct ThreadInfo {
    /// Kernel object ID.
    pub koid: u64,
    /// That of its process.
    pub process_koid: u64,
    /// Name.
    pub name: Name,
    /// One of [`thread_state`].
    pub state: u32,
    /// Base priority.
    pub priority: u32,
    /// CPU where it runs or ran last.
    pub cpu: u32,
    /// System call that it waits in, or `u32::MAX`.
    pub blocked_in: u32,
    /// Mask of CPUs.
    pub affinity: u64,
    /// CPU time in nanoseconds.
    pub cpu_time_ns: u64,
}

/// Registers in [`CrashReport::registers`], x86_64 order.
pub const REGISTER_NAMES: [&str; 20] = [
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11", "r12", "r13",
    "r14", "r15", "rip", "rflags", "cs", "ss",
];
/// Most return addresses in a backtrace.
pub const BACKTRACE_MAX: usize = 32;

/// [`Topic::Crash`]: what a fault left behind.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct CrashReport {
    /// Process.
    pub process_koid: u64,
    /// Thread.
    pub thread_koid: u64,
    /// Process's name.
    pub name: Name,
    /// Vector of the exception (x86_64: 14 is a page fault).
    pub vector: u32,
    /// For a page fault: bit 0 present, bit 1 write, bit 4 instruction fetch; else the error code.
    pub code: u32,
    /// For a page fault: the address.
    pub address: u64,
    /// When, nanoseconds since boot.
    pub time_ns: u64,
    /// In the order of [`REGISTER_NAMES`].
    pub registers: [u64; 20],
    /// Return addresses, innermost first, 0-terminated if shorter.
    pub backtrace: [u64; BACKTRACE_MAX],
}

/// [`Topic::Vmo`].
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct VmoInfo {
    /// Kernel object ID.
    pub koid: u64,
    /// Size in bytes.
    pub size: u64,
    /// Pages allocated.
    pub committed_pages: u64,
    /// Pages pinned for DMA.
    pub pinned_pages: u64,
    /// Mappings.
    pub mappings: u32,
    /// Bit 0 contiguous, bit 1 device memory, bit 2 slice.
    pub flags: u32,
    /// Name.
    pub name: Name,
}

/// [`Topic::Interrupt`].
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct InterruptInfo {
    /// Kernel object ID.
    pub koid: u64,
    /// `IRQ_LINE`, `IRQ_MESSAGE` or `IRQ_VIRTUAL`.
    pub kind: u32,
    /// CPU that takes it.
    pub cpu: u32,
    /// Message address to program into the device.
    pub address: u64,
    /// Message data.
    pub data: u32,
    /// GSI of a line.
    pub gsi: u32,
    /// Times it fired.
    pub count: u64,
}

/// [`Topic::Dma`].
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct DmaInfo {
    /// Kernel object ID.
    pub koid: u64,
    /// Device ID.
    pub device: u64,
    /// 1 when an IOMMU contains the device, 0 when its DMA is trusted.
    pub translated: u32,
    /// Live pins.
    pub pins: u32,
    /// Their pages.
    pub pinned_pages: u64,
    /// Pages in quarantine.
    pub quarantined_pages: u64,
}

/// [`Topic::Resource`].
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct ResourceInfo {
    /// Kernel object ID.
    pub koid: u64,
    /// [`ResourceKind`](crate::ResourceKind) as a number.
    pub kind: u32,
    /// 1 when revoked.
    pub revoked: u32,
    /// First of the range.
    pub base: u64,
    /// Length of the range.
    pub len: u64,
}

/// [`Topic::Kernel`]: counts that must come back to their baseline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct KernelStats {
    /// Pages of RAM under the allocator.
    pub total_pages: u64,
    /// Of these, free.
    pub free_pages: u64,
    /// Pages in the kernel's heap.
    pub heap_pages: u64,
    /// Pages in page tables.
    pub table_pages: u64,
    /// Handles in all processes and messages.
    pub handles: u64,
    /// Live pins.
    pub pins: u64,
    /// Pages they hold.
    pub pinned_pages: u64,
    /// Pages in quarantine.
    pub quarantined_pages: u64,
    /// Live objects by [`ObjectKind`](crate::ObjectKind).
    pub objects: [u64; OBJECT_KINDS],
    /// Interrupt vectors in use by devices.
    pub vectors: u64,
    /// Context switches since boot.
    pub context_switches: u64,
    /// System calls since boot.
    pub syscalls: u64,
    /// Page faults since boot.
    pub page_faults: u64,
    /// Device interrupts since boot.
    pub interrupts: u64,
}

/// An entry of [`Topic::Cpus`].
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct CpuInfo {
    /// Number, 0 first.
    pub cpu: u32,
    /// 1 when it runs.
    pub online: u32,
    /// Time without a thread to run, nanoseconds.
    pub idle_ns: u64,
    /// Context switches.
    pub context_switches: u64,
    /// Interrupts of devices taken.
    pub interrupts: u64,
    /// Threads in its run queue.
    pub queued: u64,
}

/// An entry of [`Topic::Mappings`].
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct MappingInfo {
    /// First address.
    pub address: u64,
    /// Bytes.
    pub len: u64,
    /// Offset in the VMO.
    pub offset: u64,
    /// Koid of the VMO.
    pub vmo_koid: u64,
    /// `MAP_*` flags.
    pub flags: u64,
}

/// The read-only page at [`SYSTEM_INFO_ADDR`](crate::SYSTEM_INFO_ADDR).
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct SystemInfo {
    /// [`ABI_VERSION`](crate::ABI_VERSION) of the kernel.
    pub abi_version: u32,
    /// CPUs that run.
    pub cpu_count: u32,
    /// Nanoseconds since boot = `((counter - clock_base) * clock_mult) >> clock_shift` in 128 bits, where
    /// the counter is the TSC.
    pub clock_base: u64,
    /// See [`SystemInfo::clock_base`].
    pub clock_mult: u32,
    /// See [`SystemInfo::clock_base`].
    pub clock_shift: u32,
    /// Frequency of the counter in Hz.
    pub counter_hz: u64,
    /// Unix time at boot, nanoseconds.
    pub wall_clock_at_boot_ns: u64,
    /// Pages of RAM.
    pub total_pages: u64,
    /// Bit 0: FS base can be written by user code (FSGSBASE).
    pub features: u64,
}

/// Head of the only message in init's bootstrap channel. After it come `acpi_count` entries of
/// [`AcpiTable`], then the kernel command line (`command_line_len` bytes of UTF-8).
///
/// Handles: `[root resource, archive VMO, init's own process, one read-only VMO per ACPI table ...]`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct InitMessage {
    /// [`ABI_VERSION`](crate::ABI_VERSION).
    pub abi_version: u32,
    /// Number of ACPI tables.
    pub acpi_count: u32,
    /// Bytes of the archive in its VMO.
    pub archive_len: u64,
    /// Physical address of the RSDP, 0 if none.
    pub rsdp: u64,
    /// Bytes of command line.
    pub command_line_len: u64,
}

/// An entry of [`InitMessage`].
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct AcpiTable {
    /// For instance `MCFG`.
    pub signature: [u8; 4],
    /// Bytes of the table, which starts at offset 0 of its VMO.
    pub len: u32,
    /// Where the firmware put it.
    pub physical: u64,
}
