//! Between smoltcp's addresses and those of the protocols.

use core::net::{IpAddr, SocketAddr};

use proto::inet::{Cidr, TcpState};
use smoltcp::socket::tcp;
use smoltcp::wire::{IpAddress, IpCidr, IpEndpoint, IpListenEndpoint};

/// To a socket address.
pub fn socket_address(endpoint: IpEndpoint) -> SocketAddr {
    SocketAddr::new(endpoint.addr.into(), endpoint.port)
}

/// To an endpoint.
pub fn endpoint(address: SocketAddr) -> IpEndpoint {
    IpEndpoint {
        addr: IpAddress::from(address.ip()),
        port: address.port(),
    }
}

/// To an endpoint at which unspecified means all.
pub fn listen_endpoint(address: SocketAddr) -> IpListenEndpoint {
    let unspecified = address.ip().is_unspecified();
    IpListenEndpoint {
        addr: (!unspecified).then(|| IpAddress::from(address.ip())),
        port: address.port(),
    }
}

/// To an address with its prefix.
pub fn cidr(cidr: IpCidr) -> Cidr {
    Cidr {
        address: cidr.address().into(),
        prefix: cidr.prefix_len(),
    }
}

/// From an address with its prefix; `None` when the prefix is too long.
pub fn from_cidr(cidr: Cidr) -> Option<IpCidr> {
    let longest = match cidr.address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    };
    (cidr.prefix <= longest).then(|| IpCidr::new(IpAddress::from(cidr.address), cidr.prefix))
}

/// To the protocol's state.
pub fn state(state: tcp::State) -> TcpState {
    match state {
        tcp::State::Closed => TcpState::Closed,
        tcp::State::Listen => TcpState::Listen,
        tcp::State::SynSent => TcpState::SynSent,
        tcp::State::SynReceived => TcpState::SynReceived,
        tcp::State::Established => TcpState::Established,
        tcp::State::FinWait1 => TcpState::FinWait1,
        tcp::State::FinWait2 => TcpState::FinWait2,
        tcp::State::CloseWait => TcpState::CloseWait,
        tcp::State::Closing => TcpState::Closing,
        tcp::State::LastAck => TcpState::LastAck,
        tcp::State::TimeWait => TcpState::TimeWait,
    }
}
