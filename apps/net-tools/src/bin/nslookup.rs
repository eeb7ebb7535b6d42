//! `nslookup`: addresses of hosts.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use net::Family;
use proto::inet::DnsClient;
use serde_json::json;
use tools::service;
use unix::{Arg, Args, Stop, Tool};
unix::program!("nslookup", HELP, run);

const HELP: &str = "\
Usage: nslookup [-4 | -6] [--json] HOST...
Show the addresses of each HOST.
";

fn run(tool: &mut Tool) -> Result<(), Stop> {
    let (mut family, mut json) = (Family::Any, false);
    let mut hosts = Vec::new();
    while let Some(arg) = tool.advance()? {
        match arg {
            Arg::Short('4') => family = Family::V4,
            Arg::Short('6') => family = Family::V6,
            Arg::Long(name) if name == "json" => json = true,
            Arg::Operand(text) => hosts.push(text),
            other => return Err(Args::unknown(&other).into()),
        }
    }
    if hosts.is_empty() {
        return Err(Stop::Usage(String::from("missing host")));
    }
    let dns: DnsClient = service::connect(tool, "dns")?;
    let servers = service::answer(tool, "name servers", dns.servers())?;
    if !json {
        for server in &servers {
            writeln!(tool.out, "Server:  {server}")?;
        }
    }
    for host in &hosts {
        let answer = dns.resolve(host.as_str(), family);
        let addresses = match answer {
            Ok(addresses) => addresses,
            Err(error) => {
                tool.fail(format_args!("{host}: {}", service::text(error)));
                continue;
            }
        };
        if json {
            let list: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            writeln!(tool.out, "{}", json!({ "name": host, "addresses": list }))?;
            continue;
        }
        writeln!(tool.out, "\nName:    {host}")?;
        for address in addresses {
            writeln!(tool.out, "Address: {address}")?;
        }
    }
    Ok(())
}
