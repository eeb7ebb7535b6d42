//! Names of hosts, and how people write addresses.

use core::net::{IpAddr, SocketAddr};

use proto::inet::{DnsClient, Family, NetworkError};

use crate::stream::failure;

/// The first address of a host.
pub fn resolve_one(dns: &DnsClient, host: &str, family: Family) -> Result<IpAddr, NetworkError> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(address);
    }
    let addresses = dns.resolve(host, family).map_err(failure)?;
    addresses.first().copied().ok_or(NetworkError::NameNotFound)
}

/// Cuts `HOST:PORT`, `[V6]:PORT`, `HOST` or a bare address into host and port.
pub fn parse_host_port(text: &str) -> Option<(&str, Option<u16>)> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        let host = text.rsplit_once(':')?.0;
        return Some((host.trim_matches(['[', ']']), Some(address.port())));
    }
    if let Some(inner) = text.strip_prefix('[') {
        return Some((inner.strip_suffix(']')?, None));
    }
    if text.parse::<IpAddr>().is_ok() {
        return Some((text, None));
    }
    match text.split_once(':') {
        Some((host, port)) if !host.is_empty() => Some((host, Some(port.parse().ok()?))),
        Some(_) => None,
        None if text.is_empty() => None,
        None => Some((text, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::parse_host_port;

    #[test]
    fn hosts_and_ports() {
        assert_eq!(parse_host_port("a.example"), Some(("a.example", None)));
        assert_eq!(
            parse_host_port("a.example:80"),
            Some(("a.example", Some(80)))
        );
        assert_eq!(parse_host_port("10.0.2.2:80"), Some(("10.0.2.2", Some(80))));
        assert_eq!(parse_host_port("10.0.2.2"), Some(("10.0.2.2", None)));
        assert_eq!(parse_host_port("[fe80::1]:80"), Some(("fe80::1", Some(80))));
        assert_eq!(parse_host_port("fe80::1"), Some(("fe80::1", None)));
        assert_eq!(parse_host_port("[fe80::1]"), Some(("fe80::1", None)));
        for wrong in ["", ":80", "a:b", "a:70000", "[fe80::1"] {
            assert_eq!(parse_host_port(wrong), None, "{wrong}");
        }
    }
}
