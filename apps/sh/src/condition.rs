//! The conditions of `test` and `[`.

use alloc::format;
use alloc::string::String;

use unix::fs::{Kind, Metadata};
use unix::{Stream, path};

/// Deepest nesting of parentheses and `!`.
const DEPTH_MAX: usize = 64;

/// Evaluates the arguments of `test`; paths are seen from `directory`. The error is a text for
/// people.
pub fn evaluate(args: &[String], directory: &str) -> Result<bool, String> {
    let mut parser = Parser {
        rest: args,
        directory,
        depth: 0,
    };
    // POSIX decides short forms by the number of arguments, so that operands may look like operators.
    match args {
        [] => return Ok(false),
        [one] => return Ok(!one.is_empty()),
        [not, one] if not == "!" => return Ok(one.is_empty()),
        [op, operand] => {
            return parser
                .unary(op, operand)
                .ok_or_else(|| format!("{op}: unexpected operator"))?;
        }
        [left, op, right] if is_binary(op) => return parser.binary(left, op, right),
        [not, rest @ ..] if not == "!" && args.len() <= 4 => {
            return evaluate(rest, directory).map(|v| !v);
        }
        [open, one, close] if open == "(" && close == ")" => return Ok(!one.is_empty()),
        _ => {}
    }
    let value = parser.or()?;
    match parser.rest.first() {
        None => Ok(value),
        Some(extra) => Err(format!("{extra}: unexpected operator")),
    }
}

fn is_binary(op: &str) -> bool {
    matches!(
        op,
        "=" | "=="
            | "!="
            | "<"
            | ">"
            | "-eq"
            | "-ne"
            | "-lt"
            | "-le"
            | "-gt"
            | "-ge"
            | "-nt"
            | "-ot"
            | "-ef"
            | "-a"
            | "-o"
    )
}

struct Parser<'a> {
    rest: &'a [String],
    directory: &'a str,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn next(&mut self) -> Result<&'a str, String> {
        let (first, rest) = self.rest.split_first().ok_or("argument expected")?;
        self.rest = rest;
        Ok(first)
    }

    fn at(&self, text: &str) -> bool {
        self.rest.first().is_some_and(|a| a == text)
    }

    fn or(&mut self) -> Result<bool, String> {
        let mut value = self.and()?;
        while self.at("-o") {
            self.next()?;
            value |= self.and()?;
        }
        Ok(value)
    }

    fn and(&mut self) -> Result<bool, String> {
        let mut value = self.not()?;
        while self.at("-a") {
            self.next()?;
            value &= self.not()?;
        }
        Ok(value)
    }

    fn not(&mut self) -> Result<bool, String> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(String::from("expression nested too deeply"));
        }
        let value = if self.at("!") {
            self.next()?;
            self.not().map(|v| !v)
        } else {
            self.primary()
        };
        self.depth -= 1;
        value
    }

    fn primary(&mut self) -> Result<bool, String> {
        if let [left, op, right, rest @ ..] = self.rest
            && is_binary(op)
            && op != "-a"
            && op != "-o"
        {
            self.rest = rest;
            return self.binary(left, op, right);
        }
        if self.at("(") {
            self.next()?;
            let value = self.or()?;
            return if self.next()? == ")" {
                Ok(value)
            } else {
                Err(String::from("closing paren expected"))
            };
        }
        let first = self.next()?;
        if first.len() == 2
            && first.starts_with('-')
            && let Some(operand) = self.rest.first()
            && let Some(value) = self.unary(first, operand)
        {
            self.next()?;
            return value;
        }
        Ok(!first.is_empty())
    }

    fn unary(&self, op: &str, operand: &str) -> Option<Result<bool, String>> {
        let full = path::join(self.directory, operand);
        let file =
            |check: fn(&Metadata) -> bool| Some(Ok(unix::fs::stat(&full).is_ok_and(|m| check(&m))));
        match op {
            "-n" => Some(Ok(!operand.is_empty())),
            "-z" => Some(Ok(operand.is_empty())),
            "-e" => file(|_| true),
            "-f" => file(Metadata::is_file),
            "-d" => file(Metadata::is_dir),
            "-s" => file(|m| m.size > 0),
            "-r" => file(|m| m.mode & 0o444 != 0),
            "-w" => file(|m| m.mode & 0o222 != 0),
            "-x" => file(|m| m.mode & 0o111 != 0),
            "-b" => file(|m| m.kind() == Kind::BlockDevice),
            "-c" => file(|m| m.kind() == Kind::CharDevice),
            "-p" => file(|m| m.kind() == Kind::Fifo),
            "-S" => file(|m| m.kind() == Kind::Socket),
            "-L" | "-h" => Some(Ok(unix::fs::lstat(&full).is_ok_and(|m| m.is_symlink()))),
            "-t" => Some(Ok(match operand {
                "0" => Stream::stdin().is_terminal(),
                "1" => Stream::stdout().is_terminal(),
                "2" => Stream::stderr().is_terminal(),
                _ => false,
            })),
            _ => None,
        }
    }

    fn binary(&self, left: &str, op: &str, right: &str) -> Result<bool, String> {
        let number = |text: &str| {
            text.trim()
                .parse::<i64>()
                .map_err(|_| format!("Illegal number: {text}"))
        };
        let stat = |text: &str| unix::fs::stat(&path::join(self.directory, text)).ok();
        Ok(match op {
            "=" | "==" => left == right,
            "!=" => left != right,
            "<" => left < right,
            ">" => left > right,
            "-eq" => number(left)? == number(right)?,
            "-ne" => number(left)? != number(right)?,
            "-lt" => number(left)? < number(right)?,
            "-le" => number(left)? <= number(right)?,
            "-gt" => number(left)? > number(right)?,
            "-ge" => number(left)? >= number(right)?,
            "-nt" => match (stat(left), stat(right)) {
                (Some(l), Some(r)) => l.modified > r.modified,
                (l, _) => l.is_some(),
            },
            "-ot" => match (stat(left), stat(right)) {
                (Some(l), Some(r)) => l.modified < r.modified,
                (_, r) => r.is_some(),
            },
            "-ef" => match (stat(left), stat(right)) {
                (Some(l), Some(r)) => (l.device, l.inode) == (r.device, r.inode),
                _ => false,
            },
            "-a" => !left.is_empty() && !right.is_empty(),
            _ => !left.is_empty() || !right.is_empty(),
        })
    }
}
