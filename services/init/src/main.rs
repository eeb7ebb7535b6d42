//! The process `init`: starts the services of the table with their handles, watches them, reports how they
//! end, and ends the system in good order. It serves `proc:` and `power:` and nothing else.
//!
//! One thread waits on one port and never waits for a service. What needs a service's answer (the console's
//! streams for the shell, the power switch) is done by a thread of its own.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

mod ending;
mod shell;
mod slots;
mod spawn;
mod supervisor;

rt::entry!(main);

fn main() {
    // Without the kernel's message there is no log to complain to.
    let Ok(start) = rt::startup::take_init() else {
        return;
    };
    match supervisor::Supervisor::new(start) {
        Ok(supervisor) => supervisor.run(),
        Err(why) => rt::error!("cannot start the system: {why}"),
    }
}
