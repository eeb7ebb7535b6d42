//! The process `devmgr`: owns the device tree, starts bus drivers and drivers, tears devices down when a
//! driver ends, serves `dev:`, `drv:`, `disk:`, `serial:` and `other:`.
//!
//! It waits on one port. Of the processes around it it asks only the firmware service and bus drivers, each
//! with a deadline; drivers ask it, never the other way round.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

mod admin;
mod bus_death;
mod buses;
mod conduct;
mod grant;
mod keep;
mod manager;
mod reload;
mod reopen;
mod reports;
mod serve;
mod watch;

use alloc::string::String;

rt::entry!(main);

fn main() {
    if let Err(why) = run() {
        rt::error!("{why}");
        rt::exit(1);
    }
}

fn run() -> Result<(), String> {
    let mut manager = manager::Manager::from_startup()?;
    if !manager.take_over()? {
        manager.enumerate();
        manager.keep_enumerated();
    }
    manager.bind_all();
    manager.run()
}
