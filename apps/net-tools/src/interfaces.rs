//! Interfaces and routes as `ip` and `ifconfig` show them.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use proto::inet::{InterfaceInfo, Origin, RouteInfo};
use serde_json::{Value, json};

/// A hardware address.
pub fn mac(mac: Option<[u8; 6]>) -> String {
    match mac {
        Some(bytes) => {
            let parts: Vec<String> = bytes.iter().map(|b| alloc::format!("{b:02x}")).collect();
            parts.join(":")
        }
        None => String::from("-"),
    }
}

const fn origin(origin: Origin) -> &'static str {
    match origin {
        Origin::Static => "static",
        Origin::Automatic => "dynamic",
    }
}

/// An interface.
pub fn interface_json(i: &InterfaceInfo) -> Value {
    let addresses = i.addresses.iter();
    let addresses = addresses.map(|(cidr, from)| {
        json!({ "address": cidr.address.to_string(), "prefix": cidr.prefix, "origin": origin(*from) })
    });
    let c = &i.counters;
    json!({
        "name": i.name,
        "state": i.state.text(),
        "mac": i.mac.map(|m| mac(Some(m))),
        "mtu": i.mtu,
        "driver": i.driver,
        "offloads": i.offloads,
        "addresses": Value::Array(addresses.collect()),
        "rx_frames": c.rx_frames, "rx_bytes": c.rx_bytes, "rx_dropped": c.rx_dropped,
        "tx_frames": c.tx_frames, "tx_bytes": c.tx_bytes, "tx_dropped": c.tx_dropped,
        "syn_dropped": c.syn_dropped, "recoveries": c.recoveries,
    })
}

/// An interface in lines: name and state, addresses, counters.
pub fn interface_text(i: &InterfaceInfo) -> String {
    let mut text = alloc::format!("{}: <{}> mtu {}", i.name, i.state.text(), i.mtu);
    if i.mac.is_some() {
        text.push_str(&alloc::format!(" ether {}", mac(i.mac)));
    }
    if !i.driver.is_empty() {
        text.push_str(&alloc::format!(" driver {}", i.driver));
    }
    if !i.offloads.is_empty() {
        text.push_str(&alloc::format!(" offloads {}", i.offloads.join(",")));
    }
    text.push('\n');
    for (cidr, from) in &i.addresses {
        let family = if cidr.address.is_ipv4() {
            "inet"
        } else {
            "inet6"
        };
        text.push_str(&alloc::format!("    {family} {cidr} {}\n", origin(*from)));
    }
    let c = &i.counters;
    text.push_str(&alloc::format!(
        "    RX: {} frames, {} bytes, {} dropped, {} requests without room\n    \
         TX: {} frames, {} bytes, {} dropped; driver replaced {} times\n",
        c.rx_frames,
        c.rx_bytes,
        c.rx_dropped,
        c.syn_dropped,
        c.tx_frames,
        c.tx_bytes,
        c.tx_dropped,
        c.recoveries
    ));
    text
}

fn destination(route: &RouteInfo) -> String {
    match route.destination.prefix {
        0 => String::from("default"),
        _ => route.destination.to_string(),
    }
}

/// A route.
pub fn route_json(route: &RouteInfo) -> Value {
    json!({
        "destination": destination(route),
        "gateway": route.gateway.map(|g| g.to_string()),
        "interface": route.interface,
        "origin": origin(route.origin),
    })
}

/// A route in a line.
pub fn route_text(route: &RouteInfo) -> String {
    let via = route
        .gateway
        .map_or(String::new(), |g| alloc::format!(" via {g}"));
    let to = destination(route);
    alloc::format!(
        "{to}{via} dev {} {}\n",
        route.interface,
        origin(route.origin)
    )
}
