//! `sleep`: waits.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::string::String;

use tools::interval_ns;
use unix::{Stop, Tool};
unix::program!("sleep", HELP, run);

const HELP: &str = "\
Usage: sleep NUMBER[smhd]...
Wait for the sum of the NUMBERs: seconds, or minutes, hours, days. NUMBERs may have decimals.
";

fn run(tool: &mut Tool) -> Result<(), Stop> {
    let operands = tool.operands()?;
    if operands.is_empty() {
        return Err(Stop::Usage(String::from("missing operand")));
    }
    let mut total_ns: u64 = 0;
    for text in &operands {
        match interval_ns(text) {
            Some(ns) => total_ns = total_ns.saturating_add(ns),
            None => {
                return Err(Stop::Usage(alloc::format!(
                    "invalid time interval '{text}'"
                )));
            }
        }
    }
    unix::process::sleep_ns(total_ns);
    Ok(())
}
