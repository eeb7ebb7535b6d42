//! Accounts: what a process and everything below it may use of memory, threads and processes.
//!
//! Use counts against the process's account and every ancestor's, so that a process cannot escape its limit by
//! making children. An account outlives its process while a charge or a child remains.

use alloc::sync::Arc;

use bulkhead_abi::{Error, PAGE_SIZE, Quota, Result};

use crate::lock::Cell;

/// Limits and use of a process.
#[derive(Debug)]
pub struct Account {
    parent: Option<Arc<Account>>,
    limit: Cell<Quota>,
    bytes: Cell<u64>,
    threads: Cell<u32>,
    processes: Cell<u32>,
}

impl Account {
    /// An account below `parent`; limits beyond the parent's are cut to them.
    pub fn new(parent: Option<Arc<Account>>, limit: Quota) -> Account {
        let limit = parent.as_ref().map_or(limit, |p| p.capped(limit));
        Account {
            parent,
            limit: Cell::new(limit),
            bytes: Cell::new(0),
            threads: Cell::new(0),
            processes: Cell::new(0),
        }
    }

    fn capped(&self, wanted: Quota) -> Quota {
        let own = self.limit.get();
        Quota {
            pages: wanted.pages.min(own.pages),
            handles: wanted.handles.min(own.handles),
            threads: wanted.threads.min(own.threads),
            processes: wanted.processes.min(own.processes),
            max_priority: wanted.max_priority.min(own.max_priority),
        }
    }

    /// The limits.
    pub fn limit(&self) -> Quota {
        self.limit.get()
    }

    /// Sets the limits, at most the parent's. What is used beyond stays; more is refused.
    pub fn set_limit(&self, limit: Quota) {
        self.limit
            .set(self.parent.as_ref().map_or(limit, |p| p.capped(limit)));
    }

    /// Pages in use.
    pub fn pages(&self) -> u64 {
        self.bytes.get().div_ceil(PAGE_SIZE as u64)
    }

    fn chain(&self) -> impl Iterator<Item = &Account> {
        core::iter::successors(Some(self), |a| a.parent.as_deref())
    }

    /// Charges memory.
    #[inline]
    pub fn charge_bytes(&self, n: u64) -> Result<()> {
        for account in self.chain() {
            let limit = account.limit.get().pages.saturating_mul(PAGE_SIZE as u64);
            if account.bytes.get().saturating_add(n) > limit {
                return Err(Error::NoMemory);
            }
        }
        self.chain().for_each(|a| a.bytes.set(a.bytes.get() + n));
        Ok(())
    }

    /// Takes a charge of memory back.
    #[inline]
    pub fn release_bytes(&self, n: u64) {
        self.chain().for_each(|a| a.bytes.set(a.bytes.get() - n));
    }

    /// Charges pages.
    #[inline]
    pub fn charge_pages(&self, n: u64) -> Result<()> {
        self.charge_bytes(n.saturating_mul(PAGE_SIZE as u64))
    }

    /// Takes a charge of pages back.
    #[inline]
    pub fn release_pages(&self, n: u64) {
        self.release_bytes(n * PAGE_SIZE as u64);
    }

    /// Charges a thread.
    pub fn charge_thread(&self) -> Result<()> {
        if self
            .chain()
            .any(|a| a.threads.get() >= a.limit.get().threads)
        {
            return Err(Error::LimitReached);
        }
        self.chain()
            .for_each(|a| a.threads.set(a.threads.get() + 1));
        Ok(())
    }

    /// Takes the charge of a thread back.
    pub fn release_thread(&self) {
        self.chain()
            .for_each(|a| a.threads.set(a.threads.get() - 1));
    }

    /// Charges a process to the account of its creator.
    pub fn charge_process(&self) -> Result<()> {
        if self
            .chain()
            .any(|a| a.processes.get() >= a.limit.get().processes)
        {
            return Err(Error::LimitReached);
        }
        self.chain()
            .for_each(|a| a.processes.set(a.processes.get() + 1));
        Ok(())
    }

    /// Takes the charge of a process back.
    pub fn release_process(&self) {
        self.chain()
            .for_each(|a| a.processes.set(a.processes.get() - 1));
    }
}

/// A charge of memory for something of the kernel's that a process made; taken back when dropped.
pub struct Charge {
    account: Arc<Account>,
    bytes: u64,
}

impl Charge {
    /// Charges `bytes`, if the account and the machine have them.
    #[inline]
    pub fn new(account: &Arc<Account>, bytes: usize) -> Result<Charge> {
        if !crate::memory::frames::user_may_take(crate::memory::pages(bytes)) {
            return Err(Error::NoMemory);
        }
        account.charge_bytes(bytes as u64)?;
        Ok(Charge {
            account: account.clone(),
            bytes: bytes as u64,
        })
    }
}

impl Drop for Charge {
    #[inline]
    fn drop(&mut self) {
        self.account.release_bytes(self.bytes);
    }
}
