//! Processes: an address space, a handle table, an account, and threads.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;

use bulkhead_abi::{
    CrashReport, Error, NAME_MAX, ObjectKind, ProcessInfo, Quota, Result, Rights, Signals, exit,
    thread_state,
};
use kernel_core::handles::Table;

use crate::arch::{self, IoBitmap};
use crate::lock::{Cell, Locked};
use crate::memory::account::Account;
use crate::memory::space::Space;
use crate::object::thread::Thread;
use crate::object::{Base, Handle, Object};
use crate::sched;

static PROCESSES: Locked<BTreeMap<u64, Weak<Process>>> = Locked::new(BTreeMap::new());

/// The processes that have not ended, in order of their koid.
pub fn all() -> Vec<Arc<Process>> {
    PROCESSES
        .borrow()
        .values()
        .filter_map(Weak::upgrade)
        .collect()
}

/// The process with a koid.
pub fn by_koid(koid: u64) -> Option<Arc<Process>> {
    PROCESSES.borrow().get(&koid).and_then(Weak::upgrade)
}

/// A process.
pub struct Process {
    pub base: Base,
    parent_koid: u64,
    parent_account: Option<Arc<Account>>,
    account: Arc<Account>,
    name: Cell<[u8; NAME_MAX]>,
    space: Arc<Space>,
    handles: Locked<Table<Handle>>,
    threads: Locked<Vec<Arc<Thread>>>,
    exit_reason: Cell<u32>,
    exit_code: Cell<i32>,
    dying: Cell<bool>,
    ended: Cell<bool>,
    crash: Locked<Option<Box<CrashReport>>>,
    ports: Locked<Option<Box<IoBitmap>>>,
    start: u64,
    ended_cpu_time: Cell<u64>,
    pub syscalls: Cell<u64>,
    pub page_faults: Cell<u64>,
}

impl Process {
    /// A process without threads, below `parent`.
    pub fn new(
        parent: Option<&Process>,
        name: [u8; NAME_MAX],
        quota: Quota,
        info_page: u64,
    ) -> Result<Arc<Process>> {
        let parent_account = parent.map(|p| p.account.clone());
        let space = Space::new(info_page)?;
        if let Some(account) = &parent_account {
            account.charge_process()?;
        }
        let process = Arc::new(Process {
            base: Base::new(ObjectKind::Process),
            parent_koid: parent.map_or(0, |p| p.base.koid()),
            account: Arc::new(Account::new(parent_account.clone(), quota)),
            parent_account,
            name: Cell::new(name),
            space,
            handles: Locked::new(Table::new()),
            threads: Locked::new(Vec::new()),
            exit_reason: Cell::new(exit::RUNNING),
            exit_code: Cell::new(0),
            dying: Cell::new(false),
            ended: Cell::new(false),
            crash: Locked::new(None),
            ports: Locked::new(None),
            start: arch::now_ns(),
            ended_cpu_time: Cell::new(0),
            syscalls: Cell::new(0),
            page_faults: Cell::new(0),
        });
        PROCESSES
            .borrow_mut()
            .insert(process.base.koid(), Arc::downgrade(&process));
        Ok(process)
    }

    /// Its address space.
    #[inline]
    pub fn space(&self) -> &Arc<Space> {
        &self.space
    }

    /// Its account.
    #[inline]
    pub fn account(&self) -> &Arc<Account> {
        &self.account
    }

    /// Name, zero-filled.
    pub fn name(&self) -> [u8; NAME_MAX] {
        self.name.get()
    }

    /// Sets the name.
    pub fn set_name(&self, name: [u8; NAME_MAX]) {
        self.name.set(name);
    }

    /// Whether it is ending or has ended.
    pub fn is_dying(&self) -> bool {
        self.dying.get()
    }

    /// Adds a handle to its table.
    #[inline]
    pub fn add_handle(&self, handle: Handle) -> Result<u32> {
        let mut table = self.handles.borrow_mut();
        if self.dying.get() || table.len() >= self.account.limit().handles as usize {
            drop(table);
            return Err(Error::LimitReached);
        }
        table.insert(handle).map_err(|rejected| {
            // The table is borrowed here, and dropping a handle may look into tables.
            sched::drop_later(rejected);
            Error::LimitReached
        })
    }

    /// Removes a handle from its table.
    pub fn take_handle(&self, handle: u32) -> Result<Handle> {
        self.handles
            .borrow_mut()
            .remove(handle)
            .ok_or(Error::BadHandle)
    }

    /// Calls `f` with a handle.
    #[inline]
    pub fn with_handle<R>(&self, handle: u32, f: impl FnOnce(&Handle) -> Result<R>) -> Result<R> {
        f(self.handles.borrow().get(handle).ok_or(Error::BadHandle)?)
    }

    /// Calls `f` with the object of a handle that has `rights`, without counting a reference: `f` leaves handle tables alone.
    #[inline(always)]
    pub fn with_object<R>(
        &self,
        handle: u32,
        rights: Rights,
        f: impl FnOnce(&Object) -> Result<R>,
    ) -> Result<R> {
        let table = self.handles.borrow();
        let handle = table.get(handle).ok_or(Error::BadHandle)?;
        if !handle.rights().contains(rights) {
            return Err(Error::AccessDenied);
        }
        f(handle.object())
    }

    /// The object of a handle that has `rights`.
    #[inline]
    pub fn object(&self, handle: u32, rights: Rights) -> Result<Object> {
        self.with_handle(handle, |h| {
            if h.rights().contains(rights) {
                Ok(h.object().clone())
            } else {
                Err(Error::AccessDenied)
            }
        })
    }

    /// Adds a thread.
    pub fn add_thread(&self, thread: Arc<Thread>) {
        self.threads.borrow_mut().push(thread);
    }

    /// Calls `f` with each thread.
    pub fn for_each_thread(&self, f: impl FnMut(&Arc<Thread>)) {
        self.threads.borrow().iter().for_each(f);
    }

    /// Ends it: every thread first, then everything else.
    pub fn kill(self: &Arc<Process>, reason: u32, code: i32) {
        if self.dying.replace(true) {
            return;
        }
        self.exit_reason.set(reason);
        self.exit_code.set(code);
        let threads = self.threads.borrow().clone();
        if threads.is_empty() {
            self.finish();
        }
        threads.iter().for_each(sched::kill_thread);
    }

    /// A thread has ended.
    pub fn thread_ended(self: &Arc<Process>, thread: &Thread) {
        self.ended_cpu_time
            .set(self.ended_cpu_time.get() + thread.cpu_time.get());
        self.account.release_thread();
        let last = {
            let mut threads = self.threads.borrow_mut();
            threads.retain(|t| !core::ptr::eq(&**t, thread));
            threads.is_empty()
        };
        if last {
            if !self.dying.replace(true) {
                self.exit_reason.set(exit::NO_THREADS);
            }
            self.finish();
        }
    }

    /// No thread is left: closes the handles, frees the memory, tells who waits.
    fn finish(&self) {
        if self.ended.replace(true) {
            return;
        }
        PROCESSES.borrow_mut().remove(&self.base.koid());
        let handles = self.handles.borrow_mut().drain();
        handles.for_each(drop);
        self.space.clear();
        self.ports.borrow_mut().take();
        if let Some(account) = &self.parent_account {
            account.release_process();
        }
        self.base.update(Signals::NONE, Signals::TERMINATED);
        assert!(
            self.parent_koid != 0,
            "init has ended, and nobody is left to run the system"
        );
        sched::forget_space(&self.space);
    }

    /// Keeps what a fault left behind.
    pub fn set_crash(&self, report: CrashReport) {
        *self.crash.borrow_mut() = Some(Box::new(report));
    }

    /// What a fault left behind.
    pub fn crash(&self) -> Option<CrashReport> {
        self.crash.borrow().as_deref().copied()
    }

    /// Lets it use I/O ports.
    pub fn allow_ports(&self, port: u16, count: u16) -> Result<()> {
        let mut ports = self.ports.borrow_mut();
        if ports.is_none() {
            *ports = Some(IoBitmap::new().ok_or(Error::NoMemory)?);
        }
        if let Some(bitmap) = ports.as_mut() {
            bitmap.allow(port, count);
        }
        drop(ports);
        self.reload_ports();
        Ok(())
    }

    /// Takes I/O ports away.
    pub fn forbid_ports(&self, port: u16, count: u16) {
        if let Some(bitmap) = self.ports.borrow_mut().as_mut() {
            bitmap.forbid(port, count);
        }
        self.reload_ports();
    }

    fn reload_ports(&self) {
        if sched::current_process().is_some_and(|p| core::ptr::eq(&*p, self)) {
            self.load_ports();
        }
        // Other CPUs that run its threads load the new map at their next switch.
        sched::interrupt_cpus(self.space.cpus());
    }

    /// Makes this CPU follow its I/O ports.
    #[inline]
    pub fn load_ports(&self) {
        arch::load_io_bitmap(self.ports.borrow().as_deref());
    }

    /// For `object_info`.
    pub fn info(&self) -> ProcessInfo {
        let threads = self.threads.borrow();
        let state = threads
            .iter()
            .map(|t| t.info().state)
            .min()
            .unwrap_or(thread_state::ENDED);
        let limit = self.account.limit();
        ProcessInfo {
            koid: self.base.koid(),
            parent_koid: self.parent_koid,
            name: self.name.get(),
            exit_reason: self.exit_reason.get(),
            exit_code: self.exit_code.get(),
            threads: threads.len() as u32,
            handles: self.handles.borrow().len() as u32,
            pages: self.account.pages(),
            pages_limit: limit.pages,
            resident_pages: self.space.resident() as u64,
            cpu_time_ns: self.ended_cpu_time.get()
                + threads.iter().map(|t| t.cpu_time.get()).sum::<u64>(),
            start_time_ns: self.start,
            syscalls: self.syscalls.get(),
            page_faults: self.page_faults.get(),
            priority: threads.first().map_or(0, |t| u32::from(t.base_priority())),
            state,
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that never got a thread.
        if !self.ended.get() {
            PROCESSES.borrow_mut().remove(&self.base.koid());
            if let Some(account) = &self.parent_account {
                account.release_process();
            }
            self.space.clear();
        }
    }
}
