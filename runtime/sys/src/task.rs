//! Processes and threads.

use crate::abi::{
    CrashReport, DebugOp, MappingInfo, PRIORITY_MAX, ProcessInfo, Property, Quota, RawHandle,
    Result, Syscall, SystemInfo, ThreadArgs, ThreadInfo, Topic,
};
use crate::handle::{
    AsHandle, Handle, handle_type, new_handle, object_info, object_info_all, object_set, set_name,
};
use crate::mapping::{SegmentAccess, map_into};
use crate::raw::syscall;
use crate::vmo::Vmo;

/// The page of facts about the machine that every process has.
#[cfg(target_os = "none")]
#[inline]
pub fn system_info() -> &'static SystemInfo {
    // SAFETY: the kernel maps this page, read-only and constant, into every process before it runs.
    unsafe { &*(crate::abi::SYSTEM_INFO_ADDR as *const SystemInfo) }
}

/// The page of facts about the machine, on a host.
#[cfg(not(target_os = "none"))]
pub fn system_info() -> &'static SystemInfo {
    static INFO: std::sync::OnceLock<SystemInfo> = std::sync::OnceLock::new();
    INFO.get_or_init(|| SystemInfo {
        abi_version: crate::abi::ABI_VERSION,
        cpu_count: std::thread::available_parallelism().map_or(1, |n| n.get() as u32),
        wall_clock_at_boot_ns: std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |d| d.as_nanos() as u64),
        ..SystemInfo::default()
    })
}

/// Ends the calling process at once, without flushing anything: see `rt::exit` for the orderly way.
#[cfg(target_os = "none")]
pub fn exit(code: i32) -> ! {
    loop {
        // SAFETY: nothing of this process runs on.
        let _ = unsafe {
            syscall(
                Syscall::Kill,
                [RawHandle::SELF_PROCESS.0 as usize, 0, code as u32 as usize],
            )
        };
    }
}

/// Ends the calling process.
#[cfg(not(target_os = "none"))]
pub fn exit(code: i32) -> ! {
    std::process::exit(code)
}

handle_type! {
    /// A process: address space, handle table, quota, threads.
    Process
}

impl Process {
    /// A process without threads, a child of the caller. The name is cut at 32 bytes; without a
    /// quota the caller's own limits hold.
    pub fn create(name: &str, quota: Option<&Quota>) -> Result<Process> {
        let len = name.len().min(crate::abi::NAME_MAX);
        let quota = quota.map_or(0, |q| q as *const Quota as usize);
        // SAFETY: the kernel reads the name and the quota, both borrowed for the call.
        let raw = unsafe { syscall(Syscall::ProcessCreate, [name.as_ptr() as usize, len, quota]) };
        Ok(new_handle(raw.result()?))
    }

    /// Maps a part of a VMO at exactly `address` of the (other) process.
    pub fn map_at(
        &self,
        vmo: &Vmo,
        offset: u64,
        len: usize,
        access: SegmentAccess,
        address: usize,
    ) -> Result<()> {
        map_into(self.raw(), vmo, offset, len, access, Some(address)).map(|_| ())
    }

    /// Maps a part of a VMO into the (other) process where the kernel chooses, with an unmapped
    /// guard page on both sides; tells the address.
    pub fn map_anywhere(
        &self,
        vmo: &Vmo,
        offset: u64,
        len: usize,
        access: SegmentAccess,
    ) -> Result<usize> {
        map_into(self.raw(), vmo, offset, len, access, None)
    }

    /// Starts a thread in the (other) process.
    pub fn start_thread(&self, start: ThreadStart<'_>) -> Result<Thread> {
        let handle = start.handle.map_or(RawHandle::INVALID, Handle::into_raw);
        let args = ThreadArgs {
            entry: start.entry as u64,
            stack: start.stack as u64,
            arg: start.arg as u64,
            thread_pointer: 0,
            handle: handle.0,
            priority: start
                .priority
                .map_or(255, |p| u32::from(p.min(PRIORITY_MAX))),
            affinity: start.affinity,
            name: start.name.as_ptr() as u64,
            name_len: start.name.len().min(crate::abi::NAME_MAX) as u64,
        };
        if self.raw() == RawHandle::SELF_PROCESS {
            return Err(crate::abi::Error::InvalidArgument);
        }
        // SAFETY: the kernel reads `args` and the name. The thread runs in a process whose memory was
        // set up through handles; the own process is refused above (a second handle to it would have
        // to be sent here by its parent, which could start threads in it anyway).
        let raw = unsafe {
            syscall(
                Syscall::ThreadStart,
                [self.arg(), (&raw const args) as usize],
            )
        };
        match raw.result() {
            Ok(thread) => Ok(new_handle(thread)),
            Err(error) => {
                drop(Handle::from_raw(handle));
                Err(error)
            }
        }
    }

    /// Ends it. Needs `DESTROY`.
    pub fn kill(&self, code: i32) -> Result<()> {
        // SAFETY: no memory is passed.
        unsafe { syscall(Syscall::Kill, [self.arg(), 0, code as u32 as usize]) }.unit()
    }

    /// State, counts and how it ended. Needs `INSPECT`.
    pub fn process_info(&self) -> Result<ProcessInfo> {
        object_info(self.as_handle(), Topic::Process)
    }

    /// What the fault left behind that ended it; `NotFound` if none did.
    pub fn crash_report(&self) -> Result<CrashReport> {
        object_info(self.as_handle(), Topic::Crash)
    }

    /// Its mappings.
    pub fn mappings(&self) -> Result<alloc::vec::Vec<MappingInfo>> {
        object_info_all(self.as_handle(), Topic::Mappings)
    }

    /// Its threads.
    pub fn threads(&self) -> Result<alloc::vec::Vec<ThreadInfo>> {
        object_info_all(self.as_handle(), Topic::Threads)
    }

    /// Changes its limits. Needs `MANAGE`.
    pub fn set_quota(&self, quota: &Quota) -> Result<()> {
        // SAFETY: the kernel reads a borrowed record.
        unsafe {
            syscall(
                Syscall::ObjectSet,
                [
                    self.arg(),
                    Property::Quota as usize,
                    quota as *const Quota as usize,
                    size_of::<Quota>(),
                ],
            )
        }
        .unit()
    }

    /// Names it; cut at 32 bytes.
    pub fn set_name(&self, name: &str) -> Result<()> {
        set_name(self.raw(), name)
    }

    /// Information about the calling process.
    pub fn own_info() -> Result<ProcessInfo> {
        let own = core::mem::ManuallyDrop::new(Handle::from_raw(RawHandle::SELF_PROCESS));
        object_info(&own, Topic::Process)
    }
}

/// How [`Process::start_thread`] starts a thread.
#[derive(Debug)]
pub struct ThreadStart<'a> {
    /// Name, cut at 32 bytes.
    pub name: &'a str,
    /// First instruction.
    pub entry: usize,
    /// Stack pointer, aligned as at a function's entry (16 n + 8).
    pub stack: usize,
    /// Second argument of the entry.
    pub arg: usize,
    /// Moves into the process; its number there is the entry's first argument.
    pub handle: Option<Handle>,
    /// 0 to 31; `None` for the process's default.
    pub priority: Option<u8>,
    /// CPUs that it may run on, a bit each; 0 for all.
    pub affinity: u64,
}

handle_type! {
    /// A flow of execution.
    Thread
}

impl Thread {
    /// State, priority, CPU time. Needs `INSPECT`.
    pub fn thread_info(&self) -> Result<ThreadInfo> {
        object_info(self.as_handle(), Topic::Thread)
    }

    /// Information about the calling thread.
    pub fn own_info() -> Result<ThreadInfo> {
        let own = core::mem::ManuallyDrop::new(Handle::from_raw(RawHandle::SELF_THREAD));
        object_info(&own, Topic::Thread)
    }

    /// Sets the priority, 0 to 31, at most the process's limit. Needs `MANAGE`.
    pub fn set_priority(&self, priority: u8) -> Result<()> {
        object_set(self.raw(), Property::Priority, usize::from(priority))
    }

    /// Sets the priority of the calling thread.
    pub fn set_own_priority(priority: u8) -> Result<()> {
        object_set(
            RawHandle::SELF_THREAD,
            Property::Priority,
            usize::from(priority),
        )
    }

    /// Sets the CPUs that it may run on, a bit each.
    pub fn set_affinity(&self, cpus: u64) -> Result<()> {
        object_set(self.raw(), Property::Affinity, cpus as usize)
    }

    /// Sets the CPUs that the calling thread may run on.
    pub fn set_own_affinity(cpus: u64) -> Result<()> {
        object_set(RawHandle::SELF_THREAD, Property::Affinity, cpus as usize)
    }

    /// Sets the CPU budget in nanoseconds of every 10 ms, 0 for none.
    pub fn set_budget(&self, budget_ns: u64) -> Result<()> {
        object_set(self.raw(), Property::Budget, budget_ns as usize)
    }

    /// Stops it before its next instruction.
    pub fn suspend(&self) -> Result<()> {
        // SAFETY: no memory is passed.
        unsafe {
            syscall(
                Syscall::Debug,
                [self.arg(), DebugOp::Suspend as usize, 0, 0],
            )
        }
        .unit()
    }

    /// Lets it go on.
    pub fn resume(&self) -> Result<()> {
        // SAFETY: no memory is passed.
        unsafe { syscall(Syscall::Debug, [self.arg(), DebugOp::Resume as usize, 0, 0]) }.unit()
    }

    /// Its present registers and backtrace.
    pub fn report(&self) -> Result<CrashReport> {
        let mut report = CrashReport::default();
        let (pointer, len) = ((&raw mut report) as usize, size_of::<CrashReport>());
        // SAFETY: the kernel fills a record that is owned here; any bits are valid in it.
        unsafe {
            syscall(
                Syscall::Debug,
                [self.arg(), DebugOp::Report as usize, pointer, len],
            )
        }
        .unit()?;
        Ok(report)
    }

    /// Starts a thread of the own process at a function.
    ///
    /// # Safety
    ///
    /// `entry` is an `extern "C" fn(u64, usize) -> !` (or never returns otherwise), `stack` the top of
    /// a stack that is nobody else's and stays mapped until the thread has ended, and `arg` what
    /// `entry` expects.
    pub unsafe fn start_own(
        name: &str,
        entry: usize,
        stack: usize,
        arg: usize,
        priority: Option<u8>,
        affinity: u64,
    ) -> Result<Thread> {
        let args = ThreadArgs {
            entry: entry as u64,
            stack: stack as u64,
            arg: arg as u64,
            thread_pointer: 0,
            handle: 0,
            priority: priority.map_or(255, |p| u32::from(p.min(PRIORITY_MAX))),
            affinity,
            name: name.as_ptr() as u64,
            name_len: name.len().min(crate::abi::NAME_MAX) as u64,
        };
        // SAFETY: the kernel reads `args` and the name; the rest is the caller's promise.
        let raw = unsafe {
            syscall(
                Syscall::ThreadStart,
                [
                    RawHandle::SELF_PROCESS.0 as usize,
                    (&raw const args) as usize,
                ],
            )
        };
        raw.result().map(new_handle)
    }

    /// Ends the calling thread; the process ends with its last one.
    pub fn exit_own() -> ! {
        loop {
            // SAFETY: nothing of this thread runs on.
            let _ = unsafe { syscall(Syscall::Kill, [RawHandle::SELF_THREAD.0 as usize, 0, 0]) };
        }
    }
}
