//! The client's half of the network protocol ([`proto::net`]).
//!
//! [`Nic`] is an interface (`net:/eth0`), [`Session`] the rings to one of its queues, [`FramePort`] a session with buffers of
//! its own that copies whole frames in and out, for those who need no speed. Nothing above Ethernet is known here.
//!
//! # A session
//!
//! ```no_run
//! # use net_client::{BufferAccess, Nic, RxFrame, Space, SessionError, TxFrame};
//! # fn demo(endpoint: ipc::Channel, name: ipc::Channel, vmo: &sys::Vmo) -> Result<(), SessionError> {
//! let nic = Nic::named(endpoint, name)?;
//! let mut session = nic.open_session(0, 256, 256)?;
//! let memory = session.register(vmo, 0, 1 << 20, BufferAccess::Both)?;
//! session.provide(Space { buffer: memory, offset: 0, length: 2048 }, 7)?;    // 7 comes back with the frame
//! session.transmit(&TxFrame::plain(&[Space { buffer: memory, offset: 4096, length: 60 }]), 8)?;
//! session.kick()?;
//! let mut frame = RxFrame::default();
//! loop {
//!     while session.receive(&mut frame)? {
//!         assert_eq!(frame.parts[0].token, 7);
//!     }
//!     while let Some(done) = session.sent()? {
//!         assert_eq!(done.token, 8);
//!     }
//!     session.wait(sys::Deadline::after(core::time::Duration::from_secs(1)))?;
//! }
//! # }
//! ```
//!
//! An executor waits for [`Session::event`] instead of calling [`Session::wait`]: after [`Session::arm`] said that there is
//! nothing, the event is rung with the next frame received or sent.
//!
//! # When the driver dies
//!
//! A session of a named interface outlives its driver: [`Session::wait`], or [`Session::recover`] for those who wait with an
//! executor, finds the next incarnation, registers the buffers with it, gives it the receive buffers that the old one had, and sets the
//! receive mode, offloads and address that were asked for. Frames that were being sent come back from [`Session::sent`] with
//! [`Status::LOST`] and are not sent again: whether they were sent is unknown, and those who need an answer repeat what they
//! asked. Frames that were received and not taken yet are lost.
#![cfg_attr(target_os = "none", no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod error;
mod frame;
mod inflight;
mod nic;
mod port;
mod recovery;
mod session;

pub use error::SessionError;
pub use frame::{Answer, Checksum, RxChecksum, RxFrame, RxPart, Segment, Space, TxDone, TxFrame};
pub use nic::Nic;
pub use port::{FramePort, Offload};
pub use proto::net::{
    BufferAccess, Duplex, Link, MacAddress, NetCounters, NetError, NetInfo, Offloads, PREFIX_MAX,
    ReceiveMode, Segmentation, SegmentationSum, SessionInfo, Status,
};
pub use session::{Buffer, Session};
