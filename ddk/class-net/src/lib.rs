//! The network class: what a driver of a network interface implements ([`NetDevice`], [`NetQueue`]), and the engine that
//! serves it to sessions of clients ([`Worker`], [`Supervisor`]). Drivers contain no IPC and never see the bytes of a frame.
//!
//! How sessions come about (channels, handles, pinning) is a backend's business; the engine takes rings,
//! doorbells and pinned buffers, and is the same at every home.
//!
//! # Threads
//!
//! A [`Worker`] per queue pair runs on a thread of its own and serves one session: it takes free buffers and frames from the
//! client's rings, checks them, gives them to the queue, and passes on what was received and sent. The control
//! thread opens sessions, registers buffers, watches over frames that do not leave, follows the link and resets the device.
//!
//! # Trust
//!
//! Whatever a client writes into its rings costs it a status or its session. Buffers stay pinned until the device has
//! finished with them. A device does not give receive buffers back, so a session that ends while the device has some of its buffers
//! ends with a reset, and so does taking a buffer away.
//!
//! # A reset
//!
//! Receive buffers that the device had are given to it again, frames that were being sent end with
//! [`Status::LOST`](proto::net::Status::LOST). Modes and filters are set again by the driver.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod check;
mod counters;
mod device;
mod link;
mod session;
mod supervisor;
mod worker;

pub use counters::QueueCounters;
pub use ddk_class_core::{Doorbell, SessionId, TICK_MS};
pub use device::{
    Checksum, DeviceCounters, Frame, NetDevice, NetQueue, NicInfo, PushError, QueueLimits,
    Received, Segment, SegmentRequest, Wish,
};
pub use link::{Command, Notice, Notices, WorkerLink};
pub use proto::net::{
    Duplex, Link, MacAddress, Offloads, PREFIX_MAX, ReceiveMode, Segmentation, SegmentationSum,
    Status, rx_flags,
};
pub use session::{RingOffsets, Session};
pub use supervisor::{Supervisor, Verdict};
pub use worker::{SEND_LIMIT_TICKS, Worker};

/// Most fragments of a frame to be sent.
pub const FRAGMENTS_MAX: usize = 32;

/// Most device segments of a frame to be sent: each fragment may straddle a page, and 64 KiB have 16 pages.
pub const SEGMENTS_MAX: usize = 80;
