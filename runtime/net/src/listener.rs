//! A listener for one thread.

use core::net::SocketAddr;
use core::time::Duration;

use proto::inet::{NetworkError, TcpClient, TcpListenerClient};

use crate::pipe::Handles;
use crate::stream::{TcpStream, failure};

/// Time that the stack has beyond that of the wait itself.
pub(crate) const GRACE: Duration = Duration::from_secs(10);

/// Takes connections in.
pub struct TcpListener {
    local: SocketAddr,
    client: TcpListenerClient,
}

impl TcpListener {
    /// Listens at an address; see [`TcpClient::listen`].
    pub fn bind(
        tcp: &TcpClient,
        local: SocketAddr,
        backlog: u16,
    ) -> Result<TcpListener, NetworkError> {
        let (local, listener) = tcp.listen(local, backlog).map_err(failure)?;
        Ok(TcpListener {
            local,
            client: TcpListenerClient::new(listener),
        })
    }

    /// Where it listens.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// The next connection. `TimedOut`.
    pub fn accept(&self, timeout_ms: u32) -> Result<TcpStream, NetworkError> {
        let limit = Duration::from_millis(timeout_ms.into()) + GRACE;
        let channel =
            sys::AsHandle::duplicate(self.client.channel()).map_err(|_| NetworkError::Gone)?;
        let client = TcpListenerClient::new(channel).with_timeout(limit);
        let (connection, shape, socket, memory, to_program, to_stack) =
            client.accept(timeout_ms).map_err(failure)?;
        let handles = Handles {
            shape,
            memory,
            to_program,
            to_stack,
        };
        TcpStream::new(connection, socket, handles)
    }
}
