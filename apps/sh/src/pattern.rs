//! Shell patterns (`*`, `?`, `[...]`): matching of text, removal of prefixes and suffixes, and
//! path-name expansion over a directory reader.

use alloc::string::String;
use alloc::vec::Vec;

use crate::syntax::Extent;

/// A character of a pattern and whether it was quoted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatternChar {
    /// May be special.
    Active(char),
    /// Stands for itself.
    Literal(char),
}

impl PatternChar {
    /// The character itself.
    pub fn char(self) -> char {
        match self {
            PatternChar::Active(c) | PatternChar::Literal(c) => c,
        }
    }
}

#[derive(Clone, Debug)]
enum Item {
    One(char),
    Any,
    Star,
    Set { negated: bool, members: Vec<Member> },
}

#[derive(Clone, Debug)]
enum Member {
    Range(char, char),
    Class(fn(char) -> bool),
}

/// A compiled pattern.
#[derive(Clone, Debug)]
pub struct Pattern(Vec<Item>);

impl Pattern {
    /// Compiles a pattern. A bracket that is never closed stands for itself.
    pub fn new(chars: &[PatternChar]) -> Pattern {
        let mut items = Vec::new();
        let mut at = 0;
        while let Some(c) = chars.get(at) {
            at += 1;
            items.push(match c {
                PatternChar::Active('*') => Item::Star,
                PatternChar::Active('?') => Item::Any,
                PatternChar::Active('[') => match set(chars.get(at..).unwrap_or_default()) {
                    Some((item, used)) => {
                        at += used;
                        item
                    }
                    None => Item::One('['),
                },
                other => Item::One(other.char()),
            });
        }
        Pattern(items)
    }

    /// From text in which every character is active, and `\` quotes the next one.
    pub fn from_text(text: &str) -> Pattern {
        let mut chars = Vec::new();
        let mut rest = text.chars();
        while let Some(c) = rest.next() {
            chars.push(match c {
                '\\' => PatternChar::Literal(rest.next().unwrap_or('\\')),
                c => PatternChar::Active(c),
            });
        }
        Pattern::new(&chars)
    }

    /// Whether it has anything special.
    pub fn is_special(&self) -> bool {
        self.0.iter().any(|item| !matches!(item, Item::One(_)))
    }

    /// Whether the whole text matches.
    pub fn matches(&self, text: &str) -> bool {
        let chars: Vec<char> = text.chars().collect();
        self.matches_chars(&chars)
    }

    fn matches_chars(&self, text: &[char]) -> bool {
        // The last star and the text position that it has been tried with: what comes before the
        // last star never needs to be reconsidered.
        let mut star: Option<(usize, usize)> = None;
        let (mut item, mut at) = (0, 0);
        loop {
            let matched = match (self.0.get(item), text.get(at)) {
                (None, None) => return true,
                (Some(Item::Star), _) => {
                    star = Some((item, at));
                    item += 1;
                    continue;
                }
                (Some(i), Some(c)) => i.accepts(*c),
                _ => false,
            };
            if matched {
                item += 1;
                at += 1;
                continue;
            }
            match star {
                Some((star_item, star_at)) if star_at < text.len() => {
                    star = Some((star_item, star_at + 1));
                    item = star_item + 1;
                    at = star_at + 1;
                }
                _ => return false,
            }
        }
    }

    /// The text without a prefix that matches.
    pub fn strip_prefix(&self, text: &str, extent: Extent) -> String {
        let chars: Vec<char> = text.chars().collect();
        let fits = |n: &usize| self.matches_chars(chars.get(..*n).unwrap_or_default());
        let found = match extent {
            Extent::Shortest => (0..=chars.len()).find(fits),
            Extent::Longest => (0..=chars.len()).rev().find(fits),
        };
        chars.iter().skip(found.unwrap_or(0)).collect()
    }

    /// The text without a suffix that matches.
    pub fn strip_suffix(&self, text: &str, extent: Extent) -> String {
        let chars: Vec<char> = text.chars().collect();
        let fits = |n: &usize| self.matches_chars(chars.get(*n..).unwrap_or_default());
        let found = match extent {
            Extent::Shortest => (0..=chars.len()).rev().find(fits),
            Extent::Longest => (0..=chars.len()).find(fits),
        };
        chars.iter().take(found.unwrap_or(chars.len())).collect()
    }
}

impl Item {
    fn accepts(&self, c: char) -> bool {
        match self {
            Item::One(one) => *one == c,
            Item::Any => true,
            Item::Star => false,
            Item::Set { negated, members } => {
                *negated
                    != members.iter().any(|m| match m {
                        Member::Range(low, high) => (*low..=*high).contains(&c),
                        Member::Class(class) => class(c),
                    })
            }
        }
    }
}

fn class(name: &str) -> Option<fn(char) -> bool> {
    Some(match name {
        "alpha" => |c| c.is_ascii_alphabetic(),
        "digit" => |c| c.is_ascii_digit(),
        "alnum" => |c| c.is_ascii_alphanumeric(),
        "upper" => |c| c.is_ascii_uppercase(),
        "lower" => |c| c.is_ascii_lowercase(),
        "space" => |c| c.is_ascii_whitespace() || c == '\x0b',
        "blank" => |c| c == ' ' || c == '\t',
        "punct" => |c| c.is_ascii_punctuation(),
        "print" => |c| c.is_ascii_graphic() || c == ' ',
        "graph" => |c| c.is_ascii_graphic(),
        "cntrl" => |c| c.is_ascii_control(),
        "xdigit" => |c| c.is_ascii_hexdigit(),
        _ => return None,
    })
}

/// The set after `[`, with the number of characters used, or `None` if it is not closed.
fn set(chars: &[PatternChar]) -> Option<(Item, usize)> {
    let mut at = 0;
    let negated = matches!(chars.first(), Some(PatternChar::Active('!' | '^')));
    if negated {
        at += 1;
    }
    let first = at;
    let mut members = Vec::new();
    loop {
        let c = *chars.get(at)?;
        at += 1;
        match c {
            PatternChar::Active(']') if at > first + 1 => {
                return Some((Item::Set { negated, members }, at));
            }
            PatternChar::Active('[') if chars.get(at) == Some(&PatternChar::Active(':')) => {
                let rest = chars.get(at + 1..).unwrap_or_default();
                let name: String = rest
                    .iter()
                    .map(|c| c.char())
                    .take_while(|c| c.is_ascii_lowercase())
                    .collect();
                let end = at + 1 + name.len();
                let closed = chars.get(end).map(|c| c.char()) == Some(':')
                    && chars.get(end + 1).map(|c| c.char()) == Some(']');
                match class(&name).filter(|_| closed) {
                    Some(class) => {
                        members.push(Member::Class(class));
                        at = end + 2;
                    }
                    None => members.push(Member::Range('[', '[')),
                }
            }
            low => {
                let low = low.char();
                let dash = chars.get(at) == Some(&PatternChar::Active('-'));
                match chars.get(at + 1) {
                    Some(high) if dash && *high != PatternChar::Active(']') => {
                        members.push(Member::Range(low, high.char()));
                        at += 2;
                    }
                    _ => members.push(Member::Range(low, low)),
                }
            }
        }
    }
}

/// Reads directories for [`expand_path`].
pub trait Directories {
    /// Names in a directory (without `.` and `..`); empty if it cannot be read.
    fn names(&self, path: &str) -> Vec<String>;
    /// Whether the path leads to something.
    fn exists(&self, path: &str) -> bool;
}

/// Every path that matches, sorted by bytes; empty if there is none.
pub fn expand_path(chars: &[PatternChar], directories: &dyn Directories) -> Vec<String> {
    let mut components: Vec<&[PatternChar]> = chars.split(|c| c.char() == '/').collect();
    let mut bases = Vec::new();
    if chars.first().is_some_and(|c| c.char() == '/') {
        bases.push(String::from("/"));
        components.remove(0);
    } else {
        bases.push(String::new());
    }
    let last = components.len().saturating_sub(1);
    for (index, component) in components.iter().enumerate() {
        let pattern = Pattern::new(component);
        let mut next = Vec::new();
        for base in &bases {
            if !pattern.is_special() {
                let text: String = component.iter().map(|c| c.char()).collect();
                let path = alloc::format!("{base}{text}");
                if index < last {
                    next.push(alloc::format!("{path}/"));
                } else if directories.exists(&path) {
                    next.push(path);
                }
                continue;
            }
            let dotted = component.first().is_some_and(|c| c.char() == '.');
            for name in directories.names(if base.is_empty() { "." } else { base }) {
                if (dotted || !name.starts_with('.')) && pattern.matches(&name) {
                    let path = alloc::format!("{base}{name}");
                    if index < last {
                        let below = alloc::format!("{path}/");
                        if directories.exists(&below) {
                            next.push(below);
                        }
                    } else {
                        next.push(path);
                    }
                }
            }
        }
        bases = next;
    }
    bases.sort();
    bases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matching() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("?", "ä", true),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("[]]", "]", true),
            ("[!]a]", "b", true),
            ("[a", "[a", true),
            ("[[:digit:]]*", "5z", true),
            ("[[:digit:]-]", "-", true),
            ("\\*", "*", true),
            ("\\*", "x", false),
            ("a[", "a[", true),
            ("*[0-9].txt", "file12.txt", true),
        ] {
            assert_eq!(
                Pattern::from_text(pattern).matches(text),
                expected,
                "{pattern} {text}"
            );
        }
    }

    #[test]
    fn many_stars_take_no_exponential_time() {
        let pattern = "*a".repeat(40) + "b";
        assert!(!Pattern::from_text(&pattern).matches(&"a".repeat(2000)));
    }

    #[test]
    fn stripping() {
        let p = Pattern::from_text("*/");
        assert_eq!(p.strip_prefix("a/b/c", Extent::Shortest), "b/c");
        assert_eq!(p.strip_prefix("a/b/c", Extent::Longest), "c");
        let p = Pattern::from_text(".*");
        assert_eq!(p.strip_suffix("a.b.c", Extent::Shortest), "a.b");
        assert_eq!(p.strip_suffix("a.b.c", Extent::Longest), "a");
    }
}
