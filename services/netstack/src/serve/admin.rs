//! The stack itself: interfaces, routes, sockets, echo requests.

use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::future::poll_fn;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::task::Poll;

use executor::Deadline;
use net::pipe::Handles;
use proto::inet::{
    Cidr, InterfaceInfo, IpRequest, NetworkError, Origin, PING_BYTES_MAX, Pong, RouteInfo,
    SocketInfo, SocketKind, TcpState,
};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::socket::{Socket, icmp, tcp};
use smoltcp::wire::{Icmpv4Packet, Icmpv4Repr, Icmpv6Packet, Icmpv6Repr, IpAddress, IpCidr};

use super::Net;
use crate::convert;
use crate::interface::Interface;
use crate::link::Medium;
use crate::stack::Stack;

/// Sockets of an answer: as many as fit into a message.
const SOCKETS_PER_ANSWER: usize = 256;
/// Longest wait for an answer.
const WAIT_MAX_MS: u32 = 600_000;

/// A request to the scheme.
pub(super) fn request(net: &Rc<Net>, request: IpRequest) {
    // A client that is gone does not wait for its answer.
    let _ = match request {
        IpRequest::Interfaces { reply } => {
            let stack = net.stack();
            reply.ok(stack.interfaces().iter().map(interface).collect::<Vec<_>>())
        }
        IpRequest::Routes { reply } => reply.ok(routes(&mut net.stack())),
        IpRequest::Sockets { first, reply } => {
            let all = sockets(&net.stack());
            let page = all
                .into_iter()
                .skip(first as usize)
                .take(SOCKETS_PER_ANSWER);
            reply.ok(page.collect::<Vec<_>>())
        }
        IpRequest::Ping {
            destination,
            sequence,
            length,
            timeout_ms,
            reply,
        } => {
            let net = net.clone();
            let executor = net.executor.clone();
            let ping = async move {
                let pong = ping(&net, destination, sequence, length, timeout_ms).await;
                let _ = reply.send(pong);
            };
            executor.spawn(ping).detach();
            Ok(())
        }
        IpRequest::AddAddress {
            interface,
            address,
            reply,
        } => reply.send(change(net, |stack| {
            let cidr = convert::from_cidr(address).ok_or(NetworkError::Invalid)?;
            stack.interface_mut(&interface)?.add_address(cidr)
        })),
        IpRequest::RemoveAddress {
            interface,
            address,
            reply,
        } => reply.send(change(net, |stack| {
            stack.interface_mut(&interface)?.remove_address(address)
        })),
        IpRequest::AddRoute {
            destination,
            gateway,
            interface,
            reply,
        } => reply.send(change(net, |stack| {
            add_route(stack, destination, gateway, interface)
        })),
        IpRequest::RemoveRoute { destination, reply } => reply.send(change(net, |stack| {
            let cidr = network(destination)?;
            let mut found = false;
            for index in 0..stack.interfaces().len() {
                found |= stack.interface_at(index)?.remove_route(cidr);
            }
            found.then_some(()).ok_or(NetworkError::NotFound)
        })),
        IpRequest::SetState {
            interface,
            state,
            reply,
        } => reply.send(change(net, |stack| {
            stack.interface_mut(&interface)?.set_enabled(state);
            Ok(())
        })),
        IpRequest::Configure {
            interface,
            configuration,
            reply,
        } => reply.send(change(net, |stack| {
            let interface = stack.interface_mut(&interface)?;
            if interface.properties().medium == Medium::Ip {
                return Err(NetworkError::Unsupported);
            }
            interface.configure(configuration);
            Ok(())
        })),
        IpRequest::SetNameServers { servers, reply } => reply.send(change(net, |stack| {
            if servers.len() > 3 || servers.iter().any(IpAddr::is_unspecified) {
                return Err(NetworkError::Invalid);
            }
            stack.set_name_servers(&servers);
            Ok(())
        })),
        IpRequest::Capture {
            interface,
            snap_length,
            reply,
        } => match super::capture::start(net, &interface, snap_length) {
            Ok((channel, handles)) => {
                let Handles {
                    shape,
                    memory,
                    to_program,
                    to_stack,
                } = handles;
                reply.ok(shape, channel, memory, to_program, to_stack)
            }
            Err(error) => reply.error(error),
        },
        IpRequest::WaitConfigured { timeout_ms, reply } => {
            let net = net.clone();
            let executor = net.executor.clone();
            let wait = async move {
                let deadline = Deadline::after_ms(timeout_ms.min(WAIT_MAX_MS).into());
                let configured = net.changed.wait_until(|| first_address(&net.stack()));
                let address = net.executor.with_deadline(deadline, configured).await;
                let _ = reply.send(address.map_err(|_| NetworkError::TimedOut));
            };
            executor.spawn(wait).detach();
            Ok(())
        }
    };
}

fn change(
    net: &Net,
    change: impl FnOnce(&mut Stack) -> Result<(), NetworkError>,
) -> Result<(), NetworkError> {
    let result = {
        let mut stack = net.stack();
        let result = change(&mut stack);
        stack.addresses_changed();
        result
    };
    net.interfaces_changed();
    result
}

/// An address of IPv4 that others can reach.
fn first_address(stack: &Stack) -> Option<Cidr> {
    let addresses = stack.interfaces().iter().skip(1);
    let mut addresses = addresses.flat_map(Interface::addresses);
    addresses.find_map(|(cidr, _)| match cidr {
        IpCidr::Ipv4(_) => Some(convert::cidr(cidr)),
        IpCidr::Ipv6(_) => None,
    })
}

fn interface(interface: &Interface) -> InterfaceInfo {
    let properties = interface.properties();
    let offloads = properties.offloads;
    let mut list: Vec<String> = Vec::new();
    for (on, name) in [
        (offloads.tx_checksum, "tx-checksum"),
        (offloads.rx_checksum, "rx-checksum"),
        (offloads.tx_tcp4.is_some(), "tso4"),
        (offloads.tx_tcp6.is_some(), "tso6"),
    ] {
        if on {
            list.push(name.to_string());
        }
    }
    let addresses = interface.addresses().into_iter();
    InterfaceInfo {
        name: interface.name.clone(),
        state: interface.state(),
        mac: match properties.medium {
            Medium::Ethernet(mac) => Some(mac),
            Medium::Ip => None,
        },
        mtu: u32::try_from(properties.mtu).unwrap_or(u32::MAX),
        addresses: addresses.map(|(c, o)| (convert::cidr(c), o)).collect(),
        offloads: list,
        counters: interface.device.counters(),
        driver: interface.device.link.driver(),
    }
}

fn routes(stack: &mut Stack) -> Vec<RouteInfo> {
    let mut all = Vec::new();
    for index in 0..stack.interfaces().len() {
        let Ok(interface) = stack.interface_at(index) else {
            continue;
        };
        let name = interface.name.clone();
        for (cidr, origin) in interface.addresses() {
            all.push(RouteInfo {
                destination: convert::cidr(masked(cidr)),
                gateway: None,
                interface: name.clone(),
                origin,
            });
        }
        for route in interface.routes() {
            let automatic = interface.uses_dhcp() || route.expires_at.is_some();
            all.push(RouteInfo {
                destination: convert::cidr(route.cidr),
                gateway: Some(route.via_router.into()),
                interface: name.clone(),
                origin: if automatic {
                    Origin::Automatic
                } else {
                    Origin::Static
                },
            });
        }
    }
    all
}

/// The network that an address is in.
fn masked(cidr: IpCidr) -> IpCidr {
    match cidr {
        IpCidr::Ipv4(v4) => IpCidr::Ipv4(v4.network()),
        IpCidr::Ipv6(v6) => {
            let shift = 128u32.saturating_sub(v6.prefix_len().into());
            let bits = v6.address().to_bits();
            let masked = bits.checked_shr(shift).unwrap_or(0);
            let masked = masked.checked_shl(shift).unwrap_or(0);
            IpCidr::new(Ipv6Addr::from_bits(masked).into(), v6.prefix_len())
        }
    }
}

fn network(cidr: Cidr) -> Result<IpCidr, NetworkError> {
    convert::from_cidr(cidr)
        .map(masked)
        .ok_or(NetworkError::Invalid)
}

fn add_route(
    stack: &mut Stack,
    destination: Cidr,
    gateway: IpAddr,
    interface: Option<String>,
) -> Result<(), NetworkError> {
    let cidr = network(destination)?;
    if gateway.is_ipv4() != destination.address.is_ipv4() || gateway.is_unspecified() {
        return Err(NetworkError::Invalid);
    }
    let interface = match interface {
        Some(name) => stack.interface_mut(&name)?,
        None => {
            let index = stack.route(gateway)?;
            stack.interface_at(index)?
        }
    };
    // A router is a neighbour.
    match interface.leads_to(gateway) {
        Some((_, true)) => interface.add_route(cidr, gateway.into()),
        _ => Err(NetworkError::Unreachable),
    }
}

fn sockets(stack: &Stack) -> Vec<SocketInfo> {
    let mut all: Vec<SocketInfo> = stack
        .listeners()
        .map(|listener| SocketInfo {
            kind: SocketKind::Tcp(TcpState::Listen),
            local: listener.local,
            remote: None,
            rx_queue: u32::try_from(listener.ready).unwrap_or(u32::MAX),
            tx_queue: u32::try_from(listener.backlog).unwrap_or(u32::MAX),
        })
        .collect();
    for (index, interface) in stack.interfaces().iter().enumerate() {
        for (_, socket) in interface.sockets.iter() {
            match socket {
                Socket::Tcp(socket) => all.extend(tcp_socket(socket)),
                // One of a program has a socket on each interface.
                Socket::Udp(socket) if index == 0 => {
                    let endpoint = socket.endpoint();
                    let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
                    let address = endpoint.addr.map_or(any, IpAddr::from);
                    all.push(SocketInfo {
                        kind: SocketKind::Udp,
                        local: SocketAddr::new(address, endpoint.port),
                        remote: None,
                        rx_queue: u32::try_from(socket.recv_queue()).unwrap_or(u32::MAX),
                        tx_queue: u32::try_from(socket.send_queue()).unwrap_or(u32::MAX),
                    });
                }
                _ => {}
            }
        }
    }
    all
}

fn tcp_socket(socket: &tcp::Socket<'_>) -> Option<SocketInfo> {
    let local = socket.local_endpoint()?;
    Some(SocketInfo {
        kind: SocketKind::Tcp(convert::state(socket.state())),
        local: convert::socket_address(local),
        remote: socket.remote_endpoint().map(convert::socket_address),
        rx_queue: u32::try_from(socket.recv_queue()).unwrap_or(u32::MAX),
        tx_queue: u32::try_from(socket.send_queue()).unwrap_or(u32::MAX),
    })
}

/// The payload of an echo request: a pattern that a wrong answer does not have.
fn pattern(sequence: u16, length: u16) -> Vec<u8> {
    (0..length).map(|n| (n ^ sequence) as u8).collect()
}

async fn ping(
    net: &Net,
    destination: IpAddr,
    sequence: u16,
    length: u16,
    timeout_ms: u32,
) -> Result<Pong, NetworkError> {
    if length > PING_BYTES_MAX {
        return Err(NetworkError::Invalid);
    }
    let payload = pattern(sequence, length);
    let remote = IpAddress::from(destination);
    let checksums = ChecksumCapabilities::default();
    let (index, handle, identifier, source) = {
        let mut stack = net.stack();
        let index = stack.route(destination)?;
        let identifier = stack.random_u16();
        let interface = stack.interface_at(index)?;
        let source = interface.source_address(destination);
        let source = source.ok_or(NetworkError::AddressNotAvailable)?;
        let buffer = || {
            icmp::PacketBuffer::new(
                alloc::vec![icmp::PacketMetadata::EMPTY; 4],
                alloc::vec![0; 4 * 2048],
            )
        };
        let mut socket = icmp::Socket::new(buffer(), buffer());
        socket
            .bind(icmp::Endpoint::Ident(identifier))
            .map_err(|_| NetworkError::Invalid)?;
        let handle = interface.sockets.add(socket);
        (index, handle, identifier, source)
    };
    let request = {
        let mut stack = net.stack();
        let socket = stack
            .interface_at(index)?
            .sockets
            .get_mut::<icmp::Socket>(handle);
        emit(
            socket, remote, source, identifier, sequence, &payload, &checksums,
        )
    };
    let sent_ns = sys::time::now_ns();
    net.kick();
    let answer = poll_fn(|context| {
        let mut stack = net.stack();
        let Ok(interface) = stack.interface_at(index) else {
            return Poll::Ready(Err(NetworkError::NotFound));
        };
        let socket = interface.sockets.get_mut::<icmp::Socket>(handle);
        while let Ok((packet, from)) = socket.recv() {
            if let Some(outcome) = judge(packet, from, source, sequence, &payload, &checksums) {
                return Poll::Ready(outcome.map(|()| from));
            }
        }
        socket.register_recv_waker(context.waker());
        Poll::Pending
    });
    let answer = match request {
        Ok(()) => {
            let deadline = Deadline::after_ms(timeout_ms.min(WAIT_MAX_MS).into());
            let answer = net.executor.with_deadline(deadline, answer).await;
            answer.unwrap_or(Err(NetworkError::TimedOut))
        }
        Err(error) => Err(error),
    };
    if let Ok(interface) = net.stack().interface_at(index) {
        interface.sockets.remove(handle);
    }
    Ok(Pong {
        from: answer?.into(),
        round_trip_ns: sys::time::now_ns().saturating_sub(sent_ns),
        length,
    })
}

fn emit(
    socket: &mut icmp::Socket<'_>,
    remote: IpAddress,
    source: IpAddr,
    identifier: u16,
    sequence: u16,
    payload: &[u8],
    checksums: &ChecksumCapabilities,
) -> Result<(), NetworkError> {
    let full = |_| NetworkError::LimitReached;
    match (remote, source) {
        (IpAddress::Ipv4(_), _) => {
            let request = Icmpv4Repr::EchoRequest {
                ident: identifier,
                seq_no: sequence,
                data: payload,
            };
            let space = socket.send(request.buffer_len(), remote).map_err(full)?;
            request.emit(&mut Icmpv4Packet::new_unchecked(space), checksums);
        }
        (IpAddress::Ipv6(to), IpAddr::V6(source)) => {
            let request = Icmpv6Repr::EchoRequest {
                ident: identifier,
                seq_no: sequence,
                data: payload,
            };
            let space = socket.send(request.buffer_len(), remote).map_err(full)?;
            let mut packet = Icmpv6Packet::new_unchecked(space);
            request.emit(&source, &to, &mut packet, checksums);
        }
        _ => return Err(NetworkError::AddressNotAvailable),
    }
    Ok(())
}

/// What a received packet means for the request: `None` if nothing.
fn judge(
    packet: &[u8],
    from: IpAddress,
    own: IpAddr,
    sequence: u16,
    payload: &[u8],
    checksums: &ChecksumCapabilities,
) -> Option<Result<(), NetworkError>> {
    match (from, own) {
        (IpAddress::Ipv4(_), _) => {
            let packet = Icmpv4Packet::new_checked(packet).ok()?;
            match Icmpv4Repr::parse(&packet, checksums).ok()? {
                Icmpv4Repr::EchoReply { seq_no, data, .. } if seq_no == sequence => {
                    (data == payload).then_some(Ok(()))
                }
                Icmpv4Repr::DstUnreachable { .. } => Some(Err(NetworkError::Unreachable)),
                _ => None,
            }
        }
        (IpAddress::Ipv6(peer), IpAddr::V6(own)) => {
            let packet = Icmpv6Packet::new_checked(packet).ok()?;
            match Icmpv6Repr::parse(&peer, &own, &packet, checksums).ok()? {
                Icmpv6Repr::EchoReply { seq_no, data, .. } if seq_no == sequence => {
                    (data == payload).then_some(Ok(()))
                }
                Icmpv6Repr::DstUnreachable { .. } => Some(Err(NetworkError::Unreachable)),
                _ => None,
            }
        }
        _ => None,
    }
}
