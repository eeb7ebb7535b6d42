//! What a shell remembers: variables, functions, positional parameters, options, jobs.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use unix::process::Child;
use unix::{Stream, path};

use crate::syntax::Located;

/// A variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Its value; `None` for a name that is only marked for export.
    pub value: Option<String>,
    /// Whether programs get it.
    pub exported: Exported,
    /// Whether it may be changed.
    pub read_only: ReadOnly,
}

/// Whether programs get a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exported {
    /// They do.
    Yes,
    /// They do not.
    No,
}

/// Whether a variable may be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadOnly {
    /// It keeps its value.
    Yes,
    /// It may be changed.
    No,
}

/// The three standard streams of a command.
#[derive(Clone, Debug)]
pub struct Streams {
    /// Descriptor 0.
    pub input: Stream,
    /// Descriptor 1.
    pub output: Stream,
    /// Descriptor 2.
    pub errors: Stream,
}

impl Streams {
    /// Those of this process.
    pub fn own() -> Streams {
        Streams {
            input: Stream::stdin(),
            output: Stream::stdout(),
            errors: Stream::stderr(),
        }
    }
}

/// Options of `set`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// `-e`: a command that fails ends the shell.
    pub errexit: bool,
    /// `-u`: using an unset variable is an error.
    pub nounset: bool,
    /// `-x`: commands are shown before they run.
    pub xtrace: bool,
    /// `-f`: no path-name expansion.
    pub noglob: bool,
}

/// A background job.
#[derive(Debug)]
pub struct Job {
    /// Number, from 1.
    pub number: usize,
    /// What was typed.
    pub text: String,
    /// Its processes, of which the last one gives the status.
    pub children: Vec<Child>,
}

/// State of a shell.
#[derive(Debug)]
pub struct State {
    /// `$0`.
    pub name: String,
    /// Variables.
    pub variables: BTreeMap<String, Variable>,
    /// Functions.
    pub functions: BTreeMap<String, Located>,
    /// `$1` and so on.
    pub positional: Vec<String>,
    /// `$?`.
    pub status: i32,
    /// `$!`.
    pub last_background: Option<u64>,
    /// Current directory, absolute.
    pub directory: String,
    /// Options of `set`.
    pub options: Options,
    /// Background jobs.
    pub jobs: Vec<Job>,
}

/// Where programs are looked for when `PATH` is not set.
pub const DEFAULT_PATH: &str = "/bin:/boot/bin";

impl State {
    /// With the environment of this process.
    pub fn new(name: String, positional: Vec<String>) -> State {
        let mut state = State {
            name,
            variables: BTreeMap::new(),
            functions: BTreeMap::new(),
            positional,
            status: 0,
            last_background: None,
            directory: unix::fs::current_dir(),
            options: Options::default(),
            jobs: Vec::new(),
        };
        for (name, value) in unix::process::environment() {
            if crate::lexer::is_variable_name(&name) {
                let value = Some(value);
                let variable = Variable {
                    value,
                    exported: Exported::Yes,
                    read_only: ReadOnly::No,
                };
                state.variables.insert(name, variable);
            }
        }
        if state.get("PATH").is_none() {
            state.assign("PATH", DEFAULT_PATH.into(), Exported::Yes);
        }
        let directory = state.directory.clone();
        state.assign("PWD", directory, Exported::Yes);
        // Never from the environment, where it would change how every script is read.
        state.assign("IFS", " \t\n".into(), Exported::No);
        state
    }

    /// A copy for a subshell; jobs stay with the original.
    pub fn fork(&self) -> State {
        State {
            name: self.name.clone(),
            variables: self.variables.clone(),
            functions: self.functions.clone(),
            positional: self.positional.clone(),
            status: self.status,
            last_background: self.last_background,
            directory: self.directory.clone(),
            options: self.options,
            jobs: Vec::new(),
        }
    }

    /// Value of a variable.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).and_then(|v| v.value.as_deref())
    }

    /// Sets a variable, keeping its export mark.
    pub fn set(&mut self, name: &str, value: String) -> Result<(), String> {
        match self.variables.get_mut(name) {
            Some(variable) if variable.read_only == ReadOnly::Yes => {
                Err(format!("{name}: is read only"))
            }
            Some(variable) => {
                variable.value = Some(value);
                Ok(())
            }
            None => {
                self.assign(name, value, Exported::No);
                Ok(())
            }
        }
    }

    fn assign(&mut self, name: &str, value: String, exported: Exported) {
        let variable = Variable {
            value: Some(value),
            exported,
            read_only: ReadOnly::No,
        };
        self.variables.insert(String::from(name), variable);
    }

    /// The environment for a program.
    pub fn environment(&self) -> Vec<(String, String)> {
        self.variables
            .iter()
            .filter(|(_, v)| v.exported == Exported::Yes)
            .filter_map(|(name, v)| Some((name.clone(), v.value.clone()?)))
            .collect()
    }

    /// A path as the current directory sees it.
    pub fn absolute(&self, text: &str) -> String {
        path::join(&self.directory, text)
    }

    /// Where `PATH` finds a program.
    pub fn find_program(&self, name: &str) -> Option<String> {
        unix::process::find_program(
            name,
            self.get("PATH").unwrap_or(DEFAULT_PATH),
            &self.directory,
        )
    }
}

/// Text in single quotes, so that the shell reads it back as it is.
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('\'');
    for c in text.chars() {
        if c == '\'' {
            out.push_str("'\\''");
        } else {
            out.push(c);
        }
    }
    out.push('\'');
    out
}
