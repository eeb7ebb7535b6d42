//! Asynchronous calls over a channel: requests carry a tag, replies come back in any order.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use core::cell::{Cell, RefCell};
use core::future::poll_fn;
use core::task::{Poll, Waker};

use ipc::{AsyncTransport, Message};
use sys::{Channel, Deadline, Error, Result, Signals};

use crate::channel::AsyncChannel;
use crate::run::{Executor, Task};
use crate::source::Source;

enum Waiting {
    For(Option<Waker>),
    Arrived(Box<Message>),
    /// The server died and has a successor.
    Lost,
}

struct Shared {
    channel: AsyncChannel,
    waiting: RefCell<BTreeMap<u32, Waiting>>,
    /// Set when nothing more will come.
    closed: Cell<Option<Error>>,
    last_tag: Cell<u32>,
}

/// The transport of an asynchronous client: `FileSystemAsyncClient::new(executor.caller(channel)?)`.
/// The channel end is its alone; any number of tasks call over it at the same time.
pub struct Caller {
    shared: Rc<Shared>,
    executor: Executor,
    _reader: Task<()>,
    _renewals: Task<()>,
}

impl Shared {
    /// Wakes all those who wait for a reply.
    fn wake_all(&self) {
        for entry in self.waiting.borrow_mut().values_mut() {
            if let Waiting::For(waker) = entry
                && let Some(waker) = waker.take()
            {
                waker.wake();
            }
        }
    }
}

/// Another server took the channel over: what was asked of the old one fails. (What it had not read yet
/// the new one answers, to nobody.)
async fn watch_renewals(shared: Rc<Shared>, renewed: Source) {
    while renewed.next(Deadline::FOREVER).await.is_ok() {
        for entry in shared.waiting.borrow_mut().values_mut() {
            if let Waiting::For(waker) = entry {
                let waker = waker.take();
                *entry = Waiting::Lost;
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
        }
    }
}

async fn read_replies(shared: Rc<Shared>) {
    loop {
        match shared.channel.recv(Deadline::FOREVER).await {
            Ok(message) => {
                let Ok(tag) = message.reply_tag() else {
                    continue;
                };
                let mut waiting = shared.waiting.borrow_mut();
                // A reply that nobody waits for any more is dropped, its handles closed.
                if let Some(entry @ Waiting::For(_)) = waiting.get_mut(&tag)
                    && let Waiting::For(waker) =
                        core::mem::replace(entry, Waiting::Arrived(Box::new(message)))
                    && let Some(waker) = waker
                {
                    waker.wake();
                }
            }
            Err(error) => {
                shared.closed.set(Some(error));
                shared.wake_all();
                return;
            }
        }
    }
}

/// A place in the table of those that wait, given back on drop.
struct Place<'a> {
    shared: &'a Shared,
    tag: u32,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let entry = self.shared.waiting.borrow_mut().remove(&self.tag);
        drop(entry);
    }
}

impl Caller {
    /// The channel.
    pub fn channel(&self) -> &Channel {
        self.shared.channel.channel()
    }
}

impl AsyncTransport for Caller {
    fn next_tag(&self) -> u32 {
        loop {
            let tag = self.shared.last_tag.get().wrapping_add(1).max(1);
            self.shared.last_tag.set(tag);
            if !self.shared.waiting.borrow().contains_key(&tag) {
                return tag;
            }
        }
    }

    async fn transact(&self, tag: u32, request: Message, deadline: Deadline) -> Result<Message> {
        let shared = &*self.shared;
        if let Some(error) = shared.closed.get() {
            return Err(error);
        }
        shared.waiting.borrow_mut().insert(tag, Waiting::For(None));
        let _place = Place { shared, tag };
        let Message { bytes, mut handles } = request;
        shared.channel.send(&bytes, &mut handles, deadline).await?;
        let reply = poll_fn(|context| {
            let mut waiting = shared.waiting.borrow_mut();
            match waiting.get_mut(&tag) {
                Some(Waiting::For(waker)) => {
                    if let Some(error) = shared.closed.get() {
                        return Poll::Ready(Err(error));
                    }
                    *waker = Some(context.waker().clone());
                    Poll::Pending
                }
                Some(Waiting::Lost) => Poll::Ready(Err(Error::PeerClosed)),
                Some(Waiting::Arrived(message)) => Poll::Ready(Ok(core::mem::take(&mut **message))),
                None => Poll::Ready(Err(Error::Cancelled)),
            }
        });
        self.executor.with_deadline(deadline, reply).await?
    }

    async fn send(&self, message: Message) -> Result<()> {
        let Message { bytes, mut handles } = message;
        self.shared
            .channel
            .send(&bytes, &mut handles, Deadline::FOREVER)
            .await
    }
}

impl Executor {
    /// Makes asynchronous calls over a channel.
    pub fn caller(&self, channel: Channel) -> Result<Caller> {
        let renewed = self.watch(&channel, Signals::PEER_RENEWED)?;
        let shared = Rc::new(Shared {
            channel: self.channel(channel)?,
            waiting: RefCell::default(),
            closed: Cell::new(None),
            // Replies to an earlier process that used this end are in nobody's way: a process that makes a call a
            // microsecond does not catch up with the clock.
            last_tag: Cell::new((sys::time::now_ns() >> 10) as u32),
        });
        let reader = self.spawn(read_replies(shared.clone()));
        let renewals = self.spawn(watch_renewals(shared.clone(), renewed));
        Ok(Caller {
            shared,
            executor: self.clone(),
            _reader: reader,
            _renewals: renewals,
        })
    }
}
