//! The process `httpd`. Start-up handles: `tcp`, and of `file`, `dev`, `drv`, `proc`, `ip`, `log-reader` those that it is to
//! show. Arguments: the port (80 without one). Environment: `BULKHEAD_DASHBOARD_TOKEN`, without which nothing can be changed.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

mod api;
mod connection;
mod files;

use alloc::boxed::Box;
use alloc::string::String;
use core::net::{Ipv6Addr, SocketAddr};
use core::time::Duration;

use httpd::places::{Ends, Places};
use net::{NetworkError, TcpAborter, TcpListener};
use proto::inet::TcpClient;
use rt::{Channel, startup, time};
use supervision::Supervised;

rt::entry!(main);

/// Connections that wait to be accepted, while all places are taken.
const BACKLOG: u16 = 128;
const PORT: u16 = 80;
/// How long it waits for a connection before it answers the heartbeat.
const TURN_MS: u32 = 4_000;
/// Between looks whether a connection has ended, when there are too many.
const FULL_PAUSE: Duration = Duration::from_millis(5);
/// After a connection that could not be taken in.
const FAILURE_PAUSE: Duration = Duration::from_millis(100);

fn main() -> i32 {
    match run() {
        Ok(()) => 0,
        Err(error) => {
            rt::error!("{error}");
            1
        }
    }
}

/// The end of a connection.
struct End(TcpAborter);

impl Ends for End {
    fn end(&self) {
        // One that is gone needs no end.
        let _ = self.0.abort();
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
    let failed = |error: NetworkError| alloc::format!("port {port}: {error}");
    let mut listener = TcpListener::bind(&tcp, local, BACKLOG).map_err(failed)?;
    let supervised = Supervised::from_startup();
    let token = startup::env("BULKHEAD_DASHBOARD_TOKEN").unwrap_or("");
    rt::info!(
        "serving port {port}{}",
        if token.is_empty() { ", read-only" } else { "" }
    );
    let mut places = Places::default();
    let mut was_told = false;
    loop {
        if let Some(own) = &supervised {
            own.answer();
        }
        if !places.has_room(time::now_ns()) {
            rt::thread::sleep(FULL_PAUSE);
            continue;
        }
        let taken = listener.accept(TURN_MS).and_then(|stream| {
            let end = End(stream.aborter()?);
            let place = places.take(Box::new(end), time::now_ns());
            let served = rt::thread::builder("connection").spawn(move || {
                connection::serve(stream, &place);
            });
            served.map(drop).map_err(|_| NetworkError::LimitReached)
        });
        match taken {
            Ok(()) => was_told = false,
            Err(NetworkError::TimedOut | NetworkError::Reset) => {}
            // The stack died, and its successor knows nothing of the listener; or it was the connection that died.
            Err(NetworkError::Gone) => match TcpListener::bind(&tcp, local, BACKLOG) {
                Ok(anew) => listener = anew,
                Err(NetworkError::AddressInUse) => rt::thread::sleep(FAILURE_PAUSE),
                Err(error) => return Err(failed(error)),
            },
            // Too many for the system at the moment: that passes.
            Err(error) => {
                if !was_told {
                    rt::warn!("connections are refused: {error}");
                }
                was_told = true;
                rt::thread::sleep(FAILURE_PAUSE);
            }
        }
    }
}
