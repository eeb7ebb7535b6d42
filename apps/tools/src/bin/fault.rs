//! `fault`: ends by a fault, for trying out what the system does then.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::string::String;

use unix::{Stop, Tool};
unix::program!("fault", HELP, run);

const HELP: &str = "\
Usage: fault panic | stack
End by a fault: a panic (an illegal instruction), or a stack that runs into its guard page.
";

fn run(tool: &mut Tool) -> Result<(), Stop> {
    match tool.operands()?.first().map(String::as_str) {
        Some("panic") => panic!("as asked for"),
        Some("stack") => {
            let depth = deeper(1);
            Err(tool.fatal(1, format_args!("the stack had room for {depth} levels")))
        }
        _ => Err(Stop::Usage(String::from("missing operand"))),
    }
}

/// Recursion that the compiler cannot turn into a loop and that never returns in practice.
fn deeper(level: u64) -> u64 {
    let frame = core::hint::black_box([level; 64]);
    if level == u64::MAX {
        return level;
    }
    let below = deeper(level + 1);
    below.wrapping_add(frame.iter().fold(0, |sum: u64, n| sum.wrapping_add(*n)))
}
