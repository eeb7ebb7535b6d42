//! Communication: channels, ports and futexes.

pub mod channel;
pub mod futex;
pub mod port;
