//! All interfaces together: which one leads where, which ports are taken, who listens.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::task::Waker;
use core::time::Duration;

use proto::inet::{BACKLOG_MAX, NetworkError};
use smoltcp::iface::SocketHandle;
use smoltcp::socket::{Socket, tcp};
use smoltcp::time::Instant;
use smoltcp::wire::{IpCidr, Ipv4Cidr, Ipv6Cidr};

use crate::convert;
use crate::interface::Interface;
use crate::link::{Link, Loopback, Medium};
use crate::segment;

/// Most TCP sockets, listeners' half-open ones included.
pub const TCP_MAX: usize = 512;
/// Connections that linger after their end, at most.
const TIME_WAIT_MAX: usize = 64;
/// Connections whose program is gone and which still have bytes to send, at most.
const ORPHANS_MAX: usize = TCP_MAX / 2;
/// Most interfaces.
const INTERFACES_MAX: usize = 16;
/// Most listeners.
const LISTENERS_MAX: usize = 256;
/// Buffers of a TCP socket, each way.
pub const TCP_BUFFER: usize = 64 * 1024;
/// How long a peer may leave data without acknowledgement.
pub(crate) const USER_TIMEOUT: smoltcp::time::Duration = smoltcp::time::Duration::from_secs(900);
/// How long a half-open connection may take.
const HANDSHAKE_TIMEOUT: smoltcp::time::Duration = smoltcp::time::Duration::from_secs(60);
/// Ports that are given to those who ask for any (RFC 6335, 6).
const DYNAMIC_PORTS: core::ops::RangeInclusive<u16> = 49_152..=65_535;

/// A socket of an interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SocketId {
    /// Index of the interface.
    pub interface: usize,
    /// The socket.
    pub handle: SocketHandle,
}

/// Number of a listener.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ListenerId(u64);

/// Somebody who listens. A socket is made for each connection request that there is room for.
struct Listener {
    local: SocketAddr,
    backlog: usize,
    /// Waiting for the handshake's end, oldest first.
    half_open: VecDeque<SocketId>,
    /// Waiting to be accepted.
    ready: VecDeque<SocketId>,
    waker: Option<Waker>,
}

impl Listener {
    fn wants(&self, destination: SocketAddr) -> bool {
        let address = match self.local.ip() {
            IpAddr::V4(own) => {
                destination.is_ipv4() && (own.is_unspecified() || destination.ip() == own)
            }
            IpAddr::V6(own) => own.is_unspecified() || destination.ip() == own,
        };
        address && self.local.port() == destination.port()
    }
}

/// A listener as it is listed.
pub struct ListenerInfo {
    /// Where it listens.
    pub local: SocketAddr,
    /// Connections that wait to be accepted.
    pub ready: usize,
    /// As many as there may be.
    pub backlog: usize,
}

/// See the module.
pub struct Stack {
    interfaces: Vec<Interface>,
    listeners: BTreeMap<ListenerId, Listener>,
    next_listener: u64,
    name_servers: Vec<IpAddr>,
    random: fastrand::Rng,
    tcp_sockets: usize,
    /// Connections whose program is gone, oldest first.
    orphans: VecDeque<SocketId>,
    /// Of the last look.
    now: Instant,
}

/// What a look at the links gave.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum TakenIn {
    /// Nothing.
    Nothing,
    /// All that there was.
    All,
    /// A batch; there may be more.
    More,
}

/// Index of the loopback.
const LOOPBACK: usize = 0;

impl Stack {
    /// A stack with the loopback. `seed`: from it come initial sequence numbers, ports and identifiers.
    pub fn new(seed: u64, now: Instant) -> Stack {
        let mut random = fastrand::Rng::with_seed(seed);
        let loopback = Box::new(Loopback::default());
        let loopback = Interface::new("lo", loopback, random.u64(..), now);
        let mut stack = Stack {
            interfaces: alloc::vec![loopback],
            listeners: BTreeMap::new(),
            next_listener: 0,
            name_servers: Vec::new(),
            random,
            tcp_sockets: 0,
            orphans: VecDeque::new(),
            now,
        };
        stack.addresses_changed();
        stack
    }

    /// Adds an interface; tells its index.
    pub fn add_interface(
        &mut self,
        name: &str,
        link: Box<dyn Link>,
        now: Instant,
    ) -> Result<usize, NetworkError> {
        if self.interfaces.len() >= INTERFACES_MAX {
            return Err(NetworkError::LimitReached);
        }
        let seed = self.random.u64(..);
        self.interfaces.push(Interface::new(name, link, seed, now));
        self.addresses_changed();
        Ok(self.interfaces.len() - 1)
    }

    /// All interfaces; the first one is the loopback.
    pub fn interfaces(&self) -> &[Interface] {
        &self.interfaces
    }

    /// The interface of that name.
    pub fn interface_mut(&mut self, name: &str) -> Result<&mut Interface, NetworkError> {
        let found = self.interfaces.iter_mut().find(|i| i.name == name);
        found.ok_or(NetworkError::NotFound)
    }

    /// The interface of that index.
    pub fn interface_at(&mut self, index: usize) -> Result<&mut Interface, NetworkError> {
        self.interfaces.get_mut(index).ok_or(NetworkError::NotFound)
    }

    /// To be called when an interface's addresses were changed: the loopback answers for all of them.
    pub fn addresses_changed(&mut self) {
        let mut all = alloc::vec![
            IpCidr::Ipv4(Ipv4Cidr::new(Ipv4Addr::LOCALHOST, 8)),
            IpCidr::Ipv6(Ipv6Cidr::new(Ipv6Addr::LOCALHOST, 128)),
        ];
        for interface in self.interfaces.iter().skip(1) {
            for (cidr, _) in interface.addresses() {
                let bits = match cidr {
                    IpCidr::Ipv4(_) => 32,
                    IpCidr::Ipv6(_) => 128,
                };
                all.push(IpCidr::new(cidr.address(), bits));
            }
        }
        if let Some(loopback) = self.interfaces.get_mut(LOOPBACK) {
            loopback.set_addresses(&all);
        }
    }

    /// Whether it is one of this system's addresses.
    pub fn is_own(&self, address: IpAddr) -> bool {
        address.is_loopback() || self.interfaces.iter().any(|i| i.has_address(address))
    }

    /// The interface that leads to an address.
    pub fn route(&mut self, remote: IpAddr) -> Result<usize, NetworkError> {
        if remote.is_unspecified() {
            return Err(NetworkError::Unreachable);
        }
        if self.is_own(remote) {
            return Ok(LOOPBACK);
        }
        let interfaces = self.interfaces.iter_mut().enumerate().skip(1);
        let ways = interfaces.filter_map(|(n, i)| Some((i.leads_to(remote)?, n)));
        // The longest prefix; of equal ones the first interface.
        let best = ways.max_by_key(|(way, n)| (*way, core::cmp::Reverse(*n)));
        best.map(|(_, n)| n).ok_or(NetworkError::Unreachable)
    }

    /// The name servers.
    pub fn name_servers(&self) -> &[IpAddr] {
        &self.name_servers
    }

    /// Sets them.
    pub fn set_name_servers(&mut self, servers: &[IpAddr]) {
        self.name_servers = servers.iter().take(3).copied().collect();
    }

    /// A random number, for identifiers.
    pub fn random_u16(&mut self) -> u16 {
        self.random.u16(..)
    }

    /// Receives, keeps accounts, sends. `true`: there is more to receive at once.
    pub fn poll(&mut self, now: Instant) -> bool {
        let received = self.take_in(now);
        self.send(now) | (received == TakenIn::More)
    }

    /// Receives, and keeps accounts.
    pub fn take_in(&mut self, now: Instant) -> TakenIn {
        self.now = now;
        let mut taken = TakenIn::Nothing;
        for index in 0..self.interfaces.len() {
            taken = taken.max(self.receive(index, now));
        }
        self.settle();
        taken
    }

    /// Sends. `true`: there is something to receive at once.
    pub fn send(&mut self, now: Instant) -> bool {
        self.now = now;
        let mut more = false;
        for interface in &mut self.interfaces {
            more |= interface.send(now);
        }
        // What was sent to oneself is there already.
        more | self
            .interfaces
            .get_mut(LOOPBACK)
            .is_some_and(|lo| lo.device.stage())
    }

    fn receive(&mut self, index: usize, now: Instant) -> TakenIn {
        let Stack {
            interfaces,
            listeners,
            tcp_sockets,
            ..
        } = self;
        let Some(interface) = interfaces.get_mut(index) else {
            return TakenIn::Nothing;
        };
        interface.receive(now, |interface, frame| {
            let transport = interface.device.transport.as_ref();
            match transport.and_then(|t| segment::connection_request(t, frame)) {
                Some((source, destination)) => {
                    let admitted = admit(
                        interface,
                        index,
                        listeners,
                        tcp_sockets,
                        source,
                        destination,
                        now,
                    );
                    if !admitted {
                        interface.device.counters_mut().syn_dropped += 1;
                    }
                    admitted
                }
                None => true,
            }
        })
    }

    /// Looks at what became of half-open connections, and at leases.
    fn settle(&mut self) {
        let interfaces = &mut self.interfaces;
        for listener in self.listeners.values_mut() {
            for _ in 0..listener.half_open.len() {
                let Some(id) = listener.half_open.pop_front() else {
                    break;
                };
                let Some(interface) = interfaces.get_mut(id.interface) else {
                    continue;
                };
                let socket = interface.sockets.get_mut::<tcp::Socket>(id.handle);
                match socket.state() {
                    tcp::State::SynReceived => listener.half_open.push_back(id),
                    // Given up, or its request was no good.
                    tcp::State::Closed | tcp::State::Listen => {
                        interface.sockets.remove(id.handle);
                        self.tcp_sockets = self.tcp_sockets.saturating_sub(1);
                    }
                    _ => {
                        socket.set_timeout(Some(USER_TIMEOUT));
                        listener.ready.push_back(id);
                        if let Some(waker) = listener.waker.take() {
                            waker.wake();
                        }
                    }
                }
            }
        }
        let mut changed = false;
        for interface in interfaces.iter_mut() {
            while let Some(lease) = interface.lease_news() {
                changed = true;
                if !lease.name_servers.is_empty() {
                    self.name_servers = lease.name_servers;
                    self.name_servers.truncate(3);
                }
            }
        }
        if changed {
            self.addresses_changed();
        }
    }

    /// How long nothing has to be done unless frames come; `None`: for ever.
    pub fn delay(&self, now: Instant) -> Option<Duration> {
        let times = self.interfaces.iter().filter_map(Interface::next_time);
        let next = times.min()?;
        let micros = next.total_micros().saturating_sub(now.total_micros());
        Some(Duration::from_micros(u64::try_from(micros).unwrap_or(0)))
    }

    /// The TCP socket.
    pub fn tcp(&mut self, id: SocketId) -> Result<&mut tcp::Socket<'static>, NetworkError> {
        let interface = self.interface_at(id.interface)?;
        Ok(interface.sockets.get_mut::<tcp::Socket>(id.handle))
    }

    /// Whether a TCP port is taken, by a listener or an end of a connection. The other end counts when it is ours, too: it may linger
    /// longer than the one that had the port.
    fn tcp_port_in_use(&self, port: u16) -> bool {
        let listens = self.listeners.values().any(|l| l.local.port() == port);
        listens
            || self.interfaces.iter().enumerate().any(|(n, i)| {
                i.sockets.iter().any(|(_, socket)| match socket {
                    Socket::Tcp(tcp) => {
                        tcp.local_endpoint().is_some_and(|e| e.port == port)
                            || n == LOOPBACK
                                && tcp.remote_endpoint().is_some_and(|e| e.port == port)
                    }
                    _ => false,
                })
            })
    }

    fn udp_port_in_use(&self, port: u16) -> bool {
        self.interfaces.iter().any(|i| {
            i.sockets.iter().any(|(_, socket)| match socket {
                Socket::Udp(udp) => udp.endpoint().port == port,
                _ => false,
            })
        })
    }

    fn free_port(&mut self, in_use: impl Fn(&Stack, u16) -> bool) -> Result<u16, NetworkError> {
        for _ in 0..1024 {
            let port = self.random.u16(DYNAMIC_PORTS);
            if !in_use(self, port) {
                return Ok(port);
            }
        }
        Err(NetworkError::AddressInUse)
    }

    /// The port for a UDP socket: the wanted one if it is free, any for 0.
    pub fn udp_port(&mut self, wanted: u16) -> Result<u16, NetworkError> {
        match wanted {
            0 => self.free_port(Stack::udp_port_in_use),
            port if self.udp_port_in_use(port) => Err(NetworkError::AddressInUse),
            port => Ok(port),
        }
    }

    /// Starts to connect.
    pub fn connect(
        &mut self,
        remote: SocketAddr,
        local: Option<SocketAddr>,
    ) -> Result<SocketId, NetworkError> {
        if remote.port() == 0 {
            return Err(NetworkError::Invalid);
        }
        let index = self.route(remote.ip())?;
        let wanted = local.filter(|local| !local.ip().is_unspecified());
        let address = match wanted {
            Some(local) if !self.is_own(local.ip()) => {
                return Err(NetworkError::AddressNotAvailable);
            }
            Some(local) => local.ip(),
            // To oneself as oneself.
            None if index == LOOPBACK => remote.ip(),
            None => {
                let source = self.interface_at(index)?.source_address(remote.ip());
                source.ok_or(NetworkError::AddressNotAvailable)?
            }
        };
        if address.is_ipv4() != remote.is_ipv4() {
            return Err(NetworkError::Invalid);
        }
        let port = match local.map_or(0, |local| local.port()) {
            0 => self.free_port(Stack::tcp_port_in_use)?,
            port if self.tcp_port_in_use(port) => return Err(NetworkError::AddressInUse),
            port => port,
        };
        self.make_room()?;
        let now = self.now;
        let interface = self.interface_at(index)?;
        let mut socket = new_socket(interface.properties().medium);
        socket.set_timeout(Some(USER_TIMEOUT));
        let own = convert::endpoint(SocketAddr::new(address, port));
        socket
            .connect(interface.iface.context(), convert::endpoint(remote), own)
            .map_err(|_| NetworkError::Unreachable)?;
        let handle = interface.sockets.add(socket);
        interface.open_flow(SocketAddr::new(address, port), remote, now);
        self.tcp_sockets += 1;
        Ok(SocketId {
            interface: index,
            handle,
        })
    }

    /// Makes sure that there may be one more TCP socket.
    fn make_room(&mut self) -> Result<(), NetworkError> {
        if self.tcp_sockets < TCP_MAX {
            return Ok(());
        }
        Err(NetworkError::LimitReached)
    }

    /// Whether so many connections linger that the next one to end need not.
    pub fn may_linger(&self) -> bool {
        let lingering = self.interfaces.iter().flat_map(|i| i.sockets.iter());
        let lingering = lingering.filter(|(_, socket)| match socket {
            Socket::Tcp(tcp) => tcp.state() == tcp::State::TimeWait,
            _ => false,
        });
        lingering.count() <= TIME_WAIT_MAX
    }

    /// The connection's program is gone. When there are too many of them the oldest is reset: clients that take nothing do not keep the
    /// places of others.
    pub fn orphaned(&mut self, id: SocketId) {
        self.orphans.push_back(id);
        if self.orphans.len() > ORPHANS_MAX
            && let Some(oldest) = self.orphans.pop_front()
            && let Ok(socket) = self.tcp(oldest)
        {
            // Its task hears of it.
            socket.abort();
        }
    }

    /// Forgets a TCP socket.
    pub fn remove_tcp(&mut self, id: SocketId) {
        self.orphans.retain(|orphan| *orphan != id);
        if let Some(interface) = self.interfaces.get_mut(id.interface) {
            interface.sockets.remove(id.handle);
            self.tcp_sockets = self.tcp_sockets.saturating_sub(1);
        }
    }

    /// Starts to listen; tells where.
    pub fn listen(
        &mut self,
        local: SocketAddr,
        backlog: u16,
    ) -> Result<(ListenerId, SocketAddr), NetworkError> {
        if backlog == 0 || backlog > BACKLOG_MAX {
            return Err(NetworkError::Invalid);
        }
        if self.listeners.len() >= LISTENERS_MAX {
            return Err(NetworkError::LimitReached);
        }
        if !local.ip().is_unspecified() && !self.is_own(local.ip()) {
            return Err(NetworkError::AddressNotAvailable);
        }
        let port = match local.port() {
            0 => self.free_port(Stack::tcp_port_in_use)?,
            port => port,
        };
        let local = SocketAddr::new(local.ip(), port);
        let overlaps = |other: &Listener| {
            let (a, b) = (local.ip(), other.local.ip());
            let any = a.is_unspecified() && (a.is_ipv6() || b.is_ipv4())
                || b.is_unspecified() && (b.is_ipv6() || a.is_ipv4());
            port == other.local.port() && (a == b || any)
        };
        if self.listeners.values().any(overlaps) {
            return Err(NetworkError::AddressInUse);
        }
        let id = ListenerId(self.next_listener);
        self.next_listener += 1;
        let listener = Listener {
            local,
            backlog: backlog.into(),
            half_open: VecDeque::new(),
            ready: VecDeque::new(),
            waker: None,
        };
        self.listeners.insert(id, listener);
        Ok((id, local))
    }

    /// A connection that can be accepted; without one `waker` is woken with the next.
    pub fn accept(&mut self, id: ListenerId, waker: &Waker) -> Option<SocketId> {
        let listener = self.listeners.get_mut(&id)?;
        let ready = listener.ready.pop_front();
        if ready.is_none() {
            listener.waker = Some(waker.clone());
        }
        ready
    }

    /// A connection that was accepted and could not be handed over: the next one to accept gets it.
    pub fn put_back(&mut self, id: ListenerId, socket: SocketId) {
        match self.listeners.get_mut(&id) {
            Some(listener) => listener.ready.push_front(socket),
            None => self.abort(socket),
        }
    }

    /// Resets a connection that nobody has, and forgets it with the next look.
    fn abort(&mut self, id: SocketId) {
        if let Ok(socket) = self.tcp(id) {
            socket.abort();
        }
        // The reset is sent from the socket, so that goes after it.
        if let Some(interface) = self.interfaces.get_mut(id.interface) {
            interface.send(self.now);
        }
        self.remove_tcp(id);
    }

    /// Ends a listener; connections that were not accepted are reset.
    pub fn close_listener(&mut self, id: ListenerId) {
        if let Some(listener) = self.listeners.remove(&id) {
            for socket in listener.half_open.into_iter().chain(listener.ready) {
                self.abort(socket);
            }
        }
    }

    /// All listeners.
    pub fn listeners(&self) -> impl Iterator<Item = ListenerInfo> {
        self.listeners.values().map(|listener| ListenerInfo {
            local: listener.local,
            ready: listener.ready.len(),
            backlog: listener.backlog,
        })
    }

    /// TCP sockets that there are.
    pub fn tcp_sockets(&self) -> usize {
        self.tcp_sockets
    }
}

fn new_socket(medium: Medium) -> tcp::Socket<'static> {
    let buffer = || tcp::SocketBuffer::new(alloc::vec![0; TCP_BUFFER]);
    let mut socket = tcp::Socket::new(buffer(), buffer());
    // On a wire it is `recovery`'s.
    socket.set_congestion_control(match medium {
        Medium::Ethernet(_) => tcp::CongestionControl::None,
        Medium::Ip => tcp::CongestionControl::Reno,
    });
    socket.set_tsval_generator(Some(timestamp));
    // Acknowledgements wait for data to go with, but not long (RFC 9293, 3.8.6.3).
    socket.set_ack_delay(Some(smoltcp::time::Duration::from_millis(10)));
    socket
}

/// The clock of TCP's timestamps: milliseconds (RFC 7323, 5.4).
fn timestamp() -> u32 {
    (sys::time::now_ns() / 1_000_000) as u32
}

/// Whether a connection request may pass: there is a socket for it, or nobody listens there and it will be refused.
fn admit(
    interface: &mut Interface,
    index: usize,
    listeners: &mut BTreeMap<ListenerId, Listener>,
    tcp_sockets: &mut usize,
    source: SocketAddr,
    destination: SocketAddr,
    now: Instant,
) -> bool {
    let Some(listener) = listeners.values_mut().find(|l| l.wants(destination)) else {
        return true;
    };
    if !interface.has_address(destination.ip()) {
        // Not for this system at all.
        return true;
    }
    let known = interface.sockets.iter().any(|(_, socket)| match socket {
        Socket::Tcp(tcp) => {
            tcp.remote_endpoint().map(convert::socket_address) == Some(source)
                && tcp.local_endpoint().map(convert::socket_address) == Some(destination)
                && tcp.state() != tcp::State::TimeWait
        }
        _ => false,
    });
    if known {
        return true;
    }
    let room = listener.half_open.len() + listener.ready.len() < listener.backlog
        && *tcp_sockets < TCP_MAX;
    let handle = if room {
        *tcp_sockets += 1;
        let socket = new_socket(interface.properties().medium);
        interface.sockets.add(socket)
    } else {
        // A flood of requests pushes out its own oldest ones, so that those of others have a chance.
        let oldest = listener
            .half_open
            .iter()
            .position(|id| id.interface == index);
        let Some(oldest) = oldest.and_then(|n| listener.half_open.remove(n)) else {
            return false;
        };
        // Gone without a word, since it is used again at once: an answer would double the flood.
        interface
            .sockets
            .get_mut::<tcp::Socket>(oldest.handle)
            .abort();
        oldest.handle
    };
    let socket = interface.sockets.get_mut::<tcp::Socket>(handle);
    socket.set_timeout(Some(HANDSHAKE_TIMEOUT));
    if socket
        .listen(convert::listen_endpoint(destination))
        .is_err()
    {
        interface.sockets.remove(handle);
        *tcp_sockets = tcp_sockets.saturating_sub(1);
        return false;
    }
    listener.half_open.push_back(SocketId {
        interface: index,
        handle,
    });
    interface.open_flow(destination, source, now);
    true
}
