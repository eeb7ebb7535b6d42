//! Words to arguments: parameters, command substitution, arithmetic, field splitting, path names.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::arith;
use crate::interp::{Flow, Interpreter};
use crate::pattern::{Directories, Pattern, PatternChar, expand_path};
use crate::state::{State, Streams};
use crate::syntax::{Modifier, NullTest, Part, Quoting, Word};

/// A field while it is put together: characters, quoted or not.
#[derive(Clone, Debug, Default)]
struct Field {
    chars: Vec<PatternChar>,
    /// A quotation stood here: the field exists even if it is empty.
    present: bool,
}

/// Fields of a word that is being expanded.
#[derive(Debug, Default)]
struct Fields {
    done: Vec<Field>,
    current: Field,
    /// What came last ended a field, so that the next text begins another one.
    split: bool,
}

impl Fields {
    fn quoted(&mut self, text: &str) {
        self.current
            .chars
            .extend(text.chars().map(PatternChar::Literal));
        self.current.present = true;
        self.split = false;
    }

    fn plain(&mut self, text: &str) {
        self.current
            .chars
            .extend(text.chars().map(PatternChar::Active));
        self.current.present |= !text.is_empty();
        self.split = false;
    }

    fn end_field(&mut self) {
        self.done.push(core::mem::take(&mut self.current));
        self.split = true;
    }

    /// Text of an expansion outside of quotes: divided at the characters of `separators` (IFS).
    fn split(&mut self, text: &str, separators: &str) {
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            if !separators.contains(c) {
                self.current.chars.push(PatternChar::Active(c));
                self.current.present = true;
                self.split = false;
                continue;
            }
            if c.is_ascii_whitespace() {
                // White space around another separator belongs to that.
                while chars
                    .peek()
                    .is_some_and(|n| n.is_ascii_whitespace() && separators.contains(*n))
                {
                    chars.next();
                }
                if self.current.present {
                    self.end_field();
                    if let Some(n) = chars.peek()
                        && !n.is_ascii_whitespace()
                        && separators.contains(*n)
                    {
                        chars.next();
                        while chars
                            .peek()
                            .is_some_and(|n| n.is_ascii_whitespace() && separators.contains(*n))
                        {
                            chars.next();
                        }
                    }
                }
            } else {
                self.end_field();
                while chars
                    .peek()
                    .is_some_and(|n| n.is_ascii_whitespace() && separators.contains(*n))
                {
                    chars.next();
                }
            }
        }
    }

    fn finish(mut self) -> Vec<Field> {
        if self.current.present {
            self.done.push(self.current);
        }
        self.done
    }
}

/// Whether text that stands in the word itself is divided into fields.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Splitting {
    /// No: the lexer has done that.
    Text,
    /// Yes: it is the operand of an expansion outside of quotes.
    Operand,
}

struct ShellDirectories<'a>(&'a State);

impl Directories for ShellDirectories<'_> {
    fn names(&self, path: &str) -> Vec<String> {
        unix::fs::read_dir(&self.0.absolute(path))
            .map(|entries| entries.into_iter().map(|e| e.name).collect())
            .unwrap_or_default()
    }
    fn exists(&self, path: &str) -> bool {
        let full = self.0.absolute(path);
        if path.ends_with('/') {
            unix::fs::stat(&full).is_ok_and(|m| m.is_dir())
        } else {
            unix::fs::lstat(&full).is_ok()
        }
    }
}

struct ShellVariables<'a>(&'a mut State);

impl arith::Variables for ShellVariables<'_> {
    fn get(&self, name: &str) -> Option<String> {
        self.0.get(name).map(String::from)
    }
    fn set(&mut self, name: &str, value: String) {
        // A read-only variable keeps its value; the expression still has its own.
        let _ = self.0.set(name, value);
    }
}

impl Interpreter {
    /// Arguments that the words give.
    pub fn expand_words(&mut self, words: &[Word], io: &Streams) -> Result<Vec<String>, Flow> {
        let mut out = Vec::new();
        for word in words {
            let mut fields = Fields::default();
            self.expand_into(word, Splitting::Text, &mut fields, io)?;
            for field in fields.finish() {
                self.expand_names(&field, &mut out);
            }
        }
        Ok(out)
    }

    fn expand_names(&self, field: &Field, out: &mut Vec<String>) {
        if !self.state.options.noglob && Pattern::new(&field.chars).is_special() {
            let found = expand_path(&field.chars, &ShellDirectories(&self.state));
            if !found.is_empty() {
                out.extend(found);
                return;
            }
        }
        out.push(field.chars.iter().map(|c| c.char()).collect());
    }

    /// The one text that a word gives where nothing is split: assignments, redirections, `case`.
    pub fn expand_text(&mut self, word: &Word, io: &Streams) -> Result<String, Flow> {
        Ok(self
            .expand_pattern(word, io)?
            .iter()
            .map(|c| c.char())
            .collect())
    }

    /// The same with the quoting of each character, for patterns.
    pub fn expand_pattern(&mut self, word: &Word, io: &Streams) -> Result<Vec<PatternChar>, Flow> {
        let separators = self.state.get("IFS").map(String::from);
        let mut chars = Vec::new();
        for (index, part) in word.iter().enumerate() {
            match part {
                Part::Plain(text) => {
                    let text = if index == 0 {
                        self.tilde(text)
                    } else {
                        text.clone()
                    };
                    chars.extend(text.chars().map(PatternChar::Active));
                }
                Part::Quoted(text) => chars.extend(text.chars().map(PatternChar::Literal)),
                Part::Parameter {
                    name,
                    modifier: Modifier::None,
                    quoted,
                } if name == "@" || name == "*" => {
                    let joint = match (name.as_str(), separators.as_deref()) {
                        ("*", Some(ifs)) => {
                            ifs.chars().next().map(String::from).unwrap_or_default()
                        }
                        _ => String::from(" "),
                    };
                    let text = self.state.positional.join(&joint);
                    push_chars(&mut chars, &text, *quoted);
                }
                Part::Parameter {
                    name,
                    modifier:
                        modifier @ (Modifier::Default { word, null }
                        | Modifier::Alternative { word, null }),
                    quoted,
                } => {
                    // The word keeps its own quoting.
                    let value = self.parameter(name);
                    let alternative = matches!(modifier, Modifier::Alternative { .. });
                    if is_set(value.as_deref(), *null) == alternative {
                        let inner = self.expand_pattern(word, io)?;
                        chars.extend(inner);
                    } else if !alternative {
                        push_chars(&mut chars, &value.unwrap_or_default(), *quoted);
                    }
                }
                Part::Parameter {
                    name,
                    modifier,
                    quoted,
                } => {
                    let text = self.parameter_text(name, modifier, io)?;
                    push_chars(&mut chars, &text, *quoted);
                }
                Part::Command(text, quoted) => {
                    let text = self.substitute(text, io)?;
                    push_chars(&mut chars, &text, *quoted);
                }
                Part::Arithmetic(expression, quoted) => {
                    let text = self.arithmetic(expression, io)?;
                    push_chars(&mut chars, &text, *quoted);
                }
            }
        }
        Ok(chars)
    }

    fn expand_into(
        &mut self,
        word: &Word,
        splitting: Splitting,
        fields: &mut Fields,
        io: &Streams,
    ) -> Result<(), Flow> {
        let separators = self
            .state
            .get("IFS")
            .unwrap_or(" \t\n")
            .chars()
            .collect::<String>();
        for (index, part) in word.iter().enumerate() {
            match part {
                Part::Plain(text) if index == 0 && text.starts_with('~') => {
                    let text = self.tilde(text);
                    fields.plain(&text);
                }
                Part::Plain(text) if splitting == Splitting::Operand => {
                    fields.split(text, &separators);
                }
                Part::Plain(text) => fields.plain(text),
                Part::Quoted(text) => {
                    // The marker in front of "$@" alone must not make a field of its own.
                    let only_marker = text.is_empty()
                        && matches!(word.get(index + 1), Some(Part::Parameter { name, modifier: Modifier::None, quoted: Quoting::Double }) if name == "@");
                    if !only_marker {
                        fields.quoted(text);
                    }
                }
                Part::Parameter {
                    name,
                    modifier: Modifier::None,
                    quoted,
                } if name == "@" => {
                    let values = self.state.positional.clone();
                    for (i, value) in values.iter().enumerate() {
                        if i > 0 {
                            fields.end_field();
                        }
                        match quoted {
                            Quoting::Double => fields.quoted(value),
                            Quoting::Bare => fields.split(value, &separators),
                        }
                    }
                }
                Part::Parameter {
                    name,
                    modifier: Modifier::None,
                    quoted: Quoting::Bare,
                } if name == "*" => {
                    let values = self.state.positional.clone();
                    for (i, value) in values.iter().enumerate() {
                        if i > 0 && fields.current.present {
                            fields.end_field();
                        }
                        fields.split(value, &separators);
                    }
                }
                Part::Parameter {
                    name,
                    modifier: Modifier::None,
                    ..
                } if name == "*" => {
                    let joint = separators
                        .chars()
                        .next()
                        .map(String::from)
                        .unwrap_or_default();
                    let text = self.state.positional.join(&joint);
                    fields.quoted(&text);
                }
                Part::Parameter {
                    name,
                    modifier:
                        modifier @ (Modifier::Default { word, null }
                        | Modifier::Alternative { word, null }),
                    quoted,
                } => {
                    let value = self.parameter(name);
                    let alternative = matches!(modifier, Modifier::Alternative { .. });
                    if is_set(value.as_deref(), *null) == alternative {
                        // In double quotes the operand is quoted text already, but "${1+"$@"}"
                        // keeps its fields.
                        let splitting = match quoted {
                            Quoting::Bare => Splitting::Operand,
                            Quoting::Double => Splitting::Text,
                        };
                        self.expand_into(word, splitting, fields, io)?;
                    } else if !alternative {
                        let value = value.unwrap_or_default();
                        match quoted {
                            Quoting::Bare => fields.split(&value, &separators),
                            Quoting::Double => fields.quoted(&value),
                        }
                    }
                }
                Part::Parameter {
                    name,
                    modifier,
                    quoted,
                } => {
                    let text = self.parameter_text(name, modifier, io)?;
                    match quoted {
                        Quoting::Bare => fields.split(&text, &separators),
                        Quoting::Double => fields.quoted(&text),
                    }
                }
                Part::Command(text, quoted) => {
                    let text = self.substitute(text, io)?;
                    match quoted {
                        Quoting::Bare => fields.split(&text, &separators),
                        Quoting::Double => fields.quoted(&text),
                    }
                }
                Part::Arithmetic(expression, quoted) => {
                    let text = self.arithmetic(expression, io)?;
                    match quoted {
                        Quoting::Bare => fields.split(&text, &separators),
                        Quoting::Double => fields.quoted(&text),
                    }
                }
            }
        }
        Ok(())
    }

    fn tilde(&self, text: &str) -> String {
        match text.strip_prefix('~') {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => {
                format!(
                    "{}{rest}",
                    self.state.get("HOME").unwrap_or("/").trim_end_matches('/')
                )
            }
            _ => String::from(text),
        }
    }

    /// Value of a parameter, special ones included.
    pub fn parameter(&self, name: &str) -> Option<String> {
        let state = &self.state;
        match name {
            "?" => Some(format!("{}", state.status)),
            "#" => Some(format!("{}", state.positional.len())),
            "$" => Some(format!("{}", unix::process::id())),
            "!" => state.last_background.map(|id| format!("{id}")),
            "0" => Some(state.name.clone()),
            "-" => {
                let o = state.options;
                let flags = [
                    (o.errexit, 'e'),
                    (o.noglob, 'f'),
                    (o.nounset, 'u'),
                    (o.xtrace, 'x'),
                ];
                Some(
                    flags
                        .iter()
                        .filter(|(on, _)| *on)
                        .map(|(_, c)| *c)
                        .collect(),
                )
            }
            "@" | "*" if state.positional.is_empty() => None,
            "@" | "*" => Some(state.positional.join(" ")),
            _ => match name.parse::<usize>() {
                Ok(n) => state.positional.get(n.checked_sub(1)?).cloned(),
                Err(_) => state.get(name).map(String::from),
            },
        }
    }

    fn parameter_text(
        &mut self,
        name: &str,
        modifier: &Modifier,
        io: &Streams,
    ) -> Result<String, Flow> {
        let value = self.parameter(name);
        let unset_is_error = self.state.options.nounset && value.is_none();
        match modifier {
            Modifier::Default { word, null } => {
                if is_set(value.as_deref(), *null) {
                    Ok(value.unwrap_or_default())
                } else {
                    self.expand_text(word, io)
                }
            }
            Modifier::Alternative { word, null } => {
                if is_set(value.as_deref(), *null) {
                    self.expand_text(word, io)
                } else {
                    Ok(String::new())
                }
            }
            Modifier::Assign { word, null } => {
                if is_set(value.as_deref(), *null) {
                    return Ok(value.unwrap_or_default());
                }
                let text = self.expand_text(word, io)?;
                if !crate::lexer::is_variable_name(name) {
                    return Err(self.fatal(io, &format!("{name}: bad variable name")));
                }
                if let Err(message) = self.state.set(name, text.clone()) {
                    return Err(self.fatal(io, &message));
                }
                Ok(text)
            }
            Modifier::Require { word, null } => {
                if is_set(value.as_deref(), *null) {
                    return Ok(value.unwrap_or_default());
                }
                let text = self.expand_text(word, io)?;
                let text = if text.is_empty() {
                    "parameter not set"
                } else {
                    &text
                };
                Err(self.fatal(io, &format!("{name}: {text}")))
            }
            _ if unset_is_error => Err(self.fatal(io, &format!("{name}: parameter not set"))),
            Modifier::None => Ok(value.unwrap_or_default()),
            Modifier::Length => Ok(format!("{}", value.unwrap_or_default().chars().count())),
            Modifier::RemovePrefix(word, extent) => {
                let pattern = Pattern::new(&self.expand_pattern(word, io)?);
                Ok(pattern.strip_prefix(&value.unwrap_or_default(), *extent))
            }
            Modifier::RemoveSuffix(word, extent) => {
                let pattern = Pattern::new(&self.expand_pattern(word, io)?);
                Ok(pattern.strip_suffix(&value.unwrap_or_default(), *extent))
            }
        }
    }

    fn arithmetic(&mut self, expression: &Word, io: &Streams) -> Result<String, Flow> {
        let text = self.expand_text(expression, io)?;
        match arith::evaluate(&text, &mut ShellVariables(&mut self.state)) {
            Ok(value) => Ok(format!("{value}")),
            Err(message) => Err(self.fatal(io, &message)),
        }
    }
}

fn is_set(value: Option<&str>, null: NullTest) -> bool {
    match (value, null) {
        (None, _) => false,
        (Some(text), NullTest::UnsetOrNull) => !text.is_empty(),
        (Some(_), NullTest::Unset) => true,
    }
}

fn push_chars(chars: &mut Vec<PatternChar>, text: &str, quoting: Quoting) {
    match quoting {
        Quoting::Bare => chars.extend(text.chars().map(PatternChar::Active)),
        Quoting::Double => chars.extend(text.chars().map(PatternChar::Literal)),
    }
}
