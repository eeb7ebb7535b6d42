//! `ip`: addresses, links and routes.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::IpAddr;

use net_tools::interfaces::{interface_json, interface_text, route_json, route_text};
use proto::inet::{Cidr, Configuration, InterfaceState, IpClient};
use serde_json::Value;
use tools::service;
use unix::{Arg, Args, Stop, Tool};
unix::program!("ip", HELP, run);

const HELP: &str = "\
Usage: ip [--json] addr | link | route
       ip addr add ADDRESS/PREFIX dev INTERFACE
       ip addr del ADDRESS[/PREFIX] dev INTERFACE
       ip link set INTERFACE up|down
       ip route add default|NETWORK/PREFIX via GATEWAY [dev INTERFACE]
       ip route del default|NETWORK/PREFIX
       ip dhcp INTERFACE
       ip dns SERVER...
       ip wait [SECONDS]
Show and change interfaces, their addresses and counters, and routes.

  dhcp  get the address by DHCP again
  dns   the name servers, at most 3
  wait  until an interface has an address (30 s without SECONDS), and print it
";

fn run(tool: &mut Tool) -> Result<(), Stop> {
    let mut json = false;
    let mut words: Vec<String> = Vec::new();
    while let Some(arg) = tool.advance()? {
        match arg {
            Arg::Long(name) if name == "json" => json = true,
            Arg::Operand(text) => words.push(text),
            other => return Err(Args::unknown(&other).into()),
        }
    }
    let ip: IpClient = service::connect(tool, "ip")?;
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["a" | "addr" | "address" | "l" | "link"] | ["a" | "addr" | "l" | "link", "show"] => {
            interfaces(tool, &ip, json)
        }
        ["r" | "route"] | ["r" | "route", "show"] => routes(tool, &ip, json),
        ["a" | "addr" | "address", "add", address, "dev", interface] => {
            let cidr = cidr(tool, address)?;
            service::answer(tool, address, ip.add_address(*interface, cidr))
        }
        ["a" | "addr" | "address", "del", address, "dev", interface] => {
            let bare = address.split('/').next().unwrap_or(address);
            let address = parse::<IpAddr>(tool, bare, "an address")?;
            service::answer(tool, bare, ip.remove_address(*interface, address))
        }
        ["l" | "link", "set", interface, state @ ("up" | "down")] => {
            let state = match *state {
                "up" => InterfaceState::Up,
                _ => InterfaceState::Down,
            };
            service::answer(tool, interface, ip.set_state(*interface, state))
        }
        ["r" | "route", "add", to, "via", gateway, rest @ ..] => {
            let interface = match rest {
                [] => None,
                ["dev", interface] => Some(interface.to_string()),
                _ => {
                    return Err(Stop::Usage(String::from(
                        "after the gateway only 'dev INTERFACE'",
                    )));
                }
            };
            let gateway = parse::<IpAddr>(tool, gateway, "an address")?;
            let destination = destination(tool, to, gateway)?;
            service::answer(tool, to, ip.add_route(destination, gateway, interface))
        }
        ["r" | "route", "del", to] => {
            let destination = destination(tool, to, IpAddr::from([0, 0, 0, 0]))?;
            service::answer(tool, to, ip.remove_route(destination))
        }
        ["dhcp", interface] => service::answer(
            tool,
            interface,
            ip.configure(*interface, Configuration::Dhcp),
        ),
        ["dns", servers @ ..] if !servers.is_empty() => {
            let mut list = Vec::new();
            for server in servers {
                list.push(parse::<IpAddr>(tool, server, "an address")?);
            }
            service::answer(tool, "name servers", ip.set_name_servers(list))
        }
        ["wait"] => wait(tool, ip, 30),
        ["wait", seconds] => {
            let seconds = parse::<u32>(tool, seconds, "a number of seconds")?;
            wait(tool, ip, seconds)
        }
        [] => Err(Stop::Usage(String::from("missing command"))),
        other => Err(Stop::Usage(format!(
            "unknown command '{}'",
            other.join(" ")
        ))),
    }
}

fn parse<T: core::str::FromStr>(tool: &mut Tool, text: &str, what: &str) -> Result<T, Stop> {
    text.parse()
        .map_err(|_| tool.fatal(1, format_args!("'{text}': not {what}")))
}

fn cidr(tool: &mut Tool, text: &str) -> Result<Cidr, Stop> {
    let (address, prefix) = text.split_once('/').unwrap_or((text, ""));
    let address = parse::<IpAddr>(tool, address, "an address")?;
    let prefix = match prefix {
        "" if address.is_ipv4() => 32,
        "" => 128,
        prefix => parse(tool, prefix, "the length of a prefix")?,
    };
    Ok(Cidr { address, prefix })
}

fn destination(tool: &mut Tool, text: &str, like: IpAddr) -> Result<Cidr, Stop> {
    match (text, like) {
        ("default", IpAddr::V4(_)) => cidr(tool, "0.0.0.0/0"),
        ("default", IpAddr::V6(_)) => cidr(tool, "::/0"),
        (text, _) => cidr(tool, text),
    }
}

fn interfaces(tool: &mut Tool, ip: &IpClient, json: bool) -> Result<(), Stop> {
    let list = service::answer(tool, "interfaces", ip.interfaces())?;
    if json {
        let values = Value::Array(list.iter().map(interface_json).collect());
        return writeln!(tool.out, "{values}");
    }
    for interface in &list {
        write!(tool.out, "{}", interface_text(interface))?;
    }
    Ok(())
}

fn routes(tool: &mut Tool, ip: &IpClient, json: bool) -> Result<(), Stop> {
    let list = service::answer(tool, "routes", ip.routes())?;
    if json {
        let values = Value::Array(list.iter().map(route_json).collect());
        return writeln!(tool.out, "{values}");
    }
    for route in &list {
        write!(tool.out, "{}", route_text(route))?;
    }
    Ok(())
}

fn wait(tool: &mut Tool, ip: IpClient, seconds: u32) -> Result<(), Stop> {
    let limit = core::time::Duration::from_secs(u64::from(seconds) + 10);
    let ip = ip.with_timeout(limit);
    let configured = ip.wait_configured(seconds.saturating_mul(1000));
    let address = service::answer(tool, "no address", configured)?;
    writeln!(tool.out, "{address}")
}
