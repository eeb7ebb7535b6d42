//! Integer expressions of `$(( ))`: 64 bits, C's operators, variables by name.

use alloc::format;
use alloc::string::String;

/// Where variables live.
pub trait Variables {
    /// Value of a variable.
    fn get(&self, name: &str) -> Option<String>;
    /// Sets a variable.
    fn set(&mut self, name: &str, value: String);
}

/// Deepest nesting of parentheses and unary operators.
const DEPTH_MAX: usize = 64;

/// Evaluates an expression; the error is a text for people.
pub fn evaluate(text: &str, variables: &mut dyn Variables) -> Result<i64, String> {
    if text.trim().is_empty() {
        return Ok(0);
    }
    let mut parser = Parser {
        rest: text,
        variables,
        depth: 0,
        dry: 0,
    };
    let value = parser.assignment()?;
    parser.blank();
    if parser.rest.is_empty() {
        Ok(value)
    } else {
        Err(format!("arithmetic expression: expecting EOF: \"{text}\""))
    }
}

struct Parser<'a> {
    rest: &'a str,
    variables: &'a mut dyn Variables,
    depth: usize,
    /// Above zero: the operand is not needed, so it has no effects and no errors of value.
    dry: usize,
}

/// Binary operators by rising precedence.
const LEVELS: [&[&str]; 10] = [
    &["||"],
    &["&&"],
    &["|"],
    &["^"],
    &["&"],
    &["==", "!="],
    &["<=", ">=", "<", ">"],
    &["<<", ">>"],
    &["+", "-"],
    &["*", "/", "%"],
];

impl Parser<'_> {
    fn blank(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn eat(&mut self, token: &str) -> bool {
        self.blank();
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn name(&self) -> &str {
        let end = self
            .rest
            .find(|c: char| !(c == '_' || c.is_ascii_alphanumeric()))
            .unwrap_or(self.rest.len());
        self.rest.get(..end).unwrap_or("")
    }

    fn assignment(&mut self) -> Result<i64, String> {
        self.blank();
        let before = self.rest;
        let name = String::from(self.name());
        if crate::lexer::is_variable_name(&name) {
            self.rest = self.rest.get(name.len()..).unwrap_or("");
            self.blank();
            let compound = ["+", "-", "*", "/", "%", "<<", ">>", "&", "^", "|"]
                .into_iter()
                .find(|op| {
                    self.rest
                        .strip_prefix(op)
                        .is_some_and(|r| r.starts_with('='))
                });
            if let Some(op) = compound {
                self.rest = self.rest.get(op.len() + 1..).unwrap_or("");
                let right = self.assignment()?;
                let left = self.variable(&name)?;
                let value = self.apply(op, left, right)?;
                return Ok(self.store(&name, value));
            }
            if self.rest.starts_with('=') && !self.rest.starts_with("==") {
                self.rest = self.rest.get(1..).unwrap_or("");
                let value = self.assignment()?;
                return Ok(self.store(&name, value));
            }
            self.rest = before;
        }
        self.conditional()
    }

    fn store(&mut self, name: &str, value: i64) -> i64 {
        if self.dry == 0 {
            self.variables.set(name, format!("{value}"));
        }
        value
    }

    fn conditional(&mut self) -> Result<i64, String> {
        let condition = self.binary(0)?;
        if !self.eat("?") {
            return Ok(condition);
        }
        let then = self.branch(condition != 0, Parser::assignment)?;
        if !self.eat(":") {
            return Err(String::from("arithmetic expression: expecting ':'"));
        }
        let otherwise = self.branch(condition == 0, Parser::conditional)?;
        Ok(if condition != 0 { then } else { otherwise })
    }

    fn branch(
        &mut self,
        taken: bool,
        parse: fn(&mut Self) -> Result<i64, String>,
    ) -> Result<i64, String> {
        self.deeper()?;
        self.dry += usize::from(!taken);
        let value = parse(self);
        self.dry -= usize::from(!taken);
        self.depth -= 1;
        value
    }

    fn deeper(&mut self) -> Result<(), String> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(String::from("arithmetic expression: nested too deeply"));
        }
        Ok(())
    }

    fn operator(&mut self, level: usize) -> Option<&'static str> {
        self.blank();
        let found = LEVELS
            .get(level)?
            .iter()
            .copied()
            .find(|op| self.rest.starts_with(op))?;
        let after = self.rest.get(found.len()..).unwrap_or("");
        // `|` is not the beginning of `||`, `<` not that of `<<`.
        let longer = match found {
            "|" => after.starts_with('|'),
            "&" => after.starts_with('&'),
            "<" => after.starts_with('<'),
            ">" => after.starts_with('>'),
            _ => false,
        };
        if longer {
            return None;
        }
        self.rest = after;
        Some(found)
    }

    fn binary(&mut self, level: usize) -> Result<i64, String> {
        if level >= LEVELS.len() {
            return self.unary();
        }
        let mut left = self.binary(level + 1)?;
        while let Some(op) = self.operator(level) {
            let skip = matches!((op, left != 0), ("&&", false) | ("||", true));
            self.dry += usize::from(skip);
            let right = self.binary(level + 1);
            self.dry -= usize::from(skip);
            left = self.apply(op, left, right?)?;
        }
        Ok(left)
    }

    fn apply(&self, op: &str, left: i64, right: i64) -> Result<i64, String> {
        Ok(match op {
            "||" => i64::from(left != 0 || right != 0),
            "&&" => i64::from(left != 0 && right != 0),
            "|" => left | right,
            "^" => left ^ right,
            "&" => left & right,
            "==" => i64::from(left == right),
            "!=" => i64::from(left != right),
            "<=" => i64::from(left <= right),
            ">=" => i64::from(left >= right),
            "<" => i64::from(left < right),
            ">" => i64::from(left > right),
            "<<" => left.wrapping_shl(right as u32),
            ">>" => left.wrapping_shr(right as u32),
            "+" => left.wrapping_add(right),
            "-" => left.wrapping_sub(right),
            "*" => left.wrapping_mul(right),
            _ if right == 0 && self.dry > 0 => 0,
            _ if right == 0 => return Err(String::from("arithmetic expression: division by zero")),
            "/" => left.wrapping_div(right),
            _ => left.wrapping_rem(right),
        })
    }

    fn unary(&mut self) -> Result<i64, String> {
        self.deeper()?;
        let value = self.unary_inner();
        self.depth -= 1;
        value
    }

    fn unary_inner(&mut self) -> Result<i64, String> {
        self.blank();
        let mut chars = self.rest.chars();
        match chars.next() {
            Some('-') => {
                self.rest = chars.as_str();
                self.unary().map(i64::wrapping_neg)
            }
            Some('+') => {
                self.rest = chars.as_str();
                self.unary()
            }
            Some('~') => {
                self.rest = chars.as_str();
                self.unary().map(|v| !v)
            }
            Some('!') => {
                self.rest = chars.as_str();
                self.unary().map(|v| i64::from(v == 0))
            }
            Some('(') => {
                self.rest = chars.as_str();
                let value = self.assignment()?;
                if self.eat(")") {
                    Ok(value)
                } else {
                    Err(String::from("arithmetic expression: expecting ')'"))
                }
            }
            Some(c) if c == '_' || c.is_ascii_alphanumeric() => {
                let word = String::from(self.name());
                self.rest = self.rest.get(word.len()..).unwrap_or("");
                if c.is_ascii_digit() {
                    number(&word)
                } else {
                    self.variable(&word)
                }
            }
            _ => Err(format!(
                "arithmetic expression: expecting primary: \"{}\"",
                self.rest
            )),
        }
    }

    fn variable(&self, name: &str) -> Result<i64, String> {
        let value = self.variables.get(name).unwrap_or_default();
        let text = value.trim();
        if text.is_empty() {
            return Ok(0);
        }
        match text.strip_prefix('-') {
            Some(digits) => number(digits).map(i64::wrapping_neg),
            None => number(text.strip_prefix('+').unwrap_or(text)),
        }
    }
}

fn number(text: &str) -> Result<i64, String> {
    let parsed = if let Some(hex) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        i64::from_str_radix(hex, 16)
    } else if text.len() > 1 && text.starts_with('0') {
        i64::from_str_radix(text, 8)
    } else {
        text.parse()
    };
    parsed.map_err(|_| format!("Illegal number: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    struct Map(BTreeMap<String, String>);
    impl Variables for Map {
        fn get(&self, name: &str) -> Option<String> {
            self.0.get(name).cloned()
        }
        fn set(&mut self, name: &str, value: String) {
            self.0.insert(name.into(), value);
        }
    }

    #[test]
    fn expressions() {
        let mut vars = Map(BTreeMap::new());
        vars.set("x", "5".into());
        for (text, value) in [
            ("1+2*3", 7),
            ("(1+2)*3", 9),
            ("x<<2|1", 21),
            ("x>4&&x<6", 1),
            ("x==5?10:1/0", 10),
            ("0&&1/0", 0),
            ("y=x*2", 10),
            ("y+=1", 11),
            ("-x+ +1", -4),
            ("!0", 1),
            ("~0", -1),
            ("0x1f+010", 39),
            ("unset", 0),
            ("10-3-2", 5),
            ("7%4*2", 6),
            ("1<2!=0", 1),
        ] {
            assert_eq!(evaluate(text, &mut vars), Ok(value), "{text}");
        }
        assert_eq!(vars.get("y").unwrap(), "11");
        for text in ["1/0", "1+", "(1", "1 2", "9x", "$"] {
            assert!(evaluate(text, &mut vars).is_err(), "{text}");
        }
        assert!(evaluate(&"(".repeat(100_000), &mut vars).is_err());
        assert!(evaluate(&"-".repeat(100_000), &mut vars).is_err());
    }
}
