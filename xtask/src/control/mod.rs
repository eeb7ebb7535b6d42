//! Running systems: what is known of them, and what can be asked of them over their control ports.
//!
//! `cargo xtask run --headless` stays with its guest and owns the line to it. It listens at a Unix socket for
//! clients, which speak the guest's own protocol ([`control_link`]), and passes their requests on under
//! numbers of its own ([`switch`]). So there may be many clients at a time; one that goes away takes its
//! requests with it and disturbs no other.

mod client;
mod push;
pub mod registry;
mod sh;
pub mod switch;

pub use client::{Client, Ended, Interrupt, Limits};
pub use push::{PushArgs, push};
pub use sh::{ShArgs, sh};
