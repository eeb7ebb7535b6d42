//! The schemes, over one stack and one executor: everything runs on one thread, and nothing in it waits for a client or a
//! driver.

mod admin;
mod capture;
mod names;
mod tcp;
mod udp;

use alloc::rc::Rc;
use core::cell::{RefCell, RefMut};
use core::future::poll_fn;
use core::task::{Context, Poll};
use core::time::Duration;

use executor::{Deadline, Executor, Notify, select};
use ipc::{Channel, Server};
use proto::inet::{DnsServer, IpServer, TcpServer, UdpServer};
use smoltcp::time::Instant;

use crate::stack::{Stack, TakenIn};

/// Shortest pause between two looks at a stack that has nothing to receive.
const PAUSE_MIN: Duration = Duration::from_micros(200);

/// The stack and what its tasks share.
pub struct Net {
    /// Runs the tasks.
    pub executor: Executor,
    stack: RefCell<Stack>,
    /// There is something to send or receive.
    kick: Notify,
    /// Something that commands wait for may have changed: addresses.
    changed: Notify,
}

/// The servers' ends of the schemes; what is missing is not served.
#[derive(Default)]
pub struct Schemes {
    /// `tcp`.
    pub tcp: Option<Channel>,
    /// `udp`.
    pub udp: Option<Channel>,
    /// `dns`.
    pub dns: Option<Channel>,
    /// `ip`.
    pub ip: Option<Channel>,
}

/// The time as smoltcp counts it.
pub fn now() -> Instant {
    let micros = sys::time::now_ns() / 1000;
    Instant::from_micros(i64::try_from(micros).unwrap_or(i64::MAX))
}

impl Net {
    /// Over a stack.
    pub fn new(executor: Executor, stack: Stack) -> Rc<Net> {
        Rc::new(Net {
            executor,
            stack: RefCell::new(stack),
            kick: Notify::new(),
            changed: Notify::new(),
        })
    }

    /// The stack, for as long as nothing is awaited.
    pub fn stack(&self) -> RefMut<'_, Stack> {
        self.stack.borrow_mut()
    }

    /// The stack is to be polled.
    pub fn kick(&self) {
        self.kick.notify();
    }

    /// Interfaces, addresses or links changed.
    pub fn interfaces_changed(&self) {
        self.changed.notify();
        self.kick.notify();
    }

    /// Keeps the stack going, for ever.
    pub async fn drive(&self) {
        let mut addresses = 0;
        loop {
            let kicked = self.kick.wait();
            let taken = self.stack().take_in(now());
            if taken != TakenIn::Nothing {
                // Whoever has received something takes it first: what is acknowledged then says how much room there is.
                self.executor.yield_now().await;
            }
            let (more, delay, count) = {
                let mut stack = self.stack();
                let more = stack.send(now()) | (taken == TakenIn::More);
                let count: usize = stack.interfaces().iter().map(|i| i.address_count()).sum();
                (more, stack.delay(now()), count)
            };
            if core::mem::replace(&mut addresses, count) != count {
                self.changed.notify();
            }
            if more {
                // Whoever has received something gets its turn before the next batch.
                self.executor.yield_now().await;
                continue;
            }
            // Never at once: whoever is to make room or answer must have its turn.
            let deadline = delay.map_or(Deadline::FOREVER, |d| Deadline::after(d.max(PAUSE_MIN)));
            select(kicked, self.executor.sleep_until(deadline)).await;
        }
    }

    /// Serves the schemes, for ever.
    pub fn serve(self: &Rc<Net>, schemes: Schemes) {
        if let Some(channel) = schemes.tcp {
            self.spawn_server(TcpServer::new(channel), tcp::request);
        }
        if let Some(channel) = schemes.udp {
            self.spawn_server(UdpServer::new(channel), udp::request);
        }
        if let Some(channel) = schemes.dns {
            self.spawn_server(DnsServer::new(channel), names::request);
        }
        if let Some(channel) = schemes.ip {
            self.spawn_server(IpServer::new(channel), admin::request);
        }
    }

    fn spawn_server<S: Server + 'static>(
        self: &Rc<Net>,
        server: S,
        handle: fn(&Rc<Net>, S::Request),
    ) {
        let net = self.clone();
        let task = async move {
            let requests = match net.executor.requests(server) {
                Ok(requests) => requests,
                Err(error) => return rt::error!("cannot serve a scheme: {error}"),
            };
            while let Ok(Some(request)) = requests.next().await {
                handle(&net, request);
            }
        };
        self.executor.spawn(task).detach();
    }

    /// Waits until woken by whatever `register` leaves the waker with.
    pub(crate) async fn woken(&self, mut register: impl FnMut(&mut Context<'_>) -> Poll<()>) {
        let mut registered = false;
        poll_fn(|context| {
            if core::mem::replace(&mut registered, true) {
                return Poll::Ready(());
            }
            register(context)
        })
        .await
    }
}
