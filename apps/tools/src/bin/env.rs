//! `env`: prints the environment or runs a program in another one.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::vec::Vec;

use tools::command::Naming;
use unix::{Arg, Args, Stop, Tool};
unix::program!("env", HELP, run);

const HELP: &str = "\
Usage: env [-i] [-u NAME]... [NAME=VALUE]... [COMMAND [ARGUMENT]...]
Run COMMAND with the variables set; without COMMAND print the environment.

  -i       start with an empty environment
  -u NAME  remove a variable
";

fn run(tool: &mut Tool) -> Result<(), Stop> {
    tool.args.options_first();
    let mut environment = unix::process::environment();
    let mut command = Vec::new();
    while let Some(arg) = tool.advance()? {
        match arg {
            Arg::Short('i') => environment.clear(),
            Arg::Short('u') => {
                let name = tool.value()?;
                environment.retain(|(n, _)| *n != name);
            }
            Arg::Operand(text) => match text.split_once('=') {
                Some((name, value)) if command.is_empty() => {
                    environment.retain(|(n, _)| n != name);
                    environment.push((name.into(), value.into()));
                }
                _ => command.push(text),
            },
            other => return Err(Args::unknown(&other).into()),
        }
    }
    if command.is_empty() {
        for (name, value) in &environment {
            writeln!(tool.out, "{name}={value}")?;
        }
        return Ok(());
    }
    Err(Stop::Status(tools::command::run(
        tool,
        &command,
        &environment,
        Naming::Quoted,
    )))
}
