//! Resources, interrupts, DMA and I/O ports.

use bulkhead_abi::{
    Error, IRQ_LINE, IRQ_MESSAGE, IRQ_VIRTUAL, PIN_DEVICE_READ, PIN_DEVICE_WRITE, ResourceKind,
    Result, Rights, TRIGGER_EDGE_HIGH, TRIGGER_EDGE_LOW, TRIGGER_ISA, TRIGGER_LEVEL_HIGH,
    TRIGGER_LEVEL_LOW,
};

use super::{Call, Caller, done};
use crate::arch::{self, Trigger};
use crate::dma::{Access, DmaDomain};
use crate::irq::Interrupt;
use crate::memory::user;
use crate::object::Object;
use crate::sched;

pub fn resource_derive(c: &Caller, resource: usize, kind: usize, base: usize, len: usize) -> Call {
    let (resource, rights) = c
        .process()
        .with_handle(resource as u32, |h| match h.object() {
            Object::Resource(resource) => Ok((resource.clone(), h.rights())),
            _ => Err(Error::WrongType),
        })?;
    let kind = ResourceKind::from_number(kind as u32).ok_or(Error::InvalidArgument)?;
    done(c.add(
        Object::Resource(resource.derive(kind, base as u64, len as u64)?),
        rights,
    )?)
}

pub fn irq_create(c: &Caller, resource: usize, kind: usize, number: usize, trigger: usize) -> Call {
    let interrupt = match kind {
        IRQ_VIRTUAL => Interrupt::software(),
        IRQ_MESSAGE => {
            let resource = c.resource(resource, Rights::NONE)?;
            resource.covers(ResourceKind::Msi, 0, 0)?;
            let interrupt = Interrupt::message(choose_cpu(number as u64))?;
            resource.made_interrupt(&interrupt);
            interrupt
        }
        IRQ_LINE => {
            let resource = c.resource(resource, Rights::NONE)?;
            let (gsi, trigger) = line(number, trigger)?;
            resource.covers(ResourceKind::Irq, u64::from(gsi), 1)?;
            let interrupt = Interrupt::line(gsi, trigger, choose_cpu(0))?;
            resource.made_interrupt(&interrupt);
            interrupt
        }
        _ => return Err(Error::InvalidArgument),
    };
    done(c.add(Object::Interrupt(interrupt), Rights::ALL)?)
}

fn line(number: usize, trigger: usize) -> Result<(u32, Trigger)> {
    let gsi = u32::try_from(number).map_err(|_| Error::OutOfRange)?;
    Ok(match trigger {
        TRIGGER_EDGE_HIGH => (gsi, Trigger::EdgeHigh),
        TRIGGER_EDGE_LOW => (gsi, Trigger::EdgeLow),
        TRIGGER_LEVEL_HIGH => (gsi, Trigger::LevelHigh),
        TRIGGER_LEVEL_LOW => (gsi, Trigger::LevelLow),
        TRIGGER_ISA if number < 16 => arch::isa_irq_to_gsi(number as u8),
        _ => return Err(Error::InvalidArgument),
    })
}

/// A CPU of the mask (0: any); where there are several, each in turn.
fn choose_cpu(mask: u64) -> usize {
    static NEXT: crate::lock::Cell<u32> = crate::lock::Cell::new(0);
    let online = sched::online();
    let allowed = if mask & online == 0 {
        online
    } else {
        mask & online
    };
    let skip = NEXT.replace(NEXT.get().wrapping_add(1)) % allowed.count_ones();
    let mut left = allowed;
    for _ in 0..skip {
        left &= left - 1;
    }
    left.trailing_zeros() as usize
}

pub fn irq_bind(c: &Caller, interrupt: usize, port: usize, key: usize, flags: usize) -> Call {
    let interrupt = c.interrupt(interrupt, Rights::MANAGE)?;
    let port = match port {
        0 => None,
        port => Some(c.port(port, Rights::WRITE)?),
    };
    interrupt.bind(port, key as u64, flags)?;
    done(0)
}

pub fn irq_ack(c: &Caller, interrupt: usize) -> Call {
    c.interrupt(interrupt, Rights::MANAGE)?.acknowledge()?;
    done(0)
}

pub fn irq_trigger(c: &Caller, interrupt: usize) -> Call {
    c.interrupt(interrupt, Rights::SIGNAL)?.trigger()?;
    done(0)
}

pub fn dma_create(c: &Caller, resource: usize, device: usize) -> Call {
    let resource = c.resource(resource, Rights::NONE)?;
    resource.covers(ResourceKind::DmaDevice, device as u64, 1)?;
    done(c.add(
        Object::DmaDomain(DmaDomain::new(device as u64)?),
        Rights::ALL,
    )?)
}

/// Most pages of one pin.
const PIN_PAGES_MAX: usize = 64 * 1024;

pub fn dma_pin(c: &Caller, a: [usize; 6]) -> Call {
    let [domain, vmo, offset, len, addresses, flags] = a;
    if flags & !(PIN_DEVICE_READ | PIN_DEVICE_WRITE) != 0 || flags == 0 {
        return Err(Error::InvalidArgument);
    }
    if len.div_ceil(bulkhead_abi::PAGE_SIZE) > PIN_PAGES_MAX {
        return Err(Error::OutOfRange);
    }
    let mut rights = Rights::PIN;
    if flags & PIN_DEVICE_READ != 0 {
        rights = rights | Rights::READ;
    }
    if flags & PIN_DEVICE_WRITE != 0 {
        rights = rights | Rights::WRITE;
    }
    let domain = c.domain(domain, Rights::WRITE)?;
    let vmo = c.vmo(vmo, rights)?;
    let space = c.process().space();
    let access = Access {
        read: flags & PIN_DEVICE_READ != 0,
        write: flags & PIN_DEVICE_WRITE != 0,
    };
    let pin = domain.pin(&vmo, offset, len, access, |n, address| {
        user::write_record(space, addresses + n * size_of::<u64>(), &address)
    })?;
    // Without an address of its own the device has not seen the pages yet: a full table undoes the pin.
    match c.add(
        Object::Pin(pin.clone()),
        Rights::ALL.without(Rights::DUPLICATE),
    ) {
        Ok(handle) => done(handle),
        Err(error) => {
            pin.end();
            Err(error)
        }
    }
}

pub fn dma_unpin(c: &Caller, pin: usize) -> Call {
    match c.process().object(pin as u32, Rights::MANAGE)? {
        Object::Pin(pin) => pin.end(),
        _ => return Err(Error::WrongType),
    }
    drop(c.process().take_handle(pin as u32)?);
    done(0)
}

pub fn dma_recover(c: &Caller, domain: usize) -> Call {
    done(c.domain(domain, Rights::DESTROY)?.recover() as usize)
}

pub fn ioport_grant(c: &Caller, resource: usize, base: usize, len: usize) -> Call {
    if len == 0 || len > 0xffff || base.checked_add(len).is_none_or(|end| end > 0x1_0000) {
        return Err(Error::OutOfRange);
    }
    let resource = c.resource(resource, Rights::NONE)?;
    resource.covers(ResourceKind::IoPort, base as u64, len as u64)?;
    c.process().allow_ports(base as u16, len as u16)?;
    resource.made_ports(c.process(), base as u16, len as u16);
    done(0)
}
