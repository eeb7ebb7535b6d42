//! The network's rows: the host is the load, through QEMU's user network, and the guest serves.
//!
//! The guest runs `bench-net` (`apps/bench`, `xtask/peer/net.c`) and a web server. Around each load the host asks at the
//! control port for a marker, so the plugin counts what the whole guest does for it; time is the host's. The
//! load and QEMU may use all processors of the host, as a client on another machine would.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use super::measure::{self, Results, System};
use super::passes::{self, Count, Pass};
use super::rows::{Load, Row};
use crate::guest::nic::{self, Forward, Model, Nic};
use crate::guest::{self, Machine, Outcome, Streams};

/// Each row is measured this often, after one pass that is not counted.
const PASSES: u32 = 3;
const TIME_LIMIT: Duration = Duration::from_secs(600);
/// How long a guest may take until it serves.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// After this a datagram counts as lost and is sent again.
const LOST: Duration = Duration::from_millis(500);
/// Most datagrams of a load that may be lost: more, and it measures something else.
const LOST_MAX: u32 = 10;
/// Longest wait for anything of a stream.
const STREAM_LIMIT: Duration = Duration::from_secs(60);
/// Section of the first load.
const SECTION: u64 = 40;

/// The guest's ports: echo, sink, source, web server, control.
const ECHO: u16 = 7;
const SINK: u16 = 9;
const SOURCE: u16 = 19;
const WEB: u16 = 80;
const CONTROL: u16 = 4000;

const ECHO_BYTES: usize = 32;
const STREAM_BYTES: u64 = 32 << 20;
/// What a full segment carries in a frame of 1,500 bytes: one operation of the stream's rows.
pub const SEGMENT: u64 = 1460;
const WEB_CONNECTIONS: u32 = 8;
const WEB_REQUESTS: u32 = 250;
/// Bytes of the page.
pub const PAGE_BYTES: usize = 1024;

/// A forwarded port of the host.
#[derive(Clone, Copy)]
struct Ports {
    echo: u16,
    sink: u16,
    source: u16,
    web: u16,
    control: u16,
}

/// Counts instructions: boots `system` under the plugin, with a profile in the file `profile`.
///
/// # Errors
/// When the run does not end well, or its results make no sense.
pub fn count(
    system: &System,
    model: Model,
    rows: &[&Row],
    page: &str,
    plugin: &Path,
    profile: Option<&Path>,
) -> anyhow::Result<Vec<(Pass, Count)>> {
    let file = measure::counter_file()?;
    let arguments = measure::plugin_arguments(plugin, file.path(), profile)?;
    let passes = boot(system, model, rows, page, &arguments)?;
    let text = std::fs::read_to_string(file.path())?;
    passes::join(passes, &passes::read_counts(&text)?)
}

/// Times the same without the plugin.
///
/// # Errors
/// When the run does not end well, or its results make no sense.
pub fn time(system: &System, model: Model, rows: &[&Row], page: &str) -> anyhow::Result<Vec<Pass>> {
    boot(system, model, rows, page, &[])
}

/// What the guest prints, passed on when it serves or has failed.
struct Listener {
    text: Vec<u8>,
    told: Option<Sender<()>>,
}

impl Write for Listener {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.text.extend_from_slice(bytes);
        let text = String::from_utf8_lossy(&self.text);
        if text.contains("bench-net ready") || text.contains("bench-failed") {
            // Dropped: whoever waits goes on.
            self.told = None;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn boot(
    system: &System,
    model: Model,
    rows: &[&Row],
    page: &str,
    arguments: &[String],
) -> anyhow::Result<Vec<Pass>> {
    let ports = Ports {
        echo: free_port()?,
        sink: free_port()?,
        source: free_port()?,
        web: free_port()?,
        control: free_port()?,
    };
    let forwards = [
        ("udp", ports.echo, ECHO),
        ("tcp", ports.sink, SINK),
        ("tcp", ports.source, SOURCE),
        ("tcp", ports.web, WEB),
        ("udp", ports.control, CONTROL),
    ]
    .map(|(protocol, host, guest)| Forward::parse(&format!("{protocol}:{host}:{guest}")));
    let forwards = forwards.into_iter().collect::<Result<Vec<_>, _>>()?;

    let mut machine = Machine::new(&system.kernel, Some(system.initrd.clone()));
    machine.command_line.clone_from(&system.command_line);
    machine.extra = nic::arguments(&[Nic::new(model)], &forwards, None)?;
    machine.extra.extend(arguments.iter().cloned());

    let (told, ready) = mpsc::channel();
    let mut results = Listener {
        text: Vec::new(),
        told: Some(told),
    };
    let mut other = Vec::new();
    thread::scope(|scope| {
        let load = scope.spawn(move || {
            let passes = measure_all(&ready, ports, rows, page);
            // Whatever came of it, the guest is to end.
            let _ = order(ports, b'q', 0);
            passes
        });
        let outcome = {
            let (console, log): (&mut dyn Write, &mut dyn Write) = match system.results {
                Results::Console => (&mut results, &mut other),
                Results::Log => (&mut other, &mut results),
            };
            let mut streams = Streams {
                console,
                log,
                input: None,
            };
            guest::run(&machine, Some(TIME_LIMIT), &mut streams)
        };
        results.told = None;
        let Ok(passes) = load.join() else {
            bail!("the load panicked");
        };
        match (outcome?, passes) {
            (Outcome::Exit(0), Ok(passes)) => Ok(passes),
            (outcome, passes) => {
                // Nothing else would tell what went wrong.
                eprintln!("{}", String::from_utf8_lossy(&other));
                eprintln!("{}", String::from_utf8_lossy(&results.text));
                passes.with_context(|| system.name)?;
                bail!("{}: {outcome:?}", system.name)
            }
        }
    })
}

fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("a free port")?;
    Ok(listener.local_addr().context("a free port")?.port())
}

fn measure_all(
    ready: &Receiver<()>,
    ports: Ports,
    rows: &[&Row],
    page: &str,
) -> anyhow::Result<Vec<Pass>> {
    // The sender is dropped, nothing is sent.
    if let Err(mpsc::RecvTimeoutError::Timeout) = ready.recv_timeout(READY_LIMIT) {
        bail!("it does not serve");
    }
    let mut all = Vec::new();
    for row in rows {
        let Some((load, section)) = row.load else {
            continue;
        };
        run(load, ports, page).with_context(|| row.name)?;
        for _ in 0..PASSES {
            order(ports, b's', section)?;
            let started = Instant::now();
            let operations = run(load, ports, page).with_context(|| row.name)?;
            let ns = started.elapsed().as_nanos();
            order(ports, b'e', section)?;
            all.push(Pass {
                row: row.name.to_owned(),
                section: SECTION + u64::from(section),
                operations,
                ns: u64::try_from(ns)?,
            });
        }
    }
    Ok(all)
}

/// A socket whose peer is that port.
fn datagrams(port: u16) -> anyhow::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.connect((Ipv4Addr::LOCALHOST, port))?;
    Ok(socket)
}

/// Has the guest do something at its control port, and waits until it has.
fn order(ports: Ports, what: u8, load: u8) -> anyhow::Result<()> {
    let socket = datagrams(ports.control)?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    socket.send(&[what, load])?;
    let mut answer = [0; 2];
    socket
        .recv(&mut answer)
        .context("no answer at the control port")?;
    Ok(())
}

/// Runs a load; how many operations it was.
fn run(load: Load, ports: Ports, page: &str) -> anyhow::Result<u64> {
    match load {
        Load::Echo { window, count } => echo(ports.echo, window, count),
        Load::ToGuest => to_guest(ports.sink),
        Load::FromGuest => from_guest(ports.source),
        Load::Web => web(ports.web, page),
    }
}

fn echo(port: u16, window: u32, count: u32) -> anyhow::Result<u64> {
    let socket = datagrams(port)?;
    socket.set_read_timeout(Some(LOST))?;
    let send = |number: u32| {
        let mut datagram = [0x5a; ECHO_BYTES];
        datagram[..4].copy_from_slice(&number.to_le_bytes());
        socket.send(&datagram)
    };
    let mut open: std::collections::BTreeSet<u32> = (0..window.min(count)).collect();
    for number in &open {
        send(*number)?;
    }
    let (mut next, mut lost) = (window.min(count), 0);
    while !open.is_empty() {
        let mut answer = [0; ECHO_BYTES + 1];
        match socket.recv(&mut answer) {
            Ok(ECHO_BYTES) => {
                let number = u32::from_le_bytes([answer[0], answer[1], answer[2], answer[3]]);
                // One that was sent twice may come twice.
                if open.remove(&number) && next < count {
                    send(next)?;
                    open.insert(next);
                    next += 1;
                }
            }
            Ok(length) => bail!("{length} bytes came back of {ECHO_BYTES}"),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                lost += 1;
                ensure!(lost <= LOST_MAX, "datagrams are lost over and over");
                for number in &open {
                    send(*number)?;
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(count.into())
}

fn stream(port: u16) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(STREAM_LIMIT))?;
    stream.set_write_timeout(Some(STREAM_LIMIT))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn to_guest(port: u16) -> anyhow::Result<u64> {
    let mut stream = stream(port)?;
    let piece = vec![0x5a; 256 << 10];
    let mut left = STREAM_BYTES;
    while left > 0 {
        let now = left.min(piece.len() as u64);
        stream.write_all(&piece[..usize::try_from(now)?])?;
        left -= now;
    }
    stream.shutdown(Shutdown::Write)?;
    // It closes when it has read all.
    let mut end = [0];
    ensure!(stream.read(&mut end)? == 0, "the sink speaks");
    Ok(STREAM_BYTES / SEGMENT)
}

fn from_guest(port: u16) -> anyhow::Result<u64> {
    let mut stream = stream(port)?;
    stream.write_all(&STREAM_BYTES.to_le_bytes())?;
    let mut piece = vec![0; 256 << 10];
    let mut got = 0;
    loop {
        match stream.read(&mut piece)? {
            0 => break,
            n => got += n as u64,
        }
    }
    ensure!(got == STREAM_BYTES, "{got} bytes of {STREAM_BYTES}");
    Ok(STREAM_BYTES / SEGMENT)
}

/// Several connections that each ask for the page over and over.
fn web(port: u16, page: &str) -> anyhow::Result<u64> {
    let request = format!("GET {page} HTTP/1.1\r\nHost: guest\r\n\r\n");
    thread::scope(|scope| {
        let clients: Vec<_> = (0..WEB_CONNECTIONS)
            .map(|_| scope.spawn(|| requests(port, &request)))
            .collect();
        for client in clients {
            let Ok(result) = client.join() else {
                bail!("a client panicked");
            };
            result?;
        }
        Ok(u64::from(WEB_CONNECTIONS * WEB_REQUESTS))
    })
}

fn requests(port: u16, request: &str) -> anyhow::Result<()> {
    let mut stream = stream(port)?;
    let mut answer = Vec::new();
    for _ in 0..WEB_REQUESTS {
        stream.write_all(request.as_bytes())?;
        answer.clear();
        let body = loop {
            let mut piece = [0; 4096];
            let n = stream.read(&mut piece)?;
            ensure!(n > 0, "the connection ends within an answer");
            answer.extend_from_slice(&piece[..n]);
            if let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
        };
        ensure!(
            answer.starts_with(b"HTTP/1.1 200"),
            "{}",
            String::from_utf8_lossy(&answer)
        );
        let mut left = (body + PAGE_BYTES).saturating_sub(answer.len());
        while left > 0 {
            let mut piece = [0; 4096];
            let n = stream.read(&mut piece)?;
            ensure!(n > 0 && n <= left, "the page has another length");
            left -= n;
        }
    }
    Ok(())
}
