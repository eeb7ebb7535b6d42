//! The process `httpd`. Start-up handles: `tcp`, and of `file`, `dev`, `drv`, `proc`, `ip`, `log-reader` those that it is to
//! show. Arguments: the port (80 without one). Environment: `BULKHEAD_DASHBOARD_TOKEN`, without which nothing can be changed.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

mod api;
mod connection;
mod files;

use alloc::string::String;
use alloc::sync::Arc;
use core::net::{Ipv6Addr, SocketAddr};
use core::sync::atomic::{AtomicUsize, Ordering};

use net::TcpListener;
use proto::inet::TcpClient;
use rt::{Channel, startup};
use supervision::Supervised;

rt::entry!(main);

/// Connections that are served at a time; further ones wait to be accepted.
const CONNECTIONS_MAX: usize = 128;
/// Connections that wait.
const BACKLOG: u16 = 128;
const PORT: u16 = 80;
/// How long it waits for a connection before it answers the heartbeat.
const TURN_MS: u32 = 4_000;
/// Between looks whether a connection has ended, when there are too many.
const FULL_PAUSE: core::time::Duration = core::time::Duration::from_millis(5);

fn main() -> i32 {
    match run() {
        Ok(()) => 0,
        Err(error) => {
            rt::error!("{error}");
            1
        }
    }
}

/// Counts a connection as long as it lives.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn run() -> Result<(), String> {
    let port = match startup::args().get(1) {
        Some(text) => text
            .parse()
            .map_err(|_| alloc::format!("{text:?} is no port"))?,
        None => PORT,
    };
    let tcp = startup::take::<Channel>("tcp").ok_or("started without the handle \"tcp\"")?;
    let tcp = TcpClient::new(tcp);
    let local = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port);
    let bind = || {
        TcpListener::bind(&tcp, local, BACKLOG)
            .map_err(|error| alloc::format!("port {port}: {error}"))
    };
    let mut listener = bind()?;
    let supervised = Supervised::from_startup();
    let token = startup::env("BULKHEAD_DASHBOARD_TOKEN").unwrap_or("");
    rt::info!(
        "serving port {port}{}",
        if token.is_empty() { ", read-only" } else { "" }
    );
    let serving = Arc::new(AtomicUsize::new(0));
    loop {
        if let Some(own) = &supervised {
            own.answer();
        }
        while serving.load(Ordering::Relaxed) >= CONNECTIONS_MAX {
            rt::thread::sleep(FULL_PAUSE);
        }
        let stream = match listener.accept(TURN_MS) {
            Ok(stream) => stream,
            Err(net::NetworkError::TimedOut | net::NetworkError::Reset) => continue,
            // The stack died: its successor knows nothing of the listener.
            Err(net::NetworkError::Gone) => {
                listener = bind()?;
                continue;
            }
            Err(error) => return Err(alloc::format!("accept: {error}")),
        };
        serving.fetch_add(1, Ordering::Relaxed);
        let counted = Counted(serving.clone());
        let served = rt::thread::builder("connection").spawn(move || {
            let _counted = counted;
            connection::serve(stream);
        });
        if let Err(error) = served {
            rt::warn!("a connection is refused: {error}");
        }
    }
}
