//! System calls: decoding of arguments, checks of rights, and the call to whatever object does the work.

mod channel;
mod handle;
mod hardware;
mod info;
mod memory;
mod sync;
mod task;

use alloc::sync::Arc;

use bulkhead_abi::{Error, NAME_MAX, RawHandle, Result, Rights, Syscall};

use crate::memory::user;
use crate::object::process::Process;
use crate::object::thread::Thread;
use crate::object::{Handle, Object};
use crate::sched;

/// How a system call ends.
enum Outcome {
    /// With a value.
    Value(usize),
    /// The thread waits; the result comes when the wait ends.
    Blocked,
    /// The result is in the registers already.
    Set,
}

type Call = Result<Outcome>;

fn done(value: usize) -> Call {
    Ok(Outcome::Value(value))
}

/// The caller of a system call.
struct Caller<'a> {
    thread: &'a Arc<Thread>,
}

impl Caller<'_> {
    #[inline]
    fn process(&self) -> &Arc<Process> {
        self.thread.process()
    }

    /// Ends the call with two values.
    #[inline]
    fn values(&self, value: usize, second: usize) -> Call {
        self.thread.set_result(Ok(value), second);
        Ok(Outcome::Set)
    }

    fn add(&self, object: Object, rights: Rights) -> Result<usize> {
        self.process()
            .add_handle(Handle::new(object, rights))
            .map(|h| h as usize)
    }

    fn read_name(&self, address: usize, len: usize) -> Result<[u8; NAME_MAX]> {
        let mut name = [0; NAME_MAX];
        let n = len.min(NAME_MAX);
        user::read(self.process().space(), address, &mut name[..n])?;
        // Names stand in logs: control characters would let a process forge lines.
        name.iter_mut()
            .filter(|b| (1..32).contains(*b) || **b == 127)
            .for_each(|b| *b = b'?');
        Ok(name)
    }

    fn process_object(&self, handle: usize, rights: Rights) -> Result<Arc<Process>> {
        if handle as u32 == RawHandle::SELF_PROCESS.0 {
            return Ok(self.process().clone());
        }
        match self.process().object(handle as u32, rights)? {
            Object::Process(p) => Ok(p),
            _ => Err(Error::WrongType),
        }
    }

    fn thread_object(&self, handle: usize, rights: Rights) -> Result<Arc<Thread>> {
        if handle as u32 == RawHandle::SELF_THREAD.0 {
            return Ok(self.thread.clone());
        }
        match self.process().object(handle as u32, rights)? {
            Object::Thread(t) => Ok(t),
            _ => Err(Error::WrongType),
        }
    }
}

macro_rules! object_of {
    ($($name:ident: $variant:ident -> $type:ty;)*) => {
        impl Caller<'_> { $(
            #[inline]
            fn $name(&self, handle: usize, rights: Rights) -> Result<Arc<$type>> {
                match self.process().object(handle as u32, rights)? {
                    Object::$variant(object) => Ok(object),
                    _ => Err(Error::WrongType),
                }
            }
        )* }
    };
}
object_of! {
    vmo: Vmo -> crate::memory::vmo::Vmo;
    port: Port -> crate::ipc::port::Port;
    timer: Timer -> crate::object::timer::Timer;
    interrupt: Interrupt -> crate::irq::Interrupt;
    resource: Resource -> crate::object::resource::Resource;
    domain: DmaDomain -> crate::dma::DmaDomain;
}

/// Serves the system call of the current thread.
#[inline(always)]
pub fn dispatch(thread: &Arc<Thread>) {
    let caller = Caller { thread };
    let process = caller.process();
    process.syscalls.set(process.syscalls.get() + 1);
    let outcome = match Syscall::from_number(thread.syscall_number()) {
        Some(call) => serve(&caller, call),
        None => Err(Error::BadSyscall),
    };
    match outcome {
        Ok(Outcome::Value(value)) => thread.set_result(Ok(value), 0),
        Ok(Outcome::Set) => {}
        Ok(Outcome::Blocked) => {
            sched::timeouts::watch(thread);
            sched::request();
        }
        Err(error) => thread.set_result(Err(error), 0),
    }
}

#[inline(always)]
fn serve(c: &Caller, call: Syscall) -> Call {
    let a = |n| c.thread.syscall_argument(n);
    match call {
        Syscall::HandleClose => handle::close(c, a(0)),
        Syscall::HandleDuplicate => handle::duplicate(c, a(0), a(1)),
        Syscall::ObjectInfo => info::object_info(c, a(0), a(1), a(2), a(3)),
        Syscall::ObjectSet => handle::set(c, a(0), a(1), a(2), a(3)),
        Syscall::ObjectSignal => sync::signal(c, a(0), a(1), a(2)),
        Syscall::WaitAsync => sync::wait_async(c, a(0), a(1), a(2), a(3), a(4)),
        Syscall::PortCreate => sync::port_create(c),
        Syscall::PortQueue => sync::port_queue(c, a(0), a(1)),
        Syscall::PortWait => sync::port_wait(c, a(0), a(1), a(2), a(3)),
        Syscall::PortCancel => sync::port_cancel(c, a(0), a(1), a(2)),
        Syscall::ChannelCreate => channel::create(c),
        Syscall::ChannelWrite => channel::write(c, a(0), a(1), a(2), a(3), a(4), a(5)),
        Syscall::ChannelRead => channel::read(c, a(0), a(1), a(2), a(3), a(4), a(5)),
        Syscall::ChannelCall => channel::call(c, a(0), a(1), a(2)),
        Syscall::EventCreate => sync::event_create(c),
        Syscall::TimerCreate => sync::timer_create(c),
        Syscall::TimerSet => sync::timer_set(c, a(0), a(1), a(2)),
        Syscall::FutexWait => sync::futex_wait(c, a(0), a(1), a(2)),
        Syscall::FutexWake => sync::futex_wake(c, a(0), a(1)),
        Syscall::VmoCreate => memory::vmo_create(c, a(0), a(1), a(2)),
        Syscall::VmoPhysical => memory::vmo_physical(c, a(0), a(1), a(2), a(3)),
        Syscall::VmoOp => memory::vmo_op(c, a(0), a(1), a(2), a(3), a(4)),
        Syscall::VmMap => memory::map(c, a(0), a(1), a(2), a(3), a(4), a(5)),
        Syscall::VmUnmap => memory::unmap(c, a(0), a(1), a(2)),
        Syscall::VmProtect => memory::protect(c, a(0), a(1), a(2), a(3)),
        Syscall::ProcessCreate => task::process_create(c, a(0), a(1), a(2)),
        Syscall::ThreadStart => task::thread_start(c, a(0), a(1)),
        Syscall::Kill => task::kill(c, a(0), a(1), a(2)),
        Syscall::Debug => task::debug(c, a(0), a(1), a(2), a(3)),
        Syscall::ResourceDerive => hardware::resource_derive(c, a(0), a(1), a(2), a(3)),
        Syscall::IrqCreate => hardware::irq_create(c, a(0), a(1), a(2), a(3)),
        Syscall::IrqBind => hardware::irq_bind(c, a(0), a(1), a(2), a(3)),
        Syscall::IrqAck => hardware::irq_ack(c, a(0)),
        Syscall::IrqTrigger => hardware::irq_trigger(c, a(0)),
        Syscall::DmaCreate => hardware::dma_create(c, a(0), a(1)),
        Syscall::DmaPin => hardware::dma_pin(c, core::array::from_fn(a)),
        Syscall::DmaUnpin => hardware::dma_unpin(c, a(0)),
        Syscall::DmaRecover => hardware::dma_recover(c, a(0)),
        Syscall::IoportGrant => hardware::ioport_grant(c, a(0), a(1), a(2)),
        Syscall::Log => info::log(c, a(0), a(1), a(2), a(3), a(4)),
    }
}
