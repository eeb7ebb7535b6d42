//! Streams: a task for each connection moves bytes between its socket and its pipe.

use alloc::rc::Rc;
use core::cell::Cell;
use core::future::poll_fn;
use core::net::SocketAddr;
use core::task::{Context, Poll};

use executor::{Deadline, Either, Source, select};
use ipc::{Channel, Server, sys::Signals};
use net::pipe::{End, Handles, Pipe, PipeError};
use proto::inet::{
    Connection, Delay, Memory, NetworkError, TcpListenerRequest, TcpListenerServer, TcpRequest,
    TcpSocketRequest, TcpSocketServer,
};
use smoltcp::socket::tcp;
use smoltcp::time::Duration;

use super::Net;
use crate::convert;
use crate::stack::{ListenerId, SocketId, USER_TIMEOUT};

/// Memory between a program and its connection.
const SHAPE: Memory = Memory {
    capacity: 64 * 1024,
    descriptors: 128,
};

/// Longest wait that a client can ask for.
const WAIT_MAX_MS: u32 = 24 * 3600 * 1000;
/// Probes in a row that a peer may leave without an answer.
const KEEP_ALIVE_PROBES: u32 = 9;
/// How long a connection whose program is gone may go on without a byte of the rest being acknowledged.
const ORPHAN_LIMIT: core::time::Duration = core::time::Duration::from_secs(60);

/// A request to the scheme.
pub(super) fn request(net: &Rc<Net>, request: TcpRequest) {
    match request {
        TcpRequest::Connect {
            remote,
            local,
            timeout_ms,
            reply,
        } => {
            let net = net.clone();
            let executor = net.executor.clone();
            let connect = async move {
                let made = connect(&net, remote, local, timeout_ms).await;
                let (id, connection) = match made {
                    Ok(made) => made,
                    // A client that is gone does not wait for its answer; so below.
                    Err(error) => {
                        let _ = reply.error(error);
                        return;
                    }
                };
                match Stream::new(&net, id, connection) {
                    Ok((stream, socket, handles)) => {
                        let Handles {
                            shape,
                            memory,
                            to_program,
                            to_stack,
                        } = handles;
                        let _ = reply.ok(connection, shape, socket, memory, to_program, to_stack);
                        stream.run().await;
                    }
                    Err(error) => {
                        net.stack().remove_tcp(id);
                        let _ = reply.error(error);
                    }
                }
            };
            executor.spawn(connect).detach();
        }
        TcpRequest::Listen {
            local,
            backlog,
            reply,
        } => {
            let listening = net.stack().listen(local, backlog);
            let (id, local) = match listening {
                Ok(listening) => listening,
                Err(error) => {
                    let _ = reply.error(error);
                    return;
                }
            };
            let Ok((client, server)) = Channel::create() else {
                net.stack().close_listener(id);
                let _ = reply.error(NetworkError::LimitReached);
                return;
            };
            net.executor
                .spawn(serve_listener(
                    net.clone(),
                    id,
                    TcpListenerServer::new(server),
                ))
                .detach();
            let _ = reply.ok(local, client);
        }
    }
}

/// Connects; the connection stands afterwards.
async fn connect(
    net: &Rc<Net>,
    remote: SocketAddr,
    local: Option<SocketAddr>,
    timeout_ms: u32,
) -> Result<(SocketId, Connection), NetworkError> {
    let id = net.stack().connect(remote, local)?;
    net.kick();
    let deadline = Deadline::after_ms(timeout_ms.min(WAIT_MAX_MS).into());
    let outcome = net.executor.with_deadline(
        deadline,
        poll_fn(|context: &mut Context<'_>| {
            let mut stack = net.stack();
            let socket = match stack.tcp(id) {
                Ok(socket) => socket,
                Err(error) => return Poll::Ready(Err(error)),
            };
            match socket.state() {
                tcp::State::SynSent | tcp::State::SynReceived => {
                    socket.register_send_waker(context.waker());
                    Poll::Pending
                }
                tcp::State::Closed => Poll::Ready(Err(NetworkError::Refused)),
                _ => Poll::Ready(ends(socket).ok_or(NetworkError::Refused)),
            }
        }),
    );
    let outcome = outcome.await.unwrap_or(Err(NetworkError::TimedOut));
    match outcome {
        Ok(connection) => Ok((id, connection)),
        Err(error) => {
            net.stack().remove_tcp(id);
            Err(error)
        }
    }
}

fn ends(socket: &tcp::Socket<'_>) -> Option<Connection> {
    Some(Connection {
        local: convert::socket_address(socket.local_endpoint()?),
        remote: convert::socket_address(socket.remote_endpoint()?),
    })
}

async fn serve_listener(net: Rc<Net>, id: ListenerId, server: TcpListenerServer) {
    let executor = net.executor.clone();
    if let Ok(requests) = executor.requests(server) {
        while let Ok(Some(request)) = requests.next().await {
            let TcpListenerRequest::Accept { timeout_ms, reply } = request;
            let deadline = Deadline::after_ms(timeout_ms.min(WAIT_MAX_MS).into());
            // Accepts are answered one by one. While one waits, the listener may be closed.
            let accepted = executor.with_deadline(
                deadline,
                poll_fn(|context: &mut Context<'_>| {
                    match net.stack().accept(id, context.waker()) {
                        Some(socket) => Poll::Ready(socket),
                        None => Poll::Pending,
                    }
                }),
            );
            let closed = executor.wait_signals(
                requests.server().channel(),
                Signals::PEER_CLOSED,
                Deadline::FOREVER,
            );
            let accepted = match select(accepted, closed).await {
                Either::First(Ok(socket)) => socket,
                Either::First(Err(_)) => {
                    let _ = reply.error(NetworkError::TimedOut);
                    continue;
                }
                Either::Second(_) => break,
            };
            let connection = net.stack().tcp(accepted).ok().and_then(|s| ends(s));
            let Some(connection) = connection else {
                // Reset while it waited.
                net.stack().remove_tcp(accepted);
                let _ = reply.error(NetworkError::Reset);
                continue;
            };
            match Stream::new(&net, accepted, connection) {
                Ok((stream, socket, handles)) => {
                    let Handles {
                        shape,
                        memory,
                        to_program,
                        to_stack,
                    } = handles;
                    match reply.ok(connection, shape, socket, memory, to_program, to_stack) {
                        Ok(()) => executor.spawn(stream.run()).detach(),
                        // Nobody waits any more.
                        Err(_) => net.stack().put_back(id, accepted),
                    }
                }
                Err(error) => {
                    net.stack().put_back(id, accepted);
                    let _ = reply.error(error);
                }
            }
        }
    }
    net.stack().close_listener(id);
    net.kick();
}

/// A connection and its program.
struct Stream {
    net: Rc<Net>,
    id: SocketId,
    pipe: Pipe,
    // Before what it watches.
    doorbell: Source,
    requests: Option<(Source, TcpSocketServer)>,
    /// Something came for the server.
    asked: Cell<bool>,
    /// Bytes for the program wait for room in its pipe.
    wants_room: bool,
    remote: SocketAddr,
}

/// What a look at a connection led to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Bytes moved.
    Moved,
    /// Nothing to do now.
    Idle,
    /// The connection is over.
    Over,
}

impl Stream {
    fn new(
        net: &Rc<Net>,
        id: SocketId,
        connection: Connection,
    ) -> Result<(Stream, Channel, Handles), NetworkError> {
        let limit = |_| NetworkError::LimitReached;
        let (pipe, handles) = Pipe::create(SHAPE).map_err(|_| NetworkError::LimitReached)?;
        let (client, server) = Channel::create().map_err(limit)?;
        let doorbell = net
            .executor
            .watch(&pipe.doorbell, Signals::SIGNALED)
            .map_err(limit)?;
        let control = net
            .executor
            .watch(&server, Signals::READABLE | Signals::PEER_CLOSED)
            .map_err(limit)?;
        let stream = Stream {
            net: net.clone(),
            id,
            pipe,
            doorbell,
            requests: Some((control, TcpSocketServer::new(server))),
            asked: Cell::new(false),
            wants_room: false,
            remote: connection.remote,
        };
        Ok((stream, client, handles))
    }

    async fn run(mut self) {
        let mut orphan_until = Deadline::FOREVER;
        let mut orphan_rest = 0;
        loop {
            self.control();
            if self.requests.is_none() {
                let rest = self.rest();
                if orphan_until == Deadline::FOREVER {
                    self.net.stack().orphaned(self.id);
                }
                if orphan_until == Deadline::FOREVER || rest < orphan_rest {
                    orphan_until = Deadline::after(ORPHAN_LIMIT);
                    orphan_rest = rest;
                }
            }
            match self.step() {
                Ok(Step::Moved) => {
                    self.net.kick();
                    self.net.executor.yield_now().await;
                    continue;
                }
                Ok(Step::Idle) => {}
                Ok(Step::Over) => break,
                Err(error) => {
                    rt::warn!("connection to {}: {error}", self.remote);
                    break;
                }
            }
            let armed = if self.wants_room {
                self.pipe.arm()
            } else {
                // A program that reads need not wake anybody.
                self.pipe.reader.arm()
            };
            match armed {
                Ok(false) => {}
                Ok(true) => continue,
                Err(_) => break,
            }
            let woken = self.net.woken(|context| self.register(context));
            let _ = self.net.executor.with_deadline(orphan_until, woken).await;
            if orphan_until.has_passed() {
                break;
            }
        }
        self.end().await;
    }

    /// Bytes of the program that the peer has not acknowledged.
    fn rest(&mut self) -> usize {
        let mut stack = self.net.stack();
        let queued = stack.tcp(self.id).map_or(0, |socket| socket.send_queue());
        // A pipe that is broken ends the connection in the next step.
        queued + self.pipe.reader.available().unwrap_or(0)
    }

    /// Leaves the waker with everything that can happen.
    fn register(&self, context: &mut Context<'_>) -> Poll<()> {
        if let Ok(socket) = self.net.stack().tcp(self.id) {
            socket.register_recv_waker(context.waker());
            socket.register_send_waker(context.waker());
        }
        let mut ready = self.doorbell.poll_next(context).is_ready();
        if let Some((source, _)) = &self.requests
            && source.poll_next(context).is_ready()
        {
            self.asked.set(true);
            ready = true;
        }
        if ready {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    /// Serves what the program asks for.
    fn control(&mut self) {
        if !self.asked.take() {
            return;
        }
        while let Some((_, server)) = &self.requests {
            match server.try_next() {
                Ok(Some(request)) => self.answer(request),
                Ok(None) => return,
                Err(_) => self.requests = None,
            }
        }
    }

    fn answer(&self, request: TcpSocketRequest) {
        let mut stack = self.net.stack();
        let Ok(socket) = stack.tcp(self.id) else {
            return;
        };
        // A client that is gone does not wait for its answer.
        let _ = match request {
            TcpSocketRequest::State { reply } => reply.ok(convert::state(socket.state())),
            TcpSocketRequest::SetDelay { delay, reply } => {
                socket.set_nagle_enabled(delay == Delay::Nagle);
                reply.ok()
            }
            TcpSocketRequest::SetKeepAlive { interval_ms, reply } => {
                let interval = Duration::from_millis(interval_ms.into());
                socket.set_keep_alive((interval_ms > 0).then_some(interval));
                // With a probe in each interval, silence is a sign of death.
                socket.set_timeout(Some(match interval_ms {
                    0 => USER_TIMEOUT,
                    _ => interval * KEEP_ALIVE_PROBES,
                }));
                reply.ok()
            }
            TcpSocketRequest::Abort { reply } => {
                socket.abort();
                reply.ok()
            }
        };
        drop(stack);
        self.net.kick();
    }

    /// Moves what can be moved.
    fn step(&mut self) -> Result<Step, PipeError> {
        let mut stack = self.net.stack();
        let Ok(socket) = stack.tcp(self.id) else {
            return Ok(Step::Over);
        };
        let (reader, writer) = (&mut self.pipe.reader, &mut self.pipe.writer);
        let mut moved = false;
        let mut failed = Ok(());
        let orphan = self.requests.is_none();
        // To the program; what nobody reads any more is dropped.
        while socket.can_recv() {
            let taken = socket.recv(|bytes| {
                let taken = if orphan {
                    Ok(bytes.len())
                } else {
                    writer.write(bytes)
                };
                let n = *taken.as_ref().unwrap_or(&0);
                (n, taken)
            });
            match taken {
                Ok(Ok(0)) | Err(_) => break,
                Ok(Ok(_)) => moved = true,
                Ok(Err(error)) => {
                    failed = Err(error);
                    break;
                }
            }
        }
        failed?;
        if !socket.can_recv() && !writer.is_finished() && !socket.may_recv() {
            let end = match socket.recv(|_| (0, ())) {
                Err(tcp::RecvError::Finished) => End::Finished,
                _ => End::Reset,
            };
            writer.finish(end);
        }
        self.wants_room = !writer.flush()? || socket.can_recv();
        // From the program.
        while socket.can_send() && reader.available()? > 0 {
            let mut failed = Ok(());
            let sent = socket.send(|buffer| {
                let n = reader.read(buffer).unwrap_or_else(|error| {
                    failed = Err(error);
                    0
                });
                (n, n)
            });
            failed?;
            moved |= sent.is_ok_and(|n| n > 0);
        }
        reader.release()?;
        // Also to look for the end. What came just now is known here, so that no doorbell rings for it.
        let rest = reader.available()?;
        moved |= rest > 0 && socket.can_send();
        let before = socket.state();
        match reader.end() {
            Some(End::Reset) => socket.abort(),
            Some(End::Finished) => socket.close(),
            // Whose program is gone sends no more than it has written.
            None if orphan && rest == 0 => socket.close(),
            None => {}
        }
        // The end has to be sent as well.
        moved |= socket.state() != before;
        let over = match socket.state() {
            tcp::State::Closed => true,
            tcp::State::TimeWait => orphan && !stack.may_linger(),
            _ => false,
        };
        Ok(match (over, moved) {
            (true, _) => Step::Over,
            (false, true) => Step::Moved,
            (false, false) => Step::Idle,
        })
    }

    /// The socket is closed, or nobody wants it: tells the program, and forgets the socket when its last word is out.
    async fn end(mut self) {
        {
            let mut stack = self.net.stack();
            if let Ok(socket) = stack.tcp(self.id)
                && !matches!(socket.state(), tcp::State::Closed | tcp::State::TimeWait)
            {
                socket.abort();
            }
        }
        // A reset that is to be sent is sent with the next look at the stack.
        self.net.kick();
        self.net.executor.yield_now().await;
        self.net.executor.yield_now().await;
        self.net.stack().remove_tcp(self.id);
        // A program that waits for room to write learns that there will be none.
        let mut told = self.pipe.reader.close().unwrap_or(true);
        // The program may not have read everything; its memory lives on with it. The channel stays as long as it does, so
        // that a closed one means what it says: the stack is gone.
        while !matches!(self.pipe.writer.flush(), Ok(true) | Err(_)) {
            if !matches!(self.pipe.writer.arm(), Ok(true)) {
                let bell = self.doorbell.next(Deadline::after(ORPHAN_LIMIT)).await;
                if bell.is_err() {
                    break;
                }
            }
        }
        while self.requests.is_some() {
            self.refuse();
            if !told {
                told = self.pipe.reader.close().unwrap_or(true);
                let _ = self.pipe.reader.arm();
            }
            if let Some((source, _)) = &self.requests {
                let (asked, bell) = (
                    source.next(Deadline::FOREVER),
                    self.doorbell.next(Deadline::FOREVER),
                );
                let _ = select(asked, bell).await;
            }
        }
    }

    /// Answers what is asked of a connection that is over.
    fn refuse(&mut self) {
        while let Some((_, server)) = &self.requests {
            let _ = match server.try_next() {
                Ok(Some(TcpSocketRequest::State { reply })) => {
                    reply.ok(proto::inet::TcpState::Closed)
                }
                Ok(Some(TcpSocketRequest::SetDelay { reply, .. })) => {
                    reply.error(NetworkError::Reset)
                }
                Ok(Some(TcpSocketRequest::SetKeepAlive { reply, .. })) => {
                    reply.error(NetworkError::Reset)
                }
                Ok(Some(TcpSocketRequest::Abort { reply })) => reply.ok(),
                Ok(None) => return,
                Err(_) => {
                    self.requests = None;
                    return;
                }
            };
        }
    }
}
