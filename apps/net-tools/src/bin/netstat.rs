//! `netstat`: sockets.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use proto::inet::{IpClient, SocketInfo, SocketKind, TcpState};
use serde_json::{Value, json};
use tools::service;
use unix::{Arg, Args, Stop, Tool};
unix::program!("netstat", HELP, run);

const HELP: &str = "\
Usage: netstat [-l] [--json]
List connections and sockets. Of a listener, Recv-Q are connections that wait to be accepted and
Send-Q those that may.

  -l  listeners only
";

fn run(tool: &mut Tool) -> Result<(), Stop> {
    let (mut listeners, mut json) = (false, false);
    while let Some(arg) = tool.advance()? {
        match arg {
            Arg::Short('l') => listeners = true,
            // As elsewhere: numbers, all, TCP, UDP are what is shown anyway.
            Arg::Short('n' | 'a' | 't' | 'u') => {}
            Arg::Long(name) if name == "json" => json = true,
            other => return Err(Args::unknown(&other).into()),
        }
    }
    let ip: IpClient = service::connect(tool, "ip")?;
    let mut all: Vec<SocketInfo> = Vec::new();
    loop {
        let first = u32::try_from(all.len()).unwrap_or(u32::MAX);
        let batch = service::answer(tool, "sockets", ip.sockets(first))?;
        if batch.is_empty() {
            break;
        }
        all.extend(batch);
    }
    if listeners {
        all.retain(|s| s.kind == SocketKind::Tcp(TcpState::Listen));
    }
    let kind = |s: &SocketInfo| match (s.kind, s.local.is_ipv6()) {
        (SocketKind::Tcp(_), false) => "tcp",
        (SocketKind::Tcp(_), true) => "tcp6",
        (SocketKind::Udp, false) => "udp",
        (SocketKind::Udp, true) => "udp6",
    };
    let state = |s: &SocketInfo| match s.kind {
        SocketKind::Tcp(state) => state.text(),
        SocketKind::Udp => "",
    };
    if json {
        let list = all.iter().map(|s| {
            json!({
                "kind": kind(s), "state": state(s), "local": s.local.to_string(),
                "remote": s.remote.map(|r| r.to_string()), "rx_queue": s.rx_queue, "tx_queue": s.tx_queue,
            })
        });
        return writeln!(tool.out, "{}", Value::Array(list.collect()));
    }
    let head = ["Proto", "Recv-Q", "Send-Q", "Local", "Remote", "State"];
    let mut rows = alloc::vec![head.map(String::from).to_vec()];
    for s in &all {
        rows.push(alloc::vec![
            kind(s).to_string(),
            s.rx_queue.to_string(),
            s.tx_queue.to_string(),
            s.local.to_string(),
            s.remote.map_or(String::from("*"), |r| r.to_string()),
            state(s).to_string(),
        ]);
    }
    tool.out
        .bytes(tools::table::render(&rows, &[0, 3, 4, 5]).as_bytes())
}
