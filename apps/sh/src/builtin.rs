//! Commands that work on the shell itself, and a few small ones that need no process.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use unix::process::Status;
use unix::{Errno, path};

use crate::condition;
use crate::interp::{Flow, Interpreter};
use crate::lexer::is_variable_name;
use crate::printf;
use crate::state::{Exported, ReadOnly, Streams, Variable, quote};

type Run = fn(&mut Interpreter, &[String], &Streams) -> Result<i32, Flow>;

/// Name, function, whether there is a program of the same name (which a pipeline prefers).
const TABLE: &[(&str, Run, Twin)] = &[
    (":", |_, _, _| Ok(0), Twin::None),
    (".", source, Twin::None),
    ("[", bracket, Twin::None),
    ("break", leave_loop, Twin::None),
    ("cd", cd, Twin::None),
    ("command", command, Twin::None),
    ("continue", next_loop, Twin::None),
    ("echo", echo, Twin::Program),
    ("eval", eval, Twin::None),
    ("exec", exec, Twin::None),
    ("exit", exit, Twin::None),
    ("export", export, Twin::None),
    ("false", |_, _, _| Ok(1), Twin::Program),
    ("jobs", jobs, Twin::None),
    ("local", local, Twin::None),
    ("printf", print_formatted, Twin::None),
    ("pwd", pwd, Twin::None),
    ("read", read, Twin::None),
    ("readonly", readonly, Twin::None),
    ("return", return_, Twin::None),
    ("set", set, Twin::None),
    ("shift", shift, Twin::None),
    ("source", source, Twin::None),
    ("test", test, Twin::Program),
    ("true", |_, _, _| Ok(0), Twin::Program),
    ("type", type_, Twin::None),
    ("unset", unset, Twin::None),
    ("wait", wait, Twin::None),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Twin {
    Program,
    None,
}

fn find(name: &str) -> Option<&'static (&'static str, Run, Twin)> {
    TABLE.iter().find(|(n, _, _)| *n == name)
}

/// Whether the name is a builtin.
pub fn exists(name: &str) -> bool {
    find(name).is_some()
}

/// Whether a program of the same name does the same.
pub fn has_program(name: &str) -> bool {
    find(name).is_some_and(|(_, _, twin)| *twin == Twin::Program)
}

/// Names of all, sorted.
pub fn names() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|(name, _, _)| *name)
}

/// Runs one.
pub fn run(
    shell: &mut Interpreter,
    name: &str,
    args: &[String],
    io: &Streams,
) -> Result<i32, Flow> {
    match find(name) {
        Some((_, run, _)) => run(shell, args, io),
        None => Ok(127),
    }
}

fn write(shell: &Interpreter, io: &Streams, text: &str) -> i32 {
    match io.output.write_all(text.as_bytes()) {
        Ok(()) => 0,
        Err(Errno::BrokenPipe) => unix::tool::BROKEN_PIPE_STATUS,
        Err(error) => {
            shell.complain(io, &format!("write error: {error}"));
            1
        }
    }
}

fn number(shell: &Interpreter, text: &str, io: &Streams, name: &str) -> Result<i32, Flow> {
    text.parse()
        .map_err(|_| shell.fatal(io, &format!("{name}: Illegal number: {text}")))
}

fn status_argument(
    shell: &Interpreter,
    args: &[String],
    io: &Streams,
    name: &str,
) -> Result<i32, Flow> {
    match args.first() {
        Some(text) => Ok(number(shell, text, io, name)? & 0xff),
        None => Ok(shell.state.status),
    }
}

fn exit(shell: &mut Interpreter, args: &[String], io: &Streams) -> Result<i32, Flow> {
    Err(Flow::Exit(status_argument(shell, args, io, "exit")?))
}

fn return_(shell: &mut Interpreter, args: &[String], io: &Streams) -> Result<i32, Flow> {
    Err(Flow::Return(status_argument(shell, args, io, "return")?))
}

fn loops(shell: &Interpreter, args: &[String], io: &Streams, name: &str) -> Result<usize, Flow> {
    let wanted = match args.first() {
        Some(text) => usize::try_from(number(shell, text, io, name)?).unwrap_or(0),
        None => 1,
    };
    if wanted == 0 {
        return Err(shell.fatal(io, &format!("{name}: Illegal number: 0")));
    }
    Ok(wanted.min(shell.loop_count()))
}

fn leave_loop(shell: &mut Interpreter, args: &[String], io: &Streams) -> Result<i32, Flow> {
    match loops(shell, args, io, "break")? {
        0 => Ok(0),
        n => Err(Flow::Break(n)),
    }
}

fn next_loop(shell: &mut Interpreter, args: &[String], io: &Streams) -> Result<i32, Flow> {
    match loops(shell, args, io, "continue")? {
        0 => Ok(0),
        n => Err(Flow::Continue(n)),
    }
}

fn cd(shell: &mut Interpreter, args: &[String], io: &Streams) -> Result<i32, Flow> {
    let old = shell.state.directory.clone();
    let (target, announce) = match args.first().map(String::as_str) {
        None => (String::from(shell.state.get("HOME").unwrap_or("/")), false),
        Some("-") => match shell.state.get("OLDPWD") {
            Some(previous) => (String::from(previous), true),
            None => {
                shell.complain(io, "cd: OLDPWD not set");
                return Ok(2);
            }
        },
        Some(path) => (String::from(path), false),
    };
    let full = path::normalize(&shell.state.absolute(&target));
    let problem = match unix::fs::stat(&full) {
        Ok(m) if m.is_dir() => None,
        Ok(_) => Some(Errno::NotDirectory),
        Err(error) => Some(error),
    };
    if let Some(error) = problem {
        shell.complain(io, &format!("cd: can't cd to {target}: {error}"));
        return Ok(2);
    }
    for (name, value) in [("OLDPWD", old), ("PWD", full.clone())] {
        let variable = Variable {
            value: Some(value),
            exported: Exported::Yes,
            read_only: ReadOnly::No,
        };
        shell.state.variables.insert(name.into(), variable);
    }
    shell.state.directory = full;
    if announce {
        let text = format!("{}\n", shell.state.directory);
        return Ok(write(shell, io, &text));
    }
    Ok(0)
}

fn pwd(shell: &mut Interpreter, _args: &[String], io: &Streams) -> Result<i32, Flow> {
    let text = format!("{}\n", shell.state.directory);
    Ok(write(shell, io, &text))
}

fn echo(shell: &mut Interpreter, args: &[String], io: &Streams) -> Result<i32, Flow> {
    Ok(write(shell, io, &printf::echo(args)))
}

fn print_formatted(shell: &mut Interpreter, args: &[String], io: &Streams) -> Result<i32, Flow> {
    let Some((format, rest)) = args.split_first() else {
        shell.complain(io, "printf: missing format");
        return Ok(2);
    };
    let (text, problem) = printf::printf(format, rest);
    let status = write(shell, io, &text);
    if let Some(message) = problem {
        shell.complain(io, &format!("printf: {message}"));
        return Ok(status.max(1));
    }
    Ok(status)
}

fn test(shell: &mut Interpreter, args: &[String], io: &Streams) -> Result<i32, Flow> {
    match condition::evaluate(args, &shell.state.directory) {
        Ok(true) => Ok(0),
        Ok(false) => Ok(1),
        Err(message) => {
            shell.complain(io, &format!("test: {message}"));
            Ok(2)
        }
    }
}

fn bracket(shell: &mut Interpreter, args: &[String], io: &Streams) -> Result<i32, Flow> {
    match args.split_last() {
        Some((last, rest)) if last == "]" => test(shell, rest, io),
        _ => {
            shell.complain(io, "[: missing ]");
            Ok(2)
        }
    }
}

fn eval(shell: &mut Interpreter, args: &[String], io: &Streams) -> Result<i32, Flow> {
    shell.run_text(&args.join(" "), io)
}

fn source(shell: &mut Interpreter, args: &[String], io: &Streams) -> Result<i32, Flow> {
    let Some(name) = args.first() else {
        return Err(shell.fatal(io, ".: file name expected"));
    };
    let full = if name.contains('/') {
        shell.state.absolute(name)
    } else {
        shell
            .state
            .find_program(name)
            .unwrap_or_else(|| shell.state.absolute(name))
    };
    let text = match unix::fs::read(&full) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => return Err(shell.fatal(io, &format!(".: cannot open {name}: {error}"))),
    };
    match shell.run_text(&text, io) {
        Err(Flow::Return(status)) => Ok(status),
        other => other,
    }
}

fn exec(shell: &mut Interpreter, args: &[String], io: &Streams) -> Result<i32, Flow> {
    if args.is_empty() {
        return Ok(0);
    }
    Err(Flow::Exit(shell.run_program(args, &[], io)?))
}

fn command(shell: &mut Interpreter, args: &[String], io: &Streams) -> Result<i32, Flow> {
    match args.first().map(String::as_str) {
        Some("-v" | "-V") => {
            let mut status = 0;
            for name in args.iter().skip(1) {
                let found = if exists(name) || shell.state.functions.contains_key(name) {
                    Some(name.clone())
                } else {
                    shell.state.find_program(name)
                };
                match found {
                    Some(text) => status = status.max(write(shell, io, &format!("{text}\n"))),
                    None => status = 127,
                }
            }
            Ok(status)
        }
        Some(name) if exists(name) => run(shell, name, args.get(1..).unwrap_or_default(), io),
        Some(_) => shell.run_program(args, &[], io),
        None => Ok(0),
    }
}

fn type_(shell: &mut Interpreter, args: &[String], io: &Streams) -> Result<i32, Flow> {
    let mut status = 0;
    for name in args {
        let text = if shell.state.functions.contains_key(name) {
            format!("{name} is a shell function\n")
        } else if exists(name) {
            format!("{name} is a shell builtin\n")
        } else if let Some(path) = shell.state.find_program(name) {
            format!("{name} is {path}\n")
        } else {
            status = 127;
            format!("{name}: not found\n")
        };
        status = status.max(write(shell, io, &text));
    }
    Ok(status)
}

/// `name` or `name=value` arguments of `export`, `readonly` and `local`.
fn declare(
    shell: &mut Interpreter,
    arg: &str,
    io: &Streams,
    mark: fn(&mut Variable),
) -> Result<(), Flow> {
    let (name, value) = match arg.split_once('=') {
        Some((name, value)) => (name, Some(String::from(value))),
        None => (arg, None),
    };
    if !is_variable_name(name) {
        return Err(shell.fatal(io, &format!("{name}: bad variable name")));
    }
    if let Some(value) = value
        && let Err(message) = shell.state.set(name, value)
    {
        return Err(shell.fatal(io, &message));
    }
    let variable = shell
        .state
        .variables
        .entry(name.into())
        .or_insert(Variable {
            value: None,
            exported: Exported::No,
            read_only: ReadOnly::No,
        });
    mark(variable);
    Ok(())
}

fn export(shell: &mut Interpreter, args: &[String], io: &Streams) -> Result<i32, Flow> {
    if args.is_empty() || args == ["-p"] {
        let text: String = shell
            .state
            .environment()
            .iter()
            .map(|(name, value)| format!("export {name}={}\n", quote(value)))
            .collect();
        return Ok(write(shell, io, &text));
    }
    for arg in args {
        declare(shell, arg, io, |v| v.exported = Exported::Yes)?;
    }
    Ok(0)
}

fn readonly(shell: &mut Interpreter, args: &[String], io: &Streams) -> Result<i32, Flow> {
    for arg in args {
        declare(shell, arg, io, |v| v.read_only = ReadOnly::Yes)?;
    }
    Ok(0)
}

fn local(shell: &mut Interpreter, args: &[String], io: &Streams) -> Result<i32, Flow> {
    if shell.locals.is_empty() {
        return Err(shell.fatal(io, "local: not in a function"));
    }
    for arg in args {
        let name = arg.split('=').next().unwrap_or_default();
        let before = shell.state.variables.get(name).cloned();
        if let Some(hidden) = shell.locals.last_mut()
            && !hidden.iter().any(|(n, _)| n == name)
        {
            hidden.push((name.into(), before));
        }
        declare(shell, arg, io, |_| {})?;
    }
    Ok(0)
}

fn unset(shell: &mut Interpreter, args: &[String], io: &Streams) -> Result<i32, Flow> {
    let functions = args.first().is_some_and(|a| a == "-f");
    for name in args.iter().filter(|a| *a != "-f" && *a != "-v") {
        if functions {
            shell.state.functions.remove(name);
        } else if shell
            .state
            .variables
            .get(name)
            .is_some_and(|v| v.read_only == ReadOnly::Yes)
        {
            return Err(shell.fatal(io, &format!("unset: {name}: is read only")));
        } else {
            shell.state.variables.remove(name);
        }
    }
    Ok(0)
}

fn set(shell: &mut Interpreter, args: &[String], io: &Streams) -> Result<i32, Flow> {
    if args.is_empty() {
        let shown: BTreeMap<&String, &String> = shell
            .state
            .variables
            .iter()
            .filter_map(|(name, v)| Some((name, v.value.as_ref()?)))
            .collect();
        let text: String = shown
            .iter()
            .map(|(name, value)| format!("{name}={}\n", quote(value)))
            .collect();
        return Ok(write(shell, io, &text));
    }
    let mut rest = args.iter();
    while let Some(arg) = rest.as_slice().first() {
        let on = arg.starts_with('-');
        if arg == "--" {
            rest.next();
            shell.state.positional = rest.cloned().collect();
            return Ok(0);
        }
        if !(on || arg.starts_with('+')) || arg.len() < 2 {
            shell.state.positional = rest.cloned().collect();
            return Ok(0);
        }
        for c in arg.chars().skip(1) {
            let options = &mut shell.state.options;
            match c {
                'e' => options.errexit = on,
                'f' => options.noglob = on,
                'u' => options.nounset = on,
                'x' => options.xtrace = on,
                _ => return Err(shell.fatal(io, &format!("set: Illegal option -{c}"))),
            }
        }
        rest.next();
    }
    Ok(0)
}

fn shift(shell: &mut Interpreter, args: &[String], io: &Streams) -> Result<i32, Flow> {
    let n = match args.first() {
        Some(text) => usize::try_from(number(shell, text, io, "shift")?).unwrap_or(usize::MAX),
        None => 1,
    };
    if n > shell.state.positional.len() {
        return Err(shell.fatal(io, "shift: can't shift that many"));
    }
    shell.state.positional.drain(..n);
    Ok(0)
}

fn read(shell: &mut Interpreter, args: &[String], io: &Streams) -> Result<i32, Flow> {
    let raw = args.first().is_some_and(|a| a == "-r");
    let names: Vec<&String> = args.iter().skip(usize::from(raw)).collect();
    let mut line = Vec::new();
    // Characters that a backslash protects from splitting.
    let mut protected = Vec::new();
    let mut ended = false;
    let mut escaped = false;
    loop {
        let mut byte = [0u8];
        match io.input.read(&mut byte) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) => {
                shell.complain(io, &format!("read: {error}"));
                return Ok(2);
            }
        }
        let [byte] = byte;
        match byte {
            b'\n' if escaped => escaped = false,
            b'\n' => {
                ended = true;
                break;
            }
            b'\\' if !raw && !escaped => escaped = true,
            other => {
                line.push(other);
                protected.push(escaped);
                escaped = false;
            }
        }
    }
    let separators = String::from(shell.state.get("IFS").unwrap_or(" \t\n"));
    for (name, value) in names
        .iter()
        .zip(split_line(&line, &protected, &separators, names.len()))
    {
        if !is_variable_name(name) {
            return Err(shell.fatal(io, &format!("read: {name}: bad variable name")));
        }
        if let Err(message) = shell.state.set(name, value) {
            return Err(shell.fatal(io, &message));
        }
    }
    Ok(i32::from(!ended))
}

/// Divides a line among so many variables; the last one gets the rest.
fn split_line(line: &[u8], protected: &[bool], separators: &str, count: usize) -> Vec<String> {
    let is_separator = |i: usize| {
        let byte = line.get(i).copied().unwrap_or(0);
        !protected.get(i).copied().unwrap_or(false) && separators.as_bytes().contains(&byte)
    };
    let is_blank =
        |i: usize| is_separator(i) && line.get(i).is_some_and(|b| b.is_ascii_whitespace());
    let text = |from: usize, to: usize| {
        String::from_utf8_lossy(line.get(from..to).unwrap_or_default()).into_owned()
    };
    let mut values = Vec::new();
    let mut at = 0;
    while at < line.len() && is_blank(at) {
        at += 1;
    }
    while values.len() + 1 < count {
        let start = at;
        while at < line.len() && !is_separator(at) {
            at += 1;
        }
        values.push(text(start, at));
        while at < line.len() && is_blank(at) {
            at += 1;
        }
        if at < line.len() && is_separator(at) && !is_blank(at) {
            at += 1;
            while at < line.len() && is_blank(at) {
                at += 1;
            }
        }
    }
    let mut end = line.len();
    while end > at && is_blank(end - 1) {
        end -= 1;
    }
    values.push(text(at, end));
    values
}

fn jobs(shell: &mut Interpreter, _args: &[String], io: &Streams) -> Result<i32, Flow> {
    let mut text = String::new();
    let mut kept = Vec::new();
    for mut job in core::mem::take(&mut shell.state.jobs) {
        let running = job
            .children
            .iter_mut()
            .any(|child| matches!(child.try_wait(), Ok(None)));
        let state = if running { "Running" } else { "Done" };
        text.push_str(&format!("[{}] {state:<24}{}\n", job.number, job.text));
        if running {
            kept.push(job);
        }
    }
    shell.state.jobs = kept;
    Ok(write(shell, io, &text))
}

fn wait(shell: &mut Interpreter, args: &[String], _io: &Streams) -> Result<i32, Flow> {
    let mut status = 0;
    let selected = |job: &crate::state::Job| {
        args.is_empty()
            || args.iter().any(|a| match a.strip_prefix('%') {
                Some(number) => number.parse() == Ok(job.number),
                None => job.children.iter().any(|c| a.parse() == Ok(c.id())),
            })
    };
    let (chosen, kept): (Vec<_>, Vec<_>) = core::mem::take(&mut shell.state.jobs)
        .into_iter()
        .partition(selected);
    shell.state.jobs = kept;
    if chosen.is_empty() && !args.is_empty() {
        return Ok(127);
    }
    for job in chosen {
        for mut child in job.children {
            status = child.wait().map_or(127, |s: Status| s.code());
        }
    }
    Ok(if args.is_empty() { 0 } else { status })
}
