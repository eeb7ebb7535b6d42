//! `ifconfig`: interfaces.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::string::String;
use alloc::vec::Vec;

use net_tools::interfaces::{interface_json, interface_text};
use proto::inet::IpClient;
use serde_json::Value;
use tools::service;
use unix::{Arg, Args, Stop, Tool};
unix::program!("ifconfig", HELP, run);

const HELP: &str = "\
Usage: ifconfig [--json] [INTERFACE...]
Show network interfaces: state, addresses, counters. `ip` changes them.
";

fn run(tool: &mut Tool) -> Result<(), Stop> {
    let mut json = false;
    let mut names: Vec<String> = Vec::new();
    while let Some(arg) = tool.advance()? {
        match arg {
            // All are shown anyway.
            Arg::Short('a') => {}
            Arg::Long(name) if name == "json" => json = true,
            Arg::Operand(text) => names.push(text),
            other => return Err(Args::unknown(&other).into()),
        }
    }
    let ip: IpClient = service::connect(tool, "ip")?;
    let mut list = service::answer(tool, "interfaces", ip.interfaces())?;
    for name in &names {
        if !list.iter().any(|i| i.name == *name) {
            tool.fail(format_args!("{name}: no such interface"));
        }
    }
    list.retain(|i| names.is_empty() || names.contains(&i.name));
    if json {
        let values = Value::Array(list.iter().map(interface_json).collect());
        return writeln!(tool.out, "{values}");
    }
    for interface in &list {
        write!(tool.out, "{}", interface_text(interface))?;
    }
    Ok(())
}
