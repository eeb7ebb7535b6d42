//! `reboot`: restarts the machine.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use rt::proto::power::PowerClient;
use tools::service;
use unix::{Stop, Tool};
unix::program!("reboot", HELP, run);

const HELP: &str = "\
Usage: reboot
Restart the machine.
";

fn run(tool: &mut Tool) -> Result<(), Stop> {
    tool.operands()?;
    let client: PowerClient = service::connect(tool, "power")?;
    let answer = client.reboot();
    service::answer(tool, "cannot restart", answer)
}
