//! Tokens to syntax trees, one complete command at a time, so that a script runs up to the line
//! that is wrong.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::document;
use crate::lexer::{Lexer, PendingHere, Result, SyntaxError, Token, is_variable_name};
use crate::syntax::{
    AndOr, Command, Compound, Extents, Join, List, Located, LoopKind, Part, Pipeline, Prefix,
    Redirect, RedirectKind, Simple, Word,
};

/// Deepest nesting of compound commands; a text that nests deeper is refused, since the parser
/// and the interpreter recurse.
const DEPTH_MAX: usize = 60;

/// Reads complete commands from text.
#[derive(Debug)]
pub struct Parser {
    lexer: Lexer,
    /// The token that was looked at, where it began and where it ended.
    ahead: Option<(Token, usize, usize)>,
    /// End of the last token taken.
    taken_to: usize,
    depth: usize,
    /// Number of here-documents promised so far.
    documents: usize,
}

const RESERVED: [&str; 15] = [
    "if", "then", "elif", "else", "fi", "do", "done", "while", "until", "for", "case", "esac", "{",
    "}", "!",
];

impl Parser {
    /// Over the text.
    pub fn new(text: &str) -> Parser {
        Parser {
            lexer: Lexer::new(text),
            ahead: None,
            taken_to: 0,
            depth: 0,
            documents: 0,
        }
    }

    /// The next line of commands (with the lines that it needs), or `None` at the end.
    pub fn next_command(&mut self) -> Result<Option<List>> {
        loop {
            match self.look()? {
                Token::End => return Ok(None),
                Token::Newline => {
                    self.take()?;
                }
                _ => break,
            }
        }
        let list = self.list(ListEnd::Line)?;
        match self.take()? {
            Token::Newline | Token::End => {}
            other => return Err(unexpected(&other)),
        }
        let list = self.fill_documents(list)?;
        Ok(Some(list))
    }

    fn look(&mut self) -> Result<&Token> {
        if self.ahead.is_none() {
            let start = self.lexer.token_start();
            let token = self.lexer.token()?;
            let end = self.lexer.position();
            self.ahead = Some((token, start, end));
        }
        match &self.ahead {
            Some((token, _, _)) => Ok(token),
            None => Ok(&Token::End),
        }
    }

    fn take(&mut self) -> Result<Token> {
        self.look()?;
        match self.ahead.take() {
            Some((token, _, end)) => {
                self.taken_to = end;
                Ok(token)
            }
            None => Ok(Token::End),
        }
    }

    fn start(&mut self) -> Result<usize> {
        self.look()?;
        Ok(self
            .ahead
            .as_ref()
            .map_or(self.taken_to, |(_, start, _)| *start))
    }

    /// The next token as a reserved word, if it is one.
    fn reserved(&mut self) -> Result<Option<&'static str>> {
        Ok(match self.look()? {
            Token::Word(word) => match word.as_slice() {
                [Part::Plain(text)] => RESERVED.into_iter().find(|r| r == text),
                _ => None,
            },
            _ => None,
        })
    }

    fn expect_reserved(&mut self, wanted: &str) -> Result<()> {
        if self.reserved()? == Some(wanted) {
            self.take()?;
            return Ok(());
        }
        match self.take()? {
            Token::End => Err(SyntaxError::Incomplete(format!("expected '{wanted}'"))),
            other => {
                let SyntaxError::Invalid(text) = unexpected(&other) else {
                    return Err(unexpected(&other));
                };
                Err(SyntaxError::Invalid(format!(
                    "{text} (expecting \"{wanted}\")"
                )))
            }
        }
    }

    fn skip_newlines(&mut self) -> Result<()> {
        while *self.look()? == Token::Newline {
            self.take()?;
        }
        Ok(())
    }

    fn list(&mut self, end: ListEnd) -> Result<List> {
        let mut list = List::new();
        loop {
            if end == ListEnd::Block {
                self.skip_newlines()?;
            }
            match self.look()? {
                Token::End | Token::Newline => return Ok(list),
                Token::Operator(")" | ";;") => return Ok(list),
                _ => {}
            }
            if let Some("then" | "elif" | "else" | "fi" | "do" | "done" | "esac" | "}") =
                self.reserved()?
            {
                return Ok(list);
            }
            let mut item = self.and_or()?;
            match self.look()? {
                Token::Operator(";") => {
                    self.take()?;
                }
                Token::Operator("&") => {
                    self.take()?;
                    item.background = true;
                }
                Token::Newline if end == ListEnd::Block => {}
                _ => {
                    list.push(item);
                    return Ok(list);
                }
            }
            list.push(item);
        }
    }

    fn block(&mut self) -> Result<List> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(SyntaxError::Invalid("commands nested too deeply".into()));
        }
        let list = self.list(ListEnd::Block)?;
        self.depth -= 1;
        if list.is_empty() {
            let token = self.take()?;
            return Err(match token {
                Token::End => SyntaxError::Incomplete("unexpected end of file".into()),
                other => unexpected(&other),
            });
        }
        Ok(list)
    }

    fn and_or(&mut self) -> Result<AndOr> {
        let from = self.start()?;
        let documents = self.documents;
        let first = self.pipeline()?;
        let mut rest = Vec::new();
        loop {
            let join = match self.look()? {
                Token::Operator("&&") => Join::And,
                Token::Operator("||") => Join::Or,
                _ => break,
            };
            self.take()?;
            self.skip_newlines()?;
            rest.push((join, self.pipeline()?));
        }
        let source = self.lexer.slice(from, self.taken_to);
        Ok(AndOr {
            first,
            rest,
            background: false,
            source,
            extent: self.extent(documents),
        })
    }

    /// Of what began before document number `documents` and ends with the last token.
    fn extent(&self, documents: usize) -> Extents {
        Extents {
            end: self.taken_to,
            documents: documents..self.documents,
        }
    }

    fn pipeline(&mut self) -> Result<Pipeline> {
        let mut prefix = Prefix::default();
        loop {
            if self.reserved()? == Some("!") {
                self.take()?;
                prefix.negated = !prefix.negated;
            } else if matches!(self.look()?, Token::Word(w) if is_plain(w, "time")) && !prefix.timed
            {
                self.take()?;
                prefix.timed = true;
            } else {
                break;
            }
        }
        let mut commands = Vec::new();
        loop {
            commands.push(self.command()?);
            if *self.look()? != Token::Operator("|") {
                return Ok(Pipeline { prefix, commands });
            }
            self.take()?;
            self.skip_newlines()?;
        }
    }

    fn command(&mut self) -> Result<Located> {
        let from = self.start()?;
        let documents = self.documents;
        let command = self.command_inner()?;
        let source = self.lexer.slice(from, self.taken_to);
        let extent = self.extent(documents);
        Ok(Located {
            command,
            source,
            extent,
        })
    }

    fn command_inner(&mut self) -> Result<Command> {
        let compound = match self.reserved()? {
            Some("if") => self.if_command()?,
            Some("while") => self.loop_command(LoopKind::While)?,
            Some("until") => self.loop_command(LoopKind::Until)?,
            Some("for") => self.for_command()?,
            Some("case") => self.case_command()?,
            Some("{") => {
                self.take()?;
                let list = self.block()?;
                self.expect_reserved("}")?;
                Compound::Group(list)
            }
            Some(_) => {
                let token = self.take()?;
                return Err(unexpected(&token));
            }
            None if *self.look()? == Token::Operator("(") => {
                self.take()?;
                let list = self.block()?;
                self.expect_operator(")")?;
                Compound::Subshell(list)
            }
            None => return self.simple(),
        };
        let mut redirects = Vec::new();
        while let Some(redirect) = self.redirect()? {
            redirects.push(redirect);
        }
        Ok(Command::Compound(compound, redirects))
    }

    fn expect_operator(&mut self, wanted: &'static str) -> Result<()> {
        match self.take()? {
            Token::Operator(op) if op == wanted => Ok(()),
            Token::End => Err(SyntaxError::Incomplete(format!("expected '{wanted}'"))),
            other => Err(unexpected(&other)),
        }
    }

    fn if_command(&mut self) -> Result<Compound> {
        let mut branches = Vec::new();
        self.take()?;
        loop {
            let condition = self.block()?;
            self.expect_reserved("then")?;
            let body = self.block()?;
            branches.push((condition, body));
            match self.reserved()? {
                Some("elif") => {
                    self.take()?;
                }
                Some("else") => {
                    self.take()?;
                    let otherwise = self.block()?;
                    self.expect_reserved("fi")?;
                    return Ok(Compound::If(branches, Some(otherwise)));
                }
                _ => {
                    self.expect_reserved("fi")?;
                    return Ok(Compound::If(branches, None));
                }
            }
        }
    }

    fn loop_command(&mut self, kind: LoopKind) -> Result<Compound> {
        self.take()?;
        let condition = self.block()?;
        Ok(Compound::Loop(kind, condition, self.do_block()?))
    }

    fn do_block(&mut self) -> Result<List> {
        self.expect_reserved("do")?;
        let body = self.block()?;
        self.expect_reserved("done")?;
        Ok(body)
    }

    fn for_command(&mut self) -> Result<Compound> {
        self.take()?;
        let name = self.name_word("for")?;
        self.skip_newlines()?;
        let mut words = None;
        if matches!(self.look()?, Token::Word(w) if is_plain(w, "in")) {
            self.take()?;
            let mut list = Vec::new();
            while let Token::Word(word) = self.look()? {
                list.push(word.clone());
                self.take()?;
            }
            words = Some(list);
        }
        if *self.look()? == Token::Operator(";") {
            self.take()?;
        }
        self.skip_newlines()?;
        Ok(Compound::For(name, words, self.do_block()?))
    }

    fn name_word(&mut self, what: &str) -> Result<String> {
        match self.take()? {
            Token::Word(word) => match word.as_slice() {
                [Part::Plain(name)] if is_variable_name(name) => Ok(name.clone()),
                _ => Err(SyntaxError::Invalid(format!("bad {what} loop variable"))),
            },
            Token::End => Err(SyntaxError::Incomplete(format!(
                "name expected after '{what}'"
            ))),
            other => Err(unexpected(&other)),
        }
    }

    fn case_command(&mut self) -> Result<Compound> {
        self.take()?;
        let subject = match self.take()? {
            Token::Word(word) => word,
            Token::End => return Err(SyntaxError::Incomplete("word expected after 'case'".into())),
            other => return Err(unexpected(&other)),
        };
        self.skip_newlines()?;
        match self.take()? {
            Token::Word(word) if is_plain(&word, "in") => {}
            Token::End => return Err(SyntaxError::Incomplete("expected 'in'".into())),
            other => return Err(unexpected(&other)),
        }
        let mut arms = Vec::new();
        loop {
            self.skip_newlines()?;
            if self.reserved()? == Some("esac") {
                self.take()?;
                return Ok(Compound::Case(subject, arms));
            }
            if *self.look()? == Token::Operator("(") {
                self.take()?;
            }
            let mut patterns = Vec::new();
            loop {
                match self.take()? {
                    Token::Word(word) => patterns.push(word),
                    Token::End => return Err(SyntaxError::Incomplete("expected 'esac'".into())),
                    other => return Err(unexpected(&other)),
                }
                match self.take()? {
                    Token::Operator("|") => {}
                    Token::Operator(")") => break,
                    Token::End => return Err(SyntaxError::Incomplete("expected ')'".into())),
                    other => return Err(unexpected(&other)),
                }
            }
            self.depth += 1;
            if self.depth > DEPTH_MAX {
                return Err(SyntaxError::Invalid("commands nested too deeply".into()));
            }
            let body = self.list(ListEnd::Block)?;
            self.depth -= 1;
            arms.push((patterns, body));
            if *self.look()? == Token::Operator(";;") {
                self.take()?;
            } else {
                self.expect_reserved("esac")?;
                return Ok(Compound::Case(subject, arms));
            }
        }
    }

    fn simple(&mut self) -> Result<Command> {
        let mut simple = Simple::default();
        loop {
            if let Some(redirect) = self.redirect()? {
                simple.redirects.push(redirect);
                continue;
            }
            match self.look()? {
                Token::Word(_) => {}
                Token::Operator("(")
                    if simple.words.len() == 1 && simple.assignments.is_empty() =>
                {
                    return self.function(&simple);
                }
                _ => break,
            }
            let Token::Word(word) = self.take()? else {
                break;
            };
            match assignment(&word) {
                Some(pair) if simple.words.is_empty() => simple.assignments.push(pair),
                _ => simple.words.push(word),
            }
        }
        if simple.words.is_empty() && simple.assignments.is_empty() && simple.redirects.is_empty() {
            let token = self.take()?;
            return Err(match token {
                Token::End => SyntaxError::Incomplete("unexpected end of file".into()),
                other => unexpected(&other),
            });
        }
        Ok(Command::Simple(simple))
    }

    fn function(&mut self, head: &Simple) -> Result<Command> {
        let name = match head.words.first().map(Vec::as_slice) {
            Some([Part::Plain(name)]) if is_variable_name(name) => name.clone(),
            _ => return Err(SyntaxError::Invalid("bad function name".into())),
        };
        self.take()?;
        self.expect_operator(")")?;
        self.skip_newlines()?;
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(SyntaxError::Invalid("commands nested too deeply".into()));
        }
        let body = self.command()?;
        self.depth -= 1;
        Ok(Command::Function {
            name,
            body: Box::new(body),
        })
    }

    fn redirect(&mut self) -> Result<Option<Redirect>> {
        let mut descriptor = None;
        if let Token::Descriptor(n) = self.look()? {
            descriptor = Some(*n);
            self.take()?;
        }
        let (kind, default) = match self.look()? {
            Token::Operator("<") => (RedirectKind::Read, 0),
            Token::Operator(">" | ">|") => (RedirectKind::Write, 1),
            Token::Operator(">>") => (RedirectKind::Append, 1),
            Token::Operator("<&") => (RedirectKind::Duplicate, 0),
            Token::Operator(">&") => (RedirectKind::Duplicate, 1),
            Token::Operator("<<" | "<<-") => (RedirectKind::Here, 0),
            _ => return Ok(None),
        };
        let strip_tabs = *self.look()? == Token::Operator("<<-");
        self.take()?;
        let target = match self.take()? {
            Token::Word(word) => word,
            Token::End => return Err(SyntaxError::Incomplete("file name expected".into())),
            other => return Err(unexpected(&other)),
        };
        let descriptor = descriptor.unwrap_or(default);
        if descriptor > 2 {
            return Err(SyntaxError::Invalid(format!(
                "descriptor {descriptor} is not supported"
            )));
        }
        if kind == RedirectKind::Here {
            self.lexer
                .expect_document(PendingHere::new(&target, strip_tabs));
            // The number of the document for now; its text comes after the line.
            let number = self.documents;
            self.documents += 1;
            return Ok(Some(Redirect {
                descriptor,
                kind,
                target: alloc::vec![Part::Plain(format!("{number}"))],
            }));
        }
        Ok(Some(Redirect {
            descriptor,
            kind,
            target,
        }))
    }

    /// Puts the texts of here-documents in the place of their numbers.
    fn fill_documents(&mut self, mut list: List) -> Result<List> {
        if !self.lexer.documents.is_empty() {
            let documents = &self.lexer.documents;
            for item in &mut list {
                document::fill_and_or(item, documents);
            }
        }
        Ok(list)
    }
}

/// Where a list of commands ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ListEnd {
    /// With the line.
    Line,
    /// With a reserved word or a parenthesis.
    Block,
}

fn is_plain(word: &Word, text: &str) -> bool {
    matches!(word.as_slice(), [Part::Plain(plain)] if plain == text)
}

fn assignment(word: &Word) -> Option<(String, Word)> {
    let Some(Part::Plain(text)) = word.first() else {
        return None;
    };
    let (name, value) = text.split_once('=')?;
    if !is_variable_name(name) {
        return None;
    }
    let mut rest = Word::new();
    if !value.is_empty() {
        rest.push(Part::Plain(String::from(value)));
    }
    rest.extend(word.iter().skip(1).cloned());
    Some((String::from(name), rest))
}

fn unexpected(token: &Token) -> SyntaxError {
    let text = match token {
        Token::Word(word) => match word.first() {
            Some(Part::Plain(text) | Part::Quoted(text)) => format!("\"{text}\" unexpected"),
            _ => String::from("word unexpected"),
        },
        Token::Operator(op) => format!("\"{op}\" unexpected"),
        Token::Descriptor(n) => format!("\"{n}\" unexpected"),
        Token::Newline => String::from("newline unexpected"),
        Token::End => return SyntaxError::Incomplete("unexpected end of file".into()),
    };
    SyntaxError::Invalid(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Vec<List>> {
        let mut parser = Parser::new(text);
        let mut all = Vec::new();
        while let Some(list) = parser.next_command()? {
            all.push(list);
        }
        Ok(all)
    }

    #[test]
    fn sources_are_exact() {
        let all = parse("a b | { c; d\n} >x && e; f &").unwrap();
        let items = &all[0];
        assert_eq!(items[0].source, "a b | { c; d\n} >x && e");
        assert_eq!(items[0].first.commands[1].source, "{ c; d\n} >x");
        assert!(items[1].background);
    }

    #[test]
    fn incomplete_and_invalid() {
        for text in [
            "if a; then b",
            "for i in 1 2; do",
            "a &&",
            "a |",
            "(a",
            "{ a;",
            "case x in",
            "f()",
        ] {
            assert!(
                matches!(parse(text), Err(SyntaxError::Incomplete(_))),
                "{text}"
            );
        }
        for text in [
            ";;",
            "a | | b",
            "fi",
            "if then fi",
            "a ) b",
            "for 1 in a; do b; done",
            "& a",
        ] {
            assert!(
                matches!(parse(text), Err(SyntaxError::Invalid(_))),
                "{text}"
            );
        }
    }

    #[test]
    fn deep_nesting_is_refused() {
        let text = "(".repeat(10_000);
        assert!(parse(&text).is_err());
    }

    #[test]
    fn here_documents_reach_their_redirection() {
        let all = parse("cat <<A; cat <<'B'\n$x\nA\n$y\nB\n").unwrap();
        let Command::Simple(second) = &all[0][1].first.commands[0].command else {
            panic!()
        };
        assert_eq!(second.redirects[0].target, [Part::Quoted("$y\n".into())]);
    }
}
