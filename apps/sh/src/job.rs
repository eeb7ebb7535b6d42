//! Programs: starting them, alone or in pipelines and in the background, and waiting for them.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use unix::process::{Child, Spawn, Status, Waited};
use unix::{Errno, Stream};

use crate::builtin;
use crate::interp::{Flow, INTERRUPTED, Interpreter};
use crate::state::{Exported, Job, Streams, quote};
use crate::syntax::{AndOr, Command, Located};

impl Interpreter {
    /// Starts each command as a process; a command that could not be started counts by its status.
    pub(crate) fn start_pipeline(
        &mut self,
        commands: &[Located],
        io: &Streams,
    ) -> Result<Vec<Started>, Flow> {
        let mut children = Vec::new();
        let mut input = io.input.clone();
        let last = commands.len().saturating_sub(1);
        for (index, command) in commands.iter().enumerate() {
            let mut own = Streams {
                input,
                ..io.clone()
            };
            input = Stream::Null;
            if index < last {
                let (reader, writer) = self.pipe(io)?;
                own.output = writer;
                input = reader;
            }
            children.push(self.start_member(command, &own)?);
        }
        Ok(children)
    }

    pub(crate) fn pipe(&self, io: &Streams) -> Result<(Stream, Stream), Flow> {
        Stream::pipe().map_err(|e| self.fatal(io, &format!("cannot make a pipe: {e}")))
    }

    pub(crate) fn start_member(
        &mut self,
        located: &Located,
        io: &Streams,
    ) -> Result<Started, Flow> {
        if let Command::Simple(simple) = &located.command
            && let Some(first) = simple.words.first()
            && let [crate::syntax::Part::Plain(name)] = first.as_slice()
            && !self.state.functions.contains_key(name)
            && (!builtin::exists(name) || builtin::has_program(name))
            && (!builtin::exists(name) || self.state.find_program(name).is_some())
        {
            let args = self.expand_words(&simple.words, io)?;
            let Some(io) = self.redirected(&simple.redirects, io)? else {
                return Ok(Started::Failed(2));
            };
            let assignments = self.expand_assignments(simple, &io)?;
            return Ok(self.start_program(&args, &assignments, &io));
        }
        Ok(self.start_subshell(&located.source, io))
    }

    pub(crate) fn start_subshell(&mut self, source: &str, io: &Streams) -> Started {
        let args = [
            self.state.name.clone(),
            String::from("-c"),
            self.subshell_script(source),
            self.state.name.clone(),
        ];
        let program = unix::process::own_program();
        self.spawn(&program, &args, &self.state.environment(), io)
    }

    /// A script that runs `source` with the variables, functions and parameters of this shell, in
    /// another process.
    pub fn subshell_script(&self, source: &str) -> String {
        let mut script = String::new();
        for (name, variable) in &self.state.variables {
            if variable.exported == Exported::No
                && let Some(value) = &variable.value
            {
                script.push_str(&format!("{name}={}\n", quote(value)));
            }
        }
        for (name, body) in &self.state.functions {
            script.push_str(&format!("{name}() {}\n", body.source));
        }
        script.push_str("set --");
        for value in &self.state.positional {
            script.push(' ');
            script.push_str(&quote(value));
        }
        script.push('\n');
        let o = self.state.options;
        for (on, flag) in [(o.noglob, 'f'), (o.nounset, 'u'), (o.xtrace, 'x')] {
            if on {
                script.push_str(&format!("set -{flag}\n"));
            }
        }
        if self.state.status != 0 {
            script.push_str(&format!("(exit {})\n", self.state.status));
        }
        if o.errexit {
            // In one line with the command: what comes before must not end the script.
            script.push_str("set -e; ");
        }
        script.push_str(source);
        script.push('\n');
        script
    }

    pub(crate) fn background(&mut self, item: &AndOr, io: &Streams) -> Result<i32, Flow> {
        let quiet = |s: &Stream| match s {
            Stream::Capture(_) => Stream::Null,
            other => other.clone(),
        };
        let io = Streams {
            input: Stream::Null,
            output: quiet(&io.output),
            errors: quiet(&io.errors),
        };
        let started = if item.rest.is_empty() && item.first.prefix == Default::default() {
            self.start_pipeline(&item.first.commands, &io)?
        } else {
            alloc::vec![self.start_subshell(&item.source, &io)]
        };
        let mut children = Vec::new();
        for member in started {
            match member {
                Started::Child { child, .. } => children.push(*child),
                Started::Failed(status) => self.state.status = status,
            }
        }
        if let Some(last) = children.last() {
            self.state.last_background = Some(last.id());
            let number = self.state.jobs.iter().map(|j| j.number).max().unwrap_or(0) + 1;
            if self.terminal.is_some() {
                let text = format!("[{number}] {}\n", last.id());
                // As for any message: nowhere to report a failure.
                let _ = io.errors.write_all(text.as_bytes());
            }
            self.state.jobs.push(Job {
                number,
                text: item.source.clone(),
                children,
            });
        }
        Ok(0)
    }

    /// Starts a program and waits for it.
    pub fn run_program(
        &mut self,
        args: &[String],
        assignments: &[(String, String)],
        io: &Streams,
    ) -> Result<i32, Flow> {
        let (io, captured) = self.without_capture(io)?;
        let started = self.start_program(args, assignments, &io);
        drop(io);
        captured.finish();
        self.wait_for(alloc::vec![started])
    }

    pub(crate) fn start_program(
        &self,
        args: &[String],
        assignments: &[(String, String)],
        io: &Streams,
    ) -> Started {
        let Some(name) = args.first() else {
            return Started::Failed(0);
        };
        let mut environment = self.state.environment();
        for (name, value) in assignments {
            environment.retain(|(n, _)| n != name);
            environment.push((name.clone(), value.clone()));
        }
        let Some(program) = self.state.find_program(name).filter(|_| !name.is_empty()) else {
            self.complain(io, &format!("{name}: command not found"));
            return Started::Failed(127);
        };
        self.spawn(&program, args, &environment, io)
    }

    pub(crate) fn spawn(
        &self,
        program: &str,
        args: &[String],
        environment: &[(String, String)],
        io: &Streams,
    ) -> Started {
        let spawn = Spawn {
            program,
            args,
            env: environment,
            directory: &self.state.directory,
            stdin: io.input.clone(),
            stdout: io.output.clone(),
            stderr: io.errors.clone(),
        };
        let name = args.first().map_or("", String::as_str);
        let result = match spawn.start() {
            // Text that is no program is a script, if it is a file at all.
            Err(Errno::NotExecutable) if !is_binary(program) => {
                let mut script = alloc::vec![self.state.name.clone(), String::from(program)];
                script.extend(args.iter().skip(1).cloned());
                let shell = unix::process::own_program();
                Spawn {
                    program: &shell,
                    args: &script,
                    ..spawn
                }
                .start()
            }
            other => other,
        };
        match result {
            Ok(child) => Started::Child {
                child: Box::new(child),
                name: String::from(name),
                errors: io.errors.clone(),
            },
            Err(Errno::NoEntry) => {
                self.complain(io, &format!("{name}: No such file or directory"));
                Started::Failed(127)
            }
            Err(error) => {
                let error = match unix::fs::stat(program) {
                    Ok(m) if m.is_dir() => Errno::IsDirectory,
                    _ => error,
                };
                self.complain(io, &format!("{name}: {error}"));
                Started::Failed(126)
            }
        }
    }

    /// Waits for all; the status is that of the last one. Ctrl-C kills them.
    pub(crate) fn wait_for(&mut self, members: Vec<Started>) -> Result<i32, Flow> {
        let mut status = 0;
        let mut interrupted = false;
        let mut members = members.into_iter();
        while let Some(member) = members.next() {
            let (mut child, name, errors) = match member {
                Started::Child {
                    child,
                    name,
                    errors,
                } => (child, name, errors),
                Started::Failed(code) => {
                    status = code;
                    continue;
                }
            };
            let waited = match &self.terminal {
                Some(terminal) if !interrupted => child.wait_or_interrupt(terminal),
                _ => child.wait().map(Waited::Ended),
            };
            let ended = match waited {
                Ok(Waited::Ended(ended)) => ended,
                Ok(Waited::Interrupted) => {
                    interrupted = true;
                    // One that has just ended needs no killing.
                    let _ = child.kill(2);
                    for other in members.as_mut_slice() {
                        if let Started::Child { child, .. } = other {
                            let _ = child.kill(2);
                        }
                    }
                    child.wait().unwrap_or(Status::Killed(2))
                }
                Err(error) => {
                    let text = format!("sh: cannot wait for {name}: {error}\n");
                    // As for any message: nowhere to report a failure.
                    let _ = errors.write_all(text.as_bytes());
                    Status::Exited(127)
                }
            };
            let text = match &ended {
                Status::Faulted(_, why) => Some(format!("sh: {name}: {why}\n")),
                Status::Killed(signal) if !interrupted && *signal != 13 => {
                    Some(format!("sh: {name}: killed\n"))
                }
                _ => None,
            };
            if let Some(text) = text {
                // As for any message: nowhere to report a failure.
                let _ = errors.write_all(text.as_bytes());
            }
            status = ended.code();
        }
        if interrupted {
            return Err(Flow::Abort(INTERRUPTED));
        }
        Ok(status)
    }
}

/// Whether a file has bytes that no script has.
pub(crate) fn is_binary(program: &str) -> bool {
    let mut head = [0u8; 128];
    let read = unix::fs::File::open(program).and_then(|mut f| f.read(&mut head));
    match read {
        Ok(n) => head.get(..n).is_none_or(|h| h.contains(&0)),
        Err(_) => true,
    }
}

/// A member of a pipeline.
#[derive(Debug)]
pub(crate) enum Started {
    /// It runs.
    Child {
        child: Box<Child>,
        name: String,
        errors: Stream,
    },
    /// It could not be started.
    Failed(i32),
}
