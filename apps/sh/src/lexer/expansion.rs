//! What follows a `$` or a backquote: parameters, command substitution, arithmetic.

use alloc::format;
use alloc::string::String;

use super::{Lexer, Result, SyntaxError, is_name, is_name_start, push_plain, push_quoted};
use crate::syntax::{Extent, Modifier, NullTest, Part, Quoting, Word};

impl Lexer {
    pub(super) fn backquoted(&mut self) -> Result<String> {
        let mut text = String::new();
        loop {
            match self.bump() {
                Some('`') => return Ok(text),
                Some('\\') => match self.bump() {
                    Some(c @ ('`' | '\\' | '$')) => text.push(c),
                    Some(c) => {
                        text.push('\\');
                        text.push(c);
                    }
                    None => break,
                },
                Some(c) => text.push(c),
                None => break,
            }
        }
        Err(SyntaxError::Incomplete("unterminated '`'".into()))
    }

    /// After a `$`.
    pub(super) fn dollar(&mut self, word: &mut Word, quoted: Quoting) -> Result<()> {
        match self.peek() {
            Some('(') if self.peek_at(1) == Some('(') => {
                let start = self.position;
                self.position += 2;
                if let Some(expression) = self.arithmetic()? {
                    word.push(Part::Arithmetic(expression, quoted));
                    return Ok(());
                }
                self.position = start;
                self.command_substitution(word, quoted)
            }
            Some('(') => self.command_substitution(word, quoted),
            Some('{') => {
                self.position += 1;
                let part = self.braced(quoted)?;
                word.push(part);
                Ok(())
            }
            Some(c) if is_name_start(c) => {
                let mut name = String::new();
                while let Some(c) = self.peek().filter(|c| is_name(*c)) {
                    name.push(c);
                    self.position += 1;
                }
                word.push(Part::Parameter {
                    name,
                    modifier: Modifier::None,
                    quoted,
                });
                Ok(())
            }
            Some(c @ ('0'..='9' | '?' | '#' | '@' | '*' | '$' | '!' | '-')) => {
                self.position += 1;
                let name = String::from(c);
                word.push(Part::Parameter {
                    name,
                    modifier: Modifier::None,
                    quoted,
                });
                Ok(())
            }
            _ => {
                match quoted {
                    Quoting::Bare => push_plain(word, '$'),
                    Quoting::Double => push_quoted(word, '$'),
                }
                Ok(())
            }
        }
    }

    fn command_substitution(&mut self, word: &mut Word, quoted: Quoting) -> Result<()> {
        self.position += 1;
        let start = self.position;
        self.skip_nested(')')?;
        let text = self.slice(start, self.position.saturating_sub(1));
        word.push(Part::Command(text, quoted));
        Ok(())
    }

    /// The expression of `$(( ))`, or `None` if it is a command substitution after all.
    fn arithmetic(&mut self) -> Result<Option<Word>> {
        let start = self.position;
        let mut depth = 0usize;
        loop {
            match self.bump() {
                Some('(') => depth += 1,
                Some(')') if depth > 0 => depth -= 1,
                Some(')') => {
                    if !self.eat(')') {
                        return Ok(None);
                    }
                    let text = self.slice(start, self.position - 2);
                    let mut inner = Lexer::new(&text);
                    let mut word = Word::new();
                    inner.double_quoted(&mut word, None)?;
                    return Ok(Some(word));
                }
                Some(_) => {}
                None => return Err(SyntaxError::Incomplete("missing '))'".into())),
            }
        }
    }

    /// Skips to behind the closing character, over quotes and nested substitutions.
    fn skip_nested(&mut self, close: char) -> Result<()> {
        let mut word_start = true;
        // `case` patterns have a lone `)`: those inside `case ... esac` do not close.
        let mut cases = 0usize;
        let mut depth = 0usize;
        loop {
            let Some(c) = self.peek() else {
                return Err(SyntaxError::Incomplete(format!("missing '{close}'")));
            };
            if word_start && self.at_keyword("case") {
                cases += 1;
            } else if word_start && self.at_keyword("esac") {
                cases = cases.saturating_sub(1);
            }
            match c {
                '#' if word_start => {
                    while self.peek().is_some_and(|c| c != '\n') {
                        self.position += 1;
                    }
                    continue;
                }
                '\'' | '"' | '`' | '\\' | '$' => {
                    let mut skipped = Word::new();
                    self.part(&mut skipped, Quoting::Bare)?;
                    word_start = false;
                    continue;
                }
                '(' => depth += 1,
                c if c == close && depth == 0 && cases == 0 => {
                    self.position += 1;
                    return Ok(());
                }
                ')' => depth = depth.saturating_sub(1),
                _ => {}
            }
            self.position += 1;
            word_start = matches!(c, ' ' | '\t' | '\n' | ';' | '&' | '|' | '(' | ')');
        }
    }

    fn at_keyword(&self, keyword: &str) -> bool {
        self.at(keyword)
            && self
                .peek_at(keyword.len())
                .is_none_or(|c| matches!(c, ' ' | '\t' | '\n' | ';' | ')' | '&' | '|'))
    }

    /// After `${`.
    fn braced(&mut self, quoted: Quoting) -> Result<Part> {
        let unfinished = || SyntaxError::Incomplete("missing '}'".into());
        if self.peek() == Some('#') && self.peek_at(1).is_some_and(|c| c != '}') {
            self.position += 1;
            let name = self.parameter_name()?;
            if !self.eat('}') {
                return Err(bad_substitution());
            }
            return Ok(Part::Parameter {
                name,
                modifier: Modifier::Length,
                quoted,
            });
        }
        let name = self.parameter_name()?;
        let null = if self.peek() == Some(':') {
            self.position += 1;
            NullTest::UnsetOrNull
        } else {
            NullTest::Unset
        };
        let operator = self.bump().ok_or_else(unfinished)?;
        let modifier = match operator {
            '}' if null == NullTest::Unset => Modifier::None,
            '-' => Modifier::Default {
                word: self.modifier_word(quoted)?,
                null,
            },
            '=' => Modifier::Assign {
                word: self.modifier_word(quoted)?,
                null,
            },
            '+' => Modifier::Alternative {
                word: self.modifier_word(quoted)?,
                null,
            },
            '?' => Modifier::Require {
                word: self.modifier_word(quoted)?,
                null,
            },
            '#' | '%' if null == NullTest::Unset => {
                let extent = if self.eat(operator) {
                    Extent::Longest
                } else {
                    Extent::Shortest
                };
                // Quotes inside a pattern count even when the whole stands in double quotes.
                let word = self.modifier_word(Quoting::Bare)?;
                if operator == '#' {
                    Modifier::RemovePrefix(word, extent)
                } else {
                    Modifier::RemoveSuffix(word, extent)
                }
            }
            _ => return Err(bad_substitution()),
        };
        Ok(Part::Parameter {
            name,
            modifier,
            quoted,
        })
    }

    fn parameter_name(&mut self) -> Result<String> {
        let mut name = String::new();
        match self.peek() {
            Some(c) if is_name_start(c) => {
                while let Some(c) = self.peek().filter(|c| is_name(*c)) {
                    name.push(c);
                    self.position += 1;
                }
            }
            Some(c) if c.is_ascii_digit() => {
                while let Some(c) = self.peek().filter(char::is_ascii_digit) {
                    name.push(c);
                    self.position += 1;
                }
            }
            Some(c @ ('?' | '#' | '@' | '*' | '$' | '!' | '-')) => {
                name.push(c);
                self.position += 1;
            }
            Some(_) => return Err(bad_substitution()),
            None => return Err(SyntaxError::Incomplete("missing '}'".into())),
        }
        Ok(name)
    }

    /// The word after an operator, up to the closing brace.
    fn modifier_word(&mut self, quoting: Quoting) -> Result<Word> {
        let mut word = Word::new();
        loop {
            match (self.peek(), quoting) {
                (None, _) => return Err(SyntaxError::Incomplete("missing '}'".into())),
                (Some('}'), _) => {
                    self.position += 1;
                    return Ok(word);
                }
                (Some(_), Quoting::Bare) => self.part(&mut word, quoting)?,
                (Some('"'), Quoting::Double) => {
                    self.position += 1;
                    self.double_quoted(&mut word, Some('"'))?;
                }
                (Some('$'), Quoting::Double) => {
                    self.position += 1;
                    self.dollar(&mut word, quoting)?;
                }
                (Some('`'), Quoting::Double) => {
                    self.position += 1;
                    let text = self.backquoted()?;
                    word.push(Part::Command(text, quoting));
                }
                (Some('\\'), Quoting::Double) => {
                    self.position += 1;
                    match self.peek() {
                        Some(c @ ('$' | '`' | '"' | '\\' | '}')) => {
                            self.position += 1;
                            push_quoted(&mut word, c);
                        }
                        _ => push_quoted(&mut word, '\\'),
                    }
                }
                (Some(c), Quoting::Double) => {
                    self.position += 1;
                    push_quoted(&mut word, c);
                }
            }
        }
    }
}

fn bad_substitution() -> SyntaxError {
    SyntaxError::Invalid("bad substitution".into())
}
