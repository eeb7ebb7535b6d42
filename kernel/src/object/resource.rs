//! Resources: immutable authority over a range of something. Children are subsets; revoking one ends it and
//! everything that was made from it.

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;

use bulkhead_abi::{Error, ObjectKind, ResourceKind, Result, Signals};

use crate::irq::Interrupt;
use crate::lock::{Cell, Locked};
use crate::memory::vmo::Vmo;
use crate::object::Base;
use crate::object::process::Process;

/// What was made from a resource and dies with it.
enum Made {
    Resource(Weak<Resource>),
    Vmo(Weak<Vmo>),
    Interrupt(Weak<Interrupt>),
    /// I/O ports of a process.
    Ports(Weak<Process>, u16, u16),
}

impl Made {
    fn is_gone(&self) -> bool {
        match self {
            Made::Resource(w) => w.strong_count() == 0,
            Made::Vmo(w) => w.strong_count() == 0,
            Made::Interrupt(w) => w.strong_count() == 0,
            Made::Ports(w, ..) => w.strong_count() == 0,
        }
    }
}

/// Authority over `start .. start + len` of a kind.
pub struct Resource {
    pub base: Base,
    kind: ResourceKind,
    start: u64,
    len: u64,
    revoked: Cell<bool>,
    made: Locked<Vec<Made>>,
}

impl Resource {
    fn with(kind: ResourceKind, start: u64, len: u64) -> Arc<Resource> {
        Arc::new(Resource {
            base: Base::new(ObjectKind::Resource),
            kind,
            start,
            len,
            revoked: Cell::new(false),
            made: Locked::new(Vec::new()),
        })
    }

    /// Authority over everything.
    pub fn root() -> Arc<Resource> {
        Resource::with(ResourceKind::Root, 0, u64::MAX)
    }

    /// Kind, start and length of the range, and whether it was revoked.
    pub fn info(&self) -> (ResourceKind, u64, u64, bool) {
        (self.kind, self.start, self.len, self.revoked.get())
    }

    /// Checks that it covers a range of a kind.
    pub fn covers(&self, kind: ResourceKind, start: u64, len: u64) -> Result<()> {
        if self.revoked.get() {
            return Err(Error::Cancelled);
        }
        let end = start.checked_add(len).ok_or(Error::OutOfRange)?;
        if self.kind == ResourceKind::Root {
            return Ok(());
        }
        let own_end = self.start.saturating_add(self.len);
        if self.kind != kind || start < self.start || end > own_end {
            return Err(Error::AccessDenied);
        }
        Ok(())
    }

    /// A child over a subset.
    pub fn derive(&self, kind: ResourceKind, start: u64, len: u64) -> Result<Arc<Resource>> {
        self.covers(kind, start, len)?;
        if kind == ResourceKind::Root && self.kind != ResourceKind::Root {
            return Err(Error::AccessDenied);
        }
        let child = Resource::with(kind, start, len);
        self.remember(Made::Resource(Arc::downgrade(&child)));
        Ok(child)
    }

    fn remember(&self, made: Made) {
        let mut list = self.made.borrow_mut();
        if list.len() >= 32 && list.len().is_power_of_two() {
            list.retain(|m| !m.is_gone());
        }
        list.push(made);
    }

    /// Remembers device memory made from it.
    pub fn made_vmo(&self, vmo: &Arc<Vmo>) {
        self.remember(Made::Vmo(Arc::downgrade(vmo)));
    }

    /// Remembers an interrupt made from it.
    pub fn made_interrupt(&self, interrupt: &Arc<Interrupt>) {
        self.remember(Made::Interrupt(Arc::downgrade(interrupt)));
    }

    /// Remembers ports granted from it.
    pub fn made_ports(&self, process: &Arc<Process>, port: u16, count: u16) {
        self.remember(Made::Ports(Arc::downgrade(process), port, count));
    }

    /// Ends it and everything made from it. Works through a list instead of recursing: a chain of children may be
    /// longer than the kernel's stack is deep.
    pub fn revoke(self: &Arc<Resource>) {
        let mut left = alloc::vec![self.clone()];
        while let Some(resource) = left.pop() {
            if resource.revoked.replace(true) {
                continue;
            }
            resource.base.update(Signals::NONE, Signals::SIGNALED);
            for made in core::mem::take(&mut *resource.made.borrow_mut()) {
                match made {
                    Made::Resource(w) => left.extend(w.upgrade()),
                    Made::Vmo(w) => w.upgrade().into_iter().for_each(|v| v.revoke()),
                    Made::Interrupt(w) => w.upgrade().into_iter().for_each(|i| i.close()),
                    Made::Ports(w, port, count) => {
                        w.upgrade()
                            .into_iter()
                            .for_each(|p| p.forbid_ports(port, count));
                    }
                }
            }
        }
    }
}
