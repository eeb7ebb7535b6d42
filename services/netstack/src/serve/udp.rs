//! Datagrams: a socket on each interface behind one pipe.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::Cell;
use core::net::SocketAddr;
use core::task::{Context, Poll};

use executor::Source;
use ipc::{Channel, sys::Signals};
use net::datagram::{Datagram, Taker, put};
use net::pipe::{Handles, Pipe, PipeError};
use proto::inet::{Memory, NetworkError, UdpRequest};
use smoltcp::socket::udp;

use super::Net;
use crate::convert;
use crate::stack::SocketId;

/// Memory between a program and its socket: the longest datagram fits.
const SHAPE: Memory = Memory {
    capacity: 128 * 1024,
    descriptors: 256,
};
/// Datagrams and bytes that wait on an interface, each way.
const QUEUE_DATAGRAMS: usize = 128;
const QUEUE_BYTES: usize = 96 * 1024;
/// Most UDP sockets of programs.
const UDP_MAX: usize = 64;

/// A request to the scheme.
pub(super) fn request(net: &Rc<Net>, request: UdpRequest) {
    let UdpRequest::Bind { local, reply } = request;
    match Socket::new(net, local) {
        Ok((socket, local, channel, handles)) => {
            let Handles {
                shape,
                memory,
                to_program,
                to_stack,
            } = handles;
            let _ = reply.ok(local, shape, channel, memory, to_program, to_stack);
            net.executor.spawn(socket.run()).detach();
        }
        Err(error) => {
            let _ = reply.error(error);
        }
    }
}

struct Socket {
    net: Rc<Net>,
    /// One on each interface that it listens at.
    sockets: Vec<SocketId>,
    pipe: Pipe,
    taker: Taker,
    /// A datagram that finds no room on its interface.
    waiting: Option<Datagram>,
    /// The program does not know yet of all that is in its pipe.
    unannounced: bool,
    // Before what they watch.
    doorbell: Source,
    closed: Source,
    /// The program is.
    gone: Cell<bool>,
    _channel: Channel,
}

/// What a look at a socket led to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    /// There is something to send.
    Queued,
    /// Nothing to do for the interfaces.
    Idle,
}

impl Socket {
    fn new(
        net: &Rc<Net>,
        local: SocketAddr,
    ) -> Result<(Socket, SocketAddr, Channel, Handles), NetworkError> {
        let limit = |_| NetworkError::LimitReached;
        let (pipe, handles) = Pipe::create(SHAPE).map_err(|_| NetworkError::LimitReached)?;
        let (client, channel) = Channel::create().map_err(limit)?;
        let doorbell = net.executor.watch(&pipe.doorbell, Signals::SIGNALED);
        let closed = net.executor.watch(&channel, Signals::PEER_CLOSED);
        let (doorbell, closed) = (doorbell.map_err(limit)?, closed.map_err(limit)?);
        let mut stack = net.stack();
        if !local.ip().is_unspecified() && !stack.is_own(local.ip()) {
            return Err(NetworkError::AddressNotAvailable);
        }
        let on_lo = stack.interfaces().first().map_or(0, |lo| {
            lo.sockets
                .iter()
                .filter(|(_, s)| matches!(s, smoltcp::socket::Socket::Udp(_)))
                .count()
        });
        if on_lo >= UDP_MAX {
            return Err(NetworkError::LimitReached);
        }
        let local = SocketAddr::new(local.ip(), stack.udp_port(local.port())?);
        let mut sockets = Vec::new();
        for interface in 0..stack.interfaces().len() {
            let interface_sockets = &mut stack.interface_at(interface)?.sockets;
            let mut socket = udp::Socket::new(queue(), queue());
            // A port that is not 0 at a closed socket.
            socket
                .bind(convert::listen_endpoint(local))
                .map_err(|_| NetworkError::Invalid)?;
            sockets.push(SocketId {
                interface,
                handle: interface_sockets.add(socket),
            });
        }
        drop(stack);
        let socket = Socket {
            net: net.clone(),
            sockets,
            pipe,
            taker: Taker::default(),
            waiting: None,
            unannounced: false,
            doorbell,
            closed,
            gone: Cell::new(false),
            _channel: channel,
        };
        Ok((socket, local, client, handles))
    }

    async fn run(mut self) {
        loop {
            match self.step() {
                Ok(Step::Queued) => {
                    self.net.kick();
                    self.net.executor.yield_now().await;
                    continue;
                }
                Ok(Step::Idle) => {}
                Err(error) => {
                    rt::warn!("datagram socket: {error}");
                    break;
                }
            }
            let armed = if self.unannounced {
                self.pipe.arm()
            } else {
                self.pipe.reader.arm()
            };
            match armed {
                Ok(false) => {}
                Ok(true) => continue,
                Err(_) => break,
            }
            let woken = self.net.woken(|context| self.register(context));
            woken.await;
            if self.gone.get() {
                break;
            }
        }
        // What was accepted for sending is sent.
        self.net.kick();
        self.net.executor.yield_now().await;
        let mut stack = self.net.stack();
        for id in &self.sockets {
            if let Ok(interface) = stack.interface_at(id.interface) {
                interface.sockets.remove(id.handle);
            }
        }
    }

    fn register(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut stack = self.net.stack();
        for id in &self.sockets {
            if let Ok(interface) = stack.interface_at(id.interface) {
                let socket = interface.sockets.get_mut::<udp::Socket>(id.handle);
                socket.register_recv_waker(context.waker());
                if self.waiting.is_some() {
                    socket.register_send_waker(context.waker());
                }
            }
        }
        let bell = self.doorbell.poll_next(context).is_ready();
        if self.closed.poll_next(context).is_ready() {
            self.gone.set(true);
        }
        if bell || self.gone.get() {
            return Poll::Ready(());
        }
        Poll::Pending
    }

    /// Moves what can be moved.
    fn step(&mut self) -> Result<Step, PipeError> {
        let mut step = Step::Idle;
        let mut stack = self.net.stack();
        // To the program. What finds no room in the pipe is lost, as datagrams may be.
        for id in &self.sockets {
            let Ok(interface) = stack.interface_at(id.interface) else {
                continue;
            };
            let socket = interface.sockets.get_mut::<udp::Socket>(id.handle);
            while let Ok((payload, meta)) = socket.recv() {
                let remote = convert::socket_address(meta.endpoint);
                put(&mut self.pipe.writer, remote, payload)?;
            }
        }
        self.unannounced = !self.pipe.writer.flush()?;
        // From the program.
        loop {
            let datagram = match self.waiting.take() {
                Some(datagram) => datagram,
                None => match self.taker.take(&mut self.pipe.reader)? {
                    Some(datagram) => datagram,
                    None => break,
                },
            };
            let index = stack.route(datagram.remote.ip());
            // As on any network: where nothing leads, nothing arrives.
            let Some(id) = index
                .ok()
                .and_then(|n| self.sockets.iter().find(|id| id.interface == n))
            else {
                continue;
            };
            let Ok(interface) = stack.interface_at(id.interface) else {
                continue;
            };
            let socket = interface.sockets.get_mut::<udp::Socket>(id.handle);
            let remote = convert::endpoint(datagram.remote);
            match socket.send_slice(&datagram.payload, remote) {
                Ok(()) => step = Step::Queued,
                // As on any network, too.
                Err(udp::SendError::Unaddressable) => {}
                Err(udp::SendError::BufferFull) => {
                    self.waiting = Some(datagram);
                    break;
                }
            }
        }
        self.pipe.reader.release()?;
        Ok(step)
    }
}

fn queue() -> udp::PacketBuffer<'static> {
    udp::PacketBuffer::new(
        alloc::vec![udp::PacketMetadata::EMPTY; QUEUE_DATAGRAMS],
        alloc::vec![0; QUEUE_BYTES],
    )
}
