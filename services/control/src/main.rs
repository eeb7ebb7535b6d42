//! The process `control`. Started with the handles `serial` (endpoints of class serial), `archive` (programs),
//! and those that the commands that it runs are given; its argument is the name of the serial port.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

#[cfg(target_os = "none")]
extern crate alloc;

#[cfg(target_os = "none")]
mod execute;
#[cfg(target_os = "none")]
mod line;
#[cfg(target_os = "none")]
mod replace;
#[cfg(target_os = "none")]
mod request;
#[cfg(target_os = "none")]
mod service;

#[cfg(target_os = "none")]
rt::entry!(service::run);

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("the control service runs on Bulkhead only");
}
