//! `nbd`: exports disks. A thread for each connection, with a session of the disk and a buffer of its own; many requests
//! of a connection are under way at a time, and are answered in the order in which the disk does them.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

mod connection;
mod pipeline;

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::{Ipv6Addr, SocketAddr};
use core::sync::atomic::{AtomicUsize, Ordering};

use net::{NetworkError, TcpListener};
use proto::devmgr::EndpointsClient;
use proto::inet::TcpClient;
use tools::service;
use unix::{Arg, Args, Stop, Tool};
unix::program!("nbd", HELP, run);

const HELP: &str = "\
Usage: nbd [-r] [-p PORT] [DISK...]
Export disks and partitions over the network block device protocol: those named, as lsblk shows
them, or all. An export has the name of its disk; the first one is also the one without a name.

  -r  only for reading
  -p  the port, 10809 without it
";

/// The port of the protocol (IANA).
const PORT: u16 = 10_809;
const BACKLOG: u16 = 32;
/// Most connections: each has a buffer of some megabytes.
const CONNECTIONS_MAX: usize = 16;

/// What connections are served from.
pub struct Exports {
    disks: EndpointsClient,
    /// Names, in the order of the list.
    names: Vec<String>,
    writing: Writing,
    connections: AtomicUsize,
}

/// A connection that counts; with its end it does not.
struct Counted(Arc<Exports>);

impl Counted {
    /// `None`: there are as many as there may be.
    fn new(exports: &Arc<Exports>) -> Option<Counted> {
        let counted = Counted(exports.clone());
        let before = exports.connections.fetch_add(1, Ordering::Relaxed);
        (before < CONNECTIONS_MAX).then_some(counted)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether exports can be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Writing {
    /// As the disk allows.
    Allowed,
    /// Not at all.
    Forbidden,
}

fn run(tool: &mut Tool) -> Result<(), Stop> {
    let (mut port, mut writing) = (PORT, Writing::Allowed);
    let mut wanted: Vec<String> = Vec::new();
    while let Some(arg) = tool.advance()? {
        match arg {
            Arg::Short('r') => writing = Writing::Forbidden,
            Arg::Short('p') => {
                let text = tool.value()?;
                port = text
                    .parse()
                    .map_err(|_| Stop::Usage(alloc::format!("'{text}': not a port")))?;
            }
            Arg::Operand(text) => {
                let name = text.strip_prefix("disk:/").unwrap_or(&text);
                wanted.push(String::from(name));
            }
            other => return Err(Args::unknown(&other).into()),
        }
    }
    let disks: EndpointsClient = service::connect(tool, "disk")?;
    service::answer(tool, "cannot list disks", disks.wait_settled())?;
    let list = service::answer(tool, "cannot list disks", disks.list())?;
    let all: Vec<String> = list.into_iter().map(|e| e.name).collect();
    for name in &wanted {
        if !all.contains(name) {
            return Err(tool.fatal(1, format_args!("{name}: no such disk; `lsblk` shows them")));
        }
    }
    let names = if wanted.is_empty() { all } else { wanted };
    let tcp: TcpClient = service::connect(tool, "tcp")?;
    let local = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port);
    let listener = TcpListener::bind(&tcp, local, BACKLOG)
        .map_err(|error| tool.fatal(1, format_args!("port {port}: {error}")))?;
    writeln!(tool.out, "exporting {} on port {port}", names.join(", "))?;
    tool.out.flush()?;
    let exports = Arc::new(Exports {
        disks,
        names,
        writing,
        connections: AtomicUsize::new(0),
    });
    loop {
        let stream = match listener.accept(60_000) {
            Ok(stream) => stream,
            Err(NetworkError::TimedOut | NetworkError::Reset) => continue,
            Err(error) => return Err(tool.fatal(1, format_args!("accept: {error}"))),
        };
        let peer = stream.connection().remote;
        let Some(counted) = Counted::new(&exports) else {
            rt::warn!("{peer}: there are {CONNECTIONS_MAX} connections already");
            continue;
        };
        let served = rt::thread::builder("connection").spawn(move || {
            if let Err(error) = connection::serve(stream, &counted.0) {
                rt::warn!("{peer}: {error}");
            }
        });
        if let Err(error) = served {
            tool.warn(format_args!("a connection is refused: {error}"));
        }
    }
}
