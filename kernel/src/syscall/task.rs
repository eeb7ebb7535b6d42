//! Processes and threads.

use bulkhead_abi::{
    DebugOp, Error, PRIORITY_DEFAULT, Quota, RawHandle, Rights, ThreadArgs, USER_MAX, exit,
};

use super::{Call, Caller, Outcome, done};
use crate::arch::{self, Frame, ThreadState};
use crate::memory::user::{self, QuotaRecord};
use crate::object::process::{self, Process};
use crate::object::thread::Thread;
use crate::object::{Object, thread};
use crate::{report, sched};

pub fn process_create(c: &Caller, name: usize, name_len: usize, quota: usize) -> Call {
    let name = c.read_name(name, name_len)?;
    let quota: Quota = match quota {
        0 => c.process().account().limit(),
        address => user::read_record::<QuotaRecord>(c.process().space(), address)?.into(),
    };
    if !crate::memory::frames::user_may_take(8) {
        return Err(Error::NoMemory);
    }
    let process = Process::new(Some(c.process()), name, quota, crate::system_info_page())?;
    done(c.add(Object::Process(process), Rights::ALL)?)
}

pub fn thread_start(c: &Caller, process: usize, args: usize) -> Call {
    let process = c.process_object(process, Rights::WRITE)?;
    let args: ThreadArgs = user::read_record(c.process().space(), args)?;
    if process.is_dying() {
        return Err(Error::BadState);
    }
    let canonical = |address: u64| (address as usize) < USER_MAX;
    if !canonical(args.entry) || !canonical(args.stack) || !canonical(args.thread_pointer) {
        return Err(Error::BadAddress);
    }
    let most = process.account().limit().max_priority;
    let priority = match args.priority {
        255 => most.min(u32::from(PRIORITY_DEFAULT)),
        p if p <= most => p,
        _ => return Err(Error::OutOfRange),
    };
    let affinity = if args.affinity == 0 {
        u64::MAX
    } else {
        args.affinity
    };
    if affinity & sched::cpus() == 0 {
        return Err(Error::InvalidArgument);
    }
    let name = match args.name {
        0 => process.name(),
        address => c.read_name(address as usize, args.name_len as usize)?,
    };
    process.account().charge_thread()?;
    let passed = match args.handle {
        0 => Ok(0),
        number => {
            let transfer = c.process().object(number, Rights::TRANSFER);
            transfer
                .and_then(|_| c.process().take_handle(number))
                .and_then(|h| process.add_handle(h))
        }
    };
    let passed = match passed {
        Ok(value) => value,
        Err(error) => {
            process.account().release_thread();
            return Err(error);
        }
    };
    let frame = Frame::user(
        args.entry as usize,
        args.stack as usize,
        passed as usize,
        args.arg as usize,
    );
    let mut state = ThreadState::default();
    arch::set_fs_base(&mut state, args.thread_pointer);
    let thread = Thread::new(
        process.clone(),
        name,
        priority as u8,
        affinity,
        frame,
        state,
    );
    process.add_thread(thread.clone());
    let handle = c.process().add_handle(thread::handle_to(&thread));
    // The thread runs even where its creator has no room for a handle to it.
    sched::start(&thread);
    done(handle.unwrap_or(0) as usize)
}

pub fn kill(c: &Caller, handle: usize, koid: usize, code: usize) -> Call {
    let code = code as i32;
    if handle as u32 == RawHandle::SELF_PROCESS.0 {
        c.process().kill(exit::EXITED, code);
        return Ok(Outcome::Set);
    }
    if handle as u32 == RawHandle::SELF_THREAD.0 {
        sched::kill_thread(c.thread);
        return Ok(Outcome::Set);
    }
    match c.process().object(handle as u32, Rights::DESTROY)? {
        Object::Thread(thread) => sched::kill_thread(&thread),
        Object::Process(process) => process.kill(exit::KILLED, code),
        Object::Resource(resource) => {
            resource.covers(bulkhead_abi::ResourceKind::System, 0, 0)?;
            let process = process::by_koid(koid as u64).ok_or(Error::NotFound)?;
            process.kill(exit::KILLED, code);
        }
        _ => return Err(Error::WrongType),
    }
    done(0)
}

pub fn debug(c: &Caller, handle: usize, op: usize, buffer: usize, len: usize) -> Call {
    let op = DebugOp::from_number(op).ok_or(Error::InvalidArgument)?;
    let thread = c.thread_object(handle, Rights::MANAGE)?;
    match op {
        DebugOp::Suspend => sched::suspend(&thread),
        DebugOp::Resume => sched::resume(&thread),
        DebugOp::Report => {
            if thread.state.get() == thread::RunState::Running
                && !core::ptr::eq(&**c.thread, &*thread)
            {
                return Err(Error::BadState);
            }
            let crash = report::of_thread(&thread, None);
            let bytes = user::bytes_of(&crash);
            let n = len.min(bytes.len());
            user::write(c.process().space(), buffer, &bytes[..n])?;
            return done(n);
        }
    }
    done(0)
}
