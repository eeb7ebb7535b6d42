//! Runs syntax trees: lists, pipelines, compound commands, functions, programs.

use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;

use unix::Stream;
use unix::process::Terminal;

use crate::builtin;
use crate::parse::Parser;
use crate::pattern::Pattern;
use crate::state::{State, Streams, Variable};
use crate::syntax::{AndOr, Command, Compound, Join, List, Located, LoopKind, Pipeline, Simple};

/// Why the present command does not simply go on to the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// `exit`.
    Exit(i32),
    /// `return`.
    Return(i32),
    /// `break` out of so many loops.
    Break(usize),
    /// `continue` with the so-manyth loop around.
    Continue(usize),
    /// An error that ends a script, but takes an interactive shell only back to its prompt; also
    /// ctrl-C.
    Abort(i32),
}

/// Deepest nesting of running commands and functions.
const DEPTH_MAX: usize = 200;

/// Status after ctrl-C: 128 + SIGINT.
pub const INTERRUPTED: i32 = 130;

/// A shell that runs commands.
#[derive(Debug)]
pub struct Interpreter {
    /// What it remembers.
    pub state: State,
    /// The terminal of an interactive shell.
    pub terminal: Option<Rc<Terminal>>,
    /// Above zero inside conditions, where a failure does not count for `set -e`.
    tested: usize,
    depth: usize,
    loops: usize,
    /// Status of the last command substitution of the present command.
    substitution: Option<i32>,
    /// For each function call that runs: variables that `local` hid.
    pub(crate) locals: Vec<Vec<(String, Option<Variable>)>>,
}

impl Interpreter {
    /// With this state.
    pub fn new(state: State) -> Interpreter {
        Interpreter {
            state,
            terminal: None,
            tested: 0,
            depth: 0,
            loops: 0,
            substitution: None,
            locals: Vec::new(),
        }
    }

    /// Prints `sh: message`.
    pub fn complain(&self, io: &Streams, message: &str) {
        // Nowhere to report that errors cannot be reported.
        let _ = io.errors.write_all(format!("sh: {message}\n").as_bytes());
    }

    /// Prints an error that ends the script.
    pub fn fatal(&self, io: &Streams, message: &str) -> Flow {
        self.complain(io, message);
        Flow::Abort(2)
    }

    /// Runs a text; the status is that of its last command.
    pub fn run_text(&mut self, text: &str, io: &Streams) -> Result<i32, Flow> {
        let mut parser = Parser::new(text);
        let mut status = 0;
        loop {
            match parser.next_command() {
                Ok(None) => return Ok(status),
                Ok(Some(list)) => status = self.run_list(&list, io)?,
                Err(error) => {
                    self.state.status = 2;
                    return Err(self.fatal(io, &format!("syntax error: {error}")));
                }
            }
        }
    }

    /// Runs a list.
    pub fn run_list(&mut self, list: &List, io: &Streams) -> Result<i32, Flow> {
        let mut status = 0;
        for item in list {
            if self.terminal.as_ref().is_some_and(|t| t.take_interrupt()) {
                return Err(Flow::Abort(INTERRUPTED));
            }
            status = if item.background {
                self.background(item, io)?
            } else {
                self.and_or(item, io)?
            };
            self.state.status = status;
        }
        Ok(status)
    }

    fn and_or(&mut self, item: &AndOr, io: &Streams) -> Result<i32, Flow> {
        let mut remaining = item.rest.len();
        let mut status = self.checked_pipeline(&item.first, remaining, io)?;
        for (join, pipeline) in &item.rest {
            remaining -= 1;
            self.state.status = status;
            if (*join == Join::And) == (status == 0) {
                status = self.checked_pipeline(pipeline, remaining, io)?;
            }
        }
        Ok(status)
    }

    /// A pipeline with `set -e`: only the last one of a chain can end the shell.
    fn checked_pipeline(
        &mut self,
        pipeline: &Pipeline,
        remaining: usize,
        io: &Streams,
    ) -> Result<i32, Flow> {
        let tested = usize::from(remaining > 0 || pipeline.prefix.negated);
        self.tested += tested;
        let result = self.pipeline(pipeline, io);
        self.tested -= tested;
        let status = result?;
        if pipeline.prefix.negated {
            return Ok(i32::from(status == 0));
        }
        if status != 0 && self.state.options.errexit && self.tested == 0 && tested == 0 {
            return Err(Flow::Exit(status));
        }
        Ok(status)
    }

    fn pipeline(&mut self, pipeline: &Pipeline, io: &Streams) -> Result<i32, Flow> {
        let started = unix::process::monotonic_ns();
        let result = match pipeline.commands.as_slice() {
            [only] => self.command(only, io),
            commands => {
                let (io, captured) = self.without_capture(io)?;
                let children = self.start_pipeline(commands, &io)?;
                drop(io);
                captured.finish();
                self.wait_for(children)
            }
        };
        if pipeline.prefix.timed {
            let ms = unix::process::monotonic_ns().saturating_sub(started) / 1_000_000;
            let text = format!(
                "real\t{}m{}.{:03}s\n",
                ms / 60_000,
                ms / 1000 % 60,
                ms % 1000
            );
            // As for any message: nowhere to report a failure.
            let _ = io.errors.write_all(text.as_bytes());
        }
        result
    }

    /// Runs a command in this process (programs as their own).
    pub fn command(&mut self, located: &Located, io: &Streams) -> Result<i32, Flow> {
        self.depth += 1;
        let result = if self.depth > DEPTH_MAX {
            Err(self.fatal(io, "commands nested too deeply"))
        } else {
            match &located.command {
                Command::Simple(simple) => self.simple(simple, io),
                Command::Compound(compound, redirects) => match self.redirected(redirects, io) {
                    Ok(Some(io)) => self.compound(compound, &io),
                    Ok(None) => Ok(2),
                    Err(flow) => Err(flow),
                },
                Command::Function { name, body } => {
                    self.state.functions.insert(name.clone(), (**body).clone());
                    Ok(0)
                }
            }
        };
        self.depth -= 1;
        result
    }

    fn compound(&mut self, compound: &Compound, io: &Streams) -> Result<i32, Flow> {
        match compound {
            Compound::Group(list) => self.run_list(list, io),
            Compound::Subshell(list) => Ok(self.subshell(|shell| shell.run_list(list, io))),
            Compound::If(branches, otherwise) => {
                for (condition, body) in branches {
                    if self.condition(condition, io)? == 0 {
                        return self.run_list(body, io);
                    }
                }
                match otherwise {
                    Some(list) => self.run_list(list, io),
                    None => Ok(0),
                }
            }
            Compound::Loop(kind, condition, body) => {
                let mut status = 0;
                loop {
                    // `break` in the condition ends this loop too.
                    let flow = self
                        .condition(condition, io)
                        .map(|s| (s == 0) == (*kind == LoopKind::While));
                    match flow {
                        Ok(true) => {}
                        Ok(false) => return Ok(status),
                        Err(flow) => match after_body(flow)? {
                            Next::Again => continue,
                            Next::Leave => return Ok(status),
                        },
                    }
                    match self.loop_body(body, io, &mut status)? {
                        Next::Again => {}
                        Next::Leave => return Ok(status),
                    }
                }
            }
            Compound::For(name, words, body) => {
                let values = match words {
                    Some(words) => self.expand_words(words, io)?,
                    None => self.state.positional.clone(),
                };
                let mut status = 0;
                for value in values {
                    if let Err(message) = self.state.set(name, value) {
                        return Err(self.fatal(io, &message));
                    }
                    if self.loop_body(body, io, &mut status)? == Next::Leave {
                        break;
                    }
                }
                Ok(status)
            }
            Compound::Case(subject, arms) => {
                let subject = self.expand_text(subject, io)?;
                for (patterns, body) in arms {
                    for pattern in patterns {
                        let pattern = Pattern::new(&self.expand_pattern(pattern, io)?);
                        if pattern.matches(&subject) {
                            return self.run_list(body, io);
                        }
                    }
                }
                Ok(0)
            }
        }
    }

    fn condition(&mut self, list: &List, io: &Streams) -> Result<i32, Flow> {
        self.tested += 1;
        let result = self.run_list(list, io);
        self.tested -= 1;
        result
    }

    fn loop_body(&mut self, body: &List, io: &Streams, status: &mut i32) -> Result<Next, Flow> {
        self.loops += 1;
        let result = self.run_list(body, io);
        self.loops -= 1;
        match result {
            Ok(code) => {
                *status = code;
                Ok(Next::Again)
            }
            Err(flow) => {
                if matches!(flow, Flow::Break(_) | Flow::Continue(_)) {
                    *status = 0;
                }
                after_body(flow)
            }
        }
    }

    /// Number of loops around the present command.
    pub fn loop_count(&self) -> usize {
        self.loops
    }

    /// Runs something on a copy of the state; nothing of it stays but the status.
    fn subshell(&mut self, body: impl FnOnce(&mut Interpreter) -> Result<i32, Flow>) -> i32 {
        let mut shell = Interpreter {
            state: self.state.fork(),
            terminal: self.terminal.clone(),
            tested: self.tested,
            depth: self.depth,
            loops: 0,
            substitution: None,
            locals: Vec::new(),
        };
        match body(&mut shell) {
            Ok(status) => status,
            Err(Flow::Exit(status) | Flow::Return(status) | Flow::Abort(status)) => status,
            Err(Flow::Break(_) | Flow::Continue(_)) => 0,
        }
    }

    /// Output of `$( )`, without its trailing newlines.
    pub fn substitute(&mut self, text: &str, io: &Streams) -> Result<String, Flow> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            self.depth -= 1;
            return Err(self.fatal(io, "commands nested too deeply"));
        }
        let (output, bytes) = Stream::capture();
        let io = Streams {
            output,
            ..io.clone()
        };
        let status = self.subshell(|shell| shell.run_text(text, &io));
        self.depth -= 1;
        self.substitution = Some(status);
        if status == INTERRUPTED && self.terminal.is_some() {
            return Err(Flow::Abort(INTERRUPTED));
        }
        let mut text = String::from_utf8_lossy(&bytes.borrow()).replace('\0', "");
        text.truncate(text.trim_end_matches('\n').len());
        Ok(text)
    }

    pub(crate) fn expand_assignments(
        &mut self,
        simple: &Simple,
        io: &Streams,
    ) -> Result<Vec<(String, String)>, Flow> {
        let mut out = Vec::new();
        for (name, word) in &simple.assignments {
            out.push((name.clone(), self.expand_text(word, io)?));
        }
        Ok(out)
    }

    fn simple(&mut self, simple: &Simple, io: &Streams) -> Result<i32, Flow> {
        self.substitution = None;
        let args = self.expand_words(&simple.words, io)?;
        let Some(name) = args.first() else {
            let Some(io) = self.redirected(&simple.redirects, io)? else {
                return Ok(2);
            };
            for (name, word) in &simple.assignments {
                let value = self.expand_text(word, &io)?;
                self.trace(&[format!("{name}={value}")], &io);
                if let Err(message) = self.state.set(name, value) {
                    return Err(self.fatal(&io, &message));
                }
            }
            return Ok(self.substitution.unwrap_or(0));
        };
        let Some(io) = self.redirected(&simple.redirects, io)? else {
            return Ok(2);
        };
        let assignments = self.expand_assignments(simple, &io)?;
        self.trace(&args, &io);
        if let Some(body) = self.state.functions.get(name).cloned() {
            return self.with_assignments(&assignments, &io, |s| s.call(&body, &args, &io));
        }
        if builtin::exists(name) {
            let rest = args.get(1..).unwrap_or_default();
            return self.with_assignments(&assignments, &io, |s| builtin::run(s, name, rest, &io));
        }
        self.run_program(&args, &assignments, &io)
    }

    fn trace(&self, args: &[String], io: &Streams) {
        if self.state.options.xtrace {
            // As for any message: nowhere to report a failure.
            let _ = io
                .errors
                .write_all(format!("+ {}\n", args.join(" ")).as_bytes());
        }
    }

    /// Variables in front of a function or builtin last as long as that does.
    fn with_assignments(
        &mut self,
        assignments: &[(String, String)],
        io: &Streams,
        body: impl FnOnce(&mut Interpreter) -> Result<i32, Flow>,
    ) -> Result<i32, Flow> {
        let mut hidden = Vec::new();
        for (name, value) in assignments {
            hidden.push((name.clone(), self.state.variables.get(name).cloned()));
            if let Err(message) = self.state.set(name, value.clone()) {
                return Err(self.fatal(io, &message));
            }
        }
        let result = body(self);
        self.restore(hidden);
        result
    }

    fn restore(&mut self, hidden: Vec<(String, Option<Variable>)>) {
        for (name, variable) in hidden.into_iter().rev() {
            match variable {
                Some(variable) => self.state.variables.insert(name, variable),
                None => self.state.variables.remove(&name),
            };
        }
    }

    fn call(&mut self, body: &Located, args: &[String], io: &Streams) -> Result<i32, Flow> {
        let positional = args.get(1..).unwrap_or_default().to_vec();
        let saved = core::mem::replace(&mut self.state.positional, positional);
        let loops = core::mem::take(&mut self.loops);
        self.locals.push(Vec::new());
        let result = self.command(body, io);
        let hidden = self.locals.pop().unwrap_or_default();
        self.restore(hidden);
        self.loops = loops;
        self.state.positional = saved;
        match result {
            Err(Flow::Return(status)) => Ok(status),
            other => other,
        }
    }
}

#[derive(PartialEq, Eq)]
enum Next {
    Again,
    Leave,
}

/// What `break` and `continue` mean for the loop that they reach.
fn after_body(flow: Flow) -> Result<Next, Flow> {
    match flow {
        Flow::Break(0 | 1) => Ok(Next::Leave),
        Flow::Break(n) => Err(Flow::Break(n - 1)),
        Flow::Continue(0 | 1) => Ok(Next::Again),
        Flow::Continue(n) => Err(Flow::Continue(n - 1)),
        other => Err(other),
    }
}
