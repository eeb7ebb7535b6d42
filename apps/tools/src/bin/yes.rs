//! `yes`: prints a line again and again.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::string::String;

use unix::{Stop, Tool};
unix::program!("yes", HELP, run);

const HELP: &str = "\
Usage: yes [STRING]...
Print the STRINGs (or y) until killed.
";

fn run(tool: &mut Tool) -> Result<(), Stop> {
    let words = tool.operands()?;
    let line = if words.is_empty() {
        String::from("y\n")
    } else {
        words.join(" ") + "\n"
    };
    let block = line.repeat((4096 / line.len()).max(1));
    loop {
        tool.out.bytes(block.as_bytes())?;
        tool.out.flush()?;
    }
}
