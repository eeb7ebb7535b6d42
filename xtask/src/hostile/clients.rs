//! Clients of a web server that mean harm: slow ones, ones that send garbage, ones that never take their answers. Each of these
//! judges has an honest client served meanwhile.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddrV4, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::net;

/// What somebody honest waits for a page at most.
const HONEST_LIMIT: Duration = Duration::from_secs(30);
/// QEMU's forwarding has one connection wait at a time; whoever comes too soon has to knock again, a second later.
const BETWEEN_CONNECTIONS: Duration = Duration::from_millis(10);
/// Bytes that a client has room for that takes nothing: it fills soon, else the host takes megabytes in its place.
const SMALL_ROOM: usize = 4096;
/// What anybody waits for an answer that has to come.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// How many do it.
#[derive(Clone, Copy, Debug)]
pub struct Crowd {
    /// Clients at a time.
    pub clients: usize,
    /// How long slow ones go on.
    pub time: Duration,
    /// Connections that are opened and dropped.
    pub dropped: usize,
}

/// A web server and what it answers to an honest client.
pub struct Server {
    port: u16,
    page: Vec<u8>,
}

/// A judge of the server.
pub type Judge = fn(&Server, Crowd) -> anyhow::Result<String>;

/// All judges, by name.
pub const ALL: [(&str, Judge); 9] = [
    ("slow heads", slow_heads),
    ("silent clients", silent_clients),
    ("slow readers", slow_readers),
    ("endless heads", endless_heads),
    ("huge contents", huge_contents),
    ("garbage", garbage),
    ("half-closed", half_closed),
    ("pipelined", pipelined),
    ("opened and dropped", dropped),
];

impl Server {
    /// The server behind a port of this host, which has to be serving.
    ///
    /// # Errors
    /// When it serves no page.
    pub fn new(port: u16) -> anyhow::Result<Server> {
        let mut server = Server {
            port,
            page: Vec::new(),
        };
        let page = server.get()?;
        ensure!(
            page.starts_with(b"HTTP/1.1 200 ") && page.len() > 1000,
            "no page: {:?}",
            String::from_utf8_lossy(&page)
        );
        server.page = page;
        Ok(server)
    }

    fn connect(&self) -> anyhow::Result<TcpStream> {
        self.connect_with(None)
    }

    /// A connection, with room for so many bytes that were not read yet.
    fn connect_with(&self, room: Option<usize>) -> anyhow::Result<TcpStream> {
        std::thread::sleep(BETWEEN_CONNECTIONS);
        let socket = net::socket(net::AddressFamily::INET, net::SocketType::STREAM, None)?;
        if let Some(room) = room {
            net::sockopt::set_socket_recv_buffer_size(&socket, room)?;
        }
        let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, self.port);
        net::connect(&socket, &address).context("a connection")?;
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        stream.set_write_timeout(Some(ANSWER_LIMIT))?;
        Ok(stream)
    }

    fn get(&self) -> anyhow::Result<Vec<u8>> {
        let mut stream = self.connect()?;
        stream.set_read_timeout(Some(HONEST_LIMIT))?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        stream
            .read_to_end(&mut answer)
            .context("an honest client")?;
        Ok(answer)
    }

    /// An honest client is served; how long that took.
    fn serves(&self) -> anyhow::Result<Duration> {
        let start = Instant::now();
        let page = self.get()?;
        ensure!(page == self.page, "an honest client got something else");
        Ok(start.elapsed())
    }

    /// The status that a request is answered with, of a connection that then ends.
    fn status(&self, parts: &[&[u8]]) -> anyhow::Result<String> {
        let mut stream = self.connect()?;
        for part in parts {
            match stream.write_all(part) {
                Ok(()) => {}
                // It need not listen to all of it.
                Err(error) if is_end(&error) => break,
                Err(error) => return Err(error).context("a request"),
            }
        }
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer) {
            Ok(_) => {}
            Err(error) if is_end(&error) => {}
            Err(error) => return Err(error).context("an answer"),
        }
        let text = String::from_utf8_lossy(&answer).into_owned();
        Ok(text.split(' ').nth(1).unwrap_or("none").to_owned())
    }
}

fn is_end(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted
    )
}

/// Serves an honest client over and over; the longest time.
fn honest(server: &Server, time: Duration, mut meanwhile: impl FnMut()) -> anyhow::Result<String> {
    let start = Instant::now();
    let (mut count, mut longest) = (0, Duration::ZERO);
    while start.elapsed() < time || count == 0 {
        meanwhile();
        longest = longest.max(server.serves()?);
        count += 1;
        std::thread::sleep(Duration::from_millis(500));
    }
    Ok(format!(
        "an honest client served {count} times meanwhile, in {:.1} s at most",
        longest.as_secs_f64()
    ))
}

fn crowd(
    server: &Server,
    count: usize,
    room: Option<usize>,
    say: &[u8],
) -> anyhow::Result<Vec<TcpStream>> {
    let mut clients = Vec::new();
    for _ in 0..count {
        let mut client = server.connect_with(room)?;
        // Some are sent away at once.
        let _ = client.write_all(say);
        client.set_nonblocking(true)?;
        clients.push(client);
    }
    Ok(clients)
}

/// A byte of a head now and then.
fn slow_heads(server: &Server, amount: Crowd) -> anyhow::Result<String> {
    let mut clients = crowd(server, amount.clients, None, b"GET / HTTP/1.1\r\nX: ")?;
    let mut ended = 0;
    let served = honest(server, amount.time, || {
        clients.retain_mut(|client| client.write_all(b"y").is_ok());
        ended = amount.clients - clients.len();
        // Whoever was sent away comes again.
        if let Ok(more) = crowd(server, ended, None, b"GET / HTTP/1.1\r\nX: ") {
            clients.extend(more);
        }
    })?;
    Ok(format!("{} clients; {served}", amount.clients))
}

/// Connections over which nothing comes.
fn silent_clients(server: &Server, amount: Crowd) -> anyhow::Result<String> {
    let clients = crowd(server, amount.clients, None, b"")?;
    let served = honest(server, amount.time, || {})?;
    Ok(format!("{} clients; {served}", clients.len()))
}

/// Files that are asked for and not taken.
fn slow_readers(server: &Server, amount: Crowd) -> anyhow::Result<String> {
    let clients = crowd(
        server,
        amount.clients,
        Some(SMALL_ROOM),
        b"GET /files/big.bin HTTP/1.1\r\nHost: h\r\n\r\n",
    )?;
    let served = honest(server, amount.time, || {})?;
    Ok(format!("{} clients; {served}", clients.len()))
}

fn endless_heads(server: &Server, _: Crowd) -> anyhow::Result<String> {
    let start = b"GET / HTTP/1.1\r\n".as_slice();
    let long = vec![b'a'; 20 << 10];
    let lines = b"X: y\r\n".repeat(10_000);
    for (what, parts) in [
        ("lines", [start, &lines]),
        ("a line", [start, &long]),
        ("a target", [b"GET /", &long]),
    ] {
        let status = server.status(&parts)?;
        ensure!(status == "431" || status == "400", "{what}: {status}");
    }
    server.serves()?;
    Ok("refused".to_owned())
}

fn huge_contents(server: &Server, _: Crowd) -> anyhow::Result<String> {
    let head = |more: &str| format!("POST /api/driver HTTP/1.1\r\nHost: h\r\n{more}\r\n\r\n");
    let zeroes = vec![0; 1 << 20];
    for (more, expected) in [
        ("Content-Length: 1000000000000", "413"),
        ("Content-Length: 99999999999999999999999999", "400"),
        ("Transfer-Encoding: chunked", "501"),
        // Promised and never sent: given up in time.
        ("Content-Length: 60000", "408"),
    ] {
        let head = head(more);
        let content: &[u8] = if expected == "408" { b"x" } else { &zeroes };
        let status = server.status(&[head.as_bytes(), content])?;
        // A connection that is ended while content still comes may lose its answer (RFC 9112, 9.6).
        ensure!(
            status == expected || status == "none" && expected != "408",
            "{more}: {status}, expected {expected}"
        );
    }
    server.serves()?;
    Ok("refused, or given up in time".to_owned())
}

fn garbage(server: &Server, amount: Crowd) -> anyhow::Result<String> {
    let mut random = fastrand::Rng::with_seed(1);
    for _ in 0..amount.clients / 4 {
        let mut bytes: Vec<u8> = (0..random.usize(1..8192)).map(|_| random.u8(..)).collect();
        bytes.extend(b"\r\n\r\n");
        let status = server.status(&[b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", &bytes])?;
        ensure!(
            status == "200" || status == "none",
            "before garbage: {status}"
        );
        let status = server.status(&[&bytes])?;
        ensure!(
            ["400", "431", "501", "none"].contains(&status.as_str()),
            "garbage: {status}"
        );
    }
    server.serves()?;
    Ok(format!("{} times garbage", amount.clients / 4))
}

/// Clients that end their side with the request get the answer all the same.
fn half_closed(server: &Server, amount: Crowd) -> anyhow::Result<String> {
    for _ in 0..amount.clients / 4 {
        let mut client = server.connect()?;
        client.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")?;
        client.shutdown(Shutdown::Write)?;
        let mut answer = Vec::new();
        client.read_to_end(&mut answer)?;
        ensure!(answer.starts_with(b"HTTP/1.1 200 "), "half-closed");
    }
    // And such that never say anything.
    let mut silent = Vec::new();
    for _ in 0..amount.clients {
        let client = server.connect()?;
        client.shutdown(Shutdown::Write)?;
        silent.push(client);
    }
    server.serves()?;
    Ok(format!("{} served", amount.clients / 4))
}

fn pipelined(server: &Server, _: Crowd) -> anyhow::Result<String> {
    const COUNT: usize = 200;
    let mut client = server.connect()?;
    let request = b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n".repeat(COUNT);
    client.write_all(&request)?;
    client.write_all(b"BREW / HTTP/1.1\r\n\r\n")?;
    let mut answer = Vec::new();
    client.read_to_end(&mut answer)?;
    let text = String::from_utf8_lossy(&answer).into_owned();
    let good = text.matches("HTTP/1.1 200 ").count();
    let bad = text.matches("HTTP/1.1 501 ").count();
    if (good, bad) != (COUNT, 1) {
        bail!("{good} answers of {COUNT}, {bad} refusals of 1");
    }
    Ok(format!("{COUNT} requests at once, and garbage behind them"))
}

fn dropped(server: &Server, amount: Crowd) -> anyhow::Result<String> {
    for n in 0..amount.dropped {
        let mut client = server.connect()?;
        if n % 2 == 0 {
            let _ = client.write_all(b"GET / HTTP/1.1\r\n");
        }
    }
    let longest = server.serves()?;
    Ok(format!(
        "{} connections, then served in {:.1} s",
        amount.dropped,
        longest.as_secs_f64()
    ))
}
