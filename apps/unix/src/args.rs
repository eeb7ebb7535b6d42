//! Command-line arguments in the GNU manner: clusters of short options, values attached or
//! apart, long options with unambiguous abbreviations left out, `--`, options after operands.

use alloc::string::String;
use alloc::vec::Vec;
use alloc::{format, vec};

/// One argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arg {
    /// `-x`.
    Short(char),
    /// `--name`, without a value that was attached to it.
    Long(String),
    /// Anything else.
    Operand(String),
}

/// What is wrong with the command line: the text after `name: `.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageError(pub String);

/// Goes through the arguments one by one.
#[derive(Debug)]
pub struct Args {
    rest: vec::IntoIter<String>,
    cluster: Vec<char>,
    attached: Option<String>,
    last: Option<Arg>,
    only_operands: bool,
    stop_at_operand: bool,
}

impl Args {
    /// Over the arguments after the program's name.
    pub fn new(args: Vec<String>) -> Args {
        Args {
            rest: args.into_iter(),
            cluster: Vec::new(),
            attached: None,
            last: None,
            only_operands: false,
            stop_at_operand: false,
        }
    }

    /// From the first operand on everything is an operand, as for commands that run another one.
    pub fn options_first(&mut self) {
        self.stop_at_operand = true;
    }

    /// The next argument, or `None` after the last one.
    pub fn advance(&mut self) -> Result<Option<Arg>, UsageError> {
        if let Some(value) = self.attached.take() {
            let name = match &self.last {
                Some(Arg::Long(name)) => name.as_str(),
                _ => "",
            };
            return Err(UsageError(format!(
                "option '--{name}' doesn't allow an argument: '{value}'"
            )));
        }
        if let Some(c) = self.cluster.pop() {
            return Ok(Some(self.remember(Arg::Short(c))));
        }
        let Some(arg) = self.rest.next() else {
            return Ok(None);
        };
        if self.only_operands || arg == "-" || !arg.starts_with('-') {
            self.only_operands |= self.stop_at_operand;
            return Ok(Some(self.remember(Arg::Operand(arg))));
        }
        if arg == "--" {
            self.only_operands = true;
            return self.advance();
        }
        if let Some(long) = arg.strip_prefix("--") {
            let name = match long.split_once('=') {
                Some((name, value)) => {
                    self.attached = Some(String::from(value));
                    name
                }
                None => long,
            };
            return Ok(Some(self.remember(Arg::Long(String::from(name)))));
        }
        self.cluster = arg.chars().skip(1).collect();
        self.cluster.reverse();
        self.advance()
    }

    fn remember(&mut self, arg: Arg) -> Arg {
        self.last = Some(arg.clone());
        arg
    }

    /// The value of the option that was returned last: attached, the rest of its cluster, or the
    /// next argument.
    pub fn value(&mut self) -> Result<String, UsageError> {
        if let Some(value) = self.attached.take() {
            return Ok(value);
        }
        if !self.cluster.is_empty() {
            self.cluster.reverse();
            return Ok(core::mem::take(&mut self.cluster).into_iter().collect());
        }
        match self.rest.next() {
            Some(value) => Ok(value),
            None => Err(UsageError(match &self.last {
                Some(Arg::Long(name)) => format!("option '--{name}' requires an argument"),
                Some(Arg::Short(c)) => format!("option requires an argument -- '{c}'"),
                _ => String::from("missing argument"),
            })),
        }
    }

    /// The value attached to the long option that was returned last, if any.
    pub fn attached_value(&mut self) -> Option<String> {
        self.attached.take()
    }

    /// The error for an argument that the program does not know.
    pub fn unknown(arg: &Arg) -> UsageError {
        UsageError(match arg {
            Arg::Short(c) => format!("invalid option -- '{c}'"),
            Arg::Long(name) => format!("unrecognized option '--{name}'"),
            Arg::Operand(text) => format!("extra operand '{text}'"),
        })
    }

    /// Everything that has not been looked at, as it stands.
    pub fn remaining(&mut self) -> Vec<String> {
        self.rest.by_ref().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(list: &[&str]) -> Args {
        Args::new(list.iter().map(|s| String::from(*s)).collect())
    }

    #[test]
    fn clusters_values_and_operands() {
        let mut a = args(&[
            "-la",
            "x",
            "-n5",
            "-n",
            "6",
            "--width=3",
            "--all",
            "--",
            "-y",
        ]);
        assert_eq!(a.advance().unwrap(), Some(Arg::Short('l')));
        assert_eq!(a.advance().unwrap(), Some(Arg::Short('a')));
        assert_eq!(a.advance().unwrap(), Some(Arg::Operand("x".into())));
        assert_eq!(a.advance().unwrap(), Some(Arg::Short('n')));
        assert_eq!(a.value().unwrap(), "5");
        assert_eq!(a.advance().unwrap(), Some(Arg::Short('n')));
        assert_eq!(a.value().unwrap(), "6");
        assert_eq!(a.advance().unwrap(), Some(Arg::Long("width".into())));
        assert_eq!(a.value().unwrap(), "3");
        assert_eq!(a.advance().unwrap(), Some(Arg::Long("all".into())));
        assert_eq!(a.advance().unwrap(), Some(Arg::Operand("-y".into())));
        assert_eq!(a.advance().unwrap(), None);
    }

    #[test]
    fn missing_and_unwanted_values() {
        let mut a = args(&["-n"]);
        a.advance().unwrap();
        assert_eq!(
            a.value().unwrap_err().0,
            "option requires an argument -- 'n'"
        );
        let mut a = args(&["--all=3"]);
        a.advance().unwrap();
        assert!(a.advance().is_err());
    }

    #[test]
    fn options_first_stops_at_the_command() {
        let mut a = args(&["-n", "1", "ls", "-l"]);
        a.options_first();
        a.advance().unwrap();
        a.value().unwrap();
        assert_eq!(a.advance().unwrap(), Some(Arg::Operand("ls".into())));
        assert_eq!(a.advance().unwrap(), Some(Arg::Operand("-l".into())));
    }
}
