//! `poweroff`: switches the machine off.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use rt::proto::power::PowerClient;
use tools::service;
use unix::{Stop, Tool};
unix::program!("poweroff", HELP, run);

const HELP: &str = "\
Usage: poweroff
Switch the machine off.
";

fn run(tool: &mut Tool) -> Result<(), Stop> {
    tool.operands()?;
    let client: PowerClient = service::connect(tool, "power")?;
    let answer = client.power_off(0);
    service::answer(tool, "cannot switch off", answer)
}
