//! Internet protocols as the network stack serves them: streams (scheme `tcp`), datagrams (`udp`), names of hosts (`dns`),
//! and the stack itself (`ip`: interfaces, routes, echo requests, captures).
//!
//! Each scheme is an authority of its own: who has `tcp` only can neither send datagrams nor change a route. Network
//! interfaces below the stack are in [`net`](crate::devmgr) (scheme `net`). The bytes of streams and datagrams do not go
//! over channels: [`Memory`] describes the shared memory that they go through, `runtime/net` implements both sides.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

use ipc::{Channel, Event, Vmo};
use serde::{Deserialize, Serialize};

/// Most connections that wait to be accepted.
pub const BACKLOG_MAX: u16 = 256;
/// Longest host name in bytes (RFC 1035, 3.1).
pub const HOST_NAME_MAX: usize = 253;
/// Most bytes of payload that [`IpClient::ping`] sends.
pub const PING_BYTES_MAX: u16 = 1400;

/// Shape of the memory between a program and the stack: two directions, each a ring of bytes with two rings of
/// descriptors. Direction 0 goes from the program to the stack.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Memory {
    /// Bytes of each direction: a power of two from one page to 1 MiB.
    pub capacity: u32,
    /// Entries of each ring of descriptors: a power of two.
    pub descriptors: u16,
}

/// Why the stack refuses, or why a connection ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum NetworkError {
    /// An argument is outside of its range.
    Invalid,
    /// No interface leads there.
    Unreachable,
    /// The peer refused the connection.
    Refused,
    /// The peer reset the connection.
    Reset,
    /// Nobody answered in time.
    TimedOut,
    /// The local address is in use.
    AddressInUse,
    /// The local address is none of this system's.
    AddressNotAvailable,
    /// Too many sockets, or too little memory.
    LimitReached,
    /// There is no such interface, route or address.
    NotFound,
    /// The host name does not exist.
    NameNotFound,
    /// No name server is known, or none answered.
    NoNameServer,
    /// It exists already.
    AlreadyExists,
    /// The interface cannot do it.
    Unsupported,
    /// The stack broke off.
    Gone,
}

impl NetworkError {
    /// The text that Unix tools print.
    pub const fn text(self) -> &'static str {
        match self {
            NetworkError::Invalid => "Invalid argument",
            NetworkError::Unreachable => "Network is unreachable",
            NetworkError::Refused => "Connection refused",
            NetworkError::Reset => "Connection reset by peer",
            NetworkError::TimedOut => "Connection timed out",
            NetworkError::AddressInUse => "Address already in use",
            NetworkError::AddressNotAvailable => "Cannot assign requested address",
            NetworkError::LimitReached => "Too many sockets",
            NetworkError::NotFound => "No such interface, route or address",
            NetworkError::NameNotFound => "Name does not resolve",
            NetworkError::NoNameServer => "No name server answers",
            NetworkError::AlreadyExists => "File exists",
            NetworkError::Unsupported => "Operation not supported",
            NetworkError::Gone => "The network stack is gone",
        }
    }
}

impl core::fmt::Display for NetworkError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.text())
    }
}

impl core::error::Error for NetworkError {}

/// State of a TCP connection (RFC 9293, 3.3.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the standard's own names")]
pub enum TcpState {
    Closed,
    Listen,
    SynSent,
    SynReceived,
    Established,
    FinWait1,
    FinWait2,
    CloseWait,
    Closing,
    LastAck,
    TimeWait,
}

impl TcpState {
    /// The name as `netstat` prints it.
    pub const fn text(self) -> &'static str {
        match self {
            TcpState::Closed => "CLOSED",
            TcpState::Listen => "LISTEN",
            TcpState::SynSent => "SYN_SENT",
            TcpState::SynReceived => "SYN_RECV",
            TcpState::Established => "ESTABLISHED",
            TcpState::FinWait1 => "FIN_WAIT1",
            TcpState::FinWait2 => "FIN_WAIT2",
            TcpState::CloseWait => "CLOSE_WAIT",
            TcpState::Closing => "CLOSING",
            TcpState::LastAck => "LAST_ACK",
            TcpState::TimeWait => "TIME_WAIT",
        }
    }
}

/// The two ends of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Connection {
    /// This system's end.
    pub local: SocketAddr,
    /// The other one.
    pub remote: SocketAddr,
}

/// When small segments are sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Delay {
    /// At once (`TCP_NODELAY`).
    None,
    /// When there is no unacknowledged data (Nagle's algorithm, RFC 896).
    Nagle,
}

/// Addresses of which family are asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Family {
    /// IPv4 (records of type A).
    V4,
    /// IPv6 (records of type AAAA).
    V6,
    /// Both; IPv4 first.
    Any,
}

/// An address with the length of its network's prefix.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Cidr {
    /// The address.
    pub address: IpAddr,
    /// Bits of the prefix, at most 32 or 128.
    pub prefix: u8,
}

impl core::fmt::Display for Cidr {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// Where an address or route comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Origin {
    /// Somebody set it, or it belongs to the interface.
    Static,
    /// DHCP (RFC 2131) or router advertisements (RFC 4862).
    Automatic,
}

/// State of an interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum InterfaceState {
    /// In use.
    Up,
    /// Not in use, because somebody said so.
    Down,
    /// The link is down, or its driver is gone for the moment.
    NoCarrier,
}

impl InterfaceState {
    /// The state as `ip` prints it.
    pub const fn text(self) -> &'static str {
        match self {
            InterfaceState::Up => "UP",
            InterfaceState::Down => "DOWN",
            InterfaceState::NoCarrier => "NO-CARRIER",
        }
    }
}

/// What went through an interface since the stack started, as the stack counts it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct InterfaceCounters {
    /// Frames received.
    pub rx_frames: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// Frames that were refused before the stack looked into them: too long, or nobody's.
    pub rx_dropped: u64,
    /// Frames sent.
    pub tx_frames: u64,
    /// Their bytes.
    pub tx_bytes: u64,
    /// Frames that the driver did not send.
    pub tx_dropped: u64,
    /// Connection requests that were dropped because a listener's backlog was full.
    pub syn_dropped: u64,
    /// Times that the driver was replaced.
    pub recoveries: u64,
}

/// A network interface of the stack.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct InterfaceInfo {
    /// For instance `eth0` or `lo`.
    pub name: String,
    /// State.
    pub state: InterfaceState,
    /// Hardware address; `None` for the loopback.
    pub mac: Option<[u8; 6]>,
    /// Longest IP packet in bytes.
    pub mtu: u32,
    /// Its addresses.
    pub addresses: Vec<(Cidr, Origin)>,
    /// What its device takes off the stack's hands, for people.
    pub offloads: Vec<String>,
    /// Counters.
    pub counters: InterfaceCounters,
    /// Name of the driver; empty for the loopback.
    pub driver: String,
}

/// A route.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RouteInfo {
    /// What it leads to; a prefix of 0 bits is the default.
    pub destination: Cidr,
    /// The router; `None` for a network that the interface is on.
    pub gateway: Option<IpAddr>,
    /// Name of the interface.
    pub interface: String,
    /// Where it comes from.
    pub origin: Origin,
}

/// What kind of socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum SocketKind {
    /// A stream, with its state.
    Tcp(TcpState),
    /// Datagrams.
    Udp,
}

/// A socket as `netstat` lists it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SocketInfo {
    /// Kind and state.
    pub kind: SocketKind,
    /// The local end; an unspecified address stands for all.
    pub local: SocketAddr,
    /// The remote end, if there is one.
    pub remote: Option<SocketAddr>,
    /// Bytes received and not taken by the program yet; of a listener: connections to be accepted.
    pub rx_queue: u32,
    /// Bytes not acknowledged by the peer yet; of a listener: its backlog.
    pub tx_queue: u32,
}

/// An answer to an echo request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Pong {
    /// Who answered.
    pub from: IpAddr,
    /// Time from sending to receiving, in nanoseconds.
    pub round_trip_ns: u64,
    /// Bytes of the answer's payload; the same as were sent, or it would not count.
    pub length: u16,
}

/// How an interface gets its IPv4 address.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Configuration {
    /// By DHCP.
    Dhcp,
    /// By hand.
    Static,
}

ipc::protocol! {
    /// Streams: scheme `tcp`. The channel carries calls only, so clients may share it.
    pub protocol Tcp("tcp", version = 1, error = NetworkError) {
        /// Connects; answered when the connection stands. `local` chooses the own end (port 0: any). The handles are the
        /// socket's channel ([`TcpSocket`]), its memory, and the doorbells of program and stack.
        1 = connect(remote: SocketAddr, local: Option<SocketAddr>, timeout_ms: u32)
            -> (connection: Connection, shape: Memory; socket: Channel, memory: Vmo, to_program: Event, to_stack: Event);
        /// Listens. Port 0: any free one; an unspecified address: all addresses of its family, and with IPv6's all
        /// addresses.
        2 = listen(local: SocketAddr, backlog: u16) -> (local: SocketAddr; listener: Channel);
    }
}

ipc::protocol! {
    /// A listener. Closing its channel ends it and resets connections that were not accepted.
    pub protocol TcpListener("tcp-listener", version = 1, error = NetworkError) {
        /// Waits for the next connection, at most `timeout_ms`.
        1 = accept(timeout_ms: u32)
            -> (connection: Connection, shape: Memory; socket: Channel, memory: Vmo, to_program: Event, to_stack: Event);
    }
}

ipc::protocol! {
    /// The control side of a connection. Closing the channel closes both directions: what was written is still sent.
    pub protocol TcpSocket("tcp-socket", version = 1, error = NetworkError) {
        /// State now.
        1 = state() -> (state: TcpState);
        /// When small segments go out.
        2 = set_delay(delay: Delay) -> ();
        /// Asks an idle peer whether it is there each so many milliseconds; 0 for never.
        3 = set_keep_alive(interval_ms: u32) -> ();
        /// Resets the connection.
        4 = abort() -> ();
    }
}

ipc::protocol! {
    /// Datagrams: scheme `udp`.
    pub protocol Udp("udp", version = 1, error = NetworkError) {
        /// A socket at a local end (port 0: any free one; unspecified address: all).
        1 = bind(local: SocketAddr)
            -> (local: SocketAddr, shape: Memory; socket: Channel, memory: Vmo, to_program: Event, to_stack: Event);
    }
}

ipc::protocol! {
    /// Names of hosts: scheme `dns`.
    pub protocol Dns("dns", version = 1, error = NetworkError) {
        /// Addresses of a host. A name that is an address gives that one.
        1 = resolve(name: String, family: Family) -> (addresses: Vec<IpAddr>);
        /// The name servers that are asked.
        2 = servers() -> (servers: Vec<IpAddr>);
    }
}

ipc::protocol! {
    /// The stack itself: scheme `ip`.
    pub protocol Ip("ip", version = 1, error = NetworkError) {
        /// All interfaces.
        1 = interfaces() -> (interfaces: Vec<InterfaceInfo>);
        /// All routes.
        2 = routes() -> (routes: Vec<RouteInfo>);
        /// Sockets from number `first` on; an empty answer ends the list.
        3 = sockets(first: u32) -> (sockets: Vec<SocketInfo>);
        /// Sends an echo request and waits for its answer.
        4 = ping(destination: IpAddr, sequence: u16, length: u16, timeout_ms: u32) -> (pong: Pong);
        /// Gives an interface an address; DHCP ends there.
        5 = add_address(interface: String, address: Cidr) -> ();
        /// Takes an address from it.
        6 = remove_address(interface: String, address: IpAddr) -> ();
        /// Adds a route over a router that the interface reaches.
        7 = add_route(destination: Cidr, gateway: IpAddr, interface: Option<String>) -> ();
        /// Takes a route away.
        8 = remove_route(destination: Cidr) -> ();
        /// Up or down.
        9 = set_state(interface: String, state: InterfaceState) -> ();
        /// How the interface gets its IPv4 address from now on.
        10 = configure(interface: String, configuration: Configuration) -> ();
        /// The name servers from now on, at most 3.
        11 = set_name_servers(servers: Vec<IpAddr>) -> ();
        /// Frames as they pass, as pcap records (without the file's header) in the direction to the program; frames that
        /// find no room are counted by the stack and not recorded. Ends with the channel.
        12 = capture(interface: String, snap_length: u32)
            -> (shape: Memory; capture: Channel, memory: Vmo, to_program: Event, to_stack: Event);
        /// Waits until an interface other than the loopback has an IPv4 address, at most `timeout_ms`.
        13 = wait_configured(timeout_ms: u32) -> (address: Cidr);
    }
}
