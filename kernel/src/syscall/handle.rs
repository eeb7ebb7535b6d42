//! Handles and properties of objects.

use bulkhead_abi::{Error, PRIORITY_MAX, Property, Result, Rights};

use super::{Call, Caller, done};
use crate::memory::user::{self, QuotaRecord};
use crate::object::Object;
use crate::object::thread::BUDGET_PERIOD_NS;
use crate::sched;

pub fn close(c: &Caller, handle: usize) -> Call {
    let handle = c.process().take_handle(handle as u32)?;
    drop(handle);
    done(0)
}

pub fn duplicate(c: &Caller, handle: usize, rights: usize) -> Call {
    let copy = c.process().with_handle(handle as u32, |h| {
        if !h.rights().contains(Rights::DUPLICATE) {
            return Err(Error::AccessDenied);
        }
        let wanted = Rights(rights as u32);
        if wanted == Rights::SAME {
            return Ok(h.with_rights(h.rights()));
        }
        if !h.rights().contains(wanted) {
            return Err(Error::AccessDenied);
        }
        Ok(h.with_rights(wanted))
    })?;
    done(c.process().add_handle(copy)? as usize)
}

pub fn set(c: &Caller, handle: usize, property: usize, value: usize, len: usize) -> Call {
    let property = Property::from_number(property).ok_or(Error::InvalidArgument)?;
    match property {
        Property::Name => set_name(c, handle, value, len)?,
        Property::Quota => {
            let quota: QuotaRecord = user::read_record(c.process().space(), value)?;
            // The limits that a process got from its parent are not its own to change.
            match c.process().object(handle as u32, Rights::MANAGE)? {
                Object::Process(p) => p.account().set_limit(quota.into()),
                _ => return Err(Error::WrongType),
            }
        }
        Property::Priority => {
            let thread = c.thread_object(handle, Rights::MANAGE)?;
            let most = thread.process().account().limit().max_priority as usize;
            if value > most.min(PRIORITY_MAX as usize) {
                return Err(Error::OutOfRange);
            }
            sched::requeue(&thread, |t| t.set_priority(value as u8));
        }
        Property::Affinity => {
            let thread = c.thread_object(handle, Rights::MANAGE)?;
            let mask = if value == 0 { u64::MAX } else { value as u64 };
            if mask & sched::cpus() == 0 {
                return Err(Error::InvalidArgument);
            }
            sched::requeue(&thread, |t| t.affinity.set(mask));
        }
        Property::Budget => {
            let thread = c.thread_object(handle, Rights::MANAGE)?;
            if value == 0 || value as u64 > BUDGET_PERIOD_NS {
                return Err(Error::OutOfRange);
            }
            thread.budget.set(value as u64);
        }
        Property::Epoch => match c.process().object(handle as u32, Rights::WRITE)? {
            Object::Channel(channel, side) => channel.set_epoch(side, value as u64),
            _ => return Err(Error::WrongType),
        },
        Property::Revoke => c.resource(handle, Rights::DESTROY)?.revoke(),
    }
    done(0)
}

fn set_name(c: &Caller, handle: usize, address: usize, len: usize) -> Result<()> {
    let name = c.read_name(address, len)?;
    if let Ok(thread) = c.thread_object(handle, Rights::MANAGE) {
        thread.set_name(name);
        return Ok(());
    }
    if let Ok(process) = c.process_object(handle, Rights::MANAGE) {
        process.set_name(name);
        return Ok(());
    }
    match c.process().object(handle as u32, Rights::MANAGE)? {
        Object::Vmo(vmo) => vmo.set_name(name),
        _ => return Err(Error::WrongType),
    }
    Ok(())
}
