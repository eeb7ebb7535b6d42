//! Texts of `echo` and `printf`.

use alloc::format;
use alloc::string::String;

/// What `echo` prints: options `-n`, `-e`, `-E` as GNU's.
pub fn echo(args: &[String]) -> String {
    let mut newline = true;
    let mut escapes = false;
    let mut rest = args;
    while let Some((first, others)) = rest.split_first() {
        let flags = first.strip_prefix('-').unwrap_or("");
        if flags.is_empty() || !flags.chars().all(|c| matches!(c, 'n' | 'e' | 'E')) {
            break;
        }
        for c in flags.chars() {
            match c {
                'n' => newline = false,
                'e' => escapes = true,
                _ => escapes = false,
            }
        }
        rest = others;
    }
    let mut out = rest.join(" ");
    if escapes {
        let (text, end) = unescape(&out, Octal::LeadingZero);
        out = text;
        if end {
            return out;
        }
    }
    if newline {
        out.push('\n');
    }
    out
}

/// How octal escapes are written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Octal {
    /// `\0nnn`: `echo -e` and `%b`.
    LeadingZero,
    /// `\nnn`: the format of `printf`.
    Plain,
}

/// Replaces backslash escapes; the second value says that `\c` ended the output.
fn unescape(text: &str, octal: Octal) -> (String, bool) {
    let mut out = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('a') => out.push('\x07'),
            Some('b') => out.push('\x08'),
            Some('c') => return (out, true),
            Some('e') => out.push('\x1b'),
            Some('f') => out.push('\x0c'),
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('t') => out.push('\t'),
            Some('v') => out.push('\x0b'),
            Some('\\') => out.push('\\'),
            Some('x') => {
                let mut value = 0;
                for _ in 0..2 {
                    let Some(d) = chars.peek().and_then(|c| c.to_digit(16)) else {
                        break;
                    };
                    value = value * 16 + d;
                    chars.next();
                }
                out.push(char::from_u32(value).unwrap_or('?'));
            }
            Some(d @ '0'..='7') if octal == Octal::Plain || d == '0' => {
                let mut value = d.to_digit(8).unwrap_or(0);
                let more = if octal == Octal::Plain { 2 } else { 3 };
                for _ in 0..more {
                    let Some(d) = chars.peek().and_then(|c| c.to_digit(8)) else {
                        break;
                    };
                    value = value * 8 + d;
                    chars.next();
                }
                out.push(char::from_u32(value & 0xff).unwrap_or('?'));
            }
            Some(other) => {
                out.push('\\');
                out.push(other);
            }
            None => out.push('\\'),
        }
    }
    (out, false)
}

/// Widest field and highest precision.
const WIDTH_MAX: usize = 4096;

#[derive(Default)]
struct Spec {
    left: bool,
    zero: bool,
    plus: bool,
    space: bool,
    alternate: bool,
    width: usize,
    precision: Option<usize>,
}

impl Spec {
    fn pad(&self, text: &str) -> String {
        let len = text.chars().count();
        let fill = self.width.saturating_sub(len);
        if self.left {
            format!("{text}{}", " ".repeat(fill))
        } else {
            format!("{}{text}", " ".repeat(fill))
        }
    }

    fn integer(&self, negative: bool, digits: &str, prefix: &str) -> String {
        let mut digits = String::from(digits);
        if let Some(precision) = self.precision {
            digits = format!(
                "{}{digits}",
                "0".repeat(precision.saturating_sub(digits.len()))
            );
        }
        let sign = match (negative, self.plus, self.space) {
            (true, _, _) => "-",
            (_, true, _) => "+",
            (_, _, true) => " ",
            _ => "",
        };
        if self.zero && !self.left && self.precision.is_none() {
            let used = sign.len() + prefix.len() + digits.len();
            digits = format!("{}{digits}", "0".repeat(self.width.saturating_sub(used)));
        }
        self.pad(&format!("{sign}{prefix}{digits}"))
    }
}

/// What `printf` prints, and what was wrong with an argument. The format is used again as long as
/// arguments are left.
pub fn printf(template: &str, args: &[String]) -> (String, Option<String>) {
    let (format_text, _) = unescape(template, Octal::Plain);
    let mut out = String::new();
    let mut problem = None;
    let mut args = args.iter();
    loop {
        let before = args.len();
        let mut chars = format_text.chars().peekable();
        while let Some(c) = chars.next() {
            if c != '%' {
                out.push(c);
                continue;
            }
            let mut spec = Spec::default();
            while let Some(flag) = chars.peek() {
                match flag {
                    '-' => spec.left = true,
                    '0' => spec.zero = true,
                    '+' => spec.plus = true,
                    ' ' => spec.space = true,
                    '#' => spec.alternate = true,
                    _ => break,
                }
                chars.next();
            }
            let mut count = |chars: &mut core::iter::Peekable<core::str::Chars<'_>>| {
                if chars.peek() == Some(&'*') {
                    chars.next();
                    return args
                        .next()
                        .and_then(|a| a.parse().ok())
                        .unwrap_or(0)
                        .min(WIDTH_MAX);
                }
                let mut n = 0usize;
                while let Some(d) = chars.peek().and_then(|c| c.to_digit(10)) {
                    n = (n * 10 + d as usize).min(WIDTH_MAX);
                    chars.next();
                }
                n
            };
            spec.width = count(&mut chars);
            if chars.peek() == Some(&'.') {
                chars.next();
                spec.precision = Some(count(&mut chars));
            }
            let conversion = chars.next();
            if conversion == Some('%') {
                out.push('%');
                continue;
            }
            let argument = args.next().map(String::as_str);
            let text = argument.unwrap_or("");
            match conversion {
                Some('s') => {
                    let shown: String = text
                        .chars()
                        .take(spec.precision.unwrap_or(usize::MAX))
                        .collect();
                    out.push_str(&spec.pad(&shown));
                }
                Some('b') => {
                    let (shown, end) = unescape(text, Octal::LeadingZero);
                    out.push_str(&spec.pad(&shown));
                    if end {
                        return (out, problem);
                    }
                }
                Some('c') => {
                    let shown: String = text.chars().take(1).collect();
                    out.push_str(&spec.pad(&shown));
                }
                Some(kind @ ('d' | 'i' | 'u' | 'x' | 'X' | 'o')) => {
                    let value = integer(text).unwrap_or_else(|| {
                        problem = Some(format!("{text}: expected numeric value"));
                        0
                    });
                    out.push_str(&match kind {
                        'd' | 'i' => {
                            spec.integer(value < 0, &format!("{}", value.unsigned_abs()), "")
                        }
                        'u' => spec.integer(false, &format!("{}", value as u64), ""),
                        'o' => spec.integer(
                            false,
                            &format!("{value:o}"),
                            if spec.alternate { "0" } else { "" },
                        ),
                        'x' => spec.integer(
                            false,
                            &format!("{value:x}"),
                            if spec.alternate { "0x" } else { "" },
                        ),
                        _ => spec.integer(
                            false,
                            &format!("{value:X}"),
                            if spec.alternate { "0X" } else { "" },
                        ),
                    });
                }
                other => {
                    let name = other.map(String::from).unwrap_or_default();
                    return (out, Some(format!("%{name}: invalid directive")));
                }
            }
        }
        if args.len() == 0 || args.len() == before {
            return (out, problem);
        }
    }
}

/// An integer as C writes it, or `'c` for the number of a character; empty counts as 0.
fn integer(text: &str) -> Option<i64> {
    if text.is_empty() {
        return Some(0);
    }
    if let Some(c) = text.strip_prefix('\'').or_else(|| text.strip_prefix('"')) {
        return Some(c.chars().next().map_or(0, |c| i64::from(u32::from(c))));
    }
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let value = if let Some(hex) = digits
        .strip_prefix("0x")
        .or_else(|| digits.strip_prefix("0X"))
    {
        i64::from_str_radix(hex, 16).ok()?
    } else if digits.len() > 1 && digits.starts_with('0') {
        i64::from_str_radix(digits, 8).ok()?
    } else {
        digits.parse().ok()?
    };
    Some(if negative {
        value.wrapping_neg()
    } else {
        value
    })
}
