//! `nc`: connections by hand.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;

use net::{Family, TcpStream, UdpSocket};
use net_tools::server;
use proto::inet::{TcpClient, UdpClient};
use rt::Deadline;
use rt::io::{Read, Write};
use tools::service;
use unix::{Arg, Args, Stop, Tool};
unix::program!("nc", HELP, run);

const HELP: &str = "\
Usage: nc [-u] [-z] [-w SECONDS] HOST PORT
       nc -l [-p] PORT
Connect to HOST and PORT, or wait for one connection, and copy standard input to it and what comes
from it to standard output.

  -u  datagrams: each read of the input is one; the first answer ends it
  -z  only see whether somebody listens
  -w  how long to wait for a connection or an answer, 30 s without it
";

fn run(tool: &mut Tool) -> Result<(), Stop> {
    let (mut listen, mut datagrams, mut probe, mut wait_s) = (false, false, false, 30);
    let mut operands: Vec<String> = Vec::new();
    while let Some(arg) = tool.advance()? {
        match arg {
            Arg::Short('l') => listen = true,
            Arg::Short('u') => datagrams = true,
            Arg::Short('z') => probe = true,
            Arg::Short('p') => {}
            Arg::Short('w') => wait_s = net_tools::number(tool, 1..=86_400)?,
            Arg::Operand(text) => operands.push(text),
            other => return Err(Args::unknown(&other).into()),
        }
    }
    let port = operands.pop().unwrap_or_default();
    let Ok(port) = port.parse::<u16>() else {
        return Err(Stop::Usage(alloc::format!("'{port}': not a port")));
    };
    if listen {
        let listener = server::listen(tool, port)?;
        let stream = server::accept(tool, &listener)?;
        drop(listener);
        return copy(tool, stream);
    }
    let [host] = operands.as_slice() else {
        return Err(Stop::Usage(String::from("missing host")));
    };
    let address = net_tools::resolve(tool, host, Family::Any)?;
    let remote = SocketAddr::new(address, port);
    if datagrams {
        return exchange(tool, remote, wait_s);
    }
    let tcp: TcpClient = service::connect(tool, "tcp")?;
    let limit = core::time::Duration::from_secs(u64::from(wait_s) + 10);
    let tcp = tcp.with_timeout(limit);
    let connected = TcpStream::connect(&tcp, remote, None, wait_s * 1000);
    let stream = connected.map_err(|error| net_tools::failed(tool, host, error))?;
    if probe {
        return writeln!(tool.out, "{remote} open");
    }
    copy(tool, stream)
}

/// Copies both ways until the other side has ended.
fn copy(tool: &mut Tool, stream: TcpStream) -> Result<(), Stop> {
    let split = stream.split();
    let (mut reading, mut writing) = split.map_err(|error| net_tools::failed(tool, "nc", error))?;
    let sender = move || {
        let mut buffer = alloc::vec![0; 16 * 1024];
        while let Ok(n @ 1..) = rt::io::stdin().read(&mut buffer) {
            let bytes = buffer.get(..n).unwrap_or_default();
            if writing.write_all(bytes, Deadline::FOREVER).is_err() {
                break;
            }
        }
        let _ = writing.finish(Deadline::after_secs(60));
        // The connection is closed with its last half.
        writing
    };
    let thread = rt::thread::builder("input").spawn(sender);
    let _sender = thread.map_err(|error| tool.fatal(1, format_args!("{error}")))?;
    let mut buffer = alloc::vec![0; 16 * 1024];
    loop {
        match reading.read(&mut buffer, Deadline::FOREVER) {
            Ok(0) => return Ok(()),
            Ok(n) => {
                tool.out.bytes(buffer.get(..n).unwrap_or_default())?;
                tool.out.flush()?;
            }
            Err(error) => return Err(net_tools::failed(tool, "nc", error)),
        }
    }
}

fn exchange(tool: &mut Tool, remote: SocketAddr, wait_s: u32) -> Result<(), Stop> {
    let udp: UdpClient = service::connect(tool, "udp")?;
    let socket = UdpSocket::unbound_for(&udp, remote);
    let mut socket = socket.map_err(|error| net_tools::failed(tool, "nc", error))?;
    let mut buffer = alloc::vec![0; 16 * 1024];
    while let Ok(n @ 1..) = rt::io::stdin().read(&mut buffer) {
        let bytes = buffer.get(..n).unwrap_or_default();
        let sent = socket.send_to(remote, bytes, Deadline::after_secs(wait_s.into()));
        sent.map_err(|error| net_tools::failed(tool, "nc", error))?;
    }
    let answer = socket.receive(Deadline::after_secs(wait_s.into()));
    let answer = answer.map_err(|error| net_tools::failed(tool, "nc", error))?;
    rt::io::stdout()
        .write_all(&answer.payload)
        .and_then(|()| rt::io::flush())
        .map_err(|_| Stop::Status(1))
}
