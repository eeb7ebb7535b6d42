//! Channels.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use bulkhead_abi::{
    CallArgs, Error, MESSAGE_BYTES_MAX, MESSAGE_HANDLES_MAX, Result, Rights, Syscall,
};

use super::sync::check_deadline;
use super::{Call, Caller, Outcome};
use crate::ipc::channel::{Channel, Message};
use crate::memory::user;
use crate::object::thread::{ReadBuffers, Wait, receive_message};
use crate::object::{Handle, Object};
use crate::sched;

fn end(c: &Caller, handle: usize, rights: Rights) -> Result<(Arc<Channel>, usize)> {
    match c.process().object(handle as u32, rights)? {
        Object::Channel(channel, side) => Ok((channel, side)),
        _ => Err(Error::WrongType),
    }
}

pub fn create(c: &Caller) -> Call {
    let channel = Channel::new();
    let ends = [0, 1].map(|side| Handle::new(Object::Channel(channel.clone(), side), Rights::ALL));
    let [first, second] = ends;
    let first = c.process().add_handle(first)?;
    match c.process().add_handle(second) {
        Ok(second) => Ok(Outcome::Values(first as usize, second as usize)),
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
    let (channel, side) = end(c, channel, Rights::WRITE)?;
    if txid != 0
        && count == 0
        && len <= MESSAGE_BYTES_MAX
        && let Some(caller) = channel.waiting_caller(side, txid as u64)
        && caller.receive_directly(c.process().space(), bytes, len, txid as u64)
    {
        channel.take_caller(side, txid as u64);
        sched::wake_near(&caller);
        return Ok(Outcome::Values(0, 0));
    }
    let mut message = compose(c, bytes, len)?;
    message.txid = txid as u64;
    if count != 0 {
        take_handles(c, &mut message, handles, count, &channel)?;
    }
    match channel.write(side, message) {
        Ok(()) => Ok(Outcome::Values(0, 0)),
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
    let (channel, side) = end(c, channel, Rights::READ)?;
    let buffers = ReadBuffers {
        bytes,
        bytes_cap,
        handles,
        handles_cap,
    };
    match receive_message(c.thread, &channel, side, &buffers) {
        Err(Error::ShouldWait) => {}
        Err(Error::BufferTooSmall) => return Ok(Outcome::Set),
        result => return result.map(|(value, second)| Outcome::Values(value, second)),
    }
    check_deadline(deadline)?;
    channel.add_reader(side, c.thread.clone());
    c.thread.block(
        Wait::Read {
            channel,
            side,
            buffers,
        },
        deadline as u64,
        Syscall::ChannelRead,
    );
    Ok(Outcome::Blocked)
}

pub fn call(c: &Caller, channel: usize, args: usize, deadline: usize) -> Call {
    let (channel, side) = end(c, channel, Rights::WRITE.or(Rights::READ))?;
    let args: CallArgs = user::read_record(c.process().space(), args)?;
    check_deadline(deadline)?;
    let txid = channel.new_txid();
    let (bytes, len) = (args.bytes as usize, args.bytes_len as usize);
    let buffers = ReadBuffers::of_call(&args);
    if args.handles_len == 0
        && len <= MESSAGE_BYTES_MAX
        && let Some(reader) = channel.waiting_reader(side)
        && reader.receive_directly(c.process().space(), bytes, len, txid)
    {
        channel.take_reader(side);
        channel.add_caller(side, txid, c.thread.clone());
        sched::set_calling(true);
        sched::wake(&reader);
        sched::set_calling(false);
        c.thread.block(
            Wait::Call {
                channel,
                side,
                buffers,
            },
            deadline as u64,
            Syscall::ChannelCall,
        );
        return Ok(Outcome::Blocked);
    }
    let mut message = compose(c, bytes, len)?;
    message.txid = txid;
    if args.handles_len != 0 {
        take_handles(
            c,
            &mut message,
            args.handles as usize,
            args.handles_len as usize,
            &channel,
        )?;
    }
    channel.add_caller(side, txid, c.thread.clone());
    sched::set_calling(true);
    let result = channel.write(side, message);
    sched::set_calling(false);
    if let Err((error, message)) = result {
        channel.remove_waiter(side, c.thread);
        give_back(c, message, args.handles as usize);
        if error == Error::PeerClosed {
            c.thread
                .set_result(Err(error), channel.peer_epoch(side) as usize);
            return Ok(Outcome::Set);
        }
        return Err(error);
    }
    c.thread.block(
        Wait::Call {
            channel,
            side,
            buffers,
        },
        deadline as u64,
        Syscall::ChannelCall,
    );
    Ok(Outcome::Blocked)
}
