//! `xargs`: builds commands from standard input.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::string::String;
use alloc::vec::Vec;

use tools::command::Naming;
use unix::{Arg, Args, Stop, Stream, Tool};
unix::program!("xargs", HELP, run);

const HELP: &str = "\
Usage: xargs [-0rt] [-n MAX] [-L LINES] [-I TEXT] [COMMAND [ARGUMENT]...]
Run COMMAND (echo by default) with arguments read from standard input.

  -0       they end with NUL, and nothing in them is special
  -I TEXT  one line at a time, in the place of TEXT in the ARGUMENTs
  -L LINES at most so many lines a run
  -n MAX   at most so many arguments a run
  -r       no run without arguments
  -t       print the commands first
";

/// Most bytes of arguments in one run: they travel in one message with the environment.
const BYTES_MAX: usize = 40 * 1024;

fn run(tool: &mut Tool) -> Result<(), Stop> {
    tool.args.options_first();
    let (mut zero, mut skip_empty, mut trace) = (false, false, false);
    let mut most = usize::MAX;
    let mut lines_most = None;
    let mut placeholder: Option<String> = None;
    let mut command = Vec::new();
    while let Some(arg) = tool.advance()? {
        match arg {
            Arg::Short('0') => zero = true,
            Arg::Short('r') => skip_empty = true,
            Arg::Short('t') => trace = true,
            Arg::Short('I') => placeholder = Some(tool.value()?),
            Arg::Short(option @ ('n' | 'L')) => {
                let text = tool.value()?;
                match text.parse() {
                    Ok(n) if n > 0 && option == 'n' => most = n,
                    Ok(n) if n > 0 => lines_most = Some(n),
                    _ => {
                        let text = alloc::format!("invalid number \"{text}\" for -{option} option");
                        return Err(Stop::Usage(text));
                    }
                }
            }
            Arg::Operand(text) => command.push(text),
            other => return Err(Args::unknown(&other).into()),
        }
    }
    if command.is_empty() {
        command.push(String::from("echo"));
    }
    let input = match Stream::stdin().read_to_end() {
        Ok(bytes) => bytes,
        Err(error) => return Err(tool.fatal(1, format_args!("read error: {error}"))),
    };
    let by_line = placeholder.is_some();
    let items = if zero {
        tools::words::by_nul(&input)
    } else if by_line {
        tools::words::by_line(&input)
    } else {
        match tools::words::quoted(&input) {
            Ok(items) => items,
            Err(message) => return Err(tool.fatal(1, format_args!("{message}"))),
        }
    };
    let environment = unix::process::environment();
    let mut runner = Runner {
        environment,
        trace,
        status: 0,
    };
    if let Some(placeholder) = placeholder {
        for item in items {
            let args: Vec<String> = command
                .iter()
                .map(|a| a.replace(&placeholder, &item.text))
                .collect();
            runner.run(tool, &args)?;
        }
        return finish(&runner);
    }
    let mut batch: Vec<String> = Vec::new();
    let (mut bytes, mut lines, mut ran) = (0, 0usize, false);
    for item in items {
        let full = batch.len() >= most
            || bytes + item.text.len() > BYTES_MAX
            || lines_most.is_some_and(|m| lines >= m);
        if full && !batch.is_empty() {
            runner.run_batch(tool, &command, &mut batch)?;
            (bytes, lines, ran) = (0, 0, true);
        }
        bytes += item.text.len() + 1;
        lines += usize::from(item.ends_line);
        batch.push(item.text);
    }
    if !batch.is_empty() || !(ran || skip_empty) {
        runner.run_batch(tool, &command, &mut batch)?;
    }
    finish(&runner)
}

fn finish(runner: &Runner) -> Result<(), Stop> {
    if runner.status == 0 {
        Ok(())
    } else {
        Err(Stop::Status(runner.status))
    }
}

struct Runner {
    environment: Vec<(String, String)>,
    trace: bool,
    status: i32,
}

impl Runner {
    fn run_batch(
        &mut self,
        tool: &mut Tool,
        command: &[String],
        batch: &mut Vec<String>,
    ) -> Result<(), Stop> {
        let mut args = command.to_vec();
        args.append(batch);
        self.run(tool, &args)
    }

    /// As POSIX: 123 for a run that failed, the end at once for 255 and for what cannot be run.
    fn run(&mut self, tool: &mut Tool, args: &[String]) -> Result<(), Stop> {
        tool.out.flush()?;
        if self.trace {
            // Nowhere to report that a message cannot be shown.
            let _ = Stream::stderr().write_all(alloc::format!("{}\n", args.join(" ")).as_bytes());
        }
        match tools::command::run(tool, args, &self.environment, Naming::Plain) {
            0 => Ok(()),
            status @ (126 | 127) => Err(Stop::Status(status)),
            255 => {
                let name = args.first().map_or("", String::as_str);
                Err(tool.fatal(
                    124,
                    format_args!("{name}: exited with status 255; aborting"),
                ))
            }
            status if status > 128 => {
                let name = args.first().map_or("", String::as_str);
                Err(tool.fatal(
                    125,
                    format_args!("{name}: terminated by signal {}", status - 128),
                ))
            }
            _ => {
                self.status = 123;
                Ok(())
            }
        }
    }
}
