//! The network stack: smoltcp's protocols over any number of interfaces, served to programs as `tcp:`, `udp:`, `dns:` and
//! `ip:` ([`proto::inet`]).
//!
//! - [`link`]: what an interface's frames go through; a loopback, and a wire in memory that loses, repeats and reorders.
//! - [`interface`]: a link with its addresses, routes and sockets.
//! - [`stack`]: all interfaces, the choice among them, ports, listeners.
//! - [`serve`]: the schemes, and a task for each connection.
//!
//! It knows no device: frames come and go through a session of `net-client`, whose rings and buffers outlive the driver.
//! What is in flight when a driver dies is lost, as on a wire, and TCP sends it again.
#![cfg_attr(target_os = "none", no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod advertisement;
mod coalesce;
mod congestion;
pub mod convert;
mod device;
pub mod interface;
pub mod link;
pub mod nic;
mod recovery;
pub mod segment;
pub mod serve;
pub mod stack;
