//! The `sh` program: command line to [`shell::session`].
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use shell::interp::Interpreter;
use shell::session;
use shell::state::{Options, State};
use unix::Stream;
use unix::process::Terminal;

unix::program!(run);

const HELP: &str = "\
Usage: sh [-efuxi] [FILE [ARGUMENT]...]
       sh [-efux] -c COMMANDS [NAME [ARGUMENT]...]
Run commands from FILE, from COMMANDS, or from standard input.

  -c   run COMMANDS
  -e   end with the first command that fails
  -f   no path-name expansion
  -i   interactive, even if standard input is no terminal
  -u   using an unset variable is an error
  -x   show commands before they run
";

fn run(args: Vec<String>) -> i32 {
    if let Err(error) = unix::fs::wait_ready() {
        fail(&format!("cannot wait for the file systems: {error}"), 0);
    }
    let mut args = args.into_iter();
    let mut name = args.next().unwrap_or_else(|| String::from("sh"));
    let mut options = Options::default();
    let mut from_string = false;
    let mut interactive = false;
    let mut rest = args.as_slice();
    while let Some((first, others)) = rest.split_first() {
        if first == "--help" {
            // A closed standard output takes no help.
            let _ = Stream::stdout().write_all(HELP.as_bytes());
            return 0;
        }
        let Some(flags) = first.strip_prefix('-').filter(|f| !f.is_empty()) else {
            break;
        };
        rest = others;
        if flags == "-" {
            break;
        }
        for flag in flags.chars() {
            match flag {
                'c' => from_string = true,
                'e' => options.errexit = true,
                'f' => options.noglob = true,
                'i' => interactive = true,
                'u' => options.nounset = true,
                'x' => options.xtrace = true,
                _ => return fail(&format!("Illegal option -{flag}"), 2),
            }
        }
    }
    let mut rest = rest.iter().cloned();
    let mut script = None;
    if from_string {
        match rest.next() {
            Some(text) => script = Some(text),
            None => return fail("-c requires an argument", 2),
        }
        if let Some(text) = rest.next() {
            name = text;
        }
    } else if let Some(file) = rest.next() {
        match unix::fs::read(&file) {
            Ok(bytes) => script = Some(String::from_utf8_lossy(&bytes).into_owned()),
            Err(error) => return fail(&format!("cannot open {file}: {error}"), 127),
        }
        name = file;
    }
    let mut shell = Interpreter::new(State::new(name, rest.collect()));
    shell.state.options = options;
    if let Some(text) = script {
        return session::run_script(&mut shell, &text);
    }
    if (interactive || Stream::stdin().is_terminal())
        && let Some(terminal) = Terminal::open()
    {
        return session::run_interactive(&mut shell, terminal);
    }
    match Stream::stdin().read_to_end() {
        Ok(bytes) => session::run_script(&mut shell, &String::from_utf8_lossy(&bytes)),
        Err(error) => fail(&format!("cannot read standard input: {error}"), 2),
    }
}

fn fail(message: &str, status: i32) -> i32 {
    // Nowhere to report that errors cannot be reported.
    let _ = Stream::stderr().write_all(format!("sh: {message}\n").as_bytes());
    status
}
