//! What the class layers with sessions share (`ddk-class-block`, `ddk-class-net`): the buffers of a session
//! ([`Buffers`]), the ways between control thread and workers ([`Link`], [`Notices`]), and the control thread's bookkeeping
//! ([`Heartbeat`], [`Handover`], [`Watchdog`]).
//!
//! No class is described here: what is said over a link, and what a request is, is each class's own.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod buffers;
mod link;
mod watch;

pub use buffers::{Buffers, Removed};
pub use link::{KEY_COMMAND, KEY_INTERRUPT, Link, Notices};
pub use watch::{Handover, Heartbeat, Watchdog};

use ddk::{EventQueue, PlatformError};

/// Length of a watchdog tick in milliseconds.
pub const TICK_MS: u32 = 1000;

/// Number of a session, unique in a driver's life.
pub type SessionId = u32;

/// Wakes the other side of a ring.
pub trait Doorbell: Send {
    /// Rings it.
    fn ring(&self);

    /// Delivers its ringing to `events` with this key.
    ///
    /// # Errors
    /// When the system refuses.
    fn watch(&self, events: &dyn EventQueue, key: u64) -> Result<(), PlatformError>;

    /// Stops that.
    fn unwatch(&self, events: &dyn EventQueue, key: u64);
}
