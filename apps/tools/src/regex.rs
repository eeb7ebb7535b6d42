//! POSIX regular expressions, as `grep` takes them, over [`regex_automata`].
//!
//! Basic and extended expressions are translated into that crate's syntax. Matching is by bytes, as
//! in the C locale. Back references are refused: the engine runs in linear time and has none. Where
//! alternatives of different length match at one place the first one counts, not the longest; that
//! shows only with `-o`.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use regex_automata::meta::Regex;
use regex_automata::util::syntax;

/// Which language patterns are in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Syntax {
    /// POSIX basic, with GNU's `\+`, `\?`, `\|`.
    #[default]
    Basic,
    /// POSIX extended.
    Extended,
    /// Plain text.
    Plain,
}

/// What a match must cover.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Extent {
    /// Anything.
    #[default]
    Any,
    /// Whole words.
    Words,
    /// The whole line.
    Lines,
}

/// How patterns are read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rules {
    /// Language.
    pub syntax: Syntax,
    /// Case does not matter.
    pub ignore_case: bool,
    /// What a match must cover.
    pub extent: Extent,
}

/// Patterns, of which one has to match.
#[derive(Debug)]
pub struct Matcher {
    regex: Regex,
}

impl Matcher {
    /// Compiles patterns; the error is a text for people.
    pub fn new(patterns: &[String], rules: &Rules) -> Result<Matcher, String> {
        let mut parts = Vec::new();
        for pattern in patterns {
            parts.push(format!("(?:{})", translate(pattern, rules.syntax)?));
        }
        let joined = parts.join("|");
        let whole = match rules.extent {
            Extent::Any => joined,
            Extent::Words => format!("\\b{{start-half}}(?:{joined})\\b{{end-half}}"),
            Extent::Lines => format!("^(?:{joined})$"),
        };
        let config = syntax::Config::new()
            .unicode(false)
            .utf8(false)
            .case_insensitive(rules.ignore_case);
        Regex::builder()
            .syntax(config)
            .configure(
                Regex::config()
                    .utf8_empty(false)
                    .nfa_size_limit(Some(8 << 20)),
            )
            .build(&whole)
            .map(|regex| Matcher { regex })
            .map_err(|error| match error.syntax_error() {
                Some(_) => String::from("invalid regular expression"),
                None => String::from("regular expression too big"),
            })
    }

    /// Whether a line (without its newline) matches.
    pub fn is_match(&self, line: &[u8]) -> bool {
        self.regex.is_match(line)
    }

    /// Where the parts that match begin and end; empty ones are left out.
    pub fn matches<'a>(&'a self, line: &'a [u8]) -> impl Iterator<Item = (usize, usize)> + 'a {
        self.regex
            .find_iter(line)
            .map(|m| (m.start(), m.end()))
            .filter(|(from, to)| from < to)
    }
}

fn escape(c: char, out: &mut String) {
    if !c.is_alphanumeric() && c.is_ascii() && c != '_' && !c.is_ascii_whitespace() {
        out.push('\\');
    }
    out.push(c);
}

fn translate(pattern: &str, syntax: Syntax) -> Result<String, String> {
    let mut out = String::new();
    if syntax == Syntax::Plain {
        for c in pattern.chars() {
            escape(c, &mut out);
        }
        return Ok(out);
    }
    let basic = syntax == Syntax::Basic;
    let chars: Vec<char> = pattern.chars().collect();
    let mut at = 0;
    let mut depth = 0usize;
    // The beginning of the pattern, a group or an alternative: a repetition there is a character.
    let mut at_start = true;
    while let Some(c) = chars.get(at).copied() {
        at += 1;
        let mut starts = false;
        // An operator: in basic expressions written with a backslash, in extended ones without.
        let (operator, escaped) = match c {
            '\\' => match chars.get(at).copied() {
                Some(next) => {
                    at += 1;
                    (if basic { next } else { '\\' }, Some(next))
                }
                None => return Err(String::from("Trailing backslash")),
            },
            '(' | ')' | '{' | '}' | '|' | '+' | '?' if basic => ('\\', Some(c)),
            other => (other, None),
        };
        match (operator, escaped) {
            ('(', e) if e.is_some() == basic => {
                out.push_str("(?:");
                depth += 1;
                starts = true;
            }
            (')', e) if e.is_some() == basic && depth > 0 => {
                out.push(')');
                depth -= 1;
            }
            (')', Some(_)) if basic => return Err(String::from("Unmatched ) or \\)")),
            ('|', e) if e.is_some() == basic => {
                out.push('|');
                starts = true;
            }
            ('+' | '?', e) if e.is_some() == basic && !at_start => out.push(operator),
            ('*', None) if !at_start => out.push('*'),
            ('{', e) if e.is_some() == basic && !at_start => {
                match interval(chars.get(at..).unwrap_or_default(), basic) {
                    Some((text, used)) => {
                        out.push_str(&text);
                        at += used;
                    }
                    None if basic => return Err(String::from("Invalid content of \\{\\}")),
                    None => out.push_str("\\{"),
                }
            }
            ('^', None) if !basic || at_start => {
                out.push('^');
                starts = basic;
            }
            ('$', None) if !basic || ends(&chars, at) => out.push('$'),
            ('.', None) => out.push('.'),
            ('[', None) => {
                let (text, used) = bracket(chars.get(at..).unwrap_or_default())?;
                out.push_str(&text);
                at += used;
            }
            (_, Some(c @ '1'..='9')) => {
                return Err(format!("back reference \\{c} is not supported"));
            }
            (_, Some(c @ ('w' | 'W' | 's' | 'S' | 'b' | 'B'))) => {
                out.push('\\');
                out.push(c);
            }
            (_, Some('<')) => out.push_str("\\b{start}"),
            (_, Some('>')) => out.push_str("\\b{end}"),
            (_, Some('`')) => out.push_str("\\A"),
            (_, Some('\'')) => out.push_str("\\z"),
            (_, Some(c)) | (c, None) => escape(c, &mut out),
        }
        at_start = starts;
    }
    if depth > 0 {
        return Err(String::from("Unmatched ( or \\("));
    }
    Ok(out)
}

/// Whether a `$` in a basic expression is at the end of it or of a group or alternative.
fn ends(chars: &[char], at: usize) -> bool {
    match chars.get(at) {
        None => true,
        Some('\\') => matches!(chars.get(at + 1), Some(')' | '|')),
        Some(_) => false,
    }
}

/// `n}`, `n,}`, `,m}`, `n,m}` after the opening brace; in basic expressions it ends with `\}`.
fn interval(chars: &[char], basic: bool) -> Option<(String, usize)> {
    let end = if basic {
        chars.windows(2).position(|w| w == ['\\', '}'])?
    } else {
        chars.iter().position(|c| *c == '}')?
    };
    let text: String = chars.get(..end)?.iter().collect();
    let valid = |t: &str| !t.is_empty() && t.len() <= 5 && t.bytes().all(|b| b.is_ascii_digit());
    let out = match text.split_once(',') {
        None if valid(&text) => format!("{{{text}}}"),
        Some((low, "")) if valid(low) => format!("{{{low},}}"),
        Some(("", high)) if valid(high) => format!("{{0,{high}}}"),
        Some((low, high)) if valid(low) && valid(high) => format!("{{{low},{high}}}"),
        _ => return None,
    };
    Some((out, end + if basic { 2 } else { 1 }))
}

/// The set after `[`, with the number of characters used.
fn bracket(chars: &[char]) -> Result<(String, usize), String> {
    let unmatched = || String::from("Unmatched [, [^, [:, [., or [=");
    let mut out = String::from("[");
    let mut at = 0;
    if chars.first() == Some(&'^') {
        out.push('^');
        at = 1;
    }
    let first = at;
    loop {
        let c = *chars.get(at).ok_or_else(unmatched)?;
        at += 1;
        match c {
            ']' if at > first + 1 => {
                out.push(']');
                return Ok((out, at));
            }
            '[' if matches!(chars.get(at), Some(':' | '.' | '=')) => {
                let kind = chars.get(at).copied().unwrap_or(':');
                let rest = chars.get(at + 1..).unwrap_or_default();
                let end = rest
                    .windows(2)
                    .position(|w| w == [kind, ']'])
                    .ok_or_else(unmatched)?;
                let name: String = rest.get(..end).unwrap_or_default().iter().collect();
                if kind == ':' {
                    const NAMES: [&str; 12] = [
                        "alpha", "digit", "alnum", "upper", "lower", "space", "blank", "punct",
                        "print", "graph", "cntrl", "xdigit",
                    ];
                    if !NAMES.contains(&name.as_str()) {
                        return Err(String::from("Invalid character class name"));
                    }
                    out.push_str(&format!("[:{name}:]"));
                } else {
                    for c in name.chars() {
                        escape(c, &mut out);
                    }
                }
                at += end + 3;
            }
            '-' if at > first + 1 && chars.get(at).is_some_and(|n| *n != ']') => out.push('-'),
            c => escape(c, &mut out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, syntax: Syntax, line: &str) -> bool {
        let rules = Rules {
            syntax,
            ..Rules::default()
        };
        Matcher::new(&[pattern.into()], &rules)
            .unwrap()
            .is_match(line.as_bytes())
    }

    #[test]
    fn basic_and_extended() {
        use Syntax::{Basic, Extended};
        for (pattern, syntax, line, expected) in [
            ("a+b", Basic, "a+b", true),
            ("a+b", Extended, "aab", true),
            ("a\\+b", Basic, "aab", true),
            ("a\\+b", Extended, "a+b", true),
            ("\\(ab\\)*c", Basic, "ababc", true),
            ("*a", Basic, "*a", true),
            ("a\\{2\\}b", Basic, "xaab", true),
            ("^a{2,3}$", Extended, "aaaa", false),
            ("a{,2}$", Extended, "aa", true),
            ("a^b$c", Basic, "a^b$c", true),
            ("[]abc]", Basic, "]", true),
            ("[^]a]", Basic, "]a", false),
            ("[[:digit:]-]x", Basic, "-x", true),
            ("[a\\]x", Basic, "\\x", true),
            ("\\<word\\>", Basic, "a word.", true),
            ("\\<word\\>", Basic, "sword", false),
            ("a|b", Basic, "a|b", true),
            ("^(a|b)+$", Extended, "abab", true),
            ("a.c", Basic, "a\u{7f}c", true),
        ] {
            assert_eq!(
                matches(pattern, syntax, line),
                expected,
                "{pattern} on {line}"
            );
        }
    }

    #[test]
    fn errors_are_texts() {
        for (pattern, syntax) in [
            ("[a", Syntax::Basic),
            ("\\(a", Syntax::Basic),
            ("a\\", Syntax::Basic),
            ("\\(a\\)\\1", Syntax::Basic),
            ("(a", Syntax::Extended),
            ("[[:nope:]]", Syntax::Extended),
            ("((((a{1000}){1000}){1000}){1000})", Syntax::Extended),
        ] {
            let rules = Rules {
                syntax,
                ..Rules::default()
            };
            assert!(
                Matcher::new(&[pattern.into()], &rules).is_err(),
                "{pattern}"
            );
        }
    }
}
