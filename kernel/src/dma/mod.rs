//! DMA domains: what a device may reach. A pin holds pages of a memory object for the device; pins that their owner did
//! not end itself go into the domain's quarantine, until the device manager has fenced the device.

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;

use bulkhead_abi::{DmaInfo, Error, ObjectKind, PAGE_SIZE, Result, Signals};

use crate::arch::{self, IoError, IoSpace};
use crate::lock::{Cell, Locked};
use crate::memory::vmo::Vmo;
use crate::object::Base;

static PINS: Cell<u64> = Cell::new(0);
static PINNED: Cell<u64> = Cell::new(0);
static QUARANTINED: Cell<u64> = Cell::new(0);
/// Quarantines of domains whose last handle is gone: nobody can fence their device any more, so the pages never return.
static LOST: Locked<Vec<Held>> = Locked::new(Vec::new());

/// Domains of contained devices, by device; the newest of a device is the last.
static CONTAINED: Locked<Vec<(u64, Weak<DmaDomain>)>> = Locked::new(Vec::new());

/// Signals the domains of devices that the IOMMU refused something.
pub fn refused() {
    for device in arch::refusals() {
        let known = CONTAINED.borrow();
        let newest = known.iter().rev().find(|(d, _)| *d == u64::from(device));
        let domain = newest.and_then(|(_, domain)| domain.upgrade());
        drop(known);
        if let Some(domain) = domain {
            domain.base.update(Signals::NONE, Signals::SIGNALED);
        }
    }
}

/// Live pins, their pages, pages in quarantine.
pub fn counts() -> (u64, u64, u64) {
    (PINS.get(), PINNED.get(), QUARANTINED.get())
}

/// What a device does with pages.
#[derive(Clone, Copy)]
pub struct Access {
    pub read: bool,
    pub write: bool,
}

/// Pages that stay where they are.
struct Held {
    vmo: Arc<Vmo>,
    offset: usize,
    len: usize,
}

impl Held {
    /// Takes the pages out of the device's reach.
    fn unmap(&self, io: &IoSpace) {
        for at in (self.offset..self.offset + self.len).step_by(PAGE_SIZE) {
            if let Some(page) = self.vmo.present_page(at) {
                io.unmap(page);
            }
        }
        io.flush();
    }

    fn pages(&self) -> u64 {
        (self.len / PAGE_SIZE) as u64
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.vmo.unpin(self.offset, self.len);
    }
}

/// What a device may reach.
///
/// Device addresses are physical ones. With an IOMMU the device reaches what is pinned for it and nothing else; without
/// one its DMA is trusted: `DmaInfo` says so. A domain signals `SIGNALED` when its device was refused something.
pub struct DmaDomain {
    pub base: Base,
    device: u64,
    /// What the device reaches, until the last handle is closed.
    io: Locked<Option<IoSpace>>,
    contained: bool,
    pins: Cell<u32>,
    pinned_pages: Cell<u64>,
    quarantine: Locked<Vec<Held>>,
}

impl DmaDomain {
    /// A domain for a device: until something is pinned, it reaches nothing.
    pub fn new(device: u64) -> Result<Arc<DmaDomain>> {
        let io = IoSpace::attach(device).map_err(error)?;
        let contained = io.is_some();
        let domain = Arc::new(DmaDomain {
            base: Base::new(ObjectKind::DmaDomain),
            device,
            contained,
            io: Locked::new(io),
            pins: Cell::new(0),
            pinned_pages: Cell::new(0),
            quarantine: Locked::new(Vec::new()),
        });
        if contained {
            let known = (device, Arc::downgrade(&domain));
            CONTAINED.borrow_mut().push(known);
        }
        Ok(domain)
    }

    /// Pins whole pages; `each` gets the device address of every page.
    pub fn pin(
        self: &Arc<DmaDomain>,
        vmo: &Arc<Vmo>,
        offset: usize,
        len: usize,
        access: Access,
        mut each: impl FnMut(usize, u64) -> Result<()>,
    ) -> Result<Arc<Pin>> {
        let len = len
            .checked_next_multiple_of(PAGE_SIZE)
            .ok_or(Error::OutOfRange)?;
        let io = self.io.borrow();
        let mut mapped = 0;
        let pinned = vmo.pin(offset, len, |n, page| {
            if let Some(io) = io.as_ref() {
                io.map(page, access.read, access.write).map_err(error)?;
                mapped += PAGE_SIZE;
            }
            each(n, page)
        });
        let held = |len| Held {
            vmo: vmo.clone(),
            offset,
            len,
        };
        if let Some(io) = io.as_ref() {
            match pinned {
                Ok(()) => io.publish(),
                Err(_) => held(mapped).unmap(io),
            }
        }
        pinned?;
        let held = held(len);
        self.pins.set(self.pins.get() + 1);
        self.pinned_pages
            .set(self.pinned_pages.get() + held.pages());
        PINS.set(PINS.get() + 1);
        PINNED.set(PINNED.get() + held.pages());
        Ok(Arc::new(Pin {
            base: Base::new(ObjectKind::Pin),
            domain: self.clone(),
            held: Locked::new(Some(held)),
        }))
    }

    fn pin_ended(&self, pages: u64) {
        self.pins.set(self.pins.get() - 1);
        self.pinned_pages.set(self.pinned_pages.get() - pages);
        PINS.set(PINS.get() - 1);
        PINNED.set(PINNED.get() - pages);
    }

    /// Ends the quarantine; returns the pages released. The caller has fenced the device.
    pub fn recover(&self) -> u64 {
        let held = core::mem::take(&mut *self.quarantine.borrow_mut());
        let pages = held.iter().map(Held::pages).sum();
        QUARANTINED.set(QUARANTINED.get() - pages);
        pages
    }

    /// The last handle is gone.
    pub fn close(&self) {
        if self.contained {
            // The device reaches nothing of it any more: that is a fence.
            self.detach();
            self.recover();
        } else {
            LOST.borrow_mut().append(&mut self.quarantine.borrow_mut());
        }
    }

    fn detach(&self) {
        let io = self.io.borrow_mut().take();
        if let Some(io) = io {
            io.detach();
            let this: *const DmaDomain = self;
            let mut known = CONTAINED.borrow_mut();
            known.retain(|(_, domain)| domain.as_ptr() != this);
        }
    }

    /// Takes pages out of the device's reach.
    fn unmap(&self, held: &Held) {
        if let Some(io) = self.io.borrow().as_ref() {
            held.unmap(io);
        }
    }

    /// For `object_info`.
    pub fn info(&self) -> DmaInfo {
        DmaInfo {
            koid: self.base.koid(),
            device: self.device,
            translated: u32::from(self.contained),
            pins: self.pins.get(),
            pinned_pages: self.pinned_pages.get(),
            quarantined_pages: self.quarantine.borrow().iter().map(Held::pages).sum(),
        }
    }
}

impl Drop for DmaDomain {
    fn drop(&mut self) {
        // One that never had a handle.
        self.detach();
    }
}

fn error(error: IoError) -> Error {
    match error {
        IoError::NoMemory => Error::NoMemory,
        IoError::OutOfRange => Error::OutOfRange,
    }
}

/// Pages held for a device.
pub struct Pin {
    pub base: Base,
    domain: Arc<DmaDomain>,
    held: Locked<Option<Held>>,
}

impl Pin {
    /// The owner's word that the device no longer uses the pages.
    pub fn end(&self) {
        let held = self.held.borrow_mut().take();
        if let Some(held) = held {
            self.domain.unmap(&held);
            self.domain.pin_ended(held.pages());
        }
    }

    /// The handle was closed without that word: the pages go into quarantine.
    pub fn abandon(&self) {
        let held = self.held.borrow_mut().take();
        let Some(held) = held else { return };
        self.domain.unmap(&held);
        self.domain.pin_ended(held.pages());
        let is_closed = self.domain.base.handles() == 0;
        if is_closed && self.domain.contained {
            return;
        }
        QUARANTINED.set(QUARANTINED.get() + held.pages());
        if is_closed {
            LOST.borrow_mut().push(held);
        } else {
            self.domain.quarantine.borrow_mut().push(held);
        }
    }
}
