//! Memory objects and address spaces.

use bulkhead_abi::{
    CACHE_UNCACHED, CACHE_WRITE_BACK, CACHE_WRITE_COMBINING, Error, MAP_EXEC, MAP_READ, MAP_WRITE,
    ResourceKind, Result, Rights, VMO_CONTIGUOUS, VmoOp,
};

use super::{Call, Caller, done};
use crate::arch::CacheMode;
use crate::memory::{aligned, pages, user, vmo::Vmo};
use crate::object::Object;

/// Most bytes that one `vmo_op` copies or commits; longer calls do a part, so that the kernel lock is not held for long.
const OP_BYTES_MAX: usize = 256 * 1024;

pub fn vmo_create(c: &Caller, size: usize, flags: usize, resource: usize) -> Call {
    let account = Some(c.process().account().clone());
    let vmo = match flags {
        0 => Vmo::anonymous(size, account)?,
        VMO_CONTIGUOUS => {
            let resource = c.resource(resource, Rights::NONE)?;
            let (kind, start, ..) = resource.info();
            if kind != ResourceKind::Root {
                resource.covers(ResourceKind::DmaDevice, start, 0)?;
            }
            Vmo::contiguous(size, account)?
        }
        _ => return Err(Error::InvalidArgument),
    };
    done(c.add(Object::Vmo(vmo), Rights::ALL)?)
}

pub fn vmo_physical(c: &Caller, resource: usize, base: usize, size: usize, cache: usize) -> Call {
    if !aligned(base) || !aligned(size) || size == 0 {
        return Err(Error::InvalidArgument);
    }
    let cache = match cache {
        // Cached memory is the kernel's to copy through the direct map, which does not cover devices.
        CACHE_WRITE_BACK => return Err(Error::NotSupported),
        CACHE_UNCACHED => CacheMode::Uncached,
        CACHE_WRITE_COMBINING => CacheMode::WriteCombining,
        _ => return Err(Error::InvalidArgument),
    };
    let resource = c.resource(resource, Rights::NONE)?;
    resource.covers(ResourceKind::Mmio, base as u64, size as u64)?;
    if crate::overlaps_ram(base as u64, size as u64) {
        return Err(Error::AccessDenied);
    }
    let vmo = Vmo::physical(base as u64, size, cache);
    resource.made_vmo(&vmo);
    let rights = Rights::ALL.without(Rights::EXECUTE).without(Rights::PIN);
    done(c.add(Object::Vmo(vmo), rights)?)
}

pub fn vmo_op(
    c: &Caller,
    vmo: usize,
    op: usize,
    offset: usize,
    len: usize,
    pointer: usize,
) -> Call {
    let op = VmoOp::from_number(op).ok_or(Error::InvalidArgument)?;
    let space = c.process().space();
    let n = len.min(OP_BYTES_MAX);
    match op {
        VmoOp::Read => {
            c.vmo(vmo, Rights::READ)?
                .for_each_piece(offset, n, |p, at, n| {
                    // SAFETY: `p` leads to `n` bytes of a page of the object; another process may write it meanwhile, and the
                    // bytes are only copied on.
                    user::write(space, pointer + at, unsafe {
                        core::slice::from_raw_parts(p, n)
                    })
                })?;
            done(n)
        }
        VmoOp::Write => {
            c.vmo(vmo, Rights::WRITE)?
                .for_each_piece(offset, n, |p, at, n| {
                    // SAFETY: as above, for writing.
                    user::read(space, pointer + at, unsafe {
                        core::slice::from_raw_parts_mut(p, n)
                    })
                })?;
            done(n)
        }
        VmoOp::Commit => {
            c.vmo(vmo, Rights::WRITE)?.commit(offset, n)?;
            done(n)
        }
        VmoOp::Decommit => {
            c.vmo(vmo, Rights::WRITE)?.decommit(offset, len)?;
            done(len)
        }
        VmoOp::Slice => {
            let (parent, rights) = c.process().with_handle(vmo as u32, |h| match h.object() {
                Object::Vmo(parent) if h.rights().contains(Rights::DUPLICATE) => {
                    Ok((parent.clone(), h.rights()))
                }
                Object::Vmo(_) => Err(Error::AccessDenied),
                _ => Err(Error::WrongType),
            })?;
            done(c.add(Object::Vmo(Vmo::slice(&parent, offset, len)?), rights)?)
        }
        VmoOp::Resize => {
            c.vmo(vmo, Rights::WRITE.or(Rights::MANAGE))?.resize(len)?;
            done(0)
        }
    }
}

/// The `MAP_*` flags that rights on a memory object allow.
fn allowed(rights: Rights) -> usize {
    let flag = |right, flag| if rights.contains(right) { flag } else { 0 };
    flag(Rights::READ, MAP_READ) | flag(Rights::WRITE, MAP_WRITE) | flag(Rights::EXECUTE, MAP_EXEC)
}

pub fn map(
    c: &Caller,
    process: usize,
    vmo: usize,
    offset: usize,
    len: usize,
    flags: usize,
    address: usize,
) -> Call {
    let process = c.process_object(process, Rights::WRITE)?;
    let (vmo, rights) = c.process().with_handle(vmo as u32, |h| match h.object() {
        Object::Vmo(vmo) if h.rights().contains(Rights::MAP) => Ok((vmo.clone(), h.rights())),
        Object::Vmo(_) => Err(Error::AccessDenied),
        _ => Err(Error::WrongType),
    })?;
    if process.is_dying() {
        return Err(Error::BadState);
    }
    done(
        process
            .space()
            .map(&vmo, offset, len, flags, allowed(rights), address)?,
    )
}

pub fn unmap(c: &Caller, process: usize, address: usize, len: usize) -> Call {
    let process = c.process_object(process, Rights::WRITE)?;
    process.space().unmap(address, round(len)?)?;
    done(0)
}

pub fn protect(c: &Caller, process: usize, address: usize, len: usize, flags: usize) -> Call {
    let process = c.process_object(process, Rights::WRITE)?;
    process.space().protect(address, round(len)?, flags)?;
    done(0)
}

fn round(len: usize) -> Result<usize> {
    pages(len)
        .checked_mul(bulkhead_abi::PAGE_SIZE)
        .ok_or(Error::OutOfRange)
}
