//! Channels.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use bulkhead_abi::{
    CallArgs, Error, MESSAGE_BYTES_MAX, MESSAGE_HANDLES_MAX, Result, Rights, Syscall,
};

use super::sync::check_deadline;
use super::{Call, Caller, Outcome, done};
use crate::ipc::channel::{Channel, Message};
use crate::memory::user;
use crate::object::thread::{ReadBuffers, Thread, Wait, accept};
use crate::object::{Handle, Object};
use crate::sched;

/// Calls `f` with an end of a channel; `f` leaves handle tables alone.
#[inline(always)]
fn with_end<R>(
    c: &Caller,
    handle: usize,
    rights: Rights,
    f: impl FnOnce(&Arc<Channel>, usize) -> Result<R>,
) -> Result<R> {
    c.process()
        .with_object(handle as u32, rights, |object| match object {
            Object::Channel(channel, side) => f(channel, *side),
            _ => Err(Error::WrongType),
        })
}

pub fn create(c: &Caller) -> Call {
    let channel = Channel::new();
    let ends = [0, 1].map(|side| Handle::new(Object::Channel(channel.clone(), side), Rights::ALL));
    let [first, second] = ends;
    let first = c.process().add_handle(first)?;
    match c.process().add_handle(second) {
        Ok(second) => c.values(first as usize, second as usize),
        Err(error) => {
            drop(c.process().take_handle(first));
            Err(error)
        }
    }
}

/// A message from user memory; its handles stay in the table until [`take_handles`].
fn compose(c: &Caller, bytes: usize, len: usize) -> Result<Box<Message>> {
    if len > MESSAGE_BYTES_MAX {
        return Err(Error::OutOfRange);
    }
    let space = c.process().space();
    Message::new(Some(c.process().account()), len, |out| {
        user::read(space, bytes, out)
    })
}

/// Moves handles from the table into the message. On an error all stay.
fn take_handles(
    c: &Caller,
    message: &mut Message,
    handles: usize,
    count: usize,
    channel: &Channel,
) -> Result<Vec<u32>> {
    if count > MESSAGE_HANDLES_MAX {
        return Err(Error::OutOfRange);
    }
    let mut numbers = Vec::with_capacity(count);
    for n in 0..count {
        let number: u32 = user::read_record(c.process().space(), handles + n * size_of::<u32>())?;
        c.process().with_handle(number, |h| match h.object() {
            // A channel in itself could never be closed.
            Object::Channel(other, _) if core::ptr::eq(&**other, channel) => {
                Err(Error::InvalidArgument)
            }
            _ if !h.rights().contains(Rights::TRANSFER) => Err(Error::AccessDenied),
            _ => Ok(()),
        })?;
        if numbers.contains(&number) {
            return Err(Error::InvalidArgument);
        }
        numbers.push(number);
    }
    for &number in &numbers {
        message.handles.push(c.process().take_handle(number)?);
    }
    Ok(numbers)
}

/// Puts the handles of a message that was not delivered back, and writes their new numbers.
fn give_back(c: &Caller, mut message: Box<Message>, handles: usize) {
    for (n, handle) in core::mem::take(&mut message.handles)
        .into_iter()
        .enumerate()
    {
        if let Ok(number) = c.process().add_handle(handle) {
            // The array was readable; where it is not writable the caller has lost track of its handles, not we.
            let _ =
                user::write_record(c.process().space(), handles + n * size_of::<u32>(), &number);
        }
    }
}

pub fn write(
    c: &Caller,
    channel: usize,
    bytes: usize,
    len: usize,
    handles: usize,
    count: usize,
    txid: usize,
) -> Call {
    let direct = txid != 0 && count == 0 && len <= MESSAGE_BYTES_MAX;
    let end = with_end(c, channel, Rights::WRITE, |channel, side| {
        let takes =
            |caller: &Thread| caller.receive_directly(c.process().space(), bytes, len, txid as u64);
        if direct && let Some(caller) = channel.take_caller(side, txid as u64, takes) {
            sched::wake_near(caller);
            return Ok(None);
        }
        Ok(Some((channel.clone(), side)))
    })?;
    match end {
        None => done(0),
        Some((channel, side)) => {
            write_queued(c, (&channel, side), (bytes, len), (handles, count), txid)
        }
    }
}

/// The way of a message that cannot go straight to who waits for it.
#[inline(never)]
fn write_queued(
    c: &Caller,
    (channel, side): (&Channel, usize),
    (bytes, len): (usize, usize),
    (handles, count): (usize, usize),
    txid: usize,
) -> Call {
    // A caller that has given up reads no reply: it would stay in the queue for good.
    if txid != 0 && !channel.peer_closed(side) && !channel.is_awaited(side, txid as u64) {
        return Err(Error::BadState);
    }
    let mut message = compose(c, bytes, len)?;
    message.txid = txid as u64;
    if count != 0 {
        take_handles(c, &mut message, handles, count, channel)?;
    }
    match channel.write(side, message) {
        Ok(()) => done(0),
        Err((error, message)) => {
            give_back(c, message, handles);
            Err(error)
        }
    }
}

pub fn read(
    c: &Caller,
    channel: usize,
    bytes: usize,
    bytes_cap: usize,
    handles: usize,
    handles_cap: usize,
    deadline: usize,
) -> Call {
    let buffers = ReadBuffers {
        bytes,
        bytes_cap,
        handles,
        handles_cap,
    };
    let taken = with_end(c, channel, Rights::READ, |channel, side| {
        match channel.read(side, |bytes, handles| buffers.fits(bytes, handles)) {
            Err(Error::ShouldWait) => {}
            taken => return taken.map(Some),
        }
        check_deadline(deadline)?;
        channel.add_reader(side, c.thread.clone());
        c.thread.block(
            Wait::Read {
                channel: channel.clone(),
                side,
                buffers,
            },
            deadline as u64,
            Syscall::ChannelRead,
        );
        Ok(None)
    })?;
    let Some(taken) = taken else {
        return Ok(Outcome::Blocked);
    };
    match accept(c.thread, taken, &buffers) {
        Ok((value, second)) => c.values(value, second),
        Err(Error::BufferTooSmall) => Ok(Outcome::Set),
        Err(error) => Err(error),
    }
}

pub fn call(c: &Caller, channel: usize, args: usize, deadline: usize) -> Call {
    let rights = Rights::WRITE.or(Rights::READ);
    let end = with_end(c, channel, rights, |channel, side| {
        let args: CallArgs = user::read_record(c.process().space(), args)?;
        check_deadline(deadline)?;
        let txid = channel.new_txid();
        let (bytes, len) = (args.bytes as usize, args.bytes_len as usize);
        let takes =
            |server: &Thread| server.receive_directly(c.process().space(), bytes, len, txid);
        if args.handles_len == 0
            && len <= MESSAGE_BYTES_MAX
            && let Some(server) = channel.take_reader(side, takes)
        {
            channel.add_caller(side, txid, c.thread.clone());
            sched::hand_off(server);
            await_reply(c, channel, side, &args, deadline);
            return Ok(None);
        }
        Ok(Some((channel.clone(), side, args, txid)))
    })?;
    match end {
        None => Ok(Outcome::Blocked),
        Some((channel, side, args, txid)) => {
            call_queued(c, (&channel, side), &args, txid, deadline)
        }
    }
}

#[inline]
fn await_reply(c: &Caller, channel: &Arc<Channel>, side: usize, args: &CallArgs, deadline: usize) {
    let wait = Wait::Call {
        channel: channel.clone(),
        side,
        buffers: ReadBuffers::of_call(args),
    };
    c.thread.block(wait, deadline as u64, Syscall::ChannelCall);
}

/// The way of a call that cannot go straight to a server that waits.
#[inline(never)]
fn call_queued(
    c: &Caller,
    (channel, side): (&Arc<Channel>, usize),
    args: &CallArgs,
    txid: u64,
    deadline: usize,
) -> Call {
    let (handles, count) = (args.handles as usize, args.handles_len as usize);
    let mut message = compose(c, args.bytes as usize, args.bytes_len as usize)?;
    message.txid = txid;
    if count != 0 {
        take_handles(c, &mut message, handles, count, channel)?;
    }
    channel.add_caller(side, txid, c.thread.clone());
    sched::set_calling(true);
    let result = channel.write(side, message);
    sched::set_calling(false);
    if let Err((error, message)) = result {
        channel.remove_waiter(side, c.thread);
        give_back(c, message, handles);
        if error == Error::PeerClosed {
            c.thread
                .set_result(Err(error), channel.peer_epoch(side) as usize);
            return Ok(Outcome::Set);
        }
        return Err(error);
    }
    await_reply(c, channel, side, args, deadline);
    Ok(Outcome::Blocked)
}
