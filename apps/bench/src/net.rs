//! `bench-net`: what the loads of the network's rows talk to; the loads are the host's. Beside the web server:
//! an echo of datagrams (port 7), a sink of streams (9), a source (19: eight bytes say how many it is to send, little-endian),
//! and the control port (4000), where the host has the markers set around its load. `xtask/peer/net.c` is Linux's.

#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::string::String;
use core::net::{Ipv4Addr, SocketAddr};

use net::{NetworkError, TcpListener, TcpStream, UdpSocket};
use proto::inet::{TcpClient, UdpClient};
use rt::marker::{section_end, section_start};
use rt::{AsHandle, Channel, Deadline, println, startup, thread};

rt::entry!(main);

const ECHO: u16 = 7;
const SINK: u16 = 9;
const SOURCE: u16 = 19;
const CONTROL: u16 = 4000;
const PIECE: usize = 256 << 10;
/// Longer than a load.
const LONG_S: u64 = 3600;

fn main() -> i32 {
    match run() {
        Ok(()) => 0,
        Err(error) => {
            println!("bench-failed net: {error}");
            1
        }
    }
}

fn service<T: From<Channel>>(name: &str) -> Result<T, String> {
    let channel = startup::handle::<Channel>(name).and_then(|channel| channel.duplicate().ok());
    Ok(T::from(channel.ok_or_else(|| alloc::format!("no {name}"))?))
}

fn port(number: u16) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), number)
}

fn socket(number: u16) -> Result<UdpSocket, String> {
    let udp: UdpClient = service("udp")?;
    UdpSocket::bind(&udp, port(number)).map_err(|error| alloc::format!("port {number}: {error}"))
}

/// Serves one connection after the other in a thread of its own.
fn serve(number: u16, serve: fn(TcpStream) -> Result<(), NetworkError>) -> Result<(), String> {
    let tcp: TcpClient = service("tcp")?;
    let listener = TcpListener::bind(&tcp, port(number), 32)
        .map_err(|error| alloc::format!("port {number}: {error}"))?;
    let turns = move || loop {
        match listener.accept(60_000) {
            // Whoever breaks a connection off sees that.
            Ok(stream) => drop(serve(stream)),
            Err(NetworkError::TimedOut | NetworkError::Reset) => {}
            Err(_) => return,
        }
    };
    let spawned = thread::builder("server").spawn(turns);
    spawned
        .map(drop)
        .map_err(|error| alloc::format!("a thread: {error}"))
}

fn echo(mut socket: UdpSocket) {
    while let Ok(datagram) = socket.receive(Deadline::after_secs(LONG_S)) {
        let deadline = Deadline::after_secs(LONG_S);
        if socket
            .send_to(datagram.remote, &datagram.payload, deadline)
            .is_err()
        {
            return;
        }
    }
}

fn sink(mut stream: TcpStream) -> Result<(), NetworkError> {
    let mut piece = alloc::vec![0; PIECE];
    while stream.read(&mut piece, Deadline::after_secs(LONG_S))? > 0 {}
    stream.finish(Deadline::after_secs(LONG_S))
}

fn source(mut stream: TcpStream) -> Result<(), NetworkError> {
    let deadline = Deadline::after_secs(LONG_S);
    let mut count = [0; 8];
    stream.read_full(&mut count, deadline)?;
    let mut left = u64::from_le_bytes(count);
    let piece = alloc::vec![0; PIECE];
    while left > 0 {
        let now = left.min(PIECE as u64);
        stream.write_all(piece.get(..now as usize).unwrap_or_default(), deadline)?;
        left -= now;
    }
    stream.finish(deadline)
}

/// Sets the marker that the host asks for. A marker's number is part of an instruction.
fn mark(order: u8, load: u8) {
    match (order, load) {
        (b's', 0) => section_start::<40>(),
        (b'e', 0) => section_end::<40>(),
        (b's', 1) => section_start::<41>(),
        (b'e', 1) => section_end::<41>(),
        (b's', 2) => section_start::<42>(),
        (b'e', 2) => section_end::<42>(),
        (b's', 3) => section_start::<43>(),
        (b'e', 3) => section_end::<43>(),
        (b's', 4) => section_start::<44>(),
        (b'e', 4) => section_end::<44>(),
        _ => {}
    }
}

fn run() -> Result<(), String> {
    let datagrams = socket(ECHO)?;
    let echoing = thread::builder("echo").spawn(move || echo(datagrams));
    echoing.map_err(|error| alloc::format!("a thread: {error}"))?;
    serve(SINK, sink)?;
    serve(SOURCE, source)?;
    let mut control = socket(CONTROL)?;
    println!("bench-net ready");
    // Nobody is left to tell when the output is gone.
    let _ = rt::io::flush();
    loop {
        let received = control.receive(Deadline::after_secs(LONG_S));
        let datagram = received.map_err(|error| alloc::format!("control: {error}"))?;
        let [order, load] = datagram.payload.as_slice() else {
            continue;
        };
        mark(*order, *load);
        let answered = control.send_to(
            datagram.remote,
            &datagram.payload,
            Deadline::after_secs(LONG_S),
        );
        answered.map_err(|error| alloc::format!("control: {error}"))?;
        if *order == b'q' {
            // The answer is on its way before the system ends.
            thread::sleep(core::time::Duration::from_millis(200));
            return Ok(());
        }
    }
}
