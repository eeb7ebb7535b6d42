//! Programs and the stack as they meet in the system: protocols, pipes, tasks; over the loopback, in real time.

use std::net::{Ipv4Addr, SocketAddr};
use std::thread;
use std::time::Duration;

use executor::Executor;
use ipc::Channel;
use net::{Family, NetworkError, TcpListener, TcpStream, UdpSocket, resolve_one};
use netstack::serve::{Net, Schemes, now};
use netstack::stack::Stack;
use proto::inet::{DnsClient, IpClient, SocketKind, TcpClient, TcpState, UdpClient};
use sys::Deadline;

struct Clients {
    tcp: TcpClient,
    udp: UdpClient,
    dns: DnsClient,
    ip: IpClient,
}

/// Starts a stack in a thread that ends with the tests.
fn start() -> Clients {
    let (tcp, serve_tcp) = Channel::create().unwrap();
    let (udp, serve_udp) = Channel::create().unwrap();
    let (dns, serve_dns) = Channel::create().unwrap();
    let (ip, serve_ip) = Channel::create().unwrap();
    let schemes = Schemes {
        tcp: Some(serve_tcp),
        udp: Some(serve_udp),
        dns: Some(serve_dns),
        ip: Some(serve_ip),
    };
    let run = move || {
        let executor = Executor::new().unwrap();
        let net = Net::new(executor.clone(), Stack::new(7, now()));
        net.serve(schemes);
        executor.block_on(net.drive());
    };
    thread::Builder::new()
        .stack_size(8 << 20)
        .spawn(run)
        .unwrap();
    Clients {
        tcp: TcpClient::new(tcp),
        udp: UdpClient::new(udp),
        dns: DnsClient::new(dns),
        ip: IpClient::new(ip),
    }
}

fn soon() -> Deadline {
    Deadline::after_secs(60)
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)
}

fn byte(n: usize) -> u8 {
    (n.wrapping_mul(2_654_435_761) >> 11) as u8
}

#[test]
fn a_megabyte_there_and_back() {
    const LEN: usize = 1 << 20;
    let clients = start();
    let listener = TcpListener::bind(&clients.tcp, local(0), 4).unwrap();
    let to = listener.local();
    assert_ne!(to.port(), 0);
    let echo = thread::spawn(move || {
        let mut stream = listener.accept(60_000).unwrap();
        let mut buffer = vec![0; 10_000];
        let mut total = 0;
        loop {
            let n = stream.read(&mut buffer, soon()).unwrap();
            if n == 0 {
                break;
            }
            total += n;
            stream.write_all(&buffer[..n], soon()).unwrap();
        }
        stream.finish(soon()).unwrap();
        total
    });
    let stream = TcpStream::connect(&clients.tcp, to, None, 10_000).unwrap();
    assert_eq!(stream.connection().remote, to);
    let (mut reading, mut writing) = stream.split().unwrap();
    let writer = thread::spawn(move || {
        let bytes: Vec<u8> = (0..LEN).map(byte).collect();
        for chunk in bytes.chunks(7777) {
            writing.write_all(chunk, soon()).unwrap();
        }
        writing.finish(soon()).unwrap();
        writing
    });
    let mut received = 0;
    let mut buffer = vec![0; 9999];
    loop {
        let n = reading.read(&mut buffer, soon()).unwrap();
        if n == 0 {
            break;
        }
        for b in &buffer[..n] {
            assert_eq!(*b, byte(received));
            received += 1;
        }
    }
    assert_eq!(received, LEN);
    assert_eq!(echo.join().unwrap(), LEN);
    drop(writer.join().unwrap());
}

#[test]
fn refusals_have_their_names() {
    let clients = start();
    let refused = TcpStream::connect(&clients.tcp, local(9), None, 10_000).map(|_| ());
    assert_eq!(refused, Err(NetworkError::Refused));
    let nowhere = SocketAddr::new([192, 0, 2, 1].into(), 80);
    let unreachable = TcpStream::connect(&clients.tcp, nowhere, None, 10_000).map(|_| ());
    assert_eq!(unreachable, Err(NetworkError::Unreachable));
    let listener = TcpListener::bind(&clients.tcp, local(8080), 4).unwrap();
    let taken = TcpListener::bind(&clients.tcp, local(8080), 4).map(|_| ());
    assert_eq!(taken, Err(NetworkError::AddressInUse));
    let nobody = listener.accept(20).map(|_| ());
    assert_eq!(nobody, Err(NetworkError::TimedOut));
    let kinds: Vec<_> = clients
        .ip
        .sockets(0u32)
        .unwrap()
        .into_iter()
        .map(|s| s.kind)
        .collect();
    assert_eq!(kinds, [SocketKind::Tcp(TcpState::Listen)]);
    drop(listener);
    // The stack hears of it by itself.
    for _ in 0..1000 {
        if clients.ip.sockets(0u32).unwrap().is_empty() {
            return;
        }
        sys::time::sleep(std::time::Duration::from_millis(5));
    }
    panic!("the listener stayed");
}

#[test]
fn what_was_written_arrives_after_the_program_is_gone() {
    let clients = start();
    let listener = TcpListener::bind(&clients.tcp, local(0), 4).unwrap();
    let mut stream = TcpStream::connect(&clients.tcp, listener.local(), None, 10_000).unwrap();
    stream.write_all(&[7; 30_000], soon()).unwrap();
    drop(stream);
    let mut accepted = listener.accept(60_000).unwrap();
    let mut buffer = vec![0; 40_000];
    assert_eq!(accepted.read_full(&mut buffer, soon()), Ok(30_000));
    assert!(buffer[..30_000].iter().all(|b| *b == 7));
}

#[test]
fn an_abort_is_a_reset_for_the_other_side() {
    let clients = start();
    let listener = TcpListener::bind(&clients.tcp, local(0), 4).unwrap();
    let stream = TcpStream::connect(&clients.tcp, listener.local(), None, 10_000).unwrap();
    let mut accepted = listener.accept(60_000).unwrap();
    stream.abort().unwrap();
    let mut buffer = [0; 10];
    assert_eq!(accepted.read(&mut buffer, soon()), Err(NetworkError::Reset));
}

/// A writer whose peer takes nothing hears of the connection's end at once, by itself or as a half.
#[test]
fn a_blocked_writer_hears_of_the_end() {
    let clients = start();
    let listener = TcpListener::bind(&clients.tcp, local(0), 4).unwrap();
    let connect = || {
        let stream = TcpStream::connect(&clients.tcp, listener.local(), None, 10_000).unwrap();
        (stream, listener.accept(60_000).unwrap())
    };
    let endless = vec![0; 16 << 20];
    let (mut stream, mut accepted) = connect();
    let aborter = stream.aborter().unwrap();
    accepted.write_all(b"unread", soon()).unwrap();
    let writing = thread::spawn({
        let endless = endless.clone();
        move || stream.write_all(&endless, soon())
    });
    thread::sleep(Duration::from_millis(50));
    aborter.abort().unwrap();
    assert_eq!(writing.join().unwrap(), Err(NetworkError::Reset));
    drop(accepted);

    let (stream, accepted) = connect();
    let aborter = stream.aborter().unwrap();
    let (mut reading, mut writer) = stream.split().unwrap();
    let writing = thread::spawn(move || writer.write_all(&endless, soon()));
    thread::sleep(Duration::from_millis(50));
    aborter.abort().unwrap();
    let mut buffer = [0; 10];
    let read = reading.read(&mut buffer, soon());
    assert_eq!(read, Err(NetworkError::Reset));
    assert_eq!(writing.join().unwrap(), Err(NetworkError::Reset));
    drop(accepted);
}

#[test]
fn many_connections_one_after_the_other_leave_nothing() {
    let clients = start();
    let listener = TcpListener::bind(&clients.tcp, local(0), 16).unwrap();
    let to = listener.local();
    for n in 0..600u32 {
        let mut stream = TcpStream::connect(&clients.tcp, to, None, 10_000).unwrap();
        stream.write_all(&n.to_le_bytes(), soon()).unwrap();
        let mut accepted = listener.accept(60_000).unwrap();
        let mut number = [0; 4];
        accepted.read_full(&mut number, soon()).unwrap();
        assert_eq!(u32::from_le_bytes(number), n);
    }
}

#[test]
fn datagrams_and_echo_requests() {
    let clients = start();
    let mut one = UdpSocket::bind(&clients.udp, local(0)).unwrap();
    let mut two = UdpSocket::bind(&clients.udp, local(0)).unwrap();
    for len in [0, 1, 1000, 9000] {
        one.send_to(two.local(), &vec![len as u8; len], soon())
            .unwrap();
        let datagram = two.receive(soon()).unwrap();
        assert_eq!(datagram.remote, one.local());
        assert_eq!(datagram.payload, vec![len as u8; len]);
    }
    let pong = clients
        .ip
        .ping(
            std::net::IpAddr::from([127, 0, 0, 1]),
            1u16,
            56u16,
            10_000u32,
        )
        .unwrap();
    assert_eq!(pong.from, std::net::IpAddr::from([127, 0, 0, 1]));
    let six = std::net::IpAddr::from(std::net::Ipv6Addr::LOCALHOST);
    assert_eq!(
        clients.ip.ping(six, 2u16, 8u16, 10_000u32).unwrap().from,
        six
    );
    assert_eq!(
        resolve_one(&clients.dns, "localhost", Family::V4),
        Ok([127, 0, 0, 1].into())
    );
    assert_eq!(
        resolve_one(&clients.dns, "a.example", Family::V4),
        Err(NetworkError::NoNameServer)
    );
}
