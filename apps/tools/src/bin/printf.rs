//! `printf`: prints formatted arguments.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::string::String;

use unix::{Stop, Tool};
unix::program!("printf", HELP, run);

const HELP: &str = "\
Usage: printf FORMAT [ARGUMENT]...
Print the ARGUMENTs as FORMAT says.
";

fn run(tool: &mut Tool) -> Result<(), Stop> {
    let args = tool.args.remaining();
    let Some((format, rest)) = args.split_first() else {
        return Err(Stop::Usage(String::from("missing operand")));
    };
    let (text, problem) = shell::printf::printf(format, rest);
    tool.out.bytes(text.as_bytes())?;
    if let Some(message) = problem {
        tool.fail(format_args!("{message}"));
    }
    Ok(())
}
