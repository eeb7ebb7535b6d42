//! Running another program with the streams of this one.

use alloc::string::String;

use unix::process::{Spawn, Status};
use unix::{Errno, Stream, Tool};

/// How a message names the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// As it is.
    Plain,
    /// In quotation marks.
    Quoted,
}

/// Runs a program and gives its status as a shell counts: 127 if there is none of that name, 126 if
/// it cannot be run. What is wrong is said on standard error.
pub fn run(
    tool: &mut Tool,
    args: &[String],
    environment: &[(String, String)],
    naming: Naming,
) -> i32 {
    let Some(name) = args.first() else { return 0 };
    let shown = match naming {
        Naming::Plain => name.clone(),
        Naming::Quoted => alloc::format!("'{name}'"),
    };
    let path = environment
        .iter()
        .find(|(n, _)| n == "PATH")
        .map_or("/bin:/boot/bin", |(_, v)| v);
    let directory = unix::fs::current_dir();
    let Some(program) = unix::process::find_program(name, path, &directory) else {
        tool.warn(format_args!("{shown}: {}", Errno::NoEntry));
        return 127;
    };
    let spawn = Spawn {
        program: &program,
        args,
        env: environment,
        directory: &directory,
        stdin: Stream::stdin(),
        stdout: Stream::stdout(),
        stderr: Stream::stderr(),
    };
    match spawn.start().and_then(|mut child| child.wait()) {
        Ok(status) => {
            if let Status::Faulted(_, why) = &status {
                tool.warn(format_args!("{name}: {why}"));
            }
            status.code()
        }
        Err(error) => {
            tool.warn(format_args!("{shown}: {error}"));
            if error == Errno::NoEntry { 127 } else { 126 }
        }
    }
}
