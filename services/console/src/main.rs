//! The console's process. Started with the handles `serial` (endpoints of class serial) and
//! `serve:console` (server end of the console protocol), and the argument `interactive` or
//! `headless`, then the name of a serial port that is not for it, if there is one.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

#[cfg(target_os = "none")]
mod service;

#[cfg(target_os = "none")]
rt::entry!(service::run);

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("the console runs on Bulkhead only");
}
