//! What the network tools share: finding a host, showing interfaces, echo requests, servers of one connection after the
//! other. Each tool itself is a program in `src/bin`.
#![cfg_attr(target_os = "none", no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod echo_request;
pub mod interfaces;
pub mod iperf;
pub mod packet;
pub mod server;

use core::net::IpAddr;

use net::{Family, NetworkError, resolve_one};
use proto::inet::DnsClient;
use tools::service;
use unix::{Stop, Tool};

/// The address of a host, or the tool's end with a message.
pub fn resolve(tool: &mut Tool, host: &str, family: Family) -> Result<IpAddr, Stop> {
    if let Ok(address) = host.parse() {
        return Ok(address);
    }
    let dns: DnsClient = service::connect(tool, "dns")?;
    resolve_one(&dns, host, family).map_err(|error| failed(tool, host, error))
}

/// Ends the tool with what went wrong.
pub fn failed(tool: &mut Tool, what: &str, error: NetworkError) -> Stop {
    tool.fatal(1, format_args!("{what}: {error}"))
}

/// The value of an option as a number in a range.
pub fn number(tool: &mut Tool, range: core::ops::RangeInclusive<u32>) -> Result<u32, Stop> {
    let text = tool.value()?;
    match text.parse() {
        Ok(n) if range.contains(&n) => Ok(n),
        _ => Err(tool.fatal(
            1,
            format_args!(
                "'{text}': not a number from {} to {}",
                range.start(),
                range.end()
            ),
        )),
    }
}
