//! The control port without the machine: accounts of credit, and who descends from whom.
//!
//! The process (`main.rs`) moves bytes between the port and what it starts. It is there only when the system
//! was told at boot to have a control port: whoever has the other end of the line may do whatever a person
//! at the console may.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod credit;
mod family;
mod window;

pub use credit::{Receiving, Refused, Sending};
pub use family::descendants;
pub use window::Window;
