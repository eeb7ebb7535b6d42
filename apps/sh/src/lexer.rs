//! Characters to tokens. Words come out already divided into their [`Part`]s, with the nested
//! commands of `$( )` kept as text.

use alloc::string::String;
use alloc::vec::Vec;

use crate::syntax::{Part, Quoting, Word};

mod expansion;

/// What is wrong with the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyntaxError {
    /// It ends in the middle of something; more lines may complete it.
    Incomplete(String),
    /// No continuation can make it right.
    Invalid(String),
}

impl core::fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            SyntaxError::Incomplete(what) | SyntaxError::Invalid(what) => f.write_str(what),
        }
    }
}

/// Result of reading syntax.
pub type Result<T> = core::result::Result<T, SyntaxError>;

/// A token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    /// A word.
    Word(Word),
    /// An operator, for instance `&&`.
    Operator(&'static str),
    /// A number directly in front of `<` or `>`.
    Descriptor(u32),
    /// The end of a line.
    Newline,
    /// The end of the text.
    End,
}

/// A here-document whose text comes after the line.
#[derive(Clone, Debug)]
pub struct PendingHere {
    delimiter: String,
    expands: bool,
    strip_tabs: bool,
}

impl PendingHere {
    /// For the word after `<<` or `<<-`.
    pub fn new(word: &Word, strip_tabs: bool) -> PendingHere {
        let mut delimiter = String::new();
        let mut expands = true;
        for part in word {
            match part {
                Part::Plain(text) => delimiter.push_str(text),
                Part::Quoted(text) => {
                    delimiter.push_str(text);
                    expands = false;
                }
                _ => {}
            }
        }
        PendingHere {
            delimiter,
            expands,
            strip_tabs,
        }
    }
}

/// A here-document that has been read.
#[derive(Clone, Debug)]
pub struct Document {
    /// Its text.
    pub text: Word,
    /// Where it stands.
    pub start: usize,
    /// As it stands there, with the line that ends it.
    pub source: String,
}

/// Reads tokens from text.
#[derive(Clone, Debug)]
pub struct Lexer {
    chars: Vec<char>,
    position: usize,
    pending: Vec<PendingHere>,
    /// Here-documents in order of their operators.
    pub documents: Vec<Document>,
}

const OPERATORS: [&str; 17] = [
    "<<-", "&&", "||", ";;", "<<", ">>", "<&", ">&", ">|", "|", "&", ";", "<", ">", "(", ")", "<>",
];

fn is_name_start(c: char) -> bool {
    c == '_' || c.is_ascii_alphabetic()
}

fn is_name(c: char) -> bool {
    c == '_' || c.is_ascii_alphanumeric()
}

/// Whether the text is a variable name.
pub fn is_variable_name(text: &str) -> bool {
    text.chars().next().is_some_and(is_name_start) && text.chars().all(is_name)
}

impl Lexer {
    /// Over the text.
    pub fn new(text: &str) -> Lexer {
        Lexer {
            chars: text.chars().collect(),
            position: 0,
            pending: Vec::new(),
            documents: Vec::new(),
        }
    }

    /// Index of the next character.
    pub fn position(&self) -> usize {
        self.position
    }

    /// Goes back (or on) to a position.
    pub fn set_position(&mut self, position: usize) {
        self.position = position;
    }

    /// The text between two positions.
    pub fn slice(&self, from: usize, to: usize) -> String {
        self.chars
            .get(from..to.min(self.chars.len()))
            .unwrap_or_default()
            .iter()
            .collect()
    }

    /// Remembers a here-document, to be read after the present line.
    pub fn expect_document(&mut self, pending: PendingHere) {
        self.pending.push(pending);
    }

    fn peek(&self) -> Option<char> {
        self.chars.get(self.position).copied()
    }

    fn peek_at(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.position + ahead).copied()
    }

    fn bump(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.position += 1;
        Some(c)
    }

    fn eat(&mut self, c: char) -> bool {
        let found = self.peek() == Some(c);
        if found {
            self.position += 1;
        }
        found
    }

    fn at(&self, text: &str) -> bool {
        text.chars()
            .enumerate()
            .all(|(i, c)| self.peek_at(i) == Some(c))
    }

    fn skip_blank(&mut self) {
        loop {
            match self.peek() {
                Some(' ' | '\t' | '\r') => self.position += 1,
                Some('\\') if self.peek_at(1) == Some('\n') => self.position += 2,
                Some('#') => {
                    while self.peek().is_some_and(|c| c != '\n') {
                        self.position += 1;
                    }
                }
                _ => return,
            }
        }
    }

    /// Skips blanks and gives the position where the next token begins.
    pub fn token_start(&mut self) -> usize {
        self.skip_blank();
        self.position
    }

    /// The next token.
    pub fn token(&mut self) -> Result<Token> {
        self.skip_blank();
        let Some(c) = self.peek() else {
            return if self.pending.is_empty() {
                Ok(Token::End)
            } else {
                Err(SyntaxError::Incomplete("unterminated here-document".into()))
            };
        };
        if c == '\n' {
            self.position += 1;
            self.read_documents()?;
            return Ok(Token::Newline);
        }
        if c.is_ascii_digit() && matches!(self.peek_at(1), Some('<' | '>')) {
            self.position += 1;
            return Ok(Token::Descriptor(c.to_digit(10).unwrap_or(0)));
        }
        for op in OPERATORS {
            if self.at(op) {
                self.position += op.len();
                return Ok(Token::Operator(op));
            }
        }
        self.word().map(Token::Word)
    }

    fn word(&mut self) -> Result<Word> {
        let mut word = Word::new();
        while let Some(c) = self.peek() {
            match c {
                ' ' | '\t' | '\r' | '\n' | '|' | '&' | ';' | '<' | '>' | '(' | ')' => break,
                _ => self.part(&mut word, Quoting::Bare)?,
            }
        }
        Ok(word)
    }

    /// One character, quotation or expansion of a word outside of double quotes.
    fn part(&mut self, word: &mut Word, quoting: Quoting) -> Result<()> {
        match self.bump() {
            Some('\\') => match self.bump() {
                Some('\n') => {}
                Some(c) => push_quoted(word, c),
                None => return Err(SyntaxError::Incomplete("unexpected end after '\\'".into())),
            },
            Some('\'') => {
                let mut text = String::new();
                loop {
                    match self.bump() {
                        Some('\'') => break,
                        Some(c) => text.push(c),
                        None => {
                            return Err(SyntaxError::Incomplete(
                                "unterminated quoted string".into(),
                            ));
                        }
                    }
                }
                word.push(Part::Quoted(text));
            }
            Some('"') => self.double_quoted(word, Some('"'))?,
            Some('$') => self.dollar(word, quoting)?,
            Some('`') => {
                let text = self.backquoted()?;
                word.push(Part::Command(text, quoting));
            }
            Some(c) => push_plain(word, c),
            None => {}
        }
        Ok(())
    }

    /// Text as inside double quotes, up to `end` (or the end of the text for here-documents).
    fn double_quoted(&mut self, word: &mut Word, end: Option<char>) -> Result<()> {
        // An empty pair of quotes still makes an (empty) field.
        word.push(Part::Quoted(String::new()));
        loop {
            match self.bump() {
                None if end.is_none() => return Ok(()),
                None => return Err(SyntaxError::Incomplete("unterminated quoted string".into())),
                Some(c) if Some(c) == end => return Ok(()),
                Some('\\') => match self.peek() {
                    Some('\n') => self.position += 1,
                    Some(c @ ('$' | '`' | '\\')) => {
                        self.position += 1;
                        push_quoted(word, c);
                    }
                    Some('"') if end.is_some() => {
                        self.position += 1;
                        push_quoted(word, '"');
                    }
                    _ => push_quoted(word, '\\'),
                },
                Some('$') => self.dollar(word, Quoting::Double)?,
                Some('`') => {
                    let text = self.backquoted()?;
                    word.push(Part::Command(text, Quoting::Double));
                }
                Some(c) => push_quoted(word, c),
            }
        }
    }

    /// Reads the texts of the here-documents of the line that just ended.
    fn read_documents(&mut self) -> Result<()> {
        for pending in core::mem::take(&mut self.pending) {
            let start = self.position;
            let mut text = String::new();
            loop {
                if self.peek().is_none() {
                    return Err(SyntaxError::Incomplete("unterminated here-document".into()));
                }
                let mut line = String::new();
                while let Some(c) = self.bump() {
                    if c == '\n' {
                        break;
                    }
                    line.push(c);
                }
                let line = if pending.strip_tabs {
                    line.trim_start_matches('\t')
                } else {
                    &line
                };
                if line == pending.delimiter {
                    break;
                }
                text.push_str(line);
                text.push('\n');
            }
            let mut word = Word::new();
            if pending.expands {
                Lexer::new(&text).double_quoted(&mut word, None)?;
            } else {
                word.push(Part::Quoted(text));
            }
            let mut source = self.slice(start, self.position);
            if !source.ends_with('\n') {
                source.push('\n');
            }
            self.documents.push(Document {
                text: word,
                start,
                source,
            });
        }
        Ok(())
    }
}

fn push_plain(word: &mut Word, c: char) {
    if let Some(Part::Plain(text)) = word.last_mut() {
        text.push(c);
    } else {
        word.push(Part::Plain(String::from(c)));
    }
}

fn push_quoted(word: &mut Word, c: char) {
    if let Some(Part::Quoted(text)) = word.last_mut() {
        text.push(c);
    } else {
        word.push(Part::Quoted(String::from(c)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn words(text: &str) -> Vec<Token> {
        let mut lexer = Lexer::new(text);
        let mut out = Vec::new();
        loop {
            match lexer.token().unwrap() {
                Token::End => return out,
                token => out.push(token),
            }
        }
    }

    #[test]
    fn quotes_and_operators() {
        assert_eq!(
            words("a'b c'\"d\"\\ e>x # comment"),
            vec![
                Token::Word(vec![
                    Part::Plain("a".into()),
                    Part::Quoted("b c".into()),
                    Part::Quoted("d ".into()),
                    Part::Plain("e".into())
                ]),
                Token::Operator(">"),
                Token::Word(vec![Part::Plain("x".into())]),
            ]
        );
        assert_eq!(words("2>&1")[0], Token::Descriptor(2));
        assert_eq!(words("a#b").len(), 1);
    }

    #[test]
    fn nested_substitutions_stay_text() {
        let tokens = words("$(echo \"$(ls ')')\" | (cat))x");
        assert_eq!(
            tokens,
            vec![Token::Word(vec![
                Part::Command("echo \"$(ls ')')\" | (cat)".into(), Quoting::Bare),
                Part::Plain("x".into())
            ])]
        );
    }

    #[test]
    fn incomplete_texts() {
        for text in ["'a", "\"a", "$(a", "${a", "`a", "a\\", "$((1"] {
            let mut lexer = Lexer::new(text);
            assert!(
                matches!(lexer.token(), Err(SyntaxError::Incomplete(_))),
                "{text}"
            );
        }
        assert!(matches!(
            Lexer::new("${a!}").token(),
            Err(SyntaxError::Invalid(_))
        ));
    }
}
