//! Small servers: a thread for each connection.

use core::net::{Ipv6Addr, SocketAddr};

use net::{NetworkError, TcpListener, TcpStream};
use proto::inet::TcpClient;
use tools::service;
use unix::{Stop, Tool};

/// Connections that wait.
const BACKLOG: u16 = 32;

/// Listens at a port of all addresses.
pub fn listen(tool: &mut Tool, port: u16) -> Result<TcpListener, Stop> {
    let tcp: TcpClient = service::connect(tool, "tcp")?;
    let local = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port);
    TcpListener::bind(&tcp, local, BACKLOG)
        .map_err(|error| tool.fatal(1, format_args!("port {port}: {error}")))
}

/// The next connection, however long it takes.
pub fn accept(tool: &mut Tool, listener: &TcpListener) -> Result<TcpStream, Stop> {
    loop {
        match listener.accept(60_000) {
            Ok(stream) => return Ok(stream),
            Err(NetworkError::TimedOut | NetworkError::Reset) => {}
            Err(error) => return Err(crate::failed(tool, "accept", error)),
        }
    }
}

/// Serves every connection in a thread of its own, for ever.
pub fn serve(tool: &mut Tool, port: u16, serve: fn(TcpStream)) -> Result<(), Stop> {
    let listener = listen(tool, port)?;
    loop {
        let stream = accept(tool, &listener)?;
        let thread = rt::thread::builder("connection").spawn(move || serve(stream));
        if let Err(error) = thread {
            tool.warn(format_args!("a connection is refused: {error}"));
        }
    }
}
