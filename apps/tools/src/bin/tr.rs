//! `tr`: replaces or removes characters (bytes).
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::string::String;
use alloc::vec::Vec;

use unix::{Arg, Args, Stop, Stream, Tool};
unix::program!("tr", HELP, run);

const HELP: &str = "\
Usage: tr [-cds] SET1 [SET2]
Replace each byte of SET1 in standard input by the one of SET2 in the same place.

  -c  the bytes that are not in SET1
  -d  remove them
  -s  only one of the same bytes in a row of the last SET

SETs are characters, ranges a-z, escapes \\\\n \\\\t \\\\NNN, and classes [:alpha:] and so on.
";

fn run(tool: &mut Tool) -> Result<(), Stop> {
    let (mut complement, mut delete, mut squeeze) = (false, false, false);
    let mut sets = Vec::new();
    while let Some(arg) = tool.advance()? {
        match arg {
            Arg::Short('c' | 'C') => complement = true,
            Arg::Short('d') => delete = true,
            Arg::Short('s') => squeeze = true,
            Arg::Operand(text) => sets.push(text),
            other => return Err(Args::unknown(&other).into()),
        }
    }
    let wanted = 1 + usize::from(!(delete || squeeze) || (delete && squeeze));
    if sets.len() < wanted {
        let text = match sets.first() {
            Some(set) => {
                let why = if delete {
                    "deleting and squeezing repeats"
                } else {
                    "translating"
                };
                alloc::format!(
                    "missing operand after '{set}'\nTwo strings must be given when {why}."
                )
            }
            None => String::from("missing operand"),
        };
        return Err(Stop::Usage(text));
    }
    let mut parsed = Vec::new();
    for text in &sets {
        match set(text) {
            Some(bytes) => parsed.push(bytes),
            None => return Err(tool.fatal(1, format_args!("invalid set '{text}'"))),
        }
    }
    let mut first = parsed.first().cloned().unwrap_or_default();
    let second = parsed.get(1).cloned();
    if complement {
        first = (0..=255u8).filter(|b| !first.contains(b)).collect();
    }
    let mut map: [u8; 256] = core::array::from_fn(|i| i as u8);
    let mut removed = [false; 256];
    let mut squeezed = [false; 256];
    if delete {
        for byte in &first {
            mark(&mut removed, *byte);
        }
    } else if let Some(second) = &second {
        let Some(last) = second.last() else {
            return Err(tool.fatal(
                1,
                format_args!("when not truncating set1, string2 must be non-empty"),
            ));
        };
        for (index, byte) in first.iter().enumerate() {
            if let Some(place) = map.get_mut(usize::from(*byte)) {
                *place = *second.get(index).unwrap_or(last);
            }
        }
    }
    if squeeze {
        for byte in second.as_ref().unwrap_or(&first) {
            mark(&mut squeezed, *byte);
        }
    }
    let is = |table: &[bool; 256], byte: u8| table.get(usize::from(byte)).copied().unwrap_or(false);
    let input = Stream::stdin();
    let mut chunk = alloc::vec![0u8; 64 * 1024];
    let mut out = Vec::with_capacity(64 * 1024);
    let mut previous = None;
    loop {
        let n = match input.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(n) => n,
            Err(error) => return Err(tool.fatal(1, format_args!("read error: {error}"))),
        };
        out.clear();
        for byte in chunk.get(..n).unwrap_or_default() {
            if is(&removed, *byte) {
                continue;
            }
            let new = map.get(usize::from(*byte)).copied().unwrap_or(*byte);
            if previous == Some(new) && is(&squeezed, new) {
                continue;
            }
            previous = Some(new);
            out.push(new);
        }
        tool.out.bytes(&out)?;
    }
}

fn mark(table: &mut [bool; 256], byte: u8) {
    if let Some(place) = table.get_mut(usize::from(byte)) {
        *place = true;
    }
}

fn set(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if let Some(class) = rest.strip_prefix(b"[:")
            && let Some(end) = class.windows(2).position(|w| w == b":]")
        {
            let is: fn(&u8) -> bool = match class.get(..end)? {
                b"alpha" => u8::is_ascii_alphabetic,
                b"digit" => u8::is_ascii_digit,
                b"alnum" => u8::is_ascii_alphanumeric,
                b"upper" => u8::is_ascii_uppercase,
                b"lower" => u8::is_ascii_lowercase,
                b"space" => |b| b.is_ascii_whitespace() || *b == 0x0b,
                b"blank" => |b| *b == b' ' || *b == b'\t',
                b"punct" => u8::is_ascii_punctuation,
                b"print" => |b| (0x20..0x7f).contains(b),
                b"graph" => u8::is_ascii_graphic,
                b"cntrl" => u8::is_ascii_control,
                b"xdigit" => u8::is_ascii_hexdigit,
                _ => return None,
            };
            bytes.extend((0..=255u8).filter(is));
            rest = class.get(end + 2..)?;
            continue;
        }
        let (low, after) = one(*first, after);
        match after {
            [b'-', high, more @ ..] => {
                let (high, more) = one(*high, more);
                if high < low {
                    return None;
                }
                bytes.extend(low..=high);
                rest = more;
            }
            _ => {
                bytes.push(low);
                rest = after;
            }
        }
    }
    Some(bytes)
}

/// A character, perhaps written with a backslash.
fn one(first: u8, rest: &[u8]) -> (u8, &[u8]) {
    let (b'\\', Some((escaped, after))) = (first, rest.split_first()) else {
        return (first, rest);
    };
    if escaped.is_ascii_digit() && *escaped < b'8' {
        let digits = rest
            .iter()
            .take(3)
            .take_while(|b| (b'0'..b'8').contains(b))
            .count();
        let value = rest
            .iter()
            .take(digits)
            .fold(0u32, |v, b| v * 8 + u32::from(b - b'0'));
        return (value as u8, rest.get(digits..).unwrap_or_default());
    }
    let byte = match escaped {
        b'n' => b'\n',
        b't' => b'\t',
        b'r' => b'\r',
        b'a' => 7,
        b'b' => 8,
        b'f' => 12,
        b'v' => 11,
        other => *other,
    };
    (byte, after)
}
