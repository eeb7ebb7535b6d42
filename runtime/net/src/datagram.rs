//! Datagrams, each behind a header in the pipe.

use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use proto::inet::{NetworkError, UdpClient};
use sys::{Channel, Deadline};

use crate::pipe::{Handles, Pipe, PipeError, Reader, Writer};
use crate::stream::{Waiter, failure};

/// Longest payload of a datagram.
pub const DATAGRAM_MAX: usize = 65_507;

/// Header before each datagram: address (IPv4 in its IPv6 form), port, length.
const HEADER: usize = 16 + 2 + 2;

/// A datagram.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Datagram {
    /// The remote end: where it comes from or goes to.
    pub remote: SocketAddr,
    /// Its payload.
    pub payload: Vec<u8>,
}

/// Puts a datagram into a pipe: all of it, or `false` when there is no room.
pub fn put(writer: &mut Writer, remote: SocketAddr, payload: &[u8]) -> Result<bool, PipeError> {
    let Ok(len) = u16::try_from(payload.len()) else {
        return Ok(false);
    };
    if writer.room()? < HEADER + payload.len() {
        return Ok(false);
    }
    let address = match remote.ip() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    };
    let mut header = [0; HEADER];
    let (first, rest) = header.split_at_mut(16);
    first.copy_from_slice(&address);
    let (port, length) = rest.split_at_mut(2);
    port.copy_from_slice(&remote.port().to_be_bytes());
    length.copy_from_slice(&len.to_be_bytes());
    writer.write(&header)?;
    writer.write(payload)?;
    Ok(true)
}

/// Takes datagrams out of a pipe.
#[derive(Default)]
pub struct Taker {
    /// Header of a datagram whose payload is not all there.
    header: Option<(SocketAddr, usize)>,
}

impl Taker {
    /// The next datagram if all of it is there. Release the reader afterwards.
    pub fn take(&mut self, reader: &mut Reader) -> Result<Option<Datagram>, PipeError> {
        if self.header.is_none() {
            if reader.available()? < HEADER {
                return Ok(None);
            }
            let mut header = [0; HEADER];
            reader.read(&mut header)?;
            let (address, rest) = header.split_first_chunk::<16>().ok_or(PipeError::Corrupt)?;
            let &[p0, p1, l0, l1] = rest else {
                return Err(PipeError::Corrupt);
            };
            let address = Ipv6Addr::from(*address);
            let address = match address.to_ipv4_mapped() {
                Some(v4) => IpAddr::V4(v4),
                None => IpAddr::V6(address),
            };
            let remote = SocketAddr::new(address, u16::from_be_bytes([p0, p1]));
            self.header = Some((remote, u16::from_be_bytes([l0, l1]).into()));
        }
        let Some((remote, len)) = self.header else {
            return Ok(None);
        };
        if reader.available()? < len {
            return Ok(None);
        }
        let mut payload = alloc::vec![0; len];
        reader.read(&mut payload)?;
        self.header = None;
        Ok(Some(Datagram { remote, payload }))
    }
}

/// A UDP socket for one thread. Closed on drop.
pub struct UdpSocket {
    local: SocketAddr,
    pipe: Pipe,
    taker: Taker,
    waiter: Waiter,
    _socket: Channel,
}

impl UdpSocket {
    /// A socket at a local end; see [`UdpClient::bind`].
    pub fn bind(udp: &UdpClient, local: SocketAddr) -> Result<UdpSocket, NetworkError> {
        let (local, shape, socket, memory, to_program, to_stack) =
            udp.bind(local).map_err(failure)?;
        let pipe = Pipe::open(Handles {
            shape,
            memory,
            to_program,
            to_stack,
        })?;
        Ok(UdpSocket {
            local,
            waiter: Waiter::new(&pipe.doorbell, &socket)?,
            pipe,
            taker: Taker::default(),
            _socket: socket,
        })
    }

    /// A socket at any free port of the family of `remote`.
    pub fn unbound_for(udp: &UdpClient, remote: SocketAddr) -> Result<UdpSocket, NetworkError> {
        let any: IpAddr = match remote {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        UdpSocket::bind(udp, SocketAddr::new(any, 0))
    }

    /// The local end.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Sends a datagram, waiting for room in the pipe. Whether it arrives nobody knows.
    pub fn send_to(
        &mut self,
        remote: SocketAddr,
        payload: &[u8],
        deadline: Deadline,
    ) -> Result<(), NetworkError> {
        if payload.len() > DATAGRAM_MAX {
            return Err(NetworkError::Invalid);
        }
        loop {
            let put = put(&mut self.pipe.writer, remote, payload)?;
            if self.pipe.writer.flush()? && put {
                return Ok(());
            }
            if put {
                // Only the announcement is missing.
                while !self.pipe.writer.flush()? {
                    if !self.pipe.writer.arm()? {
                        self.waiter.wait(deadline)?;
                    }
                }
                return Ok(());
            }
            if !self.pipe.writer.arm()? {
                self.waiter.wait(deadline)?;
            }
        }
    }

    /// The next datagram. `TimedOut`.
    pub fn receive(&mut self, deadline: Deadline) -> Result<Datagram, NetworkError> {
        loop {
            if let Some(datagram) = self.taker.take(&mut self.pipe.reader)? {
                self.pipe.reader.release()?;
                return Ok(datagram);
            }
            self.pipe.reader.release()?;
            if !self.pipe.reader.arm()? {
                self.waiter.wait(deadline)?;
            }
        }
    }
}
