//! Signals, ports, events, timers and futexes.

use bulkhead_abi::{Error, FOREVER, Packet, Rights, Signals, Syscall, WAIT_ONCE};

use super::{Call, Caller, Outcome, done};
use crate::arch;
use crate::ipc::futex;
use crate::ipc::port::{Port, Watch};
use crate::memory::account::Charge;
use crate::memory::user;
use crate::object::Object;
use crate::object::event::Event;
use crate::object::thread::{Wait, receive_packets};
use crate::object::timer::Timer;
use crate::sched;

pub fn signal(c: &Caller, handle: usize, clear: usize, set: usize) -> Call {
    let (clear, set) = (Signals(clear as u32), Signals(set as u32));
    c.process()
        .with_object(handle as u32, Rights::SIGNAL, |object| match object {
            Object::Event(event) => event.signal(clear, set),
            _ => Err(Error::WrongType),
        })?;
    done(0)
}

pub fn wait_async(
    c: &Caller,
    handle: usize,
    port: usize,
    key: usize,
    signals: usize,
    options: usize,
) -> Call {
    let mask = Signals(signals as u32);
    if options & !WAIT_ONCE != 0 || mask == Signals::NONE {
        return Err(Error::InvalidArgument);
    }
    let object = c.process().object(handle as u32, Rights::WAIT)?;
    let port = c.port(port, Rights::WRITE)?;
    let charge = Charge::new(c.process().account(), size_of::<Watch>())?;
    object.base().watch(Watch::new(
        port,
        key as u64,
        mask,
        options & WAIT_ONCE != 0,
        charge,
    ))?;
    done(0)
}

pub fn port_create(c: &Caller) -> Call {
    done(c.add(Object::Port(Port::new()), Rights::ALL)?)
}

pub fn port_queue(c: &Caller, port: usize, packet: usize) -> Call {
    let port = c.port(port, Rights::WRITE)?;
    let mut packet: Packet = user::read_record(c.process().space(), packet)?;
    packet.kind = Packet::USER;
    packet.timestamp_ns = arch::now_ns();
    port.queue_user(packet)?;
    done(0)
}

pub fn port_wait(c: &Caller, port: usize, buffer: usize, count: usize, deadline: usize) -> Call {
    if count == 0 {
        return Err(Error::InvalidArgument);
    }
    c.process()
        .with_object(port as u32, Rights::READ, |object| {
            let Object::Port(port) = object else {
                return Err(Error::WrongType);
            };
            match receive_packets(c.thread, port, buffer, count) {
                Err(Error::ShouldWait) => {}
                result => return result.map(Outcome::Value),
            }
            check_deadline(deadline)?;
            port.add_waiter(c.thread.clone());
            c.thread.block(
                Wait::Port {
                    port: port.clone(),
                    buffer,
                    count,
                },
                deadline as u64,
                Syscall::PortWait,
            );
            Ok(Outcome::Blocked)
        })
}

/// A deadline in the past does not block. The clock is not read for this: a deadline that passed since the thread got its
/// CPU, or since the last tick, ends the wait by the timer, at once.
#[inline]
pub fn check_deadline(deadline: usize) -> Result<(), Error> {
    match deadline as u64 {
        0 => Err(Error::ShouldWait),
        FOREVER => Ok(()),
        deadline if deadline <= sched::recent_ns() => Err(Error::TimedOut),
        _ => Ok(()),
    }
}

pub fn port_cancel(c: &Caller, port: usize, handle: usize, key: usize) -> Call {
    let port = c.port(port, Rights::WRITE)?;
    let object = c.process().object(handle as u32, Rights::NONE)?;
    match object.base().unwatch(&port, key as u64) {
        0 => Err(Error::NotFound),
        n => done(n),
    }
}

pub fn event_create(c: &Caller) -> Call {
    done(c.add(Object::Event(Event::new()), Rights::ALL)?)
}

pub fn timer_create(c: &Caller) -> Call {
    done(c.add(Object::Timer(Timer::new()), Rights::ALL)?)
}

pub fn timer_set(c: &Caller, timer: usize, deadline: usize, period: usize) -> Call {
    c.timer(timer, Rights::SIGNAL)?
        .set(deadline as u64, period as u64);
    done(0)
}

pub fn futex_wait(c: &Caller, address: usize, expected: usize, deadline: usize) -> Call {
    if !address.is_multiple_of(4) {
        return Err(Error::InvalidArgument);
    }
    let space = c.process().space();
    let value: u32 = user::read_record(space, address)?;
    if value != expected as u32 {
        return Err(Error::ValueChanged);
    }
    if let Err(error) = check_deadline(deadline) {
        // A yield: others of the same priority go first.
        sched::yield_now();
        return Err(error);
    }
    let word = space.translate(address, false)?;
    futex::add(word, c.thread.clone());
    c.thread
        .block(Wait::Futex { word }, deadline as u64, Syscall::FutexWait);
    Ok(Outcome::Blocked)
}

pub fn futex_wake(c: &Caller, address: usize, count: usize) -> Call {
    if !address.is_multiple_of(4) {
        return Err(Error::InvalidArgument);
    }
    let word = c.process().space().translate(address, false)?;
    done(futex::wake(word, count))
}
