//! Sockets for programs, over the services `tcp`, `udp` and `dns` ([`proto::inet`]).
//!
//! [`TcpStream`], [`TcpListener`] and [`UdpSocket`] wait by blocking their thread; [`AsyncTcpStream`] and
//! [`AsyncTcpListener`] are for an [`executor`]. [`pipe`] is the shared memory below them, which the stack uses from its
//! side. Nothing here knows a protocol's details; those are the stack's.
//!
//! # Copies
//!
//! A byte that is sent is copied from the program's buffer to the pipe, from there to the connection's send buffer (where
//! it stays until it is acknowledged), from there to the frame, and, where the interface does not send from the stack's
//! own memory, to a buffer that the device can reach. A received byte is copied from the device's buffer to the
//! connection's receive buffer (which puts segments in order), to the pipe, and to the program's buffer. No copy and no
//! system call is made per packet or message; a doorbell is rung only for a side that sleeps.
#![cfg_attr(target_os = "none", no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod asynchronous;
pub mod datagram;
mod listener;
pub mod pipe;
mod resolve;
mod stream;

pub use asynchronous::{AsyncTcpListener, AsyncTcpStream};
pub use datagram::{DATAGRAM_MAX, Datagram, UdpSocket};
pub use listener::TcpListener;
pub use pipe::Pipe;
pub use proto::inet::{Connection, Delay, Family, NetworkError, TcpState};
pub use resolve::{parse_host_port, resolve_one};
pub use stream::{TcpAborter, TcpStream, failure};
