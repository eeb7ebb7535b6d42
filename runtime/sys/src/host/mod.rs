//! A stand-in for the kernel on a host, so that what stands on this crate can be tested there: one
//! process, one lock, one condition. It knows handles and rights, channels and calls, ports,
//! events, timers, virtual interrupts, VMOs with their mappings, and futexes. Everything else is
//! answered with `NotSupported`.
//!
//! It is written from the interface's description (`bulkhead_abi::syscall`), not from the kernel.

mod memory;
mod objects;
mod world;

use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Duration;

use crate::abi::{Error, Result, Syscall};
use crate::time::now_ns;
use world::World;

static WORLD: Mutex<Option<World>> = Mutex::new(None);
static CHANGED: Condvar = Condvar::new();

/// Result in `rax` and `rdx`.
type Answer = Result<(usize, usize)>;

/// Answers a system call.
///
/// # Safety
///
/// As for a real one: addresses follow what the call says of them.
pub(crate) unsafe fn dispatch(call: Syscall, args: [usize; 6]) -> (isize, usize) {
    let mut second_on_error = 0;
    // SAFETY: the caller's promise.
    match unsafe { answer(call, args, &mut second_on_error) } {
        Ok((value, second)) => (value as isize, second),
        Err(error) => (error as i32 as isize, second_on_error),
    }
}

fn lock() -> MutexGuard<'static, Option<World>> {
    // A test that panicked in the middle of a call leaves a world that is still consistent enough for
    // the others.
    let mut guard = WORLD
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    guard.get_or_insert_with(World::default);
    guard
}

/// Repeats `attempt` until it is not `ShouldWait` any more or the deadline passes.
fn wait<T>(deadline: usize, mut attempt: impl FnMut(&mut World) -> Result<T>) -> Result<T> {
    let deadline = deadline as u64;
    let mut guard = lock();
    loop {
        let Some(world) = guard.as_mut() else {
            return Err(Error::Internal);
        };
        world.fire_timers(now_ns());
        match attempt(world) {
            Err(Error::ShouldWait) => {}
            result => {
                CHANGED.notify_all();
                return result;
            }
        }
        let now = now_ns();
        if deadline == 0 {
            return Err(Error::ShouldWait);
        }
        if deadline <= now {
            return Err(Error::TimedOut);
        }
        let until = deadline.min(world.next_timer());
        // Capped, because an overlong sleep overflows.
        let sleep = Duration::from_nanos(until.saturating_sub(now).clamp(1, 3_600_000_000_000));
        guard = match CHANGED.wait_timeout(guard, sleep) {
            Ok((guard, _)) => guard,
            Err(poisoned) => poisoned.into_inner().0,
        };
    }
}

/// Does something that needs no waiting.
fn now<T>(act: impl FnOnce(&mut World) -> Result<T>) -> Result<T> {
    let mut guard = lock();
    let result = guard.as_mut().ok_or(Error::Internal).and_then(act);
    CHANGED.notify_all();
    result
}

/// # Safety
///
/// As for [`dispatch`].
unsafe fn answer(call: Syscall, args: [usize; 6], second_on_error: &mut usize) -> Answer {
    let [a, b, c, d, e, f] = args;
    let handle = a as u32;
    let one = |value: usize| (value, 0);
    let unit = |()| (0, 0);
    match call {
        Syscall::HandleClose => now(|w| w.close(handle)).map(unit),
        Syscall::HandleDuplicate => now(|w| w.duplicate(handle, b as u32)).map(|h| one(h as usize)),
        // SAFETY: the caller lends `d` bytes at `c`.
        Syscall::ObjectInfo => now(|w| unsafe { w.info(handle, b, c, d) }).map(one),
        Syscall::ObjectSet => now(|w| w.set(handle, b, c)).map(unit),
        Syscall::ObjectSignal => now(|w| w.signal(handle, b as u32, c as u32)).map(unit),
        Syscall::WaitAsync => {
            now(|w| w.wait_async(handle, b as u32, c as u64, d as u32, e)).map(unit)
        }
        Syscall::PortCreate => now(|w| w.create_port()).map(|h| one(h as usize)),
        // SAFETY: the caller lends a packet.
        Syscall::PortQueue => now(|w| unsafe { w.port_queue(handle, b) }).map(unit),
        Syscall::PortWait => {
            // SAFETY: the caller lends room for `c` packets.
            let result = wait(d, |w| unsafe { w.port_take(handle, b, c) });
            result
                .map_err(|e| {
                    if e == Error::ShouldWait {
                        Error::TimedOut
                    } else {
                        e
                    }
                })
                .map(one)
        }
        Syscall::PortCancel => now(|w| w.port_cancel(handle, b as u32, c as u64)).map(unit),
        Syscall::ChannelCreate => now(|w| w.create_channel()),
        Syscall::ChannelWrite => {
            // SAFETY: the caller lends bytes and handles.
            now(|w| unsafe { w.channel_write(handle, b, c, d, e, f as u64) }).map(unit)
        }
        Syscall::ChannelRead => {
            // SAFETY: the caller lends room for bytes and handles.
            wait(f, |w| unsafe {
                w.channel_read(handle, b, c, d, e, second_on_error)
            })
        }
        Syscall::ChannelCall => {
            // SAFETY: the caller lends the arguments and what they point to.
            let txid = now(|w| unsafe { w.call_send(handle, b, second_on_error) })?;
            // SAFETY: as above.
            let result = wait(c, |w| unsafe {
                w.call_receive(handle, b, txid, second_on_error)
            });
            if result.is_err() {
                let _ = now(|w| w.call_forget(handle, txid));
            }
            result
                .map_err(|e| {
                    if e == Error::ShouldWait {
                        Error::TimedOut
                    } else {
                        e
                    }
                })
                .map(one)
        }
        Syscall::EventCreate => now(|w| w.create_event()).map(|h| one(h as usize)),
        Syscall::TimerCreate => now(|w| w.create_timer()).map(|h| one(h as usize)),
        Syscall::TimerSet => now(|w| w.timer_set(handle, b as u64, c as u64)).map(unit),
        // SAFETY: the caller lends the word.
        Syscall::FutexWait => unsafe { futex_wait(a, b as u32, c) },
        Syscall::FutexWake => now(|w| Ok(w.futex_wake(a, b))).map(one),
        Syscall::VmoCreate => now(|w| w.create_vmo(a, b)).map(|h| one(h as usize)),
        // SAFETY: the caller lends the memory.
        Syscall::VmoOp => now(|w| unsafe { w.vmo_op(handle, b, c, d, e) }).map(one),
        Syscall::VmMap => now(|w| w.map(a as u32, b as u32, c, d, e)).map(one),
        Syscall::VmUnmap => now(|w| w.unmap(a as u32, b)).map(unit),
        Syscall::IrqCreate => now(|w| w.create_interrupt(b)).map(|h| one(h as usize)),
        Syscall::IrqBind => now(|w| w.irq_bind(handle, b as u32, c as u64, d)).map(unit),
        Syscall::IrqAck => now(|w| w.irq_ack(handle)).map(unit),
        Syscall::IrqTrigger => now(|w| w.irq_trigger(handle)).map(unit),
        _ => Err(Error::NotSupported),
    }
}

/// # Safety
///
/// `address` leads to a live, aligned word.
unsafe fn futex_wait(address: usize, expected: u32, deadline: usize) -> Answer {
    // SAFETY: the caller's promise; atomics may be shared with anybody.
    let word = unsafe { &*(address as *const core::sync::atomic::AtomicU32) };
    if deadline as u64 <= now_ns() {
        std::thread::yield_now();
    }
    let mut ticket = None;
    let result = wait(deadline.max(1), |world| match ticket {
        None => {
            if word.load(core::sync::atomic::Ordering::SeqCst) != expected {
                return Err(Error::ValueChanged);
            }
            ticket = Some(world.futex_enter(address));
            Err(Error::ShouldWait)
        }
        Some(ticket) => {
            if world.futex_is_waiting(address, ticket) {
                Err(Error::ShouldWait)
            } else {
                Ok(())
            }
        }
    });
    if let Some(ticket) = ticket {
        now(|world| {
            world.futex_leave(address, ticket);
            Ok(())
        })?;
    }
    result.map(|()| (0, 0))
}
