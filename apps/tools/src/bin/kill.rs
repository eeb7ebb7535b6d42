//! `kill`: ends processes.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::string::String;
use alloc::vec::Vec;

use rt::proto::proc::ProcessesClient;
use tools::{processes, service};
use unix::{Stop, Tool};
unix::program!("kill", HELP, run);

const HELP: &str = "\
Usage: kill [-9 | -SIGNAL] PROCESS...
End each PROCESS, given by its ID or its name. There are no signals to catch: the number only shows
in the exit status of the process.
";

/// SIGTERM.
const DEFAULT_SIGNAL: i32 = 15;

fn signal(text: &str) -> Option<i32> {
    let name = text.strip_prefix("SIG").unwrap_or(text);
    Some(match name {
        "HUP" => 1,
        "INT" => 2,
        "QUIT" => 3,
        "ABRT" => 6,
        "KILL" => 9,
        "SEGV" => 11,
        "PIPE" => 13,
        "TERM" => 15,
        number => number.parse().ok().filter(|n| (1..=64).contains(n))?,
    })
}

fn run(tool: &mut Tool) -> Result<(), Stop> {
    let mut args = tool.args.remaining().into_iter().peekable();
    let mut number = DEFAULT_SIGNAL;
    if let Some(option) = args
        .peek()
        .and_then(|a| a.strip_prefix('-'))
        .map(String::from)
    {
        args.next();
        let text = match option.as_str() {
            "-help" => return write!(tool.out, "{HELP}"),
            "s" => args.next().unwrap_or_default(),
            _ => option,
        };
        match signal(&text) {
            Some(n) => number = n,
            None if text == "-" => {}
            None => return Err(tool.fatal(1, format_args!("{text}: invalid signal specification"))),
        }
    }
    let operands: Vec<String> = args.collect();
    if operands.is_empty() {
        return Err(Stop::Usage(String::from("missing operand")));
    }
    let client: ProcessesClient = service::connect(tool, "proc")?;
    let list = processes::list(tool, &client)?;
    for operand in &operands {
        let found = processes::matching(&list, operand);
        if found.is_empty() {
            tool.fail(format_args!("({operand}) - No such process"));
        }
        for pid in found {
            if let Err(error) = client.kill(pid, number) {
                tool.fail(format_args!("({operand}) - {}", service::text(error)));
            }
        }
    }
    Ok(())
}
