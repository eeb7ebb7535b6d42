//! The syntax tree. Compound commands keep their source text, from which another shell process can
//! run them.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

/// A piece of a word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Text outside of quotes: pattern characters in it are active.
    Plain(String),
    /// Quoted text: stands for itself.
    Quoted(String),
    /// `$name`, `${name}` and the forms with an operator.
    Parameter {
        /// Variable, positional number or special character.
        name: String,
        /// What is done with the value.
        modifier: Modifier,
        /// Inside double quotes: no splitting, no patterns.
        quoted: Quoting,
    },
    /// `$( )` or backquotes: the text of the commands.
    Command(String, Quoting),
    /// `$(( ))`: the expression, in which parameters are expanded first.
    Arithmetic(Word, Quoting),
}

/// Whether an expansion stands inside double quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quoting {
    /// Outside: the result is split into fields and is subject to patterns.
    Bare,
    /// Inside: the result is one piece of text.
    Double,
}

/// Operator in `${name...}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Modifier {
    /// None.
    None,
    /// `${#name}`.
    Length,
    /// `${name-word}`; with `null` (`:-`) also for an empty value.
    Default {
        /// Used instead of a missing value.
        word: Word,
        /// What counts as missing.
        null: NullTest,
    },
    /// `${name=word}`.
    Assign {
        /// Used as the value that is assigned if it is missing.
        word: Word,
        /// What counts as missing.
        null: NullTest,
    },
    /// `${name+word}`.
    Alternative {
        /// Used instead of a present value.
        word: Word,
        /// What counts as missing.
        null: NullTest,
    },
    /// `${name?word}`.
    Require {
        /// Used as the message if it is missing.
        word: Word,
        /// What counts as missing.
        null: NullTest,
    },
    /// `${name#pattern}`, `${name##pattern}`.
    RemovePrefix(Word, Extent),
    /// `${name%pattern}`, `${name%%pattern}`.
    RemoveSuffix(Word, Extent),
}

/// Whether an operator treats an empty value like an unset one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NullTest {
    /// Only unset counts.
    Unset,
    /// Unset or empty counts.
    UnsetOrNull,
}

/// Which match is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// The shortest.
    Shortest,
    /// The longest.
    Longest,
}

/// A word before expansion.
pub type Word = Vec<Part>;

/// What a redirection does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedirectKind {
    /// `<`.
    Read,
    /// `>` and `>|`.
    Write,
    /// `>>`.
    Append,
    /// `<&` and `>&`: the target is a descriptor number or `-`.
    Duplicate,
    /// `<<`: the target is the text.
    Here,
}

/// A redirection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// Descriptor: 0, 1 or 2.
    pub descriptor: u32,
    /// What it does.
    pub kind: RedirectKind,
    /// File name, descriptor or text.
    pub target: Word,
}

/// A command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Assignments, words and redirections.
    Simple(Simple),
    /// A compound command with its redirections.
    Compound(Compound, Vec<Redirect>),
    /// `name() body`.
    Function {
        /// Its name.
        name: String,
        /// Its body.
        body: Box<Located>,
    },
}

/// A simple command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Simple {
    /// `name=value` in front.
    pub assignments: Vec<(String, Word)>,
    /// Command and arguments.
    pub words: Vec<Word>,
    /// Redirections.
    pub redirects: Vec<Redirect>,
}

/// A compound command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compound {
    /// `{ list; }`.
    Group(List),
    /// `( list )`.
    Subshell(List),
    /// `if`: conditions with their bodies, and `else`.
    If(Vec<(List, List)>, Option<List>),
    /// `while` and `until`.
    Loop(LoopKind, List, List),
    /// `for name in words`; without `in` the positional parameters.
    For(String, Option<Vec<Word>>, List),
    /// `case`: patterns with their bodies.
    Case(Word, Vec<(Vec<Word>, List)>),
}

/// Kind of a loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoopKind {
    /// As long as the condition succeeds.
    While,
    /// Until it does.
    Until,
}

/// A command with its source text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// The command.
    pub command: Command,
    /// Where it came from, with the text of its here-documents.
    pub source: String,
    /// Its place in the text.
    pub extent: Extents,
}

/// Place of a command in its text, for finding the here-documents that come after it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extents {
    /// Position after its last character.
    pub end: usize,
    /// Numbers of its here-documents.
    pub documents: core::ops::Range<usize>,
}

/// Commands joined with `|`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pipeline {
    /// What comes before the first command.
    pub prefix: Prefix,
    /// The commands.
    pub commands: Vec<Located>,
}

/// What may stand in front of a pipeline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prefix {
    /// `!`: the status is inverted.
    pub negated: bool,
    /// `time`: the time that it took is printed.
    pub timed: bool,
}

/// How pipelines are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Join {
    /// `&&`.
    And,
    /// `||`.
    Or,
}

/// Pipelines joined with `&&` and `||`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AndOr {
    /// The first.
    pub first: Pipeline,
    /// The others.
    pub rest: Vec<(Join, Pipeline)>,
    /// Ended with `&`.
    pub background: bool,
    /// Source text, with that of its here-documents.
    pub source: String,
    /// Its place in the text.
    pub extent: Extents,
}

/// Commands one after the other.
pub type List = Vec<AndOr>;
