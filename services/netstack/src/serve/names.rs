//! Names of hosts.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::future::poll_fn;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::task::Poll;
use core::time::Duration;

use executor::Deadline;
use proto::inet::{DnsRequest, Family, HOST_NAME_MAX, NetworkError};
use smoltcp::socket::{Socket, dns};
use smoltcp::wire::{DnsQueryType, IpAddress};

use super::Net;

/// Most queries under way on an interface.
const QUERIES_MAX: usize = 32;
/// How long a query may take.
const LIMIT: Duration = Duration::from_secs(20);

/// A request to the scheme.
pub(super) fn request(net: &Rc<Net>, request: DnsRequest) {
    match request {
        DnsRequest::Resolve {
            name,
            family,
            reply,
        } => {
            let net = net.clone();
            let executor = net.executor.clone();
            let resolve = async move {
                let _ = reply.send(resolve(&net, &name, family).await);
            };
            executor.spawn(resolve).detach();
        }
        DnsRequest::Servers { reply } => {
            let _ = reply.ok(net.stack().name_servers().to_vec());
        }
    }
}

async fn resolve(net: &Net, name: &str, family: Family) -> Result<Vec<IpAddr>, NetworkError> {
    if let Ok(address) = name.parse() {
        return Ok(alloc::vec![address]);
    }
    if name.is_empty() || name.len() > HOST_NAME_MAX {
        return Err(NetworkError::Invalid);
    }
    // RFC 6761, 6.3.
    if name.trim_end_matches('.').eq_ignore_ascii_case("localhost") {
        let v4 = (family != Family::V6).then_some(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let v6 = (family != Family::V4).then_some(IpAddr::V6(Ipv6Addr::LOCALHOST));
        return Ok(v4.into_iter().chain(v6).collect());
    }
    let kinds: &[DnsQueryType] = match family {
        Family::V4 => &[DnsQueryType::A],
        Family::V6 => &[DnsQueryType::Aaaa],
        Family::Any => &[DnsQueryType::A, DnsQueryType::Aaaa],
    };
    let mut addresses = Vec::new();
    let mut outcome = Ok(());
    for kind in kinds {
        match query(net, name, *kind).await {
            Ok(found) => addresses.extend(found),
            Err(error) => outcome = Err(error),
        }
    }
    match outcome {
        Err(error) if addresses.is_empty() => Err(error),
        _ => Ok(addresses),
    }
}

async fn query(net: &Net, name: &str, kind: DnsQueryType) -> Result<Vec<IpAddr>, NetworkError> {
    // A socket of its own, so that without queries there is none to be looked at.
    let (index, socket, query) = {
        let mut stack = net.stack();
        let servers: Vec<IpAddress> = stack
            .name_servers()
            .iter()
            .map(|s| IpAddress::from(*s))
            .collect();
        let first = servers.first().copied().ok_or(NetworkError::NoNameServer)?;
        let index = stack.route(first.into())?;
        let interface = stack.interface_at(index)?;
        let queries = interface.sockets.iter();
        let queries = queries.filter(|(_, socket)| matches!(socket, Socket::Dns(_)));
        if queries.count() >= QUERIES_MAX {
            return Err(NetworkError::LimitReached);
        }
        let mut socket = dns::Socket::new(&servers, Vec::new());
        let query = socket.start_query(interface.iface.context(), name, kind);
        let query = query.map_err(|_| NetworkError::Invalid)?;
        (index, interface.sockets.add(socket), query)
    };
    net.kick();
    let answered = poll_fn(|context| {
        let mut stack = net.stack();
        let interface = match stack.interface_at(index) {
            Ok(interface) => interface,
            Err(error) => return Poll::Ready(Err(error)),
        };
        let socket = interface.sockets.get_mut::<dns::Socket>(socket);
        match socket.get_query_result(query) {
            Err(dns::GetQueryResultError::Pending) => {
                socket.register_query_waker(query, context.waker());
                Poll::Pending
            }
            Err(dns::GetQueryResultError::Failed) => Poll::Ready(Err(NetworkError::NameNotFound)),
            Ok(addresses) => Poll::Ready(Ok(addresses.iter().map(|a| (*a).into()).collect())),
        }
    });
    let outcome = net
        .executor
        .with_deadline(Deadline::after(LIMIT), answered)
        .await;
    if let Ok(interface) = net.stack().interface_at(index) {
        interface.sockets.remove(socket);
    }
    outcome.unwrap_or(Err(NetworkError::NoNameServer))
}
