//! The console service: a terminal's line discipline on top of a serial port. [`tty`] is the
//! discipline, a state machine over bytes; the program around it (`main.rs`) moves the bytes
//! between the serial driver, the programs' streams and the clients of the console protocol.
//!
//! It knows nothing of jobs: ctrl-C sets an event, and whoever runs the foreground job acts on it.
#![cfg_attr(target_os = "none", no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod tty;
