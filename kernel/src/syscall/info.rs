//! Information about objects and the system, and the log.

use alloc::vec::Vec;

use bulkhead_abi::{
    Error, HandleInfo, KernelStats, LogOp, ResourceInfo, ResourceKind, Result, Rights, Topic,
    VmoInfo,
};

use super::{Call, Caller, done};
use crate::memory::user::{self, Plain};
use crate::memory::{frames, heap};
use crate::object::{self, Object, process};
use crate::{arch, dma, irq, log, sched, trap};

pub fn object_info(c: &Caller, handle: usize, topic: usize, buffer: usize, len: usize) -> Call {
    let topic = Topic::from_number(topic).ok_or(Error::InvalidArgument)?;
    let inspect = Rights::INSPECT;
    let one = |bytes: &[u8]| write_some(c, buffer, len, bytes);
    match topic {
        Topic::Handle => {
            let record = c.process().with_handle(handle as u32, |h| {
                let base = h.object().base();
                let related = match h.object() {
                    Object::Channel(channel, side) => channel.base(side ^ 1).koid(),
                    _ => 0,
                };
                Ok(HandleInfo {
                    koid: base.koid(),
                    kind: h.object().kind() as u32,
                    rights: h.rights().0,
                    related_koid: related,
                    signals: base.signals().0,
                    handles: base.handles(),
                })
            })?;
            one(user::bytes_of(&record))
        }
        Topic::Process => one(user::bytes_of(&c.process_object(handle, inspect)?.info())),
        Topic::Crash => {
            let crash = c
                .process_object(handle, inspect)?
                .crash()
                .ok_or(Error::NotFound)?;
            one(user::bytes_of(&crash))
        }
        Topic::Thread => one(user::bytes_of(&c.thread_object(handle, inspect)?.info())),
        Topic::Vmo => {
            let vmo = c.vmo(handle, Rights::NONE)?;
            let (committed_pages, pinned_pages, mappings, flags) = vmo.counts();
            let record = VmoInfo {
                koid: vmo.base.koid(),
                size: vmo.size() as u64,
                committed_pages,
                pinned_pages,
                mappings,
                flags,
                name: vmo.name(),
            };
            one(user::bytes_of(&record))
        }
        Topic::Interrupt => one(user::bytes_of(&c.interrupt(handle, inspect)?.info())),
        Topic::Dma => one(user::bytes_of(&c.domain(handle, inspect)?.info())),
        Topic::Resource => {
            let resource = c.resource(handle, Rights::NONE)?;
            let (kind, base, len, revoked) = resource.info();
            let record = ResourceInfo {
                koid: resource.base.koid(),
                kind: kind as u32,
                revoked: u32::from(revoked),
                base,
                len,
            };
            one(user::bytes_of(&record))
        }
        Topic::Kernel => {
            system(c, handle, inspect)?;
            one(user::bytes_of(&stats()))
        }
        Topic::Processes => {
            system(c, handle, inspect)?;
            many(
                c,
                buffer,
                len,
                &process::all().iter().map(|p| p.info()).collect::<Vec<_>>(),
            )
        }
        Topic::Cpus => {
            system(c, handle, inspect)?;
            many(c, buffer, len, &sched::cpu_infos())
        }
        Topic::Mappings => {
            let mut list = Vec::new();
            c.process_object(handle, inspect)?
                .space()
                .for_each_mapping(|m| list.push(m));
            many(c, buffer, len, &list)
        }
        Topic::Threads => {
            let mut list = Vec::new();
            if system(c, handle, inspect).is_ok() {
                process::all()
                    .iter()
                    .for_each(|p| p.for_each_thread(|t| list.push(t.info())));
            } else {
                c.process_object(handle, inspect)?
                    .for_each_thread(|t| list.push(t.info()));
            }
            many(c, buffer, len, &list)
        }
    }
}

fn system(c: &Caller, handle: usize, rights: Rights) -> Result<()> {
    c.resource(handle, rights)?
        .covers(ResourceKind::System, 0, 0)
}

/// Writes as much of a record as fits: newer kernels may know more than an old program.
fn write_some(c: &Caller, buffer: usize, len: usize, bytes: &[u8]) -> Call {
    let n = len.min(bytes.len());
    user::write(c.process().space(), buffer, &bytes[..n])?;
    c.values(n, bytes.len())
}

/// Writes as many whole records as fit; the second value is how many there are.
fn many<T: Plain>(c: &Caller, buffer: usize, len: usize, records: &[T]) -> Call {
    let fit = (len / size_of::<T>()).min(records.len());
    for (n, record) in records[..fit].iter().enumerate() {
        user::write_record(c.process().space(), buffer + n * size_of::<T>(), record)?;
    }
    c.values(fit * size_of::<T>(), records.len())
}

fn stats() -> KernelStats {
    let (pins, pinned_pages, quarantined_pages) = dma::counts();
    let cpus = sched::cpu_infos();
    let counters = trap::counters();
    KernelStats {
        total_pages: frames::total() as u64,
        free_pages: frames::free_count() as u64,
        heap_pages: heap::page_count() as u64,
        table_pages: frames::table_count() as u64,
        handles: object::live_handles(),
        pins,
        pinned_pages,
        quarantined_pages,
        objects: object::live_objects(),
        vectors: irq::vectors_in_use(),
        context_switches: cpus.iter().map(|c| c.context_switches).sum(),
        syscalls: counters.syscalls,
        page_faults: counters.page_faults,
        interrupts: cpus.iter().map(|c| c.interrupts).sum(),
    }
}

/// Most bytes of a log line.
const LINE_MAX: usize = 1024;

pub fn log(
    c: &Caller,
    resource: usize,
    op: usize,
    buffer: usize,
    len: usize,
    sequence: usize,
) -> Call {
    let op = LogOp::from_number(op).ok_or(Error::InvalidArgument)?;
    let right = if op == LogOp::Read {
        Rights::READ
    } else {
        Rights::WRITE
    };
    c.resource(resource, right)?
        .covers(ResourceKind::Log, 0, 0)?;
    let space = c.process().space();
    let mut bytes = [0; LINE_MAX];
    let n = len.min(LINE_MAX);
    match op {
        LogOp::Write => {
            user::read(space, buffer, &mut bytes[..n])?;
            let name = c.process().name();
            log::user_line(
                object::name_text(&name),
                c.process().base.koid(),
                &bytes[..n],
            );
            done(n)
        }
        LogOp::WriteRaw => {
            user::read(space, buffer, &mut bytes[..n])?;
            arch::serial_write(&bytes[..n]);
            done(n)
        }
        LogOp::Read => {
            let (n, next) = log::read(sequence as u64, &mut bytes[..n]);
            user::write(space, buffer, &bytes[..n])?;
            c.values(n, next as usize)
        }
        // The serial port is written as lines come in: nothing is left to wait for.
        LogOp::Flush => done(0),
    }
}
