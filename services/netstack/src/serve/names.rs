//! Names of hosts.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::future::poll_fn;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::task::Poll;
use core::time::Duration;

use executor::Deadline;
use proto::inet::{DnsRequest, Family, HOST_NAME_MAX, NetworkError};
use smoltcp::socket::dns;
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
    let (index, handle) = {
        let mut stack = net.stack();
        let servers: Vec<IpAddress> = stack
            .name_servers()
            .iter()
            .map(|s| IpAddress::from(*s))
            .collect();
        let first = servers.first().copied().ok_or(NetworkError::NoNameServer)?;
        let index = stack.route(first.into())?;
        let interface = stack.interface_at(index)?;
        let socket = interface.sockets.get_mut::<dns::Socket>(interface.dns);
        socket.update_servers(&servers);
        let started = socket.start_query(interface.iface.context(), name, kind);
        let handle = started.map_err(|error| match error {
            dns::StartQueryError::NoFreeSlot => NetworkError::LimitReached,
            _ => NetworkError::Invalid,
        })?;
        (index, handle)
    };
    net.kick();
    let answered = poll_fn(|context| {
        let mut stack = net.stack();
        let interface = match stack.interface_at(index) {
            Ok(interface) => interface,
            Err(error) => return Poll::Ready(Err(error)),
        };
        let socket = interface.sockets.get_mut::<dns::Socket>(interface.dns);
        match socket.get_query_result(handle) {
            Err(dns::GetQueryResultError::Pending) => {
                socket.register_query_waker(handle, context.waker());
                Poll::Pending
            }
            Err(dns::GetQueryResultError::Failed) => Poll::Ready(Err(NetworkError::NameNotFound)),
            Ok(addresses) => Poll::Ready(Ok(addresses.iter().map(|a| (*a).into()).collect())),
        }
    });
    match net
        .executor
        .with_deadline(Deadline::after(LIMIT), answered)
        .await
    {
        Ok(result) => result,
        Err(_) => {
            let mut stack = net.stack();
            let interface = stack.interface_at(index)?;
            let socket = interface.sockets.get_mut::<dns::Socket>(interface.dns);
            socket.cancel_query(handle);
            Err(NetworkError::NoNameServer)
        }
    }
}

/// Room for queries, to be used again and again.
pub(crate) fn slots() -> Vec<Option<dns::DnsQuery>> {
    (0..QUERIES_MAX).map(|_| None).collect()
}
